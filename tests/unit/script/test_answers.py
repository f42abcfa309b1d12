# SPDX-License-Identifier: GPL-2.0-or-later
"""Symbols, runs and JSON lines of answers."""

from __future__ import annotations

import errno
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtwin.errors import FatalSignal
from memtwin.script.answers import Runs, address, byte_runs, errno_name, in_window, json_line, quoted, signal_fields


@pytest.mark.parametrize(
    ("addr", "text", "inside"),
    [
        (0x1000000000, "B+0x0", True),
        (0x2000000000, "B+0x1000000000", False),
        (0x2000000001, "0x2000000001", False),
        (0x800000000, "K+0x0", True),
        (0x8FFFFF000, "K+0xfffff000", True),
        (0x900000000, "0x900000000", False),
        (0x7FFFF7FFF000, "T-0x0", True),
        (0x7FFFF7FFB000, "T-0x4000", True),
        (0x7FFFF8000000, "T+0x1000", True),
        (0x7FFFF7FFF000 - (1 << 40), "T-0x10000000000", True),
        (0x7FFFF7FFF000 + (64 << 20), "0x7ffffbfff000", False),
        (0, "0x0", False),
    ],
)
def test_address(addr: int, text: str, inside: bool) -> None:
    assert address(addr) == text
    assert in_window(addr) is inside


@given(st.binary(max_size=300))
def test_runs_say_what_the_bytes_are(data: bytes) -> None:
    fields = byte_runs("vals", data)
    shown = b"".join(bytes([value]) * count for value, count in fields["vals"])
    assert data.startswith(shown)
    assert len(fields["vals"]) <= 64
    assert ("vals_runs" in fields) is (shown != data)


def test_many_runs() -> None:
    fields = byte_runs("vals", bytes(range(70)))
    assert (len(fields["vals"]), fields["vals_runs"]) == (64, 70)
    # FNV-1a with the offset basis 1469598103934665603, as the live executor prints it for these bytes.
    assert fields["vals_hash"] == "f3b8fa4a04152334"


def test_runs_one_by_one() -> None:
    assert Runs([0, 0, 3, 0]).runs == [[0, 2], [3, 1], [0, 1]]
    assert Runs().runs == []


def test_errno_names() -> None:
    numbers = (errno.ENOMEM, errno.EAGAIN, errno.EOPNOTSUPP, errno.EDEADLK, 4000)
    assert [errno_name(number) for number in numbers] == ["ENOMEM", "EAGAIN", "EOPNOTSUPP", "EDEADLK", "?"]


@pytest.mark.parametrize(
    ("raised", "sig", "code", "at"),
    [
        (FatalSignal(11, 1, 0x1000001000), "SIGSEGV", "SEGV_MAPERR", "B+0x1000"),
        (FatalSignal(11, 2, 0x5), "SIGSEGV", "SEGV_ACCERR", "0x5"),
        (FatalSignal(11, 0x80, 0), "SIGSEGV", "SI_KERNEL", "0x0"),
        (FatalSignal(7, 2, 0x1000000000), "SIGBUS", "BUS_ADRERR", "B+0x0"),
        (FatalSignal(7, 4, 0x1000000000), "SIGBUS", "BUS_MCEERR_AR", "B+0x0"),
        (FatalSignal(7, 99, 0), "SIGBUS", "other", "0x0"),
    ],
)
def test_signals(raised: FatalSignal, sig: str, code: str, at: str) -> None:
    assert signal_fields(raised) == {"sig": sig, "code": code, "at": at}


def test_a_line_is_compact_and_keeps_its_order() -> None:
    assert json_line({"i": 1, "op": "read", "vals": [[7, 2]]}) == '{"i":1,"op":"read","vals":[[7,2]]}'


def test_control_characters_are_escaped_alike() -> None:
    text = json_line({"text": 'a\tb\\t"\n\x7f\x01'})
    assert text == r'{"text":"a\u0009b\\t\"\u000a\u007f\u0001"}'
    assert json.loads(text) == {"text": 'a\tb\\t"\n\x7f\x01'}


def test_quoted_text_is_bytes_and_short() -> None:
    assert quoted("é\udcff") == "\u00c3\u00a9\u00ff"
    assert quoted("x" * 300) == "x" * 200
