# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls about whole areas and whole address spaces: mremap there and back, /proc/self/maps, fork."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Bench, Case, rate
from benchmarks.tables.areas import AREA, map_areas
from memtwin.abi import mman
from memtwin.machine import Machine

TITLE = "Address spaces"
NOTE = (
    "Moving an area of 4 untouched pages to a fixed place and back, beside many areas; reading /proc/self/maps whole; "
    "fork, the child's exit and the wait for it. The live process has its program and libraries besides the areas."
)

LENGTH = AREA << 12


def cases(bench: Bench) -> Iterator[Case]:
    """mremap beside 10, 1,000 and 30,000 areas, maps of 10,000, fork of 1,000."""
    for count in (10, 1_000) if bench.quick else (10, 1_000, 30_000):
        yield _mremap(bench, count)
    yield _maps(bench, bench.size(10_000, 500))
    yield _fork(bench, bench.size(1_000, 50))


def _mremap(bench: Bench, count: int) -> Case:
    process = Machine("1G").spawn("mremap")
    map_areas(process, count)
    here = process.mmap(0, LENGTH)
    # Room with a hole on both sides, so that the area merges with nothing at either place.
    room = process.mmap(0, 3 * LENGTH)
    process.munmap(room, 3 * LENGTH)
    there = room + LENGTH
    pairs = bench.size(1_000, 100)
    flags = mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED

    def move() -> None:
        mremap = process.mremap
        for _ in range(pairs):
            mremap(here, LENGTH, LENGTH, flags, there)
            mremap(there, LENGTH, LENGTH, flags, here)

    return Case(
        f"mremap there and back beside {count:,}",
        "pairs/s",
        lambda: rate(pairs, move),
        bench.live.rate("remap", pairs * 4, first=f"areas {count}"),
        "2 mremaps",
    )


def _maps(bench: Bench, count: int) -> Case:
    process = Machine("1G").spawn("maps")
    map_areas(process, count)
    reads = bench.size(3, 2)

    def read() -> None:
        for _ in range(reads):
            process.read_file("/proc/self/maps")

    return Case(
        f"/proc/self/maps of {count:,}",
        "areas/s",
        lambda: rate(reads * count, read),
        bench.live.rate("maps", reads * count, first=f"areas {count}"),
        "open, read, close",
    )


def _fork(bench: Bench, count: int) -> Case:
    process = Machine("1G").spawn("fork")
    map_areas(process, count)
    forks = bench.size(10, 2)

    def fork() -> None:
        for _ in range(forks):
            process.fork().exit()

    return Case(
        f"fork and exit with {count:,}",
        "forks/s",
        lambda: rate(forks, fork),
        bench.live.rate("fork", forks * 4, first=f"areas {count}"),
        "fork, _exit, waitpid",
    )
