# SPDX-License-Identifier: GPL-2.0-or-later
"""Areas: allocation, lookup, split (Linux: mm/vma.c of later trees, mm/mmap.c of 6.7; spec R5). Merging comes with
its issue.

All functions need ``mm.mmap_lock``, for writing where they change something. Every change of the tree preallocates
its nodes, so that a failure leaves everything as it was.
"""

from __future__ import annotations

import errno

from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.lib.maple_tree import MaState
from memtwin.mm.mm_types import MappedFile, MmStruct, VmArea
from memtwin.mm.rmap import anon_vma_clone, unlink_anon_vmas

__all__ = ["find_vma", "insert_vma", "remove_vma", "split_vma", "vm_area_alloc", "vma_resize"]

ULONG_MAX = (1 << 64) - 1


def no_memory() -> OSError:
    """ENOMEM, as every allocation failure of this subsystem surfaces."""
    return OSError(errno.ENOMEM, "Cannot allocate memory")


def vm_area_alloc(mm: MmStruct, start: int, end: int, flags: int, pgoff: int, file: MappedFile | None = None) -> VmArea:
    """A new area, not yet in the tree. Raises OSError ENOMEM."""
    addr = mm.ctx.vma_cache.alloc(GFP_KERNEL)
    if not addr:
        raise no_memory()
    return VmArea(mm, addr, start, end, flags, pgoff, file)


def find_vma(mm: MmStruct, addr: int) -> VmArea | None:
    """The first area that ends above ``addr``; it contains ``addr`` or lies above it."""
    vma: VmArea | None = MaState(mm.mm_mt, addr, addr).find(ULONG_MAX)
    return vma


def areas_in(mm: MmStruct, start: int, end: int) -> list[VmArea]:
    """The areas that overlap [start, end), ascending."""
    mas = MaState(mm.mm_mt, start, start)
    found: list[VmArea] = []
    vma = mas.find(end - 1)
    while vma is not None:
        found.append(vma)
        vma = mas.find(end - 1)
    return found


def _store(mm: MmStruct, start: int, end: int, vma: VmArea | None) -> None:
    """Store ``vma`` (None erases) over [start, end). Raises OSError ENOMEM, the tree untouched."""
    mas = MaState(mm.mm_mt, start, end - 1)
    mas.preallocate(vma, GFP_KERNEL)
    mas.store_prealloc(vma)


def insert_vma(mm: MmStruct, vma: VmArea) -> None:
    """Put a fresh area into the tree and count it. Raises OSError ENOMEM, after which ``vma`` is freed."""
    try:
        _store(mm, vma.start, vma.end, vma)
    except OSError:
        mm.ctx.vma_cache.free(vma.addr)
        raise
    mm.map_count += 1
    mm.vm_stat_account(vma.flags, vma.pages)
    if mm.total_vm > mm.hiwater_vm:
        mm.hiwater_vm = mm.total_vm
    if vma.file is not None:
        vma.file.mapping.mapped(mm.ctx)


def remove_vma(mm: MmStruct, vma: VmArea) -> None:
    """Free an area that is no longer in the tree and maps nothing any more."""
    mm.map_count -= 1
    mm.vm_stat_account(vma.flags, -vma.pages)
    unlink_anon_vmas(mm.ctx, vma)
    if vma.file is not None:
        vma.file.mapping.unmapped(mm.ctx)
    mm.ctx.vma_cache.free(vma.addr)


def erase_range(mm: MmStruct, start: int, end: int) -> None:
    """Take whatever is in [start, end) out of the tree; no area may cross its ends. Raises OSError ENOMEM, nothing
    changed.
    """
    _store(mm, start, end, None)


def vma_resize(mm: MmStruct, vma: VmArea, start: int, end: int) -> None:
    """Let ``vma`` grow to [start, end), the new space being free. Raises OSError ENOMEM, nothing changed."""
    _store(mm, start, end, vma)
    grown = ((end - start) >> 12) - vma.pages
    vma.pgoff -= (vma.start - start) >> 12
    vma.start = start
    vma.end = end
    mm.vm_stat_account(vma.flags, grown)
    if mm.total_vm > mm.hiwater_vm:
        mm.hiwater_vm = mm.total_vm


def split_vma(mm: MmStruct, vma: VmArea, addr: int, *, new_below: bool, count_limit: bool = True) -> VmArea:
    """Cut ``vma`` at ``addr`` (strictly inside). The new object gets the lower part if ``new_below``, else the upper
    one.

    Returns the new object. Raises OSError ENOMEM at the limit of areas (unless ``count_limit`` is off, as munmap's
    own splits are) and without memory; nothing has changed then.
    """
    if count_limit and mm.map_count >= mm.ctx.max_map_count:
        raise no_memory()
    start, end = (vma.start, addr) if new_below else (addr, vma.end)
    new = vm_area_alloc(mm, start, end, vma.flags, vma.linear_page_index(start), vma.file)
    try:
        _store(mm, start, end, new)
    except OSError:
        mm.ctx.vma_cache.free(new.addr)
        raise
    if new_below:
        vma.pgoff = vma.linear_page_index(addr)
        vma.start = addr
    else:
        vma.end = addr
    anon_vma_clone(new, vma)
    if new.file is not None:
        new.file.mapping.mapped(mm.ctx)
    mm.map_count += 1
    return new
