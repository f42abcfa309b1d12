# SPDX-License-Identifier: GPL-2.0-or-later
"""Reasons of refused calls and of areas that are not one."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest

from memtwin.script import explain
from memtwin.script.explain import Border, borders, reason

B = 0x1000000000
#: Areas [0, 2) and [2, 3), a hole, and [5, 6), in pages from B; and one that is not the script's.
PAGES = ((0, 2), (2, 3), (5, 6))
MAPS = "".join(f"{B + a * 4096:x}-{B + b * 4096:x} r--p 00000000 00:00 0 \n" for a, b in PAGES)
FIRST, SECOND, THIRD = (f"B+{a * 4096:#x}-B+{b * 4096:#x} r--p 0" for a, b in PAGES)


@pytest.fixture
def process(fake: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process with these areas, and a merge that tells where they end and start."""
    monkeypatch.setattr(explain, "explain_merge", lambda a, b: [f"{a.end - B:#x}/{b.start - B:#x}"])
    made = fake(files={"/proc/self/maps": MAPS})
    made.areas = [SimpleNamespace(start=B + a * 4096, end=B + b * 4096) for a, b in PAGES]
    made.areas.append(SimpleNamespace(start=0x7FFFFFFDE000, end=0x7FFFFFFFF000))
    return made


def test_reason_of_an_error() -> None:
    assert reason(OSError(errno.EINVAL, "munmap: empty")) == "munmap: empty"
    assert reason(OSError(errno.EINVAL, os.strerror(errno.EINVAL))) == ""
    assert reason(OSError()) == ""
    error = OSError(errno.ENOMEM, "text")
    error.reason = "MAP_COUNT"
    assert reason(error) == "MAP_COUNT"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (None, [Border(FIRST, SECOND, 0, ("0x2000/0x2000",))]),
        (0, [Border("", FIRST, 0, ()), Border(FIRST, SECOND, 0, ("0x2000/0x2000",))]),
        (2, [Border(FIRST, SECOND, 0, ("0x2000/0x2000",)), Border(SECOND, THIRD, 8192, ())]),
        (4, [Border(SECOND, THIRD, 8192, ())]),
        (5, [Border(SECOND, THIRD, 8192, ()), Border(THIRD, "", 0, ())]),
        (6, [Border(THIRD, "", 0, ())]),
        (-1, [Border("", FIRST, 0, ())]),
    ],
)
def test_borders(process: Any, page: int | None, expected: list[Border]) -> None:
    assert borders(process, None if page is None else B + page * 4096 + 5) == expected


def test_no_areas_no_borders(fake: Any) -> None:
    process = fake(files={"/proc/self/maps": ""})
    assert borders(process) == borders(process, B) == []


def test_reasons_in_answers(process: Any, ask: Any) -> None:
    process.does |= {"munmap": OSError(errno.EINVAL, "munmap: empty"), "msync": OSError(errno.ENOMEM, "Out of memory")}
    answers = ask(process, "munmap B 0", "dump maps", "dump status", explain=True)
    assert answers[0] == {"i": 1, "op": "munmap", "ret": -22, "err": "EINVAL", "reason": "munmap: empty"}
    assert answers[1]["reason"] == {"B+0x2000": ["0x2000/0x2000"]}
    assert "reason" not in answers[2]
    assert all("reason" not in answer for answer in ask(process, "munmap B 0", "dump maps"))


def test_the_reasons_of_real_areas(twin: Any) -> None:
    answers = twin("mmap B 2p r private|anon|fixed\nmprotect B+1p 1p rw\ndump maps", explain=True)
    if "error" in answers[-1]:
        pytest.skip("dump: not modelled yet")
    assert answers[-1]["reason"] == {"B+0x1000": ["FLAGS_DIFFER(VM_WRITE|VM_ACCOUNT)"]}
