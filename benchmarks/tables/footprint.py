# SPDX-License-Identifier: GPL-2.0-or-later
"""Host memory for a page that is present, written to by the model, and never read."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.child import grown
from benchmarks.harness import Bench, Case

TITLE = "Footprint"
NOTE = (
    "Growth of resident memory of a fresh process, per 4 KiB page (page record, page-table entry, tables). The live "
    "kernel's peer is arithmetic: the page itself, 64 bytes of struct page, 8 of its entry."
)

#: Promised bytes a page.
MOST = 72.0
LIVE = 4096 + 64 + 8


def cases(bench: Bench) -> Iterator[Case]:
    """Touched one by one, and populated."""
    pages = bench.size(1_000_000, 100_000)
    for how in ("touch", "populate"):
        yield Case(
            f"{how} of {pages:,} pages",
            "bytes/page",
            lambda how=how: grown(how, pages) / pages,  # type: ignore[misc]
            lambda: float(LIVE),
            "page + struct page + PTE",
            lower=True,
            most=MOST,
            rounds=1,
        )
