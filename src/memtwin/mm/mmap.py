# SPDX-License-Identifier: GPL-2.0-or-later
"""mmap, munmap, brk, and the beginning and end of an address space (Linux: mm/mmap.c; spec R3, R8, R9).

Each entry point takes ``mmap_lock`` for writing; functions with a leading underscore and those that say so want it
held. Where memory goes is ``mm/unmapped_area.py``'s business. The order of checks is what user space can observe
through errnos.
"""

from __future__ import annotations

import errno
from typing import Final

from memtwin.abi import mman
from memtwin.abi.fcntl import F_SEAL_FUTURE_WRITE, F_SEAL_WRITE
from memtwin.abi.resource import RLIM_INFINITY, RLIMIT_DATA, RLIMIT_STACK
from memtwin.hw.ram import PAGE_MASK
from memtwin.lib.maple_tree import MaState
from memtwin.mm.filemap import AddressSpace
from memtwin.mm.gup import populate_vma_range
from memtwin.mm.ksm import ksm_vma_flags
from memtwin.mm.mm_types import (
    VM_ACCOUNT,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_PKEY_EXECUTE_ONLY,
    VM_READ,
    VM_SEALED,
    VM_SHARED,
    VM_SPECIAL,
    VM_WRITE,
    MappedFile,
    MmStruct,
    VmArea,
)
from memtwin.mm.rmap import anon_vma_prepare
from memtwin.mm.shmem import SHMEM_VM_OPS
from memtwin.mm.unmapped_area import get_unmapped_area, round_hint_to_min, start_gap
from memtwin.mm.util import can_do_mlock, charged, may_expand_vm, mlock_limit_allows, security_vm_enough_memory
from memtwin.mm.vm_ops import VmOperations
from memtwin.mm.vma import (
    areas_in,
    find_vma,
    insert_vma,
    no_memory,
    remove_vma,
    split_vma,
    vm_area_alloc,
    vma_merge_new_range,
    vma_resize,
)
from memtwin.mm.zap import has_recency, zap_page_range

__all__ = ["do_brk", "do_mmap", "do_munmap", "exit_mmap", "expand_stack", "setup_arg_pages"]


_ANON_PROT: Final = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
_RW_ACCOUNTED: Final = VM_READ | VM_WRITE | _ANON_PROT | VM_ACCOUNT
_AT_ADDRESS: Final = mman.MAP_FIXED | mman.MAP_FIXED_NOREPLACE
#: Flags of the call that become flags of the area.
_MARKS_AREA: Final = mman.MAP_GROWSDOWN | mman.MAP_LOCKED | mman.MAP_STACK
_POPULATES: Final = mman.MAP_POPULATE | mman.MAP_NONBLOCK
#: Locked memory never includes areas with these flags.
_NEVER_LOCKED: Final = VM_SPECIAL | VM_HUGETLB


def _error(number: int, why: str) -> OSError:
    return OSError(number, why)


class _SharedAnonymous:
    """The object behind a MAP_SHARED | MAP_ANONYMOUS mapping."""

    __slots__ = ("dev", "ino", "mapping", "path", "readable", "seals", "vm_ops", "writable")

    def __init__(self, pages: int, ino: int) -> None:
        self.mapping = AddressSpace(lambda index: b"", lambda: pages << 12, shmem=True)
        self.path = "/dev/zero (deleted)"
        self.dev = (0, 1)
        self.ino = ino
        self.readable = self.writable = True
        self.vm_ops: VmOperations | None = SHMEM_VM_OPS
        self.seals = 0


# -- mmap -----------------------------------------------------------------------------------------------------------


def do_mmap(
    mm: MmStruct, addr: int, length: int, prot: int, flags: int, file: MappedFile | None = None, pgoff: int = 0
) -> int:
    """Map ``length`` bytes; ``pgoff`` in pages. Returns the address. Raises OSError with Linux's errno (spec R8)."""
    if flags & mman.MAP_HUGETLB:
        raise _no_huge_pages(flags, file)
    if not length:
        raise _error(errno.EINVAL, "mmap: length is 0")
    length = (length + 4095) & PAGE_MASK
    if not length or length > 1 << 64:
        raise _error(errno.ENOMEM, "mmap: the length overflows")
    mm.mmap_lock.down_write()
    try:
        addr, locked = _do_mmap(mm, addr, length, prot, flags, file, pgoff)
    finally:
        mm.mmap_lock.up_write()
    if locked or flags & _POPULATES == mman.MAP_POPULATE:
        populate_vma_range(mm, addr, addr + length, ignore_errors=True)
    return addr


def _no_huge_pages(flags: int, file: MappedFile | None) -> OSError:
    """MAP_HUGETLB on a machine whose pools are empty: the errno says which check fails first (spec R8)."""
    if file is not None:
        return _error(errno.EINVAL, "mmap: MAP_HUGETLB on a file that is not on hugetlbfs")
    shift = flags >> mman.MAP_HUGE_SHIFT & mman.MAP_HUGE_MASK
    if shift not in (0, 21, 30):
        return _error(errno.EINVAL, "mmap: no huge pages of this size")
    return _error(errno.ENOMEM, "mmap: the pool of huge pages is empty")


def _do_mmap(
    mm: MmStruct, addr: int, length: int, prot: int, flags: int, file: MappedFile | None, pgoff: int
) -> tuple[int, bool]:
    """The body of mmap under ``mmap_lock``: the address, and whether the pages must be populated because they are
    locked.
    """
    ctx = mm.ctx
    if length > mm.task_size:
        raise _error(errno.ENOMEM, "mmap: longer than the address space")
    if mm.map_count > ctx.sysctl.max_map_count:
        raise _error(errno.ENOMEM, "mmap: too many areas (vm.max_map_count)")
    if addr and not flags & _AT_ADDRESS:
        addr = round_hint_to_min(mm, addr)
    addr = get_unmapped_area(mm, addr, length, pgoff, flags, file, prot)
    if flags & mman.MAP_FIXED_NOREPLACE and areas_in(mm, addr, addr + length):
        raise _error(errno.EEXIST, "mmap: the range is in use")
    vm_flags = (prot & 7) | _ANON_PROT | mm.def_flags
    if prot == mman.PROT_EXEC and ctx.pku:
        vm_flags |= VM_PKEY_EXECUTE_ONLY
    if flags & _MARKS_AREA:
        if flags & mman.MAP_GROWSDOWN:
            vm_flags |= VM_GROWSDOWN
        if flags & mman.MAP_STACK and ctx.map_stack_nohugepage:
            vm_flags |= VM_NOHUGEPAGE
        if flags & mman.MAP_LOCKED:
            vm_flags |= VM_LOCKED
            if not can_do_mlock(mm):
                raise _error(errno.EPERM, "mmap: MAP_LOCKED with RLIMIT_MEMLOCK 0")
    if vm_flags & VM_LOCKED and not mlock_limit_allows(mm, length >> 12):
        raise _error(errno.EAGAIN, "mmap: over RLIMIT_MEMLOCK")
    if file is not None and file.vm_ops is None and flags & mman.MAP_TYPE != mman.MAP_PRIVATE and file.writable:
        # A shared mapping of /dev/zero is shared anonymous memory that keeps its offset.
        _file_flags(prot, flags, vm_flags, file, length, pgoff)
        file = None
        flags = flags & ~mman.MAP_TYPE | mman.MAP_SHARED
    if file is None:
        if flags & mman.MAP_TYPE == mman.MAP_PRIVATE:
            pgoff = addr >> 12
        else:
            vm_flags, file, pgoff = _anonymous(mm, length, flags, vm_flags, pgoff)
    else:
        vm_flags = _file_flags(prot, flags, vm_flags, file, length, pgoff)
    if flags & mman.MAP_NORESERVE and ctx.sysctl.overcommit_memory != 2:
        vm_flags |= VM_NORESERVE
    if mm.merge_any:
        vm_flags = ksm_vma_flags(mm, vm_flags)
    vma = _mmap_region(mm, addr, length, vm_flags, pgoff, file)
    return addr, bool(vma.flags & VM_LOCKED)


def _anonymous(mm: MmStruct, length: int, flags: int, vm_flags: int, pgoff: int) -> tuple[int, MappedFile | None, int]:
    """Flags, object and page offset of an anonymous mapping that is not private."""
    if flags & mman.MAP_TYPE != mman.MAP_SHARED:
        raise _error(errno.EINVAL, "mmap: neither MAP_SHARED nor MAP_PRIVATE")
    if vm_flags & VM_GROWSDOWN:
        raise _error(errno.EINVAL, "mmap: shared memory does not grow down")
    mm.ctx.mapping_ids += 1
    return vm_flags | VM_SHARED | VM_MAYSHARE, _SharedAnonymous(length >> 12, mm.ctx.mapping_ids), pgoff


def _file_flags(prot: int, flags: int, vm_flags: int, file: MappedFile, length: int, pgoff: int) -> int:
    """Flags of a mapping of ``file``; the checks in Linux's order."""
    largest = (1 << 63) - 1 if file.vm_ops is not None else (1 << 64) - 1
    if length > largest or pgoff > (largest - length) >> 12:
        raise _error(errno.EOVERFLOW, "mmap: offset and length exceed the largest file")
    kind = flags & mman.MAP_TYPE
    if kind == mman.MAP_SHARED_VALIDATE and flags & ~mman.LEGACY_MAP_MASK:
        raise _error(errno.EOPNOTSUPP, "mmap: the file does not support these flags")
    if kind in (mman.MAP_SHARED, mman.MAP_SHARED_VALIDATE):
        if prot & mman.PROT_WRITE and not file.writable:
            raise _error(errno.EACCES, "mmap: the file is not open for writing")
        vm_flags |= VM_SHARED | VM_MAYSHARE
        if not file.writable:
            vm_flags &= ~(VM_MAYWRITE | VM_SHARED)
    elif kind != mman.MAP_PRIVATE:
        raise _error(errno.EINVAL, "mmap: neither MAP_SHARED nor MAP_PRIVATE")
    if not file.readable:
        raise _error(errno.EACCES, "mmap: the file is not open for reading")
    _ = file.mapping  # ENODEV
    if vm_flags & VM_GROWSDOWN:
        raise _error(errno.EINVAL, "mmap: a file mapping does not grow down")
    return vm_flags


def _accountable(vm_flags: int) -> bool:
    """A private writable mapping is promised memory, unless it asked not to be."""
    return vm_flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE


def count_vma_pages_range(mm: MmStruct, start: int, end: int) -> int:
    """Pages mapped in [start, end)."""
    return sum(min(vma.end, end) - max(vma.start, start) for vma in areas_in(mm, start, end)) >> 12


#: The areas that touch a free range from below and from above.
_Neighbours = tuple[VmArea | None, VmArea | None]


def _clear(mm: MmStruct, start: int, end: int) -> _Neighbours:
    """Remove everything in [start, end); its neighbours then. Raises OSError ENOMEM, EPERM."""
    unmap_range(mm, start, end)
    beside: _Neighbours | None = mm.mm_mt.beside(start, end - 1)
    assert beside is not None
    return beside


def _mmap_region(mm: MmStruct, addr: int, length: int, vm_flags: int, pgoff: int, file: MappedFile | None) -> VmArea:
    """Put the mapping in place: limits, what it replaces, accounting, merge or new area (spec R3)."""
    ctx = mm.ctx
    end = addr + length
    pages = length >> 12
    beside: _Neighbours | None = mm.mm_mt.beside(addr, end - 1)
    replaced = count_vma_pages_range(mm, addr, end) if beside is None else 0
    if not may_expand_vm(mm, vm_flags, pages - replaced):
        if ctx.mmap_fixed_fail_splits:
            _gather(mm, addr, end)
        raise _error(errno.ENOMEM, "mmap: over RLIMIT_AS or RLIMIT_DATA")
    if beside is None and not ctx.mmap_fixed_fail_keeps:
        beside = _clear(mm, addr, end)
    if _accountable(vm_flags):
        if beside is None:
            _gather(mm, addr, end)
        security_vm_enough_memory(mm, pages)
        vm_flags |= VM_ACCOUNT
    try:
        if file is not None:
            vm_flags = _seal_flags(vm_flags, file)
        if beside is None:
            beside = _clear(mm, addr, end)
        if isinstance(file, _SharedAnonymous):
            return _place_shared(mm, beside, addr, end, vm_flags, pgoff, file)
        return _place(mm, beside, addr, end, vm_flags, pgoff, file)
    except OSError:
        if vm_flags & VM_ACCOUNT:
            ctx.committed -= pages
        raise


def _place_shared(
    mm: MmStruct, beside: _Neighbours, addr: int, end: int, vm_flags: int, pgoff: int, file: _SharedAnonymous
) -> VmArea:
    """The object is promised as a whole, whatever its areas may do, and for as long as one maps a part of it."""
    if vm_flags & VM_NORESERVE:
        return _place(mm, beside, addr, end, vm_flags, pgoff, file)
    pages = (end - addr) >> 12
    vma = charged(mm, pages, lambda: _place(mm, beside, addr, end, vm_flags, pgoff, file))
    file.mapping.committed = pages
    return vma


def _place(
    mm: MmStruct, beside: _Neighbours, addr: int, end: int, vm_flags: int, pgoff: int, file: MappedFile | None
) -> VmArea:
    prev, nxt = beside
    vma = vma_merge_new_range(mm, prev, nxt, addr, end, vm_flags, file, pgoff)
    if vma is None:
        vma = vm_area_alloc(mm, addr, end, vm_flags, pgoff, file)
        insert_vma(mm, vma)
    if vm_flags & VM_LOCKED:
        if vm_flags & _NEVER_LOCKED:
            vma.set_flags(vma.flags & ~(VM_LOCKED | VM_LOCKONFAULT))
        else:
            mm.locked_vm += (end - addr) >> 12
    return vma


def _seal_flags(vm_flags: int, file: MappedFile) -> int:
    """What the seals of a memfd leave of a shared mapping's rights (FINDINGS 16). Raises OSError EPERM."""
    if file.seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) and vm_flags & VM_SHARED:
        if vm_flags & VM_WRITE:
            raise _error(errno.EPERM, "mmap: the memfd is sealed against writing")
        vm_flags &= ~VM_MAYWRITE
    return vm_flags


# -- munmap ---------------------------------------------------------------------------------------------------------


def do_munmap(mm: MmStruct, addr: int, length: int) -> None:
    """Unmap [addr, addr + length). Raises OSError EINVAL, ENOMEM (spec R8)."""
    if addr & ~PAGE_MASK or addr > mm.task_size or length > mm.task_size - addr:
        raise _error(errno.EINVAL, "munmap: unaligned or outside the address space")
    end = addr + ((length + 4095) & PAGE_MASK)
    if end == addr:
        raise _error(errno.EINVAL, "munmap: length is 0")
    mm.mmap_lock.down_write()
    try:
        unmap_range(mm, addr, end)
    finally:
        mm.mmap_lock.up_write()


def _may_unmap(vma: VmArea) -> None:
    if vma.flags & VM_SEALED:
        raise _error(errno.EPERM, "munmap: the range is sealed")


def _gather(mm: MmStruct, start: int, end: int) -> list[VmArea]:
    """The areas that make up [start, end), cut at its ends. Raises OSError ENOMEM, EPERM; splits already made stay."""
    gone: list[VmArea] = mm.mm_mt.in_range(start, end - 1)
    if not gone:
        return gone
    first, last = gone[0], gone[-1]
    if first.start < start:
        if end < first.end and mm.map_count >= mm.ctx.sysctl.max_map_count:
            raise no_memory("munmap: the hole would make one area more than vm.max_map_count")
        _may_unmap(first)
        split_vma(mm, first, start, new_below=True, count_limit=False)
    for vma in gone:
        _may_unmap(vma)
    if end < last.end:
        split_vma(mm, last, end, new_below=False, count_limit=False)
    return gone


def unmap_range(mm: MmStruct, start: int, end: int) -> None:
    """Remove everything in [start, end). Raises OSError ENOMEM; splits already made stay, as in Linux."""
    gone = _gather(mm, start, end)
    if gone:
        for vma in gone:
            vma.start_write()
        mm.mm_mt.store_prealloc(gone[0].start, gone[-1].end - 1, None)
        _unmap_region(mm, gone)


def _unmap_region(mm: MmStruct, gone: list[VmArea], *, uncharge: bool = True) -> None:
    """Zap and free ``gone``, areas already out of the tree, and the tables that cover nothing any more."""
    if mm.total_vm > mm.hiwater_vm:
        mm.hiwater_vm = mm.total_vm
    if mm.pgtables_bytes:
        if mm.rss > mm.hiwater_rss:
            mm.hiwater_rss = mm.rss
        low, high = gone[0].start, gone[-1].end
        for vma in gone:
            zap_page_range(mm, vma.start, vma.end, recency=has_recency(vma))
        previous = MaState(mm.mm_mt, low, low).prev(0)
        following = find_vma(mm, high)
        floor = previous.end if previous is not None else 0
        ceiling = following.start if following is not None else mm.task_size + 4096
        mm.ctx.pt.free_pgtables(mm, low, high, floor, ceiling)
    for vma in gone:
        if vma.flags & VM_ACCOUNT and uncharge:
            mm.ctx.committed -= (vma.end - vma.start) >> 12
        if vma.flags & VM_LOCKED:
            mm.locked_vm -= vma.pages
        remove_vma(mm, vma)


# -- heap and stack -------------------------------------------------------------------------------------------------


def do_brk(mm: MmStruct, brk: int) -> int:
    """Move the program break to ``brk``; the break that holds afterwards, never an error (spec R8)."""
    mm.mmap_lock.down_write()
    try:
        moved, locked = _do_brk(mm, brk)
    finally:
        mm.mmap_lock.up_write()
    if locked:
        populate_vma_range(mm, *locked, ignore_errors=True)
    return moved


def _do_brk(mm: MmStruct, brk: int) -> tuple[int, tuple[int, int] | None]:
    old, new = (mm.brk + 4095) & PAGE_MASK, (brk + 4095) & PAGE_MASK
    refused = mm.brk, None
    if brk < mm.start_brk or new > mm.task_size:
        return refused
    if mm.owner is not None:
        limit = mm.owner.rlimit(RLIMIT_DATA)
        if limit < RLIM_INFINITY and brk - mm.start_brk + mm.end_data - mm.start_data > limit:
            return refused
    locked = None
    try:
        if new < old:
            if not areas_in(mm, new, old):
                return refused
            unmap_range(mm, new, old)
        elif new > old:
            _grow_heap(mm, old, new)
            if mm.def_flags & VM_LOCKED:
                locked = old, new
    except OSError:
        return refused
    mm.brk = brk
    return brk, locked


def _grow_heap(mm: MmStruct, old: int, new: int) -> None:
    """Map [old, new) as heap. Raises OSError, nothing changed."""
    following = find_vma(mm, old)
    if following is not None and new + 4096 > start_gap(mm, following):
        raise no_memory("brk: the next area is too close")
    pages = (new - old) >> 12
    flags = ksm_vma_flags(mm, _RW_ACCOUNTED | mm.def_flags)
    if mm.def_flags & VM_LOCKED and not mlock_limit_allows(mm, pages):
        raise _error(errno.EAGAIN, "brk: over RLIMIT_MEMLOCK")
    if not may_expand_vm(mm, flags, pages):
        raise no_memory("brk: over RLIMIT_AS or RLIMIT_DATA")
    if mm.map_count > mm.ctx.sysctl.max_map_count:
        raise no_memory("brk: too many areas (vm.max_map_count)")

    def grow() -> None:
        heap: VmArea | None = mm.mm_mt.load(old - 1) if old else None
        if heap is not None and _may_extend_heap(heap, flags, old):
            vma_resize(mm, heap, heap.start, new)
        else:
            insert_vma(mm, vm_area_alloc(mm, old, new, flags, old >> 12))

    charged(mm, pages, grow)
    if flags & VM_LOCKED:
        mm.locked_vm += pages


def _may_extend_heap(heap: VmArea, flags: int, old: int) -> bool:
    """Whether new heap joins the area that ends at the old break: the merge rule, previous area only (R8)."""
    return (
        heap.end == old
        and not heap.flags ^ flags
        and heap.file is None
        and heap.policy is None
        and heap.uffd_ctx is None
        and heap.anon_name is None
        and heap.pgoff + heap.pages == old >> 12
        and (heap.anon_vma is None or len(heap.anon_vma_chain) == 1)
    )


def setup_arg_pages(mm: MmStruct, stack_top: int, size: int) -> VmArea:
    """The stack area [stack_top - size, stack_top), growing down; ``size`` bytes. Raises OSError ENOMEM."""
    mm.mmap_lock.down_write()
    try:
        flags = _RW_ACCOUNTED | VM_GROWSDOWN
        start = stack_top - size

        def grow() -> VmArea:
            vma = vm_area_alloc(mm, start, stack_top, flags, start >> 12)
            insert_vma(mm, vma)
            return vma

        return charged(mm, size >> 12, grow)
    finally:
        mm.mmap_lock.up_write()


def expand_stack(mm: MmStruct, vma: VmArea, addr: int) -> bool:
    """Let the growing-down ``vma`` reach down to ``addr``; False if Linux refuses (spec R7). ``mmap_lock`` held for
    writing.
    """
    start = addr & PAGE_MASK
    sysctl = mm.ctx.sysctl
    if start < sysctl.lowest_address:
        return False
    previous = MaState(mm.mm_mt, vma.start, vma.start).prev(0)
    if (
        previous is not None
        and not previous.flags & VM_GROWSDOWN
        and previous.flags & (VM_READ | VM_WRITE | VM_EXEC)
        and start - previous.end < sysctl.stack_guard_gap << 12
    ):
        return False
    if not anon_vma_prepare(mm, vma):  # before the limits: a refused growth leaves it behind
        return False
    pages = (vma.start - start) >> 12
    if not may_expand_vm(mm, vma.flags, pages):
        return False
    if mm.owner is not None and vma.end - start > mm.owner.rlimit(RLIMIT_STACK):
        return False
    if vma.flags & VM_LOCKED and not mlock_limit_allows(mm, pages):
        return False
    try:
        charged(mm, pages, lambda: vma_resize(mm, vma, start, vma.end))
    except OSError:
        return False
    if not vma.flags & VM_ACCOUNT:
        mm.ctx.commit_leaked += pages
    if vma.flags & VM_LOCKED:
        mm.locked_vm += pages
    return True


def find_extend_vma(mm: MmStruct, addr: int) -> VmArea | None:
    """The area at ``addr``, or the one above grown down to it, if it may. ``mmap_lock`` is held for reading, and still
    (or again) is afterwards.
    """
    vma = find_vma(mm, addr)
    if vma is None or vma.start <= addr:
        return vma
    if not vma.flags & VM_GROWSDOWN:
        return None
    lock = mm.mmap_lock
    lock.up_read()
    lock.down_write()
    vma = find_vma(mm, addr)
    there = vma is not None and (vma.start <= addr or (bool(vma.flags & VM_GROWSDOWN) and expand_stack(mm, vma, addr)))
    lock.downgrade_write()
    return vma if there else None


# -- the end --------------------------------------------------------------------------------------------------------


def exit_mmap(mm: MmStruct) -> None:
    """Tear the address space down: pages, tables, areas, tree, and the object itself."""
    ctx = mm.ctx
    mm.mmap_lock.down_write()
    areas = mm.areas()
    mm.mm_mt.clear_in_rcu()
    mm.mm_mt.destroy()
    if areas:
        _unmap_region(mm, areas)
    mm.mmap_lock.up_write()
    ctx.thp.put_huge_zero_page(mm)
    ctx.pt.pgd_free(mm.pgd)
    mm.pgd = 0
    del ctx.mms[mm.id]
    ctx.mm_cache.free(mm.addr)
