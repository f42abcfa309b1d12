# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/kpagecount and /proc/kpageflags (fs/proc/page.c; Documentation/admin-guide/mm/pagemap.rst): 8 bytes a frame.

Flags about what is not modelled (KSM, idle pages) are 0.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from memtwin.fs.inode import linux_error
from memtwin.fs.proc.inode import Reader
from memtwin.mm import page

if TYPE_CHECKING:
    from memtwin.mm.context import MmContext

__all__ = ["kpagecount_reader", "kpageflags_reader"]

Words = npt.NDArray[np.uint64]

KPF_BUDDY: Final = 10
KPF_MMAP: Final = 11
KPF_COMPOUND_HEAD: Final = 15
KPF_COMPOUND_TAIL: Final = 16
KPF_THP: Final = 22
KPF_ZERO_PAGE: Final = 24

#: Page flag -> bit of the file; of a folio the head's flags count.
_FROM_HEAD: Final = {
    page.PG_LOCKED: 0,
    page.PG_ERROR: 1,
    page.PG_REFERENCED: 2,
    page.PG_UPTODATE: 3,
    page.PG_DIRTY: 4,
    page.PG_LRU: 5,
    page.PG_ACTIVE: 6,
    page.PG_SLAB: 7,
    page.PG_WRITEBACK: 8,
    page.PG_RECLAIM: 9,
    page.PG_ANON: 12,
    page.PG_SWAPCACHE: 13,
    page.PG_SWAPBACKED: 14,
    page.PG_UNEVICTABLE: 18,
    page.PG_RESERVED: 32,
    page.PG_MLOCKED: 33,
    page.PG_PRIVATE: 35,
    page.PG_PRIVATE_2: 36,
    page.PG_ARCH_1: 38,
}
#: The bit that says exclusive on an anonymous page says mapped to disk on one of a file, and is shown under that name.
_FROM_PAGE: Final = {page.PG_HWPOISON: 19, page.PG_TABLE: 26, page.PG_ANON_EXCLUSIVE: 34}


def _numbers(ctx: MmContext, of: range) -> Words:
    return ctx.pages.vec.mapcount[of.start : of.stop].astype(np.uint64)


def _flags(ctx: MmContext, of: range) -> Words:
    vec = ctx.pages.vec
    pfns = np.arange(of.start, of.stop, dtype=np.int64)
    order = vec.comp_order[pfns]
    heads = (pfns >> order) << order
    words = np.zeros(len(pfns), dtype=np.uint64)
    for flags, table in ((vec.flags[heads], _FROM_HEAD), (vec.flags[pfns], _FROM_PAGE)):
        for flag, bit in table.items():
            words[(flags & np.uint32(flag)) != 0] |= np.uint64(1 << bit)
    words[(vec.mapcount[pfns] > 0) & ((vec.flags[heads] & np.uint32(page.PG_SLAB)) == 0)] |= np.uint64(1 << KPF_MMAP)
    words[vec.buddy[pfns] != 0] |= np.uint64(1 << KPF_BUDDY)
    words[(order > 0) & (heads == pfns)] |= np.uint64(1 << KPF_COMPOUND_HEAD)
    words[(order > 0) & (heads != pfns)] |= np.uint64(1 << KPF_COMPOUND_TAIL)
    # A large folio that user space maps, and nobody else's compound page.
    user = (vec.flags[heads] & np.uint32(page.PG_ANON | page.PG_LRU)) != 0
    words[(order > 0) & user] |= np.uint64(1 << KPF_THP)
    words[pfns == ctx.zero_pfn] |= np.uint64(1 << KPF_ZERO_PAGE)
    if ctx.thp.zero_pfn:
        words[heads == ctx.thp.zero_pfn] |= np.uint64(1 << KPF_THP | 1 << KPF_ZERO_PAGE)
    return words


def _range(ctx: MmContext, count: int, offset: int) -> range:
    """The frames that a read asks for. EINVAL unless both are multiples of 8."""
    if offset & 7 or count & 7:
        raise linux_error(errno.EINVAL)
    first = min(offset >> 3, ctx.pages.nr_pages)
    return range(first, min(first + (count >> 3), ctx.pages.nr_pages))


def kpagecount_reader(ctx: MmContext) -> Reader:
    """How often each frame is mapped."""
    return lambda count, offset: _numbers(ctx, _range(ctx, count, offset)).tobytes()


def kpageflags_reader(ctx: MmContext) -> Reader:
    """The KPF_* bits of each frame."""
    return lambda count, offset: _flags(ctx, _range(ctx, count, offset)).tobytes()
