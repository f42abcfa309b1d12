# SPDX-License-Identifier: GPL-2.0-or-later
"""Where pages are (Linux: mm/migrate.c, the query of move_pages(2)). Moving them is not modelled."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from memtwin.hw.paging import PFN_MASK, PRESENT, PROT_NONE, SPECIAL
from memtwin.mm.mm_types import MmStruct

__all__ = ["do_pages_stat"]


def do_pages_stat(mm: MmStruct, addrs: Iterable[int]) -> list[int]:
    """For each address the node its page is on, or a negative errno: EFAULT outside of all areas and for the zero page,
    ENOENT where no page is (before ``post-move-pages-enoent`` EFAULT there too).
    """
    ctx = mm.ctx
    empty = -errno.ENOENT if ctx.features.has("post-move-pages-enoent") else -errno.EFAULT
    status = []
    mm.mmap_lock.down_read()
    try:
        for addr in addrs:
            if addr >= mm.task_size or mm.mm_mt.load(addr) is None:
                status.append(-errno.EFAULT)
                continue
            index, shift = ctx.pt.lookup(mm, addr)
            entry = ctx.ram.q[index] if index else 0
            if not entry & (PRESENT | PROT_NONE):
                status.append(empty)
            elif entry & SPECIAL:
                status.append(-errno.EFAULT)
            else:
                pfn = ((entry & PFN_MASK) >> 12) + (addr >> 12 & (1 << shift - 12) - 1)
                status.append(ctx.topology.pfn_to_nid(pfn))
    finally:
        mm.mmap_lock.up_read()
    return status
