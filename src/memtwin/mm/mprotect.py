# SPDX-License-Identifier: GPL-2.0-or-later
"""mprotect (Linux: mm/mprotect.c; spec R8 and ``mprotect-unaccount-unfaulted``).

Areas are processed left to right and the first error stops: earlier ones stay changed, as in Linux.
"""

from __future__ import annotations

import errno
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from memtwin.abi.mman import PROT_EXEC, PROT_GROWSDOWN, PROT_GROWSUP, PROT_READ, PROT_SEM, PROT_WRITE
from memtwin.hw.paging import NX, PFN_MASK, PKEY_MASK, PRESENT, PROT_NONE, RW, SPECIAL, USER
from memtwin.hw.ram import PAGE_MASK
from memtwin.mm.gup import populate_vma_page_range
from memtwin.mm.huge_mm import HPAGE_PMD_NR, HPAGE_PMD_ORDER
from memtwin.mm.huge_range import change_huge_pmd, change_huge_pmds
from memtwin.mm.huge_split import vma_adjust_trans_huge
from memtwin.mm.mm_types import (
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_NORESERVE,
    VM_PKEY_EXECUTE_ONLY,
    VM_SEALED,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    VmArea,
)
from memtwin.mm.page import PG_ANON_EXCLUSIVE
from memtwin.mm.page_table import LeafRows
from memtwin.mm.util import may_expand_vm, security_vm_enough_memory
from memtwin.mm.vma import find_vma

__all__ = ["change_protection", "do_mprotect"]

#: Bits that the area's protection decides; the rest of an entry (frame, dirty, software bits) stays.
_PROT_BITS = PRESENT | PROT_NONE | RW | USER | NX | PKEY_MASK
_NEVER_ACCOUNTED = VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE
_PROTECTIONS = PROT_READ | PROT_WRITE | PROT_EXEC | PROT_SEM
_GROWS = PROT_GROWSDOWN | PROT_GROWSUP


def do_mprotect(mm: MmStruct, start: int, length: int, prot: int) -> None:
    """Change the protection of [start, start + length). Raises OSError EINVAL, ENOMEM, EACCES, EPERM (sealed)."""
    grows = prot & _GROWS
    prot &= ~_GROWS
    if grows == _GROWS:
        raise OSError(errno.EINVAL, "mprotect: both PROT_GROWSDOWN and PROT_GROWSUP")
    if start & ~PAGE_MASK:
        raise OSError(errno.EINVAL, "mprotect: unaligned address")
    if not length:
        return
    end = start + ((length + 4095) & PAGE_MASK)
    if end >= 1 << 64 or end <= start:
        raise OSError(errno.ENOMEM, "mprotect: the range wraps")
    if prot & ~_PROTECTIONS:
        raise OSError(errno.EINVAL, "mprotect: unknown protection")
    mm.mmap_lock.down_write()
    try:
        _protect_range(mm, start, end, prot, grows)
    finally:
        mm.mmap_lock.up_write()


def _protect_range(mm: MmStruct, start: int, end: int, prot: int, grows: int) -> None:
    access = prot & VM_ACCESS_FLAGS
    # With protection keys, exactly PROT_EXEC makes memory execute-only, and anything else undoes it.
    key = VM_PKEY_EXECUTE_ONLY if mm.ctx.pku and prot == PROT_EXEC else 0
    vma = find_vma(mm, start)
    if vma is None or vma.start >= end:
        raise OSError(errno.ENOMEM, "mprotect: nothing is mapped there")
    if grows & PROT_GROWSDOWN:
        start = vma.start
        if not vma.flags & VM_GROWSDOWN:
            raise OSError(errno.EINVAL, "mprotect: PROT_GROWSDOWN on an area that does not grow down")
    else:
        if vma.start > start:
            raise OSError(errno.ENOMEM, f"mprotect: nothing is mapped at {start:#x}")
        if grows & PROT_GROWSUP:
            raise OSError(errno.EINVAL, "mprotect: nothing grows up on x86")
    prev: VmArea | None = vma if start > vma.start else (mm.mm_mt.load(start - 1) if start else None)
    while True:
        stop = min(vma.end, end)
        if access & ~(vma.flags >> 4):
            raise OSError(errno.EACCES, "mprotect: more than the mapping may ever permit")
        if mm.ctx.mseal and vma.flags & VM_SEALED:
            raise OSError(errno.EPERM, "mprotect: the area is sealed")
        flags = vma.flags & ~(VM_ACCESS_FLAGS | VM_PKEY_EXECUTE_ONLY) | access | key
        prev = _fixup(mm, prev, vma, start, stop, flags)
        if stop == end:
            return
        start = stop
        vma = mm.mm_mt.load(start)
        if vma is None:
            raise OSError(errno.ENOMEM, f"mprotect: nothing is mapped at {start:#x}")


def _fixup(
    mm: MmStruct,
    prev: VmArea | None,
    vma: VmArea,
    start: int,
    end: int,
    flags: int,
) -> VmArea:
    """Give [start, end) of ``vma`` the new flags; the area it is in afterwards. Raises OSError ENOMEM.

    Evaluated on the area before any merge or split: memory is charged when a private area becomes writable, and given
    back (``mprotect-unaccount-unfaulted``) when an anonymous one that never had a page becomes unwritable.
    """
    old = vma.flags
    if flags == old:
        return vma
    ctx = mm.ctx
    pages = (end - start) >> 12
    charged = 0
    if flags & VM_WRITE:
        if not may_expand_vm(mm, flags, pages) and may_expand_vm(mm, old, pages):
            raise OSError(errno.ENOMEM, "mprotect: over RLIMIT_DATA")
        if not old & _NEVER_ACCOUNTED:
            security_vm_enough_memory(mm, pages)
            charged = pages
            flags |= VM_ACCOUNT
    elif ctx.mprotect_unaccount and old & VM_ACCOUNT and vma.vm_ops is None and vma.anon_vma is None:
        flags &= ~VM_ACCOUNT
    try:
        vma = ctx.modify.mprotect(mm, prev, vma, start, end, flags)
    except OSError:
        ctx.committed -= charged
        raise
    vma.set_flags(flags)
    if mm.pgtables_bytes:
        change_protection(mm, vma, start, end)
    if old & VM_ACCOUNT and not flags & VM_ACCOUNT:
        ctx.committed -= pages
    if old & (VM_WRITE | VM_SHARED | VM_LOCKED) == VM_LOCKED and flags & VM_WRITE:
        # At once: the next area of the range may merge or not by what this one holds.
        with suppress(OSError):
            populate_vma_page_range(mm, vma, start, end)
    mm.vm_stat_account(old, -pages)
    mm.vm_stat_account(flags, pages)
    return vma


def change_protection(mm: MmStruct, vma: VmArea, start: int, end: int) -> None:
    """Rewrite the entries of [start, end) for the protection of ``vma`` and flush."""
    vma_adjust_trans_huge(mm, start, end)
    change = _ChangeProtection(mm, vma)
    mm.ctx.pt.walk_range(mm, start, end, change, change.huge_leaves)
    if change.changed:
        mm.ctx.work.ptes += change.changed
        mm.tlb.flush(change.changed)


class _ChangeProtection:
    """Rewrites the entries of an area for its new protection (a :class:`~memtwin.mm.page_table.RangeOp`).

    An exclusive anonymous page, dirty or not, is made writable at once; anything else waits for its write fault, also
    a page that a child shared for a while.
    """

    __slots__ = ("_ctx", "_executable", "_mm", "_prot", "_upgrade", "changed")

    def __init__(self, mm: MmStruct, vma: VmArea) -> None:
        self._mm = mm
        self._ctx = mm.ctx
        self._prot = vma.page_prot & _PROT_BITS
        self._upgrade = vma.flags & (VM_WRITE | VM_SHARED) == VM_WRITE
        self._executable = vma.page_prot & (PRESENT | NX) == PRESENT
        self.changed = 0

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        q, pages = self._ctx.ram.q, self._ctx.pages
        for i in range(index, index + count):
            entry = q[i]
            if not entry & (PRESENT | PROT_NONE):
                continue
            new = entry & ~_PROT_BITS | self._prot
            pfn = (entry & PFN_MASK) >> 12
            if self._upgrade and not entry & SPECIAL and pages.flags[pfn] & PG_ANON_EXCLUSIVE:
                new |= RW
            if new != entry:
                q[i] = new
                self.changed += 1
            if self._executable:
                self._becomes_code(pfn)

    def _becomes_code(self, pfn: int) -> None:
        """The page may have been written since a CPU last translated it."""
        self._ctx.tlb.note_frame_changed(pfn)
        self._ctx.tlb.note_executable(pfn)

    def rows(self, batch: LeafRows) -> None:
        """Whole tables."""
        entries = batch.gather()
        vec = self._ctx.pages.vec
        mapped = (entries & np.uint64(PRESENT | PROT_NONE)) != 0
        new = np.where(mapped, entries & np.uint64(~_PROT_BITS & (1 << 64) - 1) | np.uint64(self._prot), entries)
        pfns = ((entries & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        if self._upgrade:
            own = mapped & ((entries & np.uint64(SPECIAL)) == 0)
            own[own] = (vec.flags[pfns[own]] & np.uint32(PG_ANON_EXCLUSIVE)) != 0
            new[own] |= np.uint64(RW)
        self.changed += int(np.count_nonzero(new != entries))
        batch.scatter(new)
        if self._executable:
            for pfn in pfns[mapped].tolist():
                self._becomes_code(pfn)

    def huge(self, index: int, order: int, addr: int) -> None:
        """A huge leaf, wholly in the range."""
        if change_huge_pmd(self._mm, index, self._prot, _PROT_BITS, self._upgrade):
            self.changed += HPAGE_PMD_NR

    def huge_leaves(self, indices: npt.NDArray[np.int64], addrs: npt.NDArray[np.int64]) -> None:
        """Several huge leaves (HugeLeaves)."""
        if self._executable:
            for index, addr in zip(indices.tolist(), addrs.tolist(), strict=True):
                self.huge(index, HPAGE_PMD_ORDER, addr)
            return
        changed = change_huge_pmds(self._mm, indices, self._prot, _PROT_BITS, self._upgrade)
        self.changed += changed * HPAGE_PMD_NR
