# SPDX-License-Identifier: GPL-2.0-or-later
"""mseal (Linux: mm/mseal.c, since 6.10; knob post-mseal): memory whose mapping can not be changed any more."""

from __future__ import annotations

import errno

from memtwin.hw.ram import PAGE_MASK
from memtwin.mm.mm_types import VM_SEALED, MmStruct, VmArea
from memtwin.mm.vma import areas_in

__all__ = ["do_mseal"]


def do_mseal(mm: MmStruct, start: int, length: int, flags: int = 0) -> None:
    """Seal [start, start + length). Raises OSError ENOSYS (not in this kernel), EINVAL, ENOMEM (a hole: nothing
    sealed).
    """
    if not mm.ctx.mseal:
        raise OSError(errno.ENOSYS, "mseal: this kernel does not have it")
    if flags or start & ~PAGE_MASK:
        raise OSError(errno.EINVAL, "mseal: flags, or unaligned address")
    rounded = (length + 4095) & PAGE_MASK & (1 << 64) - 1
    end = start + rounded
    if (length and not rounded) or end >= 1 << 64:
        raise OSError(errno.EINVAL, "mseal: the range wraps")
    if end == start:
        return
    mm.mmap_lock.down_write()
    try:
        position = start
        for vma in areas_in(mm, start, end):
            if vma.start > position:
                break
            position = min(vma.end, end)
        if position < end:
            raise OSError(errno.ENOMEM, f"mseal: nothing is mapped at {position:#x}")
        _seal(mm, start, end)
    finally:
        mm.mmap_lock.up_write()


def _seal(mm: MmStruct, start: int, end: int) -> None:
    first: VmArea | None = mm.mm_mt.load(start)
    assert first is not None
    prev = first if start > first.start else (mm.mm_mt.load(start - 1) if start else None)
    position = start
    while position < end:
        vma: VmArea | None = mm.mm_mt.load(position)
        assert vma is not None
        stop = min(vma.end, end)
        if not vma.flags & VM_SEALED:
            flags = vma.flags | VM_SEALED
            vma = mm.ctx.modify.mprotect(mm, prev, vma, position, stop, flags)
            vma.set_flags(flags)
        prev = vma
        position = stop
