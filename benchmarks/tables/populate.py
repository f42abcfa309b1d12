# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole ranges at once: populate and zap, and whether their cost per page stays the same as ranges grow."""

from __future__ import annotations

import os
from collections.abc import Iterator

from benchmarks.harness import Bench, Case, Side, Unavailable, rate
from memtwin.machine import Machine
from memtwin.process import Process

TITLE = "Populate and zap"
NOTE = (
    "p.populate and p.munmap of a range against MADV_POPULATE_WRITE and munmap (MADV_NOHUGEPAGE). The live kernel "
    "zeroes every page, the twin only frames known not to be zero: none on a new machine, all where they were used."
)


def cases(bench: Bench) -> Iterator[Case]:
    """64 MiB, 1 GiB and 4 GiB, of one zone; 1 GiB is promised. Then ranges that no zone can hold alone."""
    for mib in (64,) if bench.quick else (64, 1024, 4096):
        size = f"{mib} MiB" if mib < 1024 else f"{mib // 1024} GiB"
        pages = mib << 8
        least = 3.0 if mib == 1024 else None
        twin = _Twin(pages, f"{mib + 6144}M" if mib > 1024 else "2G")
        live = roomy(bench, "populate", pages)
        yield Case(f"populate {size}, new machine", "pages/s", twin.first, live, "MADV_POPULATE_WRITE", least=least)
        yield Case(f"zap {size}", "pages/s", twin.zap, bench.live.rate("zap", pages), "munmap", least=least)
        yield Case(f"populate {size}, frames used before", "pages/s", twin.again, live, "MADV_POPULATE_WRITE")
    pages = bench.size(3 << 18, 1 << 14)
    live = roomy(bench, "populate", pages)
    for where, memory, nodes in (("two zones", "4608M", 1), ("two nodes", "5G", 2)):
        twin = _Twin(pages, memory, nodes)
        name = f"populate {pages >> 8:,} MiB from {where}"
        yield Case(name, "pages/s", twin.first, live, "MADV_POPULATE_WRITE", rounds=3)


class _Twin:
    """The twin's side of one size: each round on a machine of its own, populate, zap, populate again."""

    def __init__(self, pages: int, memory: str, nodes: int = 1) -> None:
        self._pages = pages
        self._memory = memory
        self._nodes = nodes
        self._start = 0
        self._process: Process | None = None

    def first(self) -> float:
        """Populate on a machine that never ran anything."""
        self._process = None
        self._process = Machine(self._memory, nodes=self._nodes).spawn("populate")
        return self.again()

    def again(self) -> float:
        """Populate a new mapping."""
        process, size = self._process, self._pages << 12
        assert process is not None
        start = self._start = process.mmap(0, size)
        return rate(self._pages, lambda: process.populate(start, size))

    def zap(self) -> float:
        """Unmap what was populated."""
        process = self._process
        assert process is not None
        return rate(self._pages, lambda: process.munmap(self._start, self._pages << 12))


def roomy(bench: Bench, command: str, pages: int, units: int = 0) -> Side:
    """The live side of so many ``units`` (or pages), which needs as much real memory: refuses before it would push out
    everything else.
    """
    side = bench.live.rate(command, units or pages)

    def checked() -> float:
        free = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else pages * 2
        if free < pages * 5 // 4:
            raise Unavailable(f"the live side would need {pages >> 8} MiB of free memory")
        return side()

    return checked
