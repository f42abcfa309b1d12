# SPDX-License-Identifier: GPL-2.0-or-later
"""mincore and msync (Linux: mm/mincore.c, mm/msync.c; spec R8): questions and waits about ranges."""

from __future__ import annotations

import errno

from memtwin.abi.mman import MS_ASYNC, MS_INVALIDATE, MS_SYNC
from memtwin.hw.paging import PRESENT, PROT_NONE
from memtwin.hw.ram import PAGE_MASK
from memtwin.mm.mm_types import VM_LOCKED, MmStruct, VmArea
from memtwin.mm.vma import areas_in

__all__ = ["do_mincore", "do_msync"]


def do_mincore(mm: MmStruct, start: int, length: int) -> bytes:
    """One byte a page, 1 where the page is resident. Raises OSError EINVAL (unaligned), ENOMEM (wrap, hole)."""
    if start & ~PAGE_MASK:
        raise OSError(errno.EINVAL, "mincore: unaligned address")
    end = start + length
    if end > mm.task_size:
        raise OSError(errno.ENOMEM, "mincore: beyond the address space")
    end = (end + 4095) & PAGE_MASK
    mm.mmap_lock.down_read()
    try:
        answer = bytearray((end - start) >> 12)
        position = start
        for vma in areas_in(mm, start, end) if end > start else ():
            if vma.start > position:
                break
            position = min(vma.end, end)
            _mark_resident(mm, vma, max(vma.start, start), position, answer, start)
        if position < end:
            raise OSError(errno.ENOMEM, f"mincore: nothing is mapped at {position:#x}")
        return bytes(answer)
    finally:
        mm.mmap_lock.up_read()


def _mark_resident(mm: MmStruct, vma: VmArea, start: int, end: int, answer: bytearray, origin: int) -> None:
    q = mm.ctx.ram.q
    for addr in range(start, end, 4096):
        if addr >> 21 in mm.deposits:
            answer[(addr - origin) >> 12] = 1
            continue
        base = mm.pte_tables.get(addr >> 21)
        if base is not None and q[base + (addr >> 12 & 511)] & (PRESENT | PROT_NONE):
            answer[(addr - origin) >> 12] = 1
        elif vma.vm_ops is not None and vma.file is not None:
            answer[(addr - origin) >> 12] = vma.linear_page_index(addr) in vma.file.mapping.folios


def do_msync(mm: MmStruct, start: int, length: int, flags: int) -> None:
    """msync(2). Files live in memory, so there is nothing to wait for. Raises OSError EINVAL, ENOMEM (hole), EBUSY."""
    if flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or start & ~PAGE_MASK or (flags & MS_ASYNC and flags & MS_SYNC):
        raise OSError(errno.EINVAL, "msync: flags or alignment")
    length = (length + 4095) & PAGE_MASK & (1 << 64) - 1
    end = start + length
    if end >= 1 << 64:
        raise OSError(errno.ENOMEM, "msync: the range wraps")
    if end == start:
        return
    mm.mmap_lock.down_read()
    try:
        position = start
        hole = False
        for vma in areas_in(mm, start, end):
            hole |= vma.start > position
            if flags & MS_INVALIDATE and vma.flags & VM_LOCKED:
                raise OSError(errno.EBUSY, "msync: MS_INVALIDATE on a locked area")
            position = min(vma.end, end)
        if hole or position < end:
            raise OSError(errno.ENOMEM, "msync: part of the range is not mapped")
    finally:
        mm.mmap_lock.up_read()
