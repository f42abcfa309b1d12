# SPDX-License-Identifier: GPL-2.0-or-later
"""mmap, munmap, brk, stack growth, and the end of an address space (Linux: mm/mmap.c; spec R3, R7, R8).

Good enough for first programs: address selection, the checks of arguments in Linux's order, commit accounting in mode
0 and 1. Merging, limits other than the number of areas, and locking of pages come with the VMA issue; what is refused
meanwhile is on the coverage page. Callers need not hold anything: each entry point takes ``mmap_lock`` for writing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, TypeVar

from memtwin.abi import mman
from memtwin.hw.ram import PAGE_MASK
from memtwin.lib.maple_tree import MaState
from memtwin.mm.filemap import AddressSpace
from memtwin.mm.memory import zap_page_range
from memtwin.mm.mm_types import (
    STACK_GUARD_PAGES,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_NORESERVE,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
    MappedFile,
    MmStruct,
    VmArea,
)
from memtwin.mm.vma import (
    areas_in,
    erase_range,
    find_vma,
    insert_vma,
    no_memory,
    remove_vma,
    split_vma,
    vm_area_alloc,
    vma_resize,
)

__all__ = ["do_brk", "do_mmap", "do_munmap", "exit_mmap", "expand_stack", "setup_arg_pages"]

R = TypeVar("R")

_GUARD: Final = STACK_GUARD_PAGES << 12
_ANON_PROT: Final = VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
_UNMODELLED: Final = mman.MAP_HUGETLB | mman.MAP_LOCKED


def _error(number: int, why: str) -> OSError:
    return OSError(number, why)


def start_gap(vma: VmArea) -> int:
    """Lowest address that must stay free below ``vma``."""
    return max(vma.start - _GUARD, 0) if vma.flags & VM_GROWSDOWN else vma.start


class _SharedAnonymous:
    """The object behind a MAP_SHARED | MAP_ANONYMOUS mapping."""

    __slots__ = ("dev", "ino", "mapping", "path", "writable")

    def __init__(self, pages: int, ino: int) -> None:
        self.mapping = AddressSpace(lambda index: b"", lambda: pages << 12, shmem=True)
        self.path = "/dev/zero (deleted)"
        self.dev = (0, 1)
        self.ino = ino
        self.writable = True


def do_mmap(
    mm: MmStruct, addr: int, length: int, prot: int, flags: int, file: MappedFile | None = None, pgoff: int = 0
) -> int:
    """Map ``length`` bytes; ``pgoff`` in pages. Returns the address. Raises OSError with Linux's errno (spec R8)."""
    if not length:
        raise _error(errno.EINVAL, "mmap: length is 0")
    pages = (length + 4095) >> 12
    length = pages << 12
    if length > mm.task_size:
        raise _error(errno.ENOMEM, "mmap: longer than the address space")
    mm.mmap_lock.down_write()
    try:
        if mm.map_count > mm.ctx.max_map_count:
            raise _error(errno.ENOMEM, "mmap: too many areas (vm.max_map_count)")
        addr = _get_unmapped_area(mm, addr, length, flags)
        vm_flags = _calc_vm_flags(prot, flags, file)
        if flags & _UNMODELLED:
            raise _error(errno.EINVAL, "mmap: this kernel has neither huge page pools nor locked mappings yet")
        if file is None and vm_flags & VM_SHARED:
            mm.ctx.mapping_ids += 1
            file, pgoff = _SharedAnonymous(pages, mm.ctx.mapping_ids), 0
        elif file is None:
            pgoff = addr >> 12
        return _mmap_region(mm, addr, length, vm_flags, pgoff, file)
    finally:
        mm.mmap_lock.up_write()


def _calc_vm_flags(prot: int, flags: int, file: MappedFile | None) -> int:
    vm_flags = (prot & 7) | _ANON_PROT
    if flags & mman.MAP_GROWSDOWN:
        vm_flags |= VM_GROWSDOWN
    kind = flags & mman.MAP_TYPE
    shared = kind == mman.MAP_SHARED or (kind == mman.MAP_SHARED_VALIDATE and file is not None)
    if not shared and kind != mman.MAP_PRIVATE:
        raise _error(errno.EINVAL, "mmap: neither MAP_SHARED nor MAP_PRIVATE")
    if flags & mman.MAP_GROWSDOWN and (shared or file is not None):
        raise _error(errno.EINVAL, "mmap: only private anonymous memory grows down")
    if shared:
        vm_flags |= VM_SHARED | VM_MAYSHARE
        if file is not None and not file.writable:
            if prot & mman.PROT_WRITE:
                raise _error(errno.EACCES, "mmap: the file is not open for writing")
            vm_flags &= ~(VM_SHARED | VM_MAYWRITE)
    if flags & mman.MAP_NORESERVE:
        vm_flags |= VM_NORESERVE
    return vm_flags


def _get_unmapped_area(mm: MmStruct, addr: int, length: int, flags: int) -> int:
    """Where the mapping goes (spec R7: top-down). Raises OSError EINVAL, ENOMEM, EEXIST."""
    if flags & (mman.MAP_FIXED | mman.MAP_FIXED_NOREPLACE):
        if addr & ~PAGE_MASK:
            raise _error(errno.EINVAL, "mmap: unaligned fixed address")
        if addr > mm.task_size - length:
            raise _error(errno.ENOMEM, "mmap: fixed address beyond the address space")
        if flags & mman.MAP_FIXED_NOREPLACE and areas_in(mm, addr, addr + length):
            raise _error(errno.EEXIST, "mmap: the range is in use")
        return addr
    low = mm.ctx.mmap_min_addr
    if flags & mman.MAP_32BIT:
        return _search(mm, 1 << 30, 1 << 31, length, top_down=False)
    hint = addr & PAGE_MASK
    if hint:
        hint = max(hint, low)
        if hint + length <= mm.task_size:
            following = find_vma(mm, hint)
            if following is None or hint + length <= start_gap(following):
                return hint
    try:
        return _search(mm, low, mm.mmap_base, length, top_down=True)
    except OSError:
        return _search(mm, legacy_base(mm), mm.task_size, length, top_down=False)


def legacy_base(mm: MmStruct) -> int:
    """Where bottom-up searches begin: a third of the address space (spec R7)."""
    return (mm.task_size // 3 + 4095) & PAGE_MASK


def _search(mm: MmStruct, low: int, high: int, length: int, *, top_down: bool) -> int:
    """A free range in [low, high) that leaves the guard gap below a growing-down area alone. Raises OSError ENOMEM."""
    while high - low >= length:
        mas = MaState(mm.mm_mt, 0, 0)
        try:
            if top_down:
                mas.empty_area_rev(low, high - 1, length)
            else:
                mas.empty_area(low, high - 1, length)
        except OSError:
            break
        addr = mas.last + 1 - length if top_down else mas.index
        following = find_vma(mm, addr)
        if following is None or addr + length <= start_gap(following):
            return addr
        if top_down:
            high = start_gap(following)
        else:
            low = following.end
    raise no_memory()


def _accountable(mm: MmStruct, vm_flags: int) -> bool:
    return vm_flags & (VM_NORESERVE | VM_SHARED | VM_WRITE) == VM_WRITE


def charge_commit(mm: MmStruct, pages: int) -> None:
    """Promise ``pages`` to the address space. Raises OSError ENOMEM if one request exceeds RAM (overcommit mode 0)."""
    ctx = mm.ctx
    if ctx.overcommit_memory == 0 and pages > ctx.page_alloc.managed_pages:
        raise _error(errno.ENOMEM, "overcommit: one request larger than RAM")
    ctx.committed += pages


def charged(mm: MmStruct, pages: int, grow: Callable[[], R]) -> R:
    """``grow()`` with ``pages`` charged to the commit counter; its failure takes the charge back. Raises OSError
    ENOMEM.
    """
    charge_commit(mm, pages)
    try:
        return grow()
    except OSError:
        mm.ctx.committed -= pages
        raise


def _new_vma(mm: MmStruct, start: int, end: int, flags: int, pgoff: int, file: MappedFile | None = None) -> VmArea:
    """A new area in the tree; raises OSError ENOMEM, nothing changed."""
    vma = vm_area_alloc(mm, start, end, flags, pgoff, file)
    insert_vma(mm, vma)
    return vma


def _mmap_region(mm: MmStruct, addr: int, length: int, vm_flags: int, pgoff: int, file: MappedFile | None) -> int:
    _unmap(mm, addr, addr + length)
    if _accountable(mm, vm_flags):
        vm_flags |= VM_ACCOUNT
        charged(mm, length >> 12, lambda: _new_vma(mm, addr, addr + length, vm_flags, pgoff, file))
    else:
        _new_vma(mm, addr, addr + length, vm_flags, pgoff, file)
    return addr


def do_munmap(mm: MmStruct, addr: int, length: int) -> None:
    """Unmap [addr, addr + length). Raises OSError EINVAL, ENOMEM (spec R8)."""
    if addr & ~PAGE_MASK or not length or addr > mm.task_size or length > mm.task_size - addr:
        raise _error(errno.EINVAL, "munmap: unaligned, empty or outside the address space")
    mm.mmap_lock.down_write()
    try:
        _unmap(mm, addr, addr + ((length + 4095) & PAGE_MASK))
    finally:
        mm.mmap_lock.up_write()


def _unmap(mm: MmStruct, start: int, end: int) -> None:
    """Remove everything in [start, end). Raises OSError ENOMEM; splits already made stay, as in Linux."""
    gone = areas_in(mm, start, end)
    if not gone:
        return
    first = gone[0]
    if first.start < start:
        if end < first.end and mm.map_count >= mm.ctx.max_map_count:
            raise no_memory()
        gone[0] = split_vma(mm, first, start, new_below=False, count_limit=False)
    last = gone[-1]
    if end < last.end:
        split_vma(mm, last, end, new_below=False, count_limit=False)
    erase_range(mm, gone[0].start, gone[-1].end)
    _unmap_region(mm, gone)


def _unmap_region(mm: MmStruct, gone: list[VmArea]) -> None:
    """Zap and free ``gone``, areas that are already out of the tree, and the tables that cover nothing any more."""
    if mm.rss > mm.hiwater_rss:
        mm.hiwater_rss = mm.rss
    low, high = gone[0].start, gone[-1].end
    mas = MaState(mm.mm_mt, low, low)
    previous = mas.prev(0)
    following = find_vma(mm, high)
    for vma in gone:
        zap_page_range(mm, vma.start, vma.end)
        if vma.flags & VM_ACCOUNT:
            mm.ctx.committed -= vma.pages
        remove_vma(mm, vma)
    floor = previous.end if previous is not None else 0
    mm.ctx.pt.free_pgtables(mm, floor, following.start if following is not None else mm.task_size + 4096)


def do_brk(mm: MmStruct, brk: int) -> int:
    """Move the program break to ``brk``; the break that holds afterwards, never an error (spec R8)."""
    mm.mmap_lock.down_write()
    try:
        old, new = (mm.brk + 4095) & PAGE_MASK, (brk + 4095) & PAGE_MASK
        if brk < mm.start_brk or new > mm.task_size:
            return mm.brk
        try:
            if new < old:
                if not areas_in(mm, new, old):
                    return mm.brk
                _unmap(mm, new, old)
            elif new > old:
                _grow_heap(mm, old, new)
        except OSError:
            return mm.brk
        mm.brk = brk
        return brk
    finally:
        mm.mmap_lock.up_write()


def _grow_heap(mm: MmStruct, old: int, new: int) -> None:
    following = find_vma(mm, old)
    if following is not None and new + 4096 > start_gap(following):
        raise no_memory()
    if mm.map_count > mm.ctx.max_map_count:
        raise no_memory()
    flags = VM_READ | VM_WRITE | _ANON_PROT | VM_ACCOUNT
    heap: VmArea | None = mm.mm_mt.load(old - 1) if old else None

    def grow() -> None:
        if heap is not None and heap.file is None and heap.flags == flags:
            vma_resize(mm, heap, heap.start, new)
        else:
            _new_vma(mm, old, new, flags, old >> 12)

    charged(mm, (new - old) >> 12, grow)


def setup_arg_pages(mm: MmStruct, stack_top: int, size: int) -> VmArea:
    """The stack area [stack_top - size, stack_top), growing down; ``size`` bytes. Raises OSError ENOMEM."""
    mm.mmap_lock.down_write()
    try:
        flags = VM_READ | VM_WRITE | _ANON_PROT | VM_GROWSDOWN | VM_ACCOUNT
        start = stack_top - size
        return charged(mm, size >> 12, lambda: _new_vma(mm, start, stack_top, flags, start >> 12))
    finally:
        mm.mmap_lock.up_write()


def expand_stack(mm: MmStruct, vma: VmArea, addr: int) -> bool:
    """Let the growing-down ``vma`` reach down to ``addr``; False if Linux refuses (spec R7). ``mmap_lock`` held for
    writing.
    """
    start = addr & PAGE_MASK
    if start < mm.ctx.mmap_min_addr:
        return False
    previous = MaState(mm.mm_mt, vma.start, vma.start).prev(0)
    if (
        previous is not None
        and not previous.flags & VM_GROWSDOWN
        and previous.flags & 7
        and start - previous.end < _GUARD
    ):
        return False
    if vma.end - start > mm.stack_limit:
        return False
    try:
        charged(mm, (vma.start - start) >> 12, lambda: vma_resize(mm, vma, start, vma.end))
    except OSError:
        return False
    return True


def exit_mmap(mm: MmStruct) -> None:
    """Tear the address space down: pages, tables, areas, tree, and the object itself."""
    ctx = mm.ctx
    mm.mmap_lock.down_write()
    areas = mm.areas()
    mm.mm_mt.destroy()
    if areas:
        _unmap_region(mm, areas)
    mm.mmap_lock.up_write()
    ctx.pt.pgd_free(mm.pgd)
    mm.pgd = 0
    del ctx.mms[mm.id]
    ctx.mm_cache.free(mm.addr)
