# SPDX-License-Identifier: GPL-2.0-or-later
"""What transparent huge pages are tuned by, and what of them belongs to no address space (Linux:
include/linux/huge_mm.h; Documentation/admin-guide/mm/transhuge.rst): the settings of
/sys/kernel/mm/transparent_hugepage, the huge zero page, the queue of pages to split.

Lock order: nothing is taken here; callers hold the ``page_table_lock`` of the address space they change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from memtwin.hw.paging import PMD_SIZE
from memtwin.lib.gfp_types import (
    DIRECT_RECLAIM,
    GFP_TRANSHUGE,
    GFP_TRANSHUGE_LIGHT,
    KSWAPD_RECLAIM,
    MOVABLE,
    NORETRY,
    ZERO,
)
from memtwin.mm.mm_types import VM_HUGEPAGE

if TYPE_CHECKING:
    from memtwin.mm.context import MmContext
    from memtwin.mm.mm_types import MmStruct

__all__ = ["HPAGE_PMD_NR", "HPAGE_PMD_ORDER", "HPAGE_PMD_SIZE", "HugeZeroShrinker", "KhugepagedSettings", "Thp"]

HPAGE_PMD_ORDER: Final = 9
HPAGE_PMD_NR: Final = 1 << HPAGE_PMD_ORDER
HPAGE_PMD_SIZE: Final = PMD_SIZE
#: Values of ``enabled`` and ``defrag`` in the order in which the files show them.
ENABLED: Final = ("always", "madvise", "never")
DEFRAG: Final = ("always", "defer", "defer+madvise", "madvise", "never")


class KhugepagedSettings:
    """/sys/kernel/mm/transparent_hugepage/khugepaged: numbers to write, and what was achieved since boot."""

    __slots__ = (
        "alloc_sleep_millisecs",
        "defrag",
        "full_scans",
        "max_ptes_none",
        "max_ptes_shared",
        "max_ptes_swap",
        "pages_collapsed",
        "pages_to_scan",
        "scan_sleep_millisecs",
    )

    def __init__(self) -> None:
        self.defrag = 1
        self.pages_to_scan = HPAGE_PMD_NR * 8
        self.scan_sleep_millisecs = 10_000
        self.alloc_sleep_millisecs = 60_000
        self.max_ptes_none = HPAGE_PMD_NR - 1
        self.max_ptes_swap = HPAGE_PMD_NR // 8
        self.max_ptes_shared = HPAGE_PMD_NR // 2
        self.full_scans = 0
        self.pages_collapsed = 0


class Thp:
    """Transparent huge pages of one machine.

    ``deferred``: heads of huge pages of which a part is not mapped any more (a dict as an ordered set): splitting them
    gives the part back. ``zero_pfn``: the huge zero page, 0 while there is none; ``zero_users`` address spaces hold
    it. ``folios`` counts the huge anonymous pages there are, split page tables or not.
    """

    __slots__ = ("deferred", "defrag", "enabled", "folios", "khugepaged", "use_zero_page", "zero_pfn", "zero_users")

    def __init__(self) -> None:
        self.enabled = "madvise"
        self.defrag = "madvise"
        self.use_zero_page = True
        self.khugepaged = KhugepagedSettings()
        self.deferred: dict[int, None] = {}
        self.zero_pfn = 0
        self.zero_users = 0
        self.folios = 0

    def gfp_mask(self, vm_flags: int) -> int:
        """How hard a fault in an area with ``vm_flags`` tries to get a huge page (Linux: vma_thp_gfp_mask)."""
        advised = bool(vm_flags & VM_HUGEPAGE)
        if self.defrag == "always":
            return GFP_TRANSHUGE | (0 if advised else NORETRY)
        if self.defrag == "defer":
            return GFP_TRANSHUGE_LIGHT | KSWAPD_RECLAIM
        if self.defrag == "defer+madvise":
            return GFP_TRANSHUGE_LIGHT | (DIRECT_RECLAIM if advised else KSWAPD_RECLAIM)
        if self.defrag == "madvise":
            return GFP_TRANSHUGE_LIGHT | (DIRECT_RECLAIM if advised else 0)
        return GFP_TRANSHUGE_LIGHT

    # -- the huge zero page -----------------------------------------------------------------------------------------

    def get_huge_zero_page(self, mm: MmStruct) -> int:
        """The huge zero page, made if there is none, and held by ``mm`` until it ends; 0 without memory."""
        if mm.huge_zero:
            return self.zero_pfn
        if not self.zero_pfn:
            ctx = mm.ctx
            pfn = ctx.page_alloc.alloc_pages((GFP_TRANSHUGE | ZERO) & ~MOVABLE, HPAGE_PMD_ORDER)
            if not pfn:
                ctx.events.thp_zero_page_alloc_failed += 1
                return 0
            ctx.events.thp_zero_page_alloc += 1
            self.zero_pfn = pfn
        mm.huge_zero = True
        self.zero_users += 1
        return self.zero_pfn

    def put_huge_zero_page(self, mm: MmStruct) -> None:
        """``mm`` ends. The page stays until memory is short."""
        if mm.huge_zero:
            mm.huge_zero = False
            self.zero_users -= 1


class HugeZeroShrinker:
    """Gives the huge zero page back when nobody holds it (a :class:`~memtwin.mm.vmscan.ShrinkerCallbacks`)."""

    __slots__ = ("_ctx",)

    def __init__(self, ctx: MmContext) -> None:
        self._ctx = ctx

    def count_objects(self, gfp: int, nid: int) -> int:
        """Pages: 512 or none. Of no node in particular, so that node 0 answers."""
        thp = self._ctx.thp
        return HPAGE_PMD_NR if nid == 0 and thp.zero_pfn and not thp.zero_users else 0

    def scan_objects(self, gfp: int, nid: int, nr_to_scan: int) -> int:
        """Free it; the pages that came back."""
        if not self.count_objects(gfp, nid):
            return 0
        ctx = self._ctx
        pfn, ctx.thp.zero_pfn = ctx.thp.zero_pfn, 0
        ctx.page_alloc.free_pages(pfn, HPAGE_PMD_ORDER)
        ctx.page_alloc.reclaim.account_reclaimed_pages(HPAGE_PMD_NR)
        return HPAGE_PMD_NR
