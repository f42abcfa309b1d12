# SPDX-License-Identifier: GPL-2.0-or-later
"""The generated coverage page."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from memtwin.changes import CHANGES
from memtwin.cli import coverage
from memtwin.errors import InvariantBroken
from memtwin.experiments import registry


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch):
    """A made-up room with a COVERAGE of its own."""
    module = types.ModuleType("memtwin.made_up")
    module.__spec__ = types.SimpleNamespace(name=module.__name__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(coverage, "SOURCES", (("Rooms", module.__name__), ("None", "memtwin.not_there.at_all")))
    return module


def test_the_page_is_up_to_date(cli, root: Path) -> None:
    assert (root / "docs/coverage.md").read_text() == cli("coverage").out, "run `make pages`"


def test_every_change_is_listed_with_its_status() -> None:
    changes = coverage.sections()["Changes"]
    assert list(changes) == [change.id for change in CHANGES]
    assert {id_ for id_, (status, _) in changes.items() if status == "modelled"} == set(registry.MODULES)


def test_json(cli) -> None:
    document = json.loads(cli("coverage", "--json").out)
    assert document["schema"] == "memtwin.coverage/1"
    record = document["sections"]["Changes"]["mailmap-oleksij-rempel"]
    assert record == {"status": "modelled", "note": "`memtwin try mailmap-oleksij-rempel`"}


def test_a_room_with_coverage(room) -> None:
    room.COVERAGE = {"mmap": ("partly", "anonymous | private"), "brk": ("modelled", ""), "fork": ("not", "")}
    page = coverage.page()
    assert "## Rooms\n\n1 modelled, 1 partly, 1 not yet." in page
    assert "| `mmap` | partly | anonymous \\| private |" in page
    assert "## None" not in page


def test_a_room_without_coverage_is_left_out(room) -> None:
    assert list(coverage.sections()) == ["Changes"]


def test_a_status_that_is_none(room) -> None:
    room.COVERAGE = {"mmap": ("done", "")}
    with pytest.raises(InvariantBroken, match="'mmap' has status 'done'"):
        coverage.sections()
