# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a first-touch fault spends its time: ``python -m benchmarks.anatomy``.

A profiler costs more than these functions do, so each part is timed alone, in a loop, in the state it finds inside a
fault; what has no function of its own is the difference between a function and the parts it calls. CPU time, the least
of all rounds: differences of medians would drown in a shared machine's noise.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from itertools import repeat
from time import thread_time

from memtwin.arch.x86.mm.fault import do_user_addr_fault
from memtwin.hw.paging import PF_USER, PF_WRITE
from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE, ZERO
from memtwin.machine import Machine
from memtwin.mm.memory import handle_mm_fault
from memtwin.mm.mm_types import MmStruct
from memtwin.mm.mmap_lock import lock_vma_under_rcu
from memtwin.mm.vm_fault import FAULT_FLAG_WRITE

__all__ = ["parts"]

PAGES = 10_000
ROUNDS = 15


def _each(function: Callable[..., object], addresses: range) -> float:
    """Nanoseconds a call of ``function(addr)``, the loop itself taken off."""
    gc.collect()
    start = thread_time()
    for _ in addresses:
        pass
    empty = thread_time() - start
    start = thread_time()
    for addr in addresses:
        function(addr)
    return (thread_time() - start - empty) / len(addresses) * 1e9


def _pair(first: Callable[[], object], second: Callable[[], object]) -> float:
    """Nanoseconds of both calls together."""
    start = thread_time()
    for _ in repeat(None, PAGES):
        pass
    empty = thread_time() - start
    start = thread_time()
    for _ in repeat(None, PAGES):
        first()
        second()
    return (thread_time() - start - empty) / PAGES * 1e9


def _lock_and_unlock(mm: MmStruct, addr: int) -> None:
    vma = lock_vma_under_rcu(mm, addr)
    assert vma is not None and vma.vm_lock is not None
    vma.vm_lock.up_read()


def _round() -> dict[str, float]:
    """Nanoseconds of each function, once, on a machine of its own."""
    process = Machine("2G").spawn("anatomy")
    kernel, task, mm = process.kernel, process.task, process.mm
    size = PAGES << 12
    sched, lock, ptl = kernel.sched, mm.mmap_lock, mm.page_table_lock
    write = PF_USER | PF_WRITE
    gfp = GFP_HIGHUSER_MOVABLE | ZERO

    def fresh() -> range:
        start = process.mmap(0, size)
        return range(start, start + size, 4096)

    present = fresh()
    cost = {"touch": _each(lambda addr: process.touch(addr, True), present)}
    cost["hit"] = _each(lambda addr: process.touch(addr, True), present)
    previous = sched.enter(task)
    try:
        pages = fresh()
        cost["do_user_addr_fault"] = _each(lambda addr: do_user_addr_fault(task, addr, write), pages)
        pages = fresh()
        vma = mm.mm_mt.load(pages.start)
        lock.down_read()
        cost["handle_mm_fault"] = _each(lambda addr: handle_mm_fault(mm, vma, addr, FAULT_FLAG_WRITE), pages)
        lock.up_read()
        cost["load"] = _each(mm.mm_mt.load, pages)
        cost["vma_lock"] = _each(lambda addr: _lock_and_unlock(mm, addr), pages) - cost["load"]
        cost["page_table_lock"] = _pair(ptl.lock, ptl.unlock)
        cost["alloc_pages"] = _each(lambda addr: kernel.page_alloc.alloc_pages(gfp), pages)
    finally:
        sched.leave(previous)
    cost["enter"] = _pair(lambda: sched.enter(task), lambda: sched.leave(previous))
    cost["lambda"] = _each(lambda addr: None, present)
    for name in ("vma_lock", "touch", "hit", "do_user_addr_fault", "handle_mm_fault", "alloc_pages"):
        cost[name] -= cost["lambda"]
    cost["enter"] -= 2 * cost["lambda"]
    return cost


def parts(rounds: int = ROUNDS) -> Iterator[tuple[str, float, float]]:
    """(what, nanoseconds, share of the whole), parts that add up to the last line, the whole."""
    measured = [_round() for _ in range(rounds)]
    cost = {name: min(one[name] for one in measured) for name in measured[0]}
    whole = cost["touch"]
    handler = cost["do_user_addr_fault"]
    inner = cost["handle_mm_fault"]
    rows = {
        "becoming the task and back (enter, leave)": cost["enter"],
        "CPU: walk, error code, walk again": whole - handler - cost["enter"],
        "fault entry: checks and counters": handler - inner - cost["load"] - cost["vma_lock"],
        "the area's lock for reading": cost["vma_lock"],
        "area lookup in the maple tree": cost["load"],
        "alloc_pages": cost["alloc_pages"],
        "page_table_lock": cost["page_table_lock"],
        "page record, entry, counters": inner - cost["alloc_pages"] - cost["page_table_lock"],
    }
    for name, nanoseconds in rows.items():
        yield name, nanoseconds, nanoseconds / whole
    yield "p.touch(addr, True) of a fresh page", whole, 1.0


def main() -> None:
    """Print the table."""
    for name, nanoseconds, share in parts():
        print(f"{name:44}{nanoseconds:8.0f} ns{share:6.0%}")


if __name__ == "__main__":
    sys.exit(main())
