# SPDX-License-Identifier: GPL-2.0-or-later
"""mprotect (Linux: mm/mprotect.c; spec R8). Splits areas and changes entries; merging comes with the VMA issue.

Areas are processed left to right and the first error stops: earlier ones stay changed, as in Linux.
"""

from __future__ import annotations

import errno

import numpy as np

from memtwin.errors import InvariantBroken
from memtwin.hw.paging import DIRTY, NX, PFN_MASK, PRESENT, PROT_NONE, RW, SPECIAL
from memtwin.hw.ram import PAGE_MASK
from memtwin.mm.mm_types import (
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_HUGETLB,
    VM_NORESERVE,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    VmArea,
    vm_get_page_prot,
)
from memtwin.mm.mmap import charged
from memtwin.mm.page import PG_ANON
from memtwin.mm.page_table import LeafRows
from memtwin.mm.vma import areas_in, split_vma

__all__ = ["do_mprotect"]

#: Bits that the area's protection decides; the rest of an entry (frame, dirty, software bits) stays.
_PROT_BITS = PRESENT | PROT_NONE | RW | NX
_NEVER_ACCOUNTED = VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE


def do_mprotect(mm: MmStruct, start: int, length: int, prot: int) -> None:
    """Change the protection of [start, start + length). Raises OSError EINVAL, ENOMEM, EACCES."""
    if start & ~PAGE_MASK or prot & ~7:
        raise OSError(errno.EINVAL, "mprotect: unaligned address or unknown protection")
    if not length:
        return
    end = start + ((length + 4095) & PAGE_MASK)
    if end > 1 << 64 or end <= start:
        raise OSError(errno.ENOMEM, "mprotect: the range wraps")
    mm.mmap_lock.down_write()
    try:
        position = start
        for vma in areas_in(mm, start, end):
            if vma.start > position:
                break
            stop = min(vma.end, end)
            if (prot & VM_ACCESS_FLAGS) & ~(vma.flags >> 4):
                raise OSError(errno.EACCES, "mprotect: more than the mapping may ever permit")
            _fixup(mm, vma, max(vma.start, start), stop, (vma.flags & ~VM_ACCESS_FLAGS) | prot)
            position = stop
        if position < end:
            raise OSError(errno.ENOMEM, f"mprotect: nothing is mapped at {position:#x}")
    finally:
        mm.mmap_lock.up_write()


def _fixup(mm: MmStruct, vma: VmArea, start: int, end: int, flags: int) -> None:
    """Give [start, end) of ``vma`` the new flags. Raises OSError ENOMEM."""
    if flags == vma.flags:
        return
    pages = (end - start) >> 12

    def split() -> None:
        if vma.start < start:
            split_vma(mm, vma, start, new_below=True)
        if vma.end > end:
            split_vma(mm, vma, end, new_below=False)

    if flags & VM_WRITE and not vma.flags & _NEVER_ACCOUNTED:
        flags |= VM_ACCOUNT
        charged(mm, pages, split)
    else:
        split()
    mm.vm_stat_account(vma.flags, -pages)
    vma.flags = flags
    vma.page_prot = vm_get_page_prot(flags)
    mm.vm_stat_account(flags, pages)
    change = _ChangeProtection(mm, vma)
    mm.ctx.pt.walk_range(mm, start, end, change)
    if change.changed:
        mm.ctx.work.ptes += change.changed
        mm.tlb.flush(change.changed)


class _ChangeProtection:
    """Rewrites the entries of an area for its new protection (a :class:`~memtwin.mm.page_table.RangeOp`).

    A dirty anonymous page that only this area owns is made writable at once; anything else waits for its write fault.
    """

    __slots__ = ("_ctx", "_prot", "_upgrade", "changed")

    def __init__(self, mm: MmStruct, vma: VmArea) -> None:
        self._ctx = mm.ctx
        self._prot = vma.page_prot & _PROT_BITS
        self._upgrade = vma.flags & (VM_WRITE | VM_SHARED) == VM_WRITE
        self.changed = 0

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        ctx = self._ctx
        q = ctx.ram.q
        for i in range(index, index + count):
            entry = q[i]
            if not entry & (PRESENT | PROT_NONE):
                continue
            new = entry & ~_PROT_BITS | self._prot
            pfn = (entry & PFN_MASK) >> 12
            if self._upgrade and entry & (DIRTY | SPECIAL) == DIRTY and self._exclusive(pfn):
                new |= RW
            if new != entry:
                q[i] = new
                self.changed += 1
            if new & (PRESENT | NX) == PRESENT:
                ctx.tlb.note_executable(pfn)

    def _exclusive(self, pfn: int) -> bool:
        pages = self._ctx.pages
        return bool(pages.flags[pfn] & PG_ANON) and pages.refcount[pfn] == 1

    def rows(self, batch: LeafRows) -> None:
        """Whole tables."""
        entries = batch.gather()
        vec = self._ctx.pages.vec
        mapped = (entries & np.uint64(PRESENT | PROT_NONE)) != 0
        new = np.where(mapped, entries & np.uint64(~_PROT_BITS & (1 << 64) - 1) | np.uint64(self._prot), entries)
        pfns = ((entries & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        if self._upgrade:
            dirty = mapped & ((entries & np.uint64(DIRTY | SPECIAL)) == np.uint64(DIRTY))
            owned = pfns[dirty]
            writable = ((vec.flags[owned] & np.uint32(PG_ANON)) != 0) & (vec.refcount[owned] == 1)
            new[dirty] |= np.where(writable, np.uint64(RW), np.uint64(0))
        self.changed += int(np.count_nonzero(new != entries))
        batch.scatter(new)
        if self._prot & (PRESENT | NX) == PRESENT:
            for pfn in pfns[mapped].tolist():
                self._ctx.tlb.note_executable(pfn)

    def huge(self, index: int, order: int, addr: int) -> None:
        """No area maps huge leaves yet."""
        raise InvariantBroken(f"a huge leaf of order {order} at {addr:#x}")
