# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables and notes."""

from __future__ import annotations

import pytest

from memtwin.cli.output import markdown_table, note, table


def test_table_is_aligned_and_not_padded_at_the_end() -> None:
    assert table([("a", "bb", "c"), ("aaa", "b", "")]) == "a    bb  c\naaa  b"
    assert table([]) == ""


def test_markdown_table() -> None:
    assert markdown_table(("x", "y"), [("1", "a|b")]) == "| x | y |\n| --- | --- |\n| 1 | a\\|b |"


def test_note_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    note("first\nsecond")
    assert capsys.readouterr() == ("", "memtwin: first second\n")
