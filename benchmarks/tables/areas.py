# SPDX-License-Identifier: GPL-2.0-or-later
"""The maple tree, and the calls that live on it, with 10, 1,000 and 30,000 areas."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from benchmarks.harness import Bench, Case, Side, rate
from memtwin.abi import mman
from memtwin.lib.maple_tree import MM_MT_FLAGS, MapleTree
from memtwin.machine import Machine
from memtwin.process import Process

__all__ = ["AREA", "NOTE", "TITLE", "cases", "map_areas"]

TITLE = "Areas and their tree"
NOTE = (
    "The tree alone (nodes from an object cache in simulated memory, a grace period after each pair), against the live "
    "calls that do little else: msync(MS_ASYNC) finds one area, mmap + munmap stores and erases one, two mprotects "
    "split one in three and merge it. Then the twin's own calls against the same live calls, with as many areas."
)

#: Pages of an area; readable and writable areas take turns, so that none merge.
AREA = 4
BASE = 0x7000_0000_0000


def cases(bench: Bench) -> Iterator[Case]:
    """Per number of areas: three operations of the tree, two pairs of calls."""
    for count in (10, 1_000) if bench.quick else (10, 1_000, 30_000):
        yield from _tree_cases(bench, count)
        yield from _call_cases(bench, count)


def _tree_cases(bench: Bench, count: int) -> Iterator[Case]:
    kernel = Machine("1G").kernel
    tree = MapleTree(kernel.mm_ctx.maple_cache, MM_MT_FLAGS, kernel.work, rcu=kernel.rcu)
    span = AREA << 12
    for i in range(count):
        tree.store_range(BASE + i * span, BASE + (i + 1) * span - 1, ("r", "w")[i & 1])
    kernel.rcu.rcu_barrier()
    random = Random(count)
    finds = bench.size(100_000, 10_000)
    pairs = bench.size(5_000, 500)
    at = [BASE + random.randrange(count) * span for _ in range(finds)]

    def find() -> None:
        load = tree.load
        for addr in at:
            load(addr)

    def store_erase() -> None:
        # In the hole below all areas, where the live mmap finds room too.
        barrier = kernel.rcu.rcu_barrier
        for _ in range(pairs):
            tree.store_range(BASE - span, BASE - 1, "new")
            tree.erase(BASE - span)
            barrier()

    def split_merge() -> None:
        # The inner pages become an entry of their own, then the three are one again, a grace period after each.
        barrier = kernel.rcu.rcu_barrier
        for addr in at[:pairs]:
            old = tree.load(addr)
            tree.store_range(addr + 4096, addr + span - 4097, "inner")
            barrier()
            tree.store_range(addr, addr + span - 1, old)
            barrier()

    label = f"{count:,}"
    yield Case(
        f"tree of {label}: load",
        "finds/s",
        lambda: rate(finds, find),
        _live(bench, "find", finds, count),
        "msync(MS_ASYNC)",
    )
    yield Case(
        f"tree of {label}: store + erase",
        "pairs/s",
        lambda: rate(pairs, store_erase),
        _live(bench, "map", pairs * 4, count),
        "mmap + munmap",
    )
    yield Case(
        f"tree of {label}: split + merge",
        "pairs/s",
        lambda: rate(pairs, split_merge),
        _live(bench, "protect", pairs * 4, count),
        "2 mprotects",
    )


def _call_cases(bench: Bench, count: int) -> Iterator[Case]:
    process = Machine("1G").spawn("areas")
    start = map_areas(process, count)
    random = Random(count)
    pairs = bench.size(2_000, 200)
    at = [random.randrange(count) for _ in range(pairs)]
    read, both = mman.PROT_READ, mman.PROT_READ | mman.PROT_WRITE

    def map_unmap() -> None:
        mmap, munmap = process.mmap, process.munmap
        for _ in range(pairs):
            munmap(mmap(0, AREA << 12), AREA << 12)

    def protect() -> None:
        mprotect = process.mprotect
        for area in at:
            inner = start + area * (AREA << 12) + 4096
            mprotect(inner, 2 << 12, read if area & 1 else both)
            mprotect(inner, 2 << 12, both if area & 1 else read)

    label = f"{count:,}"
    yield Case(
        f"mmap + munmap beside {label}",
        "pairs/s",
        lambda: rate(pairs, map_unmap),
        _live(bench, "map", pairs * 4, count),
        "mmap + munmap",
        least=0.5,
    )
    yield Case(
        f"2 mprotects among {label}",
        "pairs/s",
        lambda: rate(pairs, protect),
        _live(bench, "protect", pairs * 4, count),
        "2 mprotects",
        least={10: 0.3, 30_000: 0.15}.get(count),
    )


def _live(bench: Bench, command: str, units: int, count: int) -> Side:
    return bench.live.rate(command, units, first=f"areas {count}")


def map_areas(process: Process, count: int) -> int:
    """``count`` areas side by side, every other one not writable; the address of the first."""
    flags = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS | mman.MAP_NORESERVE
    start = process.mmap(0, count * AREA << 12, mman.PROT_READ | mman.PROT_WRITE, flags)
    for i in range(0, count, 2):
        process.mprotect(start + i * (AREA << 12), AREA << 12, mman.PROT_READ)
    return start
