# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiment ``mprotect-unaccount-unfaulted``: memory that becomes unwritable again before anybody touched it.

The table of the spec: a range becomes writable, is or is not touched, and becomes unwritable. Each row runs in a fresh
process; it tells how many areas the range then is, and by how much Committed_AS differs from before the range was
mapped.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from memtwin.abi.mman import (
    MADV_DONTNEED,
    MADV_HUGEPAGE,
    MADV_WIPEONFORK,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from memtwin.experiments.base import Claim, ExperimentResult, Observation
from memtwin.machine import Machine
from memtwin.process import Process

__all__ = ["run"]

PAGE: Final = 4096
LENGTH: Final = 12 * PAGE
MIDDLE: Final = slice(4 * PAGE, 8 * PAGE)  #: offsets of the part that becomes writable
HUGE: Final = 2 << 20
HUGE_AT: Final = 0x1000000000
RW: Final = PROT_READ | PROT_WRITE
ANON: Final = MAP_PRIVATE | MAP_ANONYMOUS
OVERCOMMIT: Final = "/proc/sys/vm/overcommit_memory"

Between = Callable[[Process, int], None]


def _meminfo(process: Process, name: str) -> int:
    """A line of /proc/meminfo, kB."""
    fields = dict(line.split(":", 1) for line in process.read_file("/proc/meminfo").splitlines())
    return int(fields[name].split()[0])


def _areas(process: Process, start: int, length: int = LENGTH) -> int:
    """How many areas [start, start + length) is made of."""
    return sum(start <= vma.start < start + length for vma in process.vmas())


def _has_account(process: Process, addr: int) -> bool:
    """Whether smaps shows ``ac`` for the area at ``addr``."""
    inside = False
    for line in process.read_file("/proc/self/smaps").splitlines():
        first = line.split(" ", 1)[0]
        if "-" in first:
            low, high = (int(part, 16) for part in first.split("-"))
            inside = low <= addr < high
        elif inside and first == "VmFlags:":
            return "ac" in line.split()
    return False


def _nothing(process: Process, addr: int) -> None:
    """Do not touch it."""


def _write(process: Process, addr: int) -> None:
    process.write(addr, b"x")


def _read(process: Process, addr: int) -> None:
    process.read(addr, 1)


def _write_and_drop(process: Process, addr: int) -> None:
    process.write(addr, b"x")
    process.madvise(addr, MIDDLE.stop - MIDDLE.start, MADV_DONTNEED)


def _count(areas: int) -> str:
    return f"{areas} area{'s' * (areas != 1)}"


def _outcome(process: Process, addr: int, base: int) -> str:
    return f"{_count(_areas(process, addr))}, {_meminfo(process, 'Committed_AS') - base:+d} kB"


class _Side:
    """All rows on one machine: ``seen`` by name."""

    def __init__(self, change_id: str, *, after: bool) -> None:
        self._machine = Machine(memory="64M", without=[] if after else [change_id])
        self.seen: dict[str, str] = {}
        self._steps()
        self._row("never touched", _nothing)
        self._row("one byte written in between", _write)
        self._row("read only (maps the zero page)", _read)
        self._row("written, then MADV_DONTNEED", _write_and_drop)
        self._row("private mapping of a file, never touched", _nothing, lambda process: process.memfd_create("data"))
        self._row("private mapping of /dev/zero, never touched", _nothing, lambda process: process.open("/dev/zero"))
        self._none()
        self._neighbour()
        for wipe in (True, False):
            self._child(wipe=wipe)
        self._strict()
        self._huge()
        self._machine.check()
        self._machine.kernel.check_no_leak()
        self._machine.close()

    def _spawn(self) -> tuple[Process, int]:
        process = self._machine.spawn()
        return process, _meminfo(process, "Committed_AS")

    def _steps(self) -> None:
        process, base = self._spawn()
        addr = process.mmap(0, LENGTH, PROT_READ, ANON)
        self.seen["mmap of 12 pages r--"] = _outcome(process, addr, base)
        process.mprotect(addr + MIDDLE.start, MIDDLE.stop - MIDDLE.start, RW)
        account = " (ac)" * _has_account(process, addr + MIDDLE.start)
        self.seen["mprotect of the middle 4 pages: rw-"] = _outcome(process, addr, base) + account
        process.exit()

    def _row(self, name: str, between: Between, opened: Callable[[Process], int] | None = None) -> None:
        """The middle of a readable mapping becomes writable, ``between`` happens, and it becomes readable again.

        ``opened``: makes the descriptor of what is mapped instead of anonymous memory.
        """
        process, base = self._spawn()
        if opened is None:
            addr = process.mmap(0, LENGTH, PROT_READ, ANON)
        else:
            addr = process.mmap(0, LENGTH, PROT_READ, MAP_PRIVATE, opened(process))
        start, length = addr + MIDDLE.start, MIDDLE.stop - MIDDLE.start
        process.mprotect(start, length, RW)
        between(process, start)
        process.mprotect(start, length, PROT_READ)
        self.seen[f"back to r--: {name}"] = _outcome(process, addr, base)
        process.exit()

    def _none(self) -> None:
        process, base = self._spawn()
        addr = process.mmap(0, LENGTH, RW, ANON)
        process.mprotect(addr, LENGTH, PROT_NONE)
        self.seen["12 pages mapped rw-, then PROT_NONE, never touched"] = _outcome(process, addr, base)
        process.exit()

    def _huge(self) -> None:
        """A read fault that maps the huge zero page gives the area its anon_vma."""
        process, base = self._spawn()
        addr = process.mmap(HUGE_AT, HUGE, RW, ANON | MAP_FIXED)
        process.madvise(addr, HUGE, MADV_HUGEPAGE)
        process.read(addr, 1)
        process.mprotect(addr, HUGE, PROT_READ)
        self.seen["2 MiB with MADV_HUGEPAGE, read only, back to r--"] = _outcome(process, addr, base)
        process.exit()

    def _neighbour(self) -> None:
        process, base = self._spawn()
        addr = process.mmap(0, LENGTH, PROT_NONE, ANON)
        process.mmap(addr, MIDDLE.start, RW, ANON | MAP_FIXED)
        process.mprotect(addr, MIDDLE.start, PROT_NONE)
        self.seen["the same beside what was always PROT_NONE"] = _outcome(process, addr, base)
        process.exit()

    def _child(self, *, wipe: bool) -> None:
        parent, _ = self._spawn()
        addr = parent.mmap(0, LENGTH, RW, ANON)
        parent.write(addr, b"x")
        if wipe:
            parent.madvise(addr, LENGTH, MADV_WIPEONFORK)
        child = parent.fork()
        base = _meminfo(child, "Committed_AS")
        child.mprotect(addr, LENGTH, PROT_READ)
        name = f"child of fork, parent had written{' and MADV_WIPEONFORK' * wipe}: r--"
        self.seen[name] = f"{_meminfo(child, 'Committed_AS') - base:+d} kB"
        child.exit()
        parent.exit()

    def _strict(self) -> None:
        """Overcommit mode 2: two neighbours, of which the free commit can hold one."""
        process, _ = self._spawn()
        process.write_file(OVERCOMMIT, "2")
        half = (_meminfo(process, "CommitLimit") - _meminfo(process, "Committed_AS")) * 3 // 4 << 10 & -PAGE
        first = process.mmap(0, 2 * half, PROT_READ, ANON)
        second = first + half
        process.mprotect(first, half, RW)
        refused = _try(lambda: process.mprotect(second, half, RW))
        process.mprotect(first, half, PROT_READ)
        between = _areas(process, first, 2 * half)
        again = _try(lambda: process.mprotect(second, half, RW))
        self.seen["overcommit mode 2: second half rw- beside the first"] = refused
        self.seen["overcommit mode 2: after the first went back to r--"] = f"{again} (from {_count(between)})"
        process.write_file(OVERCOMMIT, "0")
        process.exit()


def _try(call: Callable[[], None]) -> str:
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


#: What the spec's table says of each row: before and after. Rows that are not listed wait for something.
TABLE: Final = {
    "mmap of 12 pages r--": ("1 area, +0 kB",) * 2,
    "mprotect of the middle 4 pages: rw-": ("3 areas, +16 kB (ac)",) * 2,
    "back to r--: never touched": ("3 areas, +16 kB", "1 area, +0 kB"),
    "back to r--: one byte written in between": ("3 areas, +16 kB",) * 2,
    "back to r--: read only (maps the zero page)": ("3 areas, +16 kB", "1 area, +0 kB"),
    "back to r--: written, then MADV_DONTNEED": ("3 areas, +16 kB",) * 2,
    "back to r--: private mapping of a file, never touched": ("3 areas, +16 kB",) * 2,
    "back to r--: private mapping of /dev/zero, never touched": ("3 areas, +16 kB", "1 area, +0 kB"),
    "2 MiB with MADV_HUGEPAGE, read only, back to r--": ("1 area, +2048 kB",) * 2,
    "12 pages mapped rw-, then PROT_NONE, never touched": ("1 area, +48 kB", "1 area, +0 kB"),
    "the same beside what was always PROT_NONE": ("2 areas, +16 kB", "1 area, +0 kB"),
    "child of fork, parent had written and MADV_WIPEONFORK: r--": ("+0 kB", "-48 kB"),
    "child of fork, parent had written: r--": ("+0 kB",) * 2,
    "overcommit mode 2: second half rw- beside the first": ("ENOMEM",) * 2,
    "overcommit mode 2: after the first went back to r--": ("ENOMEM (from 2 areas)", "ok (from 1 area)"),
}


def run(change_id: str, /) -> ExperimentResult:
    """The table on a machine without and one with the change."""
    before, after = (_Side(change_id, after=after).seen for after in (False, True))
    rows = [Observation(name, before[name], after[name]) for name in before]
    seen = {name: (before[name], after[name]) for name in before}

    def as_told(text: str, *names: str) -> Claim:
        return Claim(text, all(seen[name] == TABLE[name] for name in names))

    touched = [f"back to r--: {how}" for how in ("one byte written in between", "written, then MADV_DONTNEED")]
    claims = [
        as_told("a range that becomes writable is charged, without and with the change", *list(TABLE)[:2]),
        as_told(
            "back to unwritable and never given a page, it loses its charge and is one area again; before it kept both",
            "back to r--: never touched",
            "back to r--: read only (maps the zero page)",
            "back to r--: private mapping of /dev/zero, never touched",
            "12 pages mapped rw-, then PROT_NONE, never touched",
            "the same beside what was always PROT_NONE",
        ),
        as_told(
            "a read that maps the huge zero page keeps the charge",
            "2 MiB with MADV_HUGEPAGE, read only, back to r--",
        ),
        as_told("one page ever written keeps the charge of the whole area, even when it is dropped again", *touched),
        as_told(
            "a private mapping of a file keeps its charge", "back to r--: private mapping of a file, never touched"
        ),
        as_told(
            "a child that was given nothing (MADV_WIPEONFORK) gets the charge back, one that was given pages does not",
            "child of fork, parent had written and MADV_WIPEONFORK: r--",
            "child of fork, parent had written: r--",
        ),
        as_told(
            "in overcommit mode 2 the charge that came back lets another range become writable",
            "overcommit mode 2: second half rw- beside the first",
            "overcommit mode 2: after the first went back to r--",
        ),
    ]
    return ExperimentResult(change_id, rows, claims)
