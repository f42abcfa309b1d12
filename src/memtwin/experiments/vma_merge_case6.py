# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiment ``vma-merge-dup-anon-comment``: merge case 6, the next area faulted, and no memory for its chain.

    PPPPCCCCNNNN  ->  PPPPPPPPPPPP      mprotect gives C the flags of P and N; N has an anon_vma, P has none

P takes over pages of N, so it must get N's anon_vma first, which allocates. The catalogue's comment says why the second
of the two calls that may do so never hides a failure of the first: it is made only where the first had nothing to do.
The change is a comment, so both sides are the same.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE
from memtwin.experiments.base import Claim, ExperimentResult, Observation
from memtwin.machine import Machine
from memtwin.mm.fault_inject import FaultInjection
from memtwin.mm.vma import vma_merge
from memtwin.process import Process

__all__ = ["run"]

PAGE: Final = 4096
BASE: Final = 0x10000000
PART: Final = 4 * PAGE
RW: Final = PROT_READ | PROT_WRITE
RWX: Final = RW | PROT_EXEC
ANON: Final = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
LATER: Final = "post-merge-faulted-unfaulted"


class _Seen(NamedTuple):
    """What one attempt to merge led to."""

    merged: bool
    areas: str
    chains: int  #: anon_vma_chain objects allocated by the attempt
    points: int  #: allocations it passed


def _describe(process: Process) -> str:
    """Areas from BASE on: pages and access, ``*`` with an anon_vma."""
    parts = []
    for vma in process.vmas():
        if BASE <= vma.start < BASE + 3 * PART:
            rwx = "".join(letter if vma.flags >> bit & 1 else "-" for bit, letter in enumerate("rwx"))
            parts.append(f"{vma.pages}{rwx}{'*' * (vma.anon_vma is not None)}")
    return " ".join(parts)


def _set_up(machine: Machine, faulted: str) -> Process:
    """P and N rw-, C rwx between them; those named in ``faulted`` have a page."""
    process = machine.spawn()
    starts = dict(zip("PCN", range(BASE, BASE + 3 * PART, PART), strict=True))
    for name, start in starts.items():
        process.mmap(start, PART, RWX if name == "C" else RW, ANON)
    for name in faulted:
        process.write(starts[name], b"x")
    return process


def _merge(machine: Machine, faulted: str, fail_nth: int) -> _Seen:
    """Merge C, to be rw-, with P and N as mprotect would, the ``fail_nth``-th allocation failing (0: none)."""
    process = _set_up(machine, faulted)
    kernel, mm = machine.kernel, process.mm
    alloc, chains = kernel.page_alloc, kernel.mm_ctx.avc_cache
    before = chains.active_objects
    injection = alloc.fault = FaultInjection(fail_nth=fail_nth)

    def merge() -> bool:
        previous, current = mm.mm_mt.load(BASE), mm.mm_mt.load(BASE + PART)
        mm.mmap_lock.down_write()
        try:
            survivor = vma_merge(
                mm,
                previous,
                current.start,
                current.end,
                previous.flags,
                current.anon_vma,
                None,
                current.pgoff,
                None,
                None,
                None,
            )
        finally:
            mm.mmap_lock.up_write()
        return survivor is not None

    try:
        merged = kernel.sched.run_as(process.task, merge)
    finally:
        alloc.fault = None
    seen = _Seen(merged, _describe(process), chains.active_objects - before, injection.points)
    machine.check()
    process.exit()
    return seen


def _mprotect(machine: Machine, fail_nth: int) -> str:
    """The system call over C: what it leaves when the ``fail_nth``-th allocation fails (0: none)."""
    process = _set_up(machine, "N")
    machine.kernel.page_alloc.fault = FaultInjection(fail_nth=fail_nth)
    try:
        process.mprotect(BASE + PART, PART, RW)
    finally:
        machine.kernel.page_alloc.fault = None
    areas = _describe(process)
    machine.check()
    process.exit()
    return areas


class _Side:
    """What one machine showed."""

    def __init__(self, change_id: str, *, after: bool) -> None:
        machine = Machine(memory="64M", without=[] if after else [change_id])
        self.plain = _merge(machine, "N", 0)
        self.failures = [_merge(machine, "N", nth) for nth in range(1, self.plain.points + 1)]
        self.mprotect = _mprotect(machine, 0), _mprotect(machine, 1)
        machine.kernel.check_no_leak()
        machine.close()
        # 6.7 does not merge P with a faulted C, so that only later kernels come to the second clone.
        later = Machine(memory="64M", with_=[LATER], without=[] if after else [change_id])
        self.clones = {faulted: _merge(later, faulted, 0) for faulted in ("N", "C", "NC")}
        later.close()

    def rows(self) -> dict[str, str]:
        """By name."""
        rows = {
            "before the merge (* has an anon_vma)": "4rw- 4rwx 4rw-*",
            "merge, all allocations succeed": _text(self.plain),
        }
        for nth, seen in enumerate(self.failures, 1):
            rows[f"allocation {nth} of {self.plain.points} fails{' (the clone)' * (nth == 1)}"] = _text(seen)
        rows["mprotect, all allocations succeed"] = self.mprotect[0]
        rows["mprotect, the clone fails: succeeds unmerged"] = self.mprotect[1]
        for faulted, seen in self.clones.items():
            rows[f"{LATER}, pages in {' and '.join(faulted)}"] = f"{_text(seen)}, {seen.points - 1} clone"
        return rows


def _text(seen: _Seen) -> str:
    return f"{'merged' if seen.merged else 'not merged'}: {seen.areas}"


def run(change_id: str, /) -> ExperimentResult:
    """Fail each allocation of the merge in turn."""
    before, after = (_Side(change_id, after=after) for after in (False, True))
    sides = before, after
    rows, other = before.rows(), after.rows()
    untouched = "4rw- 4rwx 4rw-*"
    claims = [
        Claim(
            "case 6 makes one area of three, and it has the next one's anon_vma",
            all(side.plain[:2] == (True, "12rw-*") for side in sides),
        ),
        Claim(
            "a failed clone is reported: nothing is merged, and no area has changed",
            all(side.failures[0] == _Seen(False, untouched, 0, 1) for side in sides),
        ),
        Claim(
            "so is every other allocation that fails",
            all(
                len(side.failures) == side.plain.points
                and all((seen.merged, seen.areas, seen.chains) == (False, untouched, 0) for seen in side.failures)
                for side in sides
            ),
        ),
        Claim(
            "whichever of C and N has an anon_vma, P clones one chain: the second clone never follows the first",
            all(
                seen.merged and seen.areas == "12rw-*" and seen.points == 2
                for side in sides
                for seen in side.clones.values()
            ),
        ),
    ]
    return ExperimentResult(change_id, [Observation(name, rows[name], other[name]) for name in rows], claims)
