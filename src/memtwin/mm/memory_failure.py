# SPDX-License-Identifier: GPL-2.0-or-later
"""Hardware memory errors: poisoning a page and taking it back (Linux: mm/memory-failure.c).

A poisoned free page leaves the buddy allocator: its block is broken down around it (``take_page_off_buddy``), so that
it is never handed out again. A poisoned kernel page stays in use, since nobody can replace it, but does not come back
when it is freed. Pages of user space need the reverse map and are not modelled yet. ``num_poisoned_pages`` is
HardwareCorrupted of /proc/meminfo. Linux serialises all of this with one mutex; here nothing sleeps.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EBUSY, ENXIO
from typing import TYPE_CHECKING, Final

from memtwin.errors import NotModelled
from memtwin.mm.page import PG_ANON, PG_HWPOISON, PG_LRU, PG_RESERVED, PG_TAKENOFF

if TYPE_CHECKING:
    from memtwin.mm.page_alloc import PageAllocator

__all__ = ["MemoryFailure"]

EHWPOISON: Final = 133


class MemoryFailure:
    """Memory errors of one machine; ``printk`` takes lines for the kernel log."""

    __slots__ = ("_alloc", "_printk")

    def __init__(self, alloc: PageAllocator, printk: Callable[[str], None]) -> None:
        self._alloc = alloc
        self._printk = printk

    @property
    def num_poisoned_pages(self) -> int:
        """Pages poisoned and not unpoisoned."""
        return self._alloc.hw_poisoned

    def memory_failure(self, pfn: int) -> int:
        """The hardware reports an uncorrectable error in frame ``pfn`` (debugfs ``hwpoison/corrupt-pfn``).

        Returns 0 or -errno: ENXIO no such memory, EHWPOISON already poisoned, EBUSY not recovered. Raises NotModelled
        for a page of user space.
        """
        alloc = self._alloc
        if not 0 <= pfn < alloc.pages.nr_pages:
            self._printk(f"Memory failure: {pfn:#x}: memory outside kernel control")
            return -ENXIO
        flags = alloc.pages.flags[pfn]
        if flags & PG_HWPOISON:
            self._printk(f"Memory failure: {pfn:#x}: already hardware poisoned")
            return -EHWPOISON
        self._refuse_user_page(pfn)
        alloc.set_hwpoison(pfn)
        if self._take_free_page(pfn):
            self._printk(f"Memory failure: {pfn:#x}: recovery action for free buddy page: Recovered")
            return 0
        self._printk(f"Memory failure: {pfn:#x}: recovery action for unknown page: Ignored")
        return -EBUSY

    def soft_offline_page(self, pfn: int) -> int:
        """Take a page out of use before it fails (sysfs ``soft_offline_page``): of free pages only.

        Returns 0 (also for a page poisoned already), -ENXIO, or -EBUSY for a kernel page. Raises NotModelled for user
        pages.
        """
        alloc = self._alloc
        if not 0 <= pfn < alloc.pages.nr_pages:
            return -ENXIO
        if alloc.pages.flags[pfn] & PG_HWPOISON:
            self._printk(f"soft_offline_page: {pfn:#x} page already poisoned")
            return 0
        self._refuse_user_page(pfn)
        if not self._take_free_page(pfn):
            return -EBUSY
        alloc.set_hwpoison(pfn)
        return 0

    def soft_offline_range(self, first: int, count: int) -> int:
        """Take every free page of [first, first + count) out of use; returns how many that were."""
        return sum(
            not self._alloc.pages.flags[pfn] & PG_HWPOISON and self.soft_offline_page(pfn) == 0
            for pfn in range(first, first + count)
        )

    def unpoison_memory(self, pfn: int) -> int:
        """Forget the error in frame ``pfn`` (debugfs ``hwpoison/unpoison-pfn``): a page that was taken out is free
        again.

        Returns 0, -ENXIO or -EBUSY (not poisoned). Linux loses a page that was freed while poisoned; here it comes back
        too.
        """
        alloc = self._alloc
        if not 0 <= pfn < alloc.pages.nr_pages:
            return -ENXIO
        flags = alloc.pages.flags[pfn]
        if not flags & PG_HWPOISON:
            self._printk(f"Unpoison: Page was already unpoisoned {pfn:#x}")
            return -EBUSY
        alloc.clear_hwpoison(pfn)
        if (flags & PG_TAKENOFF or not alloc.pages.refcount[alloc.pages.head(pfn)]) and not flags & PG_RESERVED:
            alloc.put_page_back_buddy(pfn)
        self._printk(f"Unpoison: Software-unpoisoned page {pfn:#x}")
        return 0

    def _take_free_page(self, pfn: int) -> bool:
        """Take the page out of the allocator if it is free; per-CPU lists are drained where it may be on one."""
        alloc = self._alloc
        if alloc.pages.refcount[alloc.pages.head(pfn)] or alloc.pages.flags[pfn] & PG_RESERVED:
            return False
        if alloc.take_page_off_buddy(pfn):
            return True
        alloc.drain_all_pages()
        return alloc.take_page_off_buddy(pfn)

    def _refuse_user_page(self, pfn: int) -> None:
        pages = self._alloc.pages
        if pages.flags[pages.head(pfn)] & (PG_LRU | PG_ANON) or pages.mapcount[pfn] or pages.mapping[pfn]:
            raise NotModelled(f"a memory error in page {pfn:#x}, which user space is using")
