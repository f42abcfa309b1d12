# SPDX-License-Identifier: GPL-2.0-or-later
"""The page allocator, single pages and in bulk."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Bench, Case, rate
from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE, ZERO
from memtwin.machine import Machine

TITLE = "Page allocation"
NOTE = (
    "The live allocator can not be called from user space. Nearest: one page written and given back by MADV_DONTNEED "
    "(a fault and a call a page); MADV_POPULATE_WRITE and munmap of as many pages. Both do more than allocate."
)

GFP = GFP_HIGHUSER_MOVABLE | ZERO
BULK = 262_144


def cases(bench: Bench) -> Iterator[Case]:
    """Single and bulk, each allocated and freed; bulk also through dirty frames, which must be zeroed again."""
    pages = Machine("4G").kernel.page_alloc
    single = bench.size(100_000, 10_000)
    bulk = bench.size(BULK, BULK // 16)

    def singles() -> None:
        alloc, free = pages.alloc_pages, pages.free_pages
        for _ in range(single):
            free(alloc(GFP))

    def bulks() -> None:
        pages.free_bulk(pages.alloc_bulk(GFP, bulk))

    yield Case(
        "alloc_pages + free_pages",
        "pages/s",
        lambda: rate(single, singles),
        bench.live.rate("recycle", single),
        "write fault + MADV_DONTNEED",
    )
    yield Case(
        f"alloc_bulk + free_bulk of {bulk:,}",
        "pages/s",
        lambda: rate(bulk, bulks),
        bench.live.rate("cycle", bulk),
        "MADV_POPULATE_WRITE + munmap",
    )
