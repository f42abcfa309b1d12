# SPDX-License-Identifier: GPL-2.0-or-later
"""File pages (Linux: mm/filemap.c), as far as mapped programs need them before the page cache is built.

A mapping keeps its pages while any area maps it and drops them with the last one; there is no readahead and no
writeback. Invariants: every page in ``folios`` carries the mapping's id and its index, and one reference for being
there.
"""

from __future__ import annotations

from collections.abc import Callable

from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE, ZERO
from memtwin.mm.context import MmContext
from memtwin.mm.page import PG_SWAPBACKED, PG_UPTODATE

__all__ = ["AddressSpace"]


class AddressSpace:
    """The pages of one file.

    ``read_folio(index)`` returns up to 4096 bytes of the file's content (less at its end); ``size()`` the length in
    bytes; ``shmem`` says that the pages count as shared memory (an anonymous shared object). ``i_mmap``: number of
    areas that map it; ``committed``: pages that were promised when it was made.
    """

    __slots__ = ("_read_folio", "committed", "folios", "i_mmap", "id", "opens", "shmem", "size")

    def __init__(self, read_folio: Callable[[int], bytes], size: Callable[[], int], *, shmem: bool = False) -> None:
        self._read_folio = read_folio
        self.size = size
        self.shmem = shmem
        self.id = 0
        self.i_mmap = 0
        self.opens = 0
        self.committed = 0
        self.folios: dict[int, int] = {}

    def mapped(self, ctx: MmContext) -> None:
        """One more area maps this file."""
        self._register(ctx)
        self.i_mmap += 1

    def unmapped(self, ctx: MmContext) -> None:
        """One area less; with the last user the pages go."""
        self.i_mmap -= 1
        self._drop_if_unused(ctx)

    def opened(self, ctx: MmContext) -> None:
        """An open file that owns its content keeps the pages too (memory files)."""
        self._register(ctx)
        self.opens += 1

    def closed(self, ctx: MmContext) -> None:
        """The counterpart of :meth:`opened`."""
        self.opens -= 1
        self._drop_if_unused(ctx)

    def _register(self, ctx: MmContext) -> None:
        if not self.id:
            ctx.mapping_ids += 1
            self.id = ctx.mapping_ids
        ctx.mappings[self.id] = self

    def _drop_if_unused(self, ctx: MmContext) -> None:
        if not self.i_mmap and not self.opens:
            self.drop_from(ctx, 0)
            ctx.committed -= self.committed
            del ctx.mappings[self.id]

    def drop_from(self, ctx: MmContext, first: int) -> None:
        """Remove the pages from index ``first`` on; nothing maps them any more."""
        for index in sorted(index for index in self.folios if index >= first):
            self.drop(ctx, index)

    def drop(self, ctx: MmContext, index: int) -> None:
        """Remove the page at ``index``, which nothing maps any more."""
        pfn = self.folios.pop(index)
        stat = ctx.node_stat(pfn)
        stat.nr_file_pages -= 1
        if self.shmem:
            stat.nr_shmem -= 1
        ctx.pages.flags[pfn] = 0
        ctx.pages.mapping[pfn] = 0
        ctx.page_alloc.put_page(pfn)

    def get_folio(self, ctx: MmContext, index: int) -> int:
        """The page at ``index``, read if it is not there; its pfn, or 0 without memory. The cache keeps the only new
        reference.
        """
        pfn = self.folios.get(index)
        if pfn is not None:
            return pfn
        pfn = ctx.page_alloc.alloc_pages(GFP_HIGHUSER_MOVABLE | ZERO)
        if not pfn:
            return 0
        data = self._read_folio(index)
        if data:
            start = pfn << 12
            ctx.ram.mem[start : start + len(data)] = data
            ctx.pages.nonzero[pfn] = 1
        pages = ctx.pages
        pages.flags[pfn] = PG_UPTODATE | (PG_SWAPBACKED if self.shmem else 0)
        pages.mapping[pfn] = self.id
        pages.index[pfn] = index
        stat = ctx.node_stat(pfn)
        stat.nr_file_pages += 1
        if self.shmem:
            stat.nr_shmem += 1
        self.folios[index] = pfn
        return pfn
