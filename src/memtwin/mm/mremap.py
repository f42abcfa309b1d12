# SPDX-License-Identifier: GPL-2.0-or-later
"""mremap: shrink, grow in place, move, duplicate (Linux: mm/mremap.c; spec R8, R15).

6.7 looks the source up before it checks the target, and unmaps the target (and, with ``old_len > new_len``, the
source's tail) before it finds out whether the move is possible; from 6.17 on all arguments are checked first and a
failure leaves everything in place (post-mremap-checks-first, -fail-clean), and a move of unchanged length may cross
areas (-multi-vma).
"""

from __future__ import annotations

import errno
from typing import Final

import numpy as np

from memtwin.abi import mman
from memtwin.abi.userfaultfd import UFFD_FEATURE_EVENT_REMAP
from memtwin.hw.paging import ENTRIES, PMD_SHIFT
from memtwin.hw.ram import PAGE_MASK
from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.mm.gup import populate_vma_range
from memtwin.mm.huge_mm import HPAGE_PMD_NR, HPAGE_PMD_SIZE
from memtwin.mm.huge_range import move_huge_pmd
from memtwin.mm.huge_split import split_huge_pmd, split_huge_pmd_range, vma_adjust_trans_huge
from memtwin.mm.mm_types import (
    VM_ACCOUNT,
    VM_DONTEXPAND,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYSHARE,
    VM_PFNMAP,
    VM_SEALED,
    VM_SHARED,
    VM_UFFD_FLAGS,
    MmStruct,
    VmArea,
)
from memtwin.mm.mmap import unmap_range
from memtwin.mm.page_table import LeafRows
from memtwin.mm.rmap import anon_vma_clone, unlink_anon_vmas
from memtwin.mm.unmapped_area import get_unmapped_area, may_map_at
from memtwin.mm.util import may_expand_vm, mlock_limit_allows, security_vm_enough_memory
from memtwin.mm.vma import areas_in, insert_vma, no_memory, vma_merge, vma_merge_extend

__all__ = ["do_mremap"]

_KNOWN: Final = mman.MREMAP_MAYMOVE | mman.MREMAP_FIXED | mman.MREMAP_DONTUNMAP
_FIXED, _DONTUNMAP, _MAYMOVE = mman.MREMAP_FIXED, mman.MREMAP_DONTUNMAP, mman.MREMAP_MAYMOVE


def _error(number: int, why: str) -> OSError:
    return OSError(number, f"mremap: {why}")


def _check_sealed(vma: VmArea) -> None:
    """Sealed memory stays as and where it is, even if nothing would change. Raises OSError EPERM."""
    if vma.flags & VM_SEALED:
        raise _error(errno.EPERM, "the area is sealed")


def do_mremap(mm: MmStruct, addr: int, old_len: int, new_len: int, flags: int, new_addr: int = 0) -> int:
    """mremap(2); the address. Raises OSError EINVAL, EFAULT, ENOMEM, EAGAIN, EPERM (sealed)."""
    if flags & ~_KNOWN:
        raise _error(errno.EINVAL, "unknown flag")
    if flags & _FIXED and not flags & _MAYMOVE:
        raise _error(errno.EINVAL, "MREMAP_FIXED without MREMAP_MAYMOVE")
    given = old_len, new_len
    old_len = (old_len + 4095) & PAGE_MASK & (1 << 64) - 1
    new_len = (new_len + 4095) & PAGE_MASK & (1 << 64) - 1
    # 6.7 compares the lengths as they were given, later kernels as whole pages.
    same_length = old_len == new_len if mm.ctx.mremap_checks_first else given[0] == given[1]
    if flags & _DONTUNMAP and not (flags & _MAYMOVE and same_length):
        raise _error(errno.EINVAL, "MREMAP_DONTUNMAP without MREMAP_MAYMOVE, or with another length")
    if addr & ~PAGE_MASK:
        raise _error(errno.EINVAL, "unaligned address")
    if not new_len:
        raise _error(errno.EINVAL, "the new length is 0")
    mm.mmap_lock.down_write()
    try:
        call = _Mremap(mm, addr, old_len, new_len, flags, new_addr)
        result = call.run()
    finally:
        mm.mmap_lock.up_write()
    if call.populate is not None:
        populate_vma_range(mm, *call.populate, ignore_errors=True)
    return result


class _Mremap:
    """One call. ``populate``: the range that must be populated afterwards because it is locked."""

    __slots__ = ("addr", "flags", "mm", "new_addr", "new_len", "old_len", "populate")

    def __init__(self, mm: MmStruct, addr: int, old_len: int, new_len: int, flags: int, new_addr: int) -> None:
        self.mm = mm
        self.addr = addr
        self.old_len = old_len
        self.new_len = new_len
        self.flags = flags
        self.new_addr = new_addr
        self.populate: tuple[int, int] | None = None

    def run(self) -> int:
        """The checks and the choice of what to do."""
        mm, ctx = self.mm, self.mm.ctx
        if ctx.mremap_checks_first:
            if self.new_len > mm.task_size:
                raise _error(errno.EINVAL, "the new length exceeds the address space")
            if self.flags & (_FIXED | _DONTUNMAP):
                self._check_target()
        vma: VmArea | None = mm.mm_mt.load(self.addr)
        if vma is None:
            raise _error(errno.EFAULT, "nothing is mapped at the old address")
        several = self.flags & _FIXED and self.old_len == self.new_len and self.addr + self.old_len > vma.end
        if not several or not ctx.mremap_multi_vma:  # of several areas each is looked at when its turn comes
            _check_sealed(vma)
        if self.flags & (_FIXED | _DONTUNMAP):
            return self._mremap_to()
        if self.old_len >= self.new_len:
            if self.old_len > self.new_len:
                self._check_tail()
                unmap_range(mm, self.addr + self.new_len, self.addr + self.old_len)
            return self.addr
        return self._grow(vma)

    def _check_tail(self) -> None:
        """What munmap says about the part that a shrinking call cuts off. Raises OSError EINVAL."""
        if self.addr + self.old_len > self.mm.task_size:
            raise _error(errno.EINVAL, "the old range is beyond the address space")

    # -- growing without a fixed target ----------------------------------------------------------------------------

    def _grow(self, vma: VmArea) -> int:
        mm = self.mm
        delta = self.new_len - self.old_len
        vma = self._vma_to_resize(vma, self.old_len)
        if self.old_len == vma.end - self.addr and self._expandable(vma, delta):
            return self._grow_in_place(vma, delta)
        if not self.flags & _MAYMOVE:
            raise no_memory("mremap: no room to grow and MREMAP_MAYMOVE is not given")
        map_flags = mman.MAP_SHARED if vma.flags & VM_MAYSHARE else mman.MAP_PRIVATE
        pgoff = vma.linear_page_index(self.addr)
        target = get_unmapped_area(mm, 0, self.new_len, pgoff, map_flags, vma.file)
        return self._move(vma, self.old_len, target)

    def _expandable(self, vma: VmArea, delta: int) -> bool:
        """Whether [vma.end, vma.end + delta) is free; the top of the mapping area does not matter (FINDINGS 23)."""
        end = vma.end + delta
        return end <= self.mm.task_size and may_map_at(self.mm, vma.start) and not areas_in(self.mm, vma.end, end)

    def _grow_in_place(self, vma: VmArea, delta: int) -> int:
        mm = self.mm
        pages = delta >> 12
        charged = vma.flags & VM_ACCOUNT
        if charged:
            security_vm_enough_memory(mm, pages)
        old_end = vma.end
        merged = vma_merge_extend(mm, vma, delta)
        if merged is None:
            if charged:
                mm.ctx.committed -= pages
            raise no_memory()
        mm.vm_stat_account(merged.flags, pages)
        if merged.flags & VM_LOCKED:
            mm.locked_vm += pages
            self.populate = old_end, old_end + delta
        return self.addr

    def _vma_to_resize(self, vma: VmArea, old_len: int) -> VmArea:
        """The checks that a growth or a move must pass. Raises OSError."""
        mm = self.mm
        if not old_len and not vma.flags & (VM_SHARED | VM_MAYSHARE):
            raise _error(errno.EINVAL, "old length 0 duplicates shared mappings only")
        if self.flags & _DONTUNMAP and vma.flags & (VM_DONTEXPAND | VM_PFNMAP):
            raise _error(errno.EINVAL, "MREMAP_DONTUNMAP on an area that may not expand")
        if old_len > vma.end - self.addr:
            raise _error(errno.EFAULT, "the old range crosses the end of its area")
        if self.new_len == old_len:
            return vma
        if vma.flags & (VM_DONTEXPAND | VM_PFNMAP):
            raise _error(errno.EFAULT, "the area may not expand")
        pages = (self.new_len - old_len) >> 12
        if vma.flags & VM_LOCKED and not mlock_limit_allows(mm, pages):
            raise _error(errno.EAGAIN, "over RLIMIT_MEMLOCK")
        if not may_expand_vm(mm, vma.flags, pages):
            raise no_memory("mremap: over RLIMIT_AS or RLIMIT_DATA")
        return vma

    # -- moving ----------------------------------------------------------------------------------------------------

    def _check_target(self) -> None:
        """Alignment, range and overlap of the target of MREMAP_FIXED (and DONTUNMAP). Raises OSError."""
        mm, target = self.mm, self.new_addr
        if self.flags & _FIXED or self.flags & _DONTUNMAP:
            if target & ~PAGE_MASK:
                raise _error(errno.EINVAL, "unaligned new address")
            if self.new_len > mm.task_size or target > mm.task_size - self.new_len:
                raise _error(errno.EINVAL, "the new range is beyond the address space")
            old_end = (self.addr + self.old_len) & (1 << 64) - 1  # an absurd length wraps and overlaps nothing
            if old_end > target and target + self.new_len > self.addr:
                raise _error(errno.EINVAL, "old and new range overlap")
        if mm.map_count + 2 >= mm.ctx.sysctl.max_map_count - 3:
            raise no_memory("mremap: too many areas (vm.max_map_count)")

    def _mremap_to(self) -> int:
        """MREMAP_FIXED and MREMAP_DONTUNMAP."""
        mm, ctx = self.mm, self.mm.ctx
        if not ctx.mremap_checks_first:
            self._check_target()
        if self.flags & _FIXED and ctx.mremap_fail_clean:
            pieces = self._check_clean()
            if pieces:
                return self._move_pieces(pieces)
        if self.flags & _FIXED:
            unmap_range(mm, self.new_addr, self.new_addr + self.new_len)
        old_len = self.old_len
        if ctx.mremap_fail_clean and mm.mm_mt.load(self.addr) is None:
            raise _error(errno.EFAULT, "the new mapping replaced the old one")
        if old_len > self.new_len:
            self._check_tail()
            unmap_range(mm, self.addr + self.new_len, self.addr + old_len)
            old_len = self.new_len
        vma: VmArea | None = mm.mm_mt.load(self.addr)
        if vma is None:
            raise _error(errno.EFAULT, "nothing is mapped at the old address")
        vma = self._vma_to_resize(vma, old_len)
        if self.flags & _DONTUNMAP and not may_expand_vm(mm, vma.flags, old_len >> 12):
            raise no_memory("mremap: over RLIMIT_AS or RLIMIT_DATA")
        map_flags = mman.MAP_SHARED if vma.flags & VM_MAYSHARE else mman.MAP_PRIVATE
        if self.flags & _FIXED:
            map_flags |= mman.MAP_FIXED
        pgoff = vma.linear_page_index(self.addr)
        target = get_unmapped_area(mm, self.new_addr, self.new_len, pgoff, map_flags, vma.file)
        return self._move(vma, old_len, target)

    def _check_clean(self) -> list[tuple[VmArea, int, int]]:
        """6.17: everything that can refuse the move is looked at before anything is unmapped.

        The pieces to move one by one where the range is not within one area; none otherwise.
        """
        mm = self.mm
        end = self.addr + min(self.old_len, self.new_len)
        vma: VmArea | None = mm.mm_mt.load(self.addr)
        assert vma is not None
        if not self.old_len and not vma.flags & (VM_SHARED | VM_MAYSHARE):
            raise _error(errno.EINVAL, "old length 0 duplicates shared mappings only")
        if vma.end >= end:
            self._vma_to_resize(vma, end - self.addr)
            return []
        if self.old_len != self.new_len or not mm.ctx.mremap_multi_vma:
            raise _error(errno.EFAULT, "the old range crosses the end of its area")
        return [(v, max(v.start, self.addr), min(v.end, end)) for v in areas_in(mm, self.addr, end)]

    def _move_pieces(self, pieces: list[tuple[VmArea, int, int]]) -> int:
        """Move several areas one by one; holes between them stay holes. What is at the target goes piece by piece."""
        origin, target = self.addr, self.new_addr
        mm = self.mm
        for vma, start, end in pieces:
            if vma.uffd_ctx is not None or (vma.file is not None and vma.vm_ops is None):
                raise _error(errno.EFAULT, "the area can not move together with others")
            _check_sealed(vma)
            self.addr, self.new_len = start, end - start
            there = target + (start - origin)
            unmap_range(mm, there, there + self.new_len)
            if self.flags & _DONTUNMAP and not may_expand_vm(mm, vma.flags, (end - start) >> 12):
                raise no_memory("mremap: over RLIMIT_AS or RLIMIT_DATA")
            piece: VmArea | None = mm.mm_mt.load(start)
            assert piece is not None
            self._move(piece, self.new_len, there)
        return target

    def _move(self, vma: VmArea, old_len: int, target: int) -> int:
        """move_vma: copy the area to ``target``, move its entries, unmap what is left behind."""
        mm, ctx = self.mm, self.mm.ctx
        if mm.map_count >= ctx.sysctl.max_map_count - 3:
            raise no_memory("mremap: too many areas (vm.max_map_count)")
        dont_unmap = bool(self.flags & _DONTUNMAP)
        to_account = 0
        if vma.flags & VM_ACCOUNT:
            to_account = (self.new_len if dont_unmap else self.new_len - old_len) >> 12
            security_vm_enough_memory(mm, to_account)
        flags = vma.flags
        vma.start_write()
        try:
            new = self._copy_vma(vma, target)
        except OSError:
            ctx.committed -= to_account
            raise
        if new.start <= self.addr < new.end:
            vma = new  # the copy merged with its source
        if old_len and mm.pgtables_bytes:
            try:
                move_page_tables(mm, self.addr, target, old_len)
            except OSError:
                # The entries that moved are moved back: their tables are still there.
                move_page_tables(mm, target, self.addr, old_len)
                self._drop_copy(target, flags, to_account)
                raise
        _drop_userfaultfd(new)
        if flags & VM_LOCKED:
            if not dont_unmap or ctx.mremap_dontunmap_locked:
                mm.locked_vm += self.new_len >> 12
            if not flags & VM_LOCKONFAULT:
                self.populate = target + old_len, target + self.new_len
        if dont_unmap:
            self._leave_empty(vma, old_len, new)
        elif old_len:
            try:
                unmap_moved(mm, self.addr, self.addr + old_len)
            except OSError:
                # No memory to split the old area: it stays, empty, beside its copy; the call succeeds and both count.
                if flags & VM_ACCOUNT:
                    ctx.committed += old_len >> 12
        return target

    def _drop_copy(self, target: int, flags: int, to_account: int) -> None:
        """Unmap the copy of a move that failed. Where that takes a split and there is no memory for it either, the copy
        stays, empty, and counts as what it is.
        """
        mm, ctx = self.mm, self.mm.ctx
        if flags & VM_LOCKED:
            mm.locked_vm += self.new_len >> 12
        try:
            unmap_moved(mm, target, target + self.new_len)
            ctx.committed -= to_account
        except OSError:
            if flags & VM_ACCOUNT:
                ctx.committed += (self.new_len >> 12) - to_account

    def _leave_empty(self, vma: VmArea, old_len: int, new: VmArea) -> None:
        """MREMAP_DONTUNMAP: the old area stays, empty and unlocked; wholly moved, it has no anon_vma any more."""
        vma.set_flags(vma.flags & ~(VM_LOCKED | VM_LOCKONFAULT))
        if new is not vma and vma.start == self.addr and vma.end == self.addr + old_len:
            unlink_anon_vmas(self.mm.ctx, vma)

    def _copy_vma(self, vma: VmArea, target: int) -> VmArea:
        """The area at ``target`` that takes over: merged into a neighbour if it can be. Raises OSError ENOMEM.

        An area that never had an anonymous page takes the page offset of its new place, so that it can merge there.
        """
        mm, ctx = self.mm, self.mm.ctx
        pgoff = vma.linear_page_index(self.addr)
        if vma.is_anonymous and vma.anon_vma is None:
            pgoff = target >> 12
        end = target + self.new_len
        prev: VmArea | None = mm.mm_mt.load(target - 1) if target else None
        merged = vma_merge(
            mm,
            prev,
            target,
            end,
            vma.flags,
            vma.anon_vma,
            vma.file,
            pgoff,
            vma.policy,
            vma.uffd_ctx,
            vma.anon_name,
            vma,
        )
        if merged is not None:
            mm.vm_stat_account(merged.flags, self.new_len >> 12)
            return merged
        slab = ctx.vma_cache.alloc(GFP_KERNEL)
        if not slab:
            raise no_memory()
        new = VmArea.duplicate(vma, slab, target, end)
        new.pgoff = pgoff
        if vma.anon_vma_chain:
            new.anon_vma = vma.anon_vma
            if not anon_vma_clone(ctx, new, vma):
                ctx.vma_cache.free(slab)
                raise no_memory()
        insert_vma(mm, new)
        if new.vm_ops is not None:
            new.vm_ops.open(new)
        return new


def _drop_userfaultfd(vma: VmArea) -> None:
    """A moved area leaves its userfaultfd unless that asked to be told of moves."""
    if vma.uffd_ctx is not None and not (vma.uffd_ctx.features or 0) & UFFD_FEATURE_EVENT_REMAP:
        vma.uffd_ctx = None
        vma.set_flags(vma.flags & ~VM_UFFD_FLAGS)


def unmap_moved(mm: MmStruct, start: int, end: int) -> None:
    """Unmap the source of a move: its charge has gone with the copy. Raises OSError ENOMEM."""
    committed = sum(
        (min(v.end, end) - max(v.start, start)) >> 12 for v in areas_in(mm, start, end) if v.flags & VM_ACCOUNT
    )
    unmap_range(mm, start, end)
    mm.ctx.committed += committed


def move_page_tables(mm: MmStruct, old: int, new: int, length: int) -> None:
    """Move the entries of [old, old + length) to ``new``. Raises OSError ENOMEM; what moved stays moved."""
    if (new - old) & (HPAGE_PMD_SIZE - 1):
        split_huge_pmd_range(mm, old, old + length)
    else:
        vma_adjust_trans_huge(mm, old, old + length)
    mover = _MoveEntries(mm, new - old)
    mm.ctx.pt.walk_range(mm, old, old + length, mover)
    if mover.moved:
        mm.ctx.work.ptes += mover.moved
        mm.tlb.flush(mover.moved)


class _MoveEntries:
    """Takes entries out and puts them ``delta`` bytes further (a :class:`~memtwin.mm.page_table.RangeOp`)."""

    __slots__ = ("_delta", "_mm", "moved")

    def __init__(self, mm: MmStruct, delta: int) -> None:
        self._mm = mm
        self._delta = delta
        self.moved = 0

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        mm = self._mm
        q, private = mm.ctx.ram.q, mm.ctx.pages.private
        base = 0
        for i in range(count):
            target = addr + (i << 12) + self._delta
            at = target >> 12 & ENTRIES - 1
            if not base or not at:
                base = self._table(target)
            entry = q[index + i]
            if entry:
                q[index + i] = 0
                private[index >> 9] -= 1
                q[base + at] = entry
                private[base >> 9] += 1
                self.moved += 1

    def _table(self, target: int) -> int:
        """The table for ``target``, there even if nothing comes to be in it. Raises OSError ENOMEM."""
        base = self._mm.ctx.pt.pte_alloc(self._mm, target)
        if not base:
            raise no_memory("mremap: no memory for page tables")
        return base

    def rows(self, batch: LeafRows) -> None:
        """Whole tables: each goes as it is where the target is aligned and free, else it lands in at most two."""
        mm = self._mm
        frames, private = mm.ctx.ram.frames, mm.ctx.pages.private
        whole = batch.lo == 0 and batch.hi == ENTRIES and not self._delta & (HPAGE_PMD_SIZE - 1)
        for table, addr in zip(batch.table.tolist(), batch.addr.tolist(), strict=True):
            if whole and self._move_table(table, addr, addr + self._delta):
                continue
            column = batch.lo
            while column < batch.hi:
                target = addr + (column << 12) + self._delta
                at = target >> 12 & ENTRIES - 1
                width = min(batch.hi - column, ENTRIES - at)
                base = self._table(target)
                row = frames[table, column : column + width]
                used = int(np.count_nonzero(row))
                if used:
                    frames[base >> 9, at : at + width] = row
                    row[:] = 0
                    private[table] -= used
                    private[base >> 9] += used
                    self.moved += used
                column += width

    def _move_table(self, table: int, addr: int, target: int) -> bool:
        """Let ``target`` have the whole ``table``; False where another table or a huge leaf is in the way (Linux:
        move_normal_pmd). Raises OSError ENOMEM.
        """
        mm, pt = self._mm, self._mm.ctx.pt
        at = pt.pmd_alloc(mm, target)
        if not at:
            raise no_memory("mremap: no memory for page tables")
        if mm.ctx.ram.q[at]:
            return False
        pt.remove_table(mm, addr, pt.pmd_alloc(mm, addr))
        pt.install_table(mm, target, at, table)
        self.moved += mm.ctx.pages.private[table]
        return True

    def huge(self, index: int, order: int, addr: int) -> None:
        """A huge leaf, wholly in the range and aligned at its target."""
        mm = self._mm
        if move_huge_pmd(mm, index, addr, addr + self._delta):
            self.moved += HPAGE_PMD_NR
            return
        split_huge_pmd(mm, addr, index)
        table = np.array([mm.pte_tables[addr >> PMD_SHIFT] >> 9])
        self.rows(LeafRows(mm.ctx.ram, np.array([addr]), table))
