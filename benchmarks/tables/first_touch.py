# SPDX-License-Identifier: GPL-2.0-or-later
"""The first access to a page of anonymous memory."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Bench, Case, rate
from memtwin.machine import Machine

TITLE = "First touch"
NOTE = (
    "p.touch(addr, write) of pages that were never accessed, in ascending order, against the same accesses by a C "
    "program (MADV_NOHUGEPAGE). Frames used before were dirty when they were given back, so that the twin zeroes them."
)


def cases(bench: Bench) -> Iterator[Case]:
    """Write to frames never used, write to frames used before, read."""
    n = bench.size(65_536, 8_192)
    # Fresh frames: the mapping of each round stays, so that no frame comes back. Pages of all rounds fit well.
    fresh = Machine("64G").spawn("fresh")
    recycled = Machine("1G").spawn("recycled")
    reader = Machine("1G").spawn("reader")

    def touch_all(touch: object, start: int, write: bool) -> None:
        assert callable(touch)
        for addr in range(start, start + (n << 12), 4096):
            touch(addr, write)

    def write_fresh() -> float:
        start = fresh.mmap(0, n << 12)
        return rate(n, lambda: touch_all(fresh.touch, start, True))

    def write_recycled() -> float:
        start = recycled.mmap(0, n << 12)
        figure = rate(n, lambda: touch_all(recycled.touch, start, True))
        recycled.munmap(start, n << 12)
        return figure

    def read() -> float:
        start = reader.mmap(0, n << 12)
        figure = rate(n, lambda: touch_all(reader.touch, start, False))
        reader.munmap(start, n << 12)
        return figure

    live = bench.live.rate
    yield Case("write, frames never used", "pages/s", write_fresh, live("write", n), "write fault", least=0.2)
    yield Case("write, frames used before", "pages/s", write_recycled, live("write", n), "write fault")
    yield Case("read (zero page)", "pages/s", read, live("read", n), "read fault")
