# SPDX-License-Identifier: GPL-2.0-or-later
"""mlock, mlock2, munlock, mlockall, munlockall (Linux: mm/mlock.c; spec R8, R9)."""

from __future__ import annotations

import errno
from typing import Final

from memtwin.abi.capability import CAP_IPC_LOCK
from memtwin.abi.mman import MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT, MLOCK_ONFAULT
from memtwin.abi.resource import RLIMIT_MEMLOCK
from memtwin.hw.ram import PAGE_MASK
from memtwin.mm.gup import populate_vma_range
from memtwin.mm.mm_types import VM_HUGETLB, VM_LOCKED, VM_LOCKONFAULT, VM_SPECIAL, MmStruct, VmArea
from memtwin.mm.util import can_do_mlock, mlock_limit_allows
from memtwin.mm.vma import areas_in

__all__ = ["do_mlock", "do_mlockall", "do_munlock", "do_munlockall"]

_MASK: Final = VM_LOCKED | VM_LOCKONFAULT


def do_mlock(mm: MmStruct, start: int, length: int, flags: int = 0) -> None:
    """mlock2(2). Raises OSError EINVAL, EPERM, ENOMEM, EAGAIN; what could not be populated stays locked (R8)."""
    if flags & ~MLOCK_ONFAULT:
        raise OSError(errno.EINVAL, "mlock2: unknown flag")
    if not can_do_mlock(mm):
        raise OSError(errno.EPERM, "mlock: RLIMIT_MEMLOCK is 0")
    start, length = _page_range(start, length)
    pages = length >> 12
    mm.mmap_lock.down_write()
    try:
        if not mlock_limit_allows(mm, pages) and not mlock_limit_allows(mm, pages - _locked_pages(mm, start, length)):
            raise OSError(errno.ENOMEM, "mlock: over RLIMIT_MEMLOCK")
        lock_flags = VM_LOCKED | (VM_LOCKONFAULT if flags & MLOCK_ONFAULT else 0)
        _apply(mm, start, length, lock_flags)
    finally:
        mm.mmap_lock.up_write()
    try:
        populate_vma_range(mm, start, start + length, ignore_errors=False)
    except OSError as error:
        # POSIX: a page that can not be there is ENOMEM, one that can not be there now EAGAIN.
        number = {errno.EFAULT: errno.ENOMEM, errno.ENOMEM: errno.EAGAIN}.get(error.errno or 0, error.errno)
        raise OSError(number, f"mlock: {error.strerror}") from None


def do_munlock(mm: MmStruct, start: int, length: int) -> None:
    """munlock(2). Raises OSError EINVAL, ENOMEM."""
    start, length = _page_range(start, length)
    mm.mmap_lock.down_write()
    try:
        _apply(mm, start, length, 0)
    finally:
        mm.mmap_lock.up_write()


def _page_range(start: int, length: int) -> tuple[int, int]:
    """Whole pages that cover the range, modulo 2**64 as the kernel computes them."""
    length = (length + (start & ~PAGE_MASK) + 4095) & PAGE_MASK & (1 << 64) - 1
    return start & PAGE_MASK, length


def _locked_pages(mm: MmStruct, start: int, length: int) -> int:
    """Pages of the range that are locked already: they count only once."""
    end = min(start + length, 1 << 64)
    locked = (min(v.end, end) - max(v.start, start) for v in areas_in(mm, start, end) if v.flags & VM_LOCKED)
    return sum(locked) >> 12


def _apply(mm: MmStruct, start: int, length: int, lock_flags: int) -> None:
    """Lock or unlock areas left to right up to the first hole. Raises OSError EINVAL, ENOMEM."""
    end = start + length
    if end >= 1 << 64 and length:
        raise OSError(errno.EINVAL, "mlock: the range wraps")
    position = start
    prev: VmArea | None = None
    while position < end:
        vma: VmArea | None = mm.mm_mt.load(position)
        if vma is None:
            raise OSError(errno.ENOMEM, f"mlock: nothing is mapped at {position:#x}")
        if prev is None:
            prev = vma if position > vma.start else (mm.mm_mt.load(position - 1) if position else None)
        stop = min(vma.end, end)
        prev = _fixup(mm, prev, vma, position, stop, (vma.flags & ~_MASK) | lock_flags)
        position = stop


def _fixup(mm: MmStruct, prev: VmArea | None, vma: VmArea, start: int, end: int, flags: int) -> VmArea:
    """The area that [start, end) is in afterwards. Raises OSError ENOMEM."""
    old = vma.flags
    if flags == old or old & (VM_SPECIAL | VM_HUGETLB):
        return vma
    vma = mm.ctx.modify.mlock(mm, prev, vma, start, end, flags)
    if flags & VM_LOCKED and not old & VM_LOCKED:
        mm.locked_vm += (end - start) >> 12
    elif old & VM_LOCKED and not flags & VM_LOCKED:
        mm.locked_vm -= (end - start) >> 12
    vma.set_flags(flags)
    return vma


def do_mlockall(mm: MmStruct, flags: int) -> None:
    """mlockall(2). Raises OSError EINVAL, EPERM, ENOMEM."""
    if not flags or flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) or flags == MCL_ONFAULT:
        raise OSError(errno.EINVAL, "mlockall: no flag, an unknown one, or MCL_ONFAULT alone")
    if not can_do_mlock(mm):
        raise OSError(errno.EPERM, "mlockall: RLIMIT_MEMLOCK is 0")
    mm.mmap_lock.down_write()
    try:
        owner = mm.owner
        limited = flags & MCL_CURRENT and owner is not None and not owner.capable(CAP_IPC_LOCK)
        if limited and owner is not None and mm.total_vm > owner.rlimit(RLIMIT_MEMLOCK) >> 12:
            raise OSError(errno.ENOMEM, "mlockall: the address space exceeds RLIMIT_MEMLOCK")
        _apply_all(mm, flags)
    finally:
        mm.mmap_lock.up_write()
    if flags & MCL_CURRENT:
        populate_vma_range(mm, 0, mm.task_size, ignore_errors=True)


def do_munlockall(mm: MmStruct) -> None:
    """munlockall(2)."""
    mm.mmap_lock.down_write()
    try:
        _apply_all(mm, 0)
    finally:
        mm.mmap_lock.up_write()


def _apply_all(mm: MmStruct, flags: int) -> None:
    wanted = VM_LOCKED | (VM_LOCKONFAULT if flags & MCL_ONFAULT else 0)
    mm.def_flags = mm.def_flags & ~_MASK | (wanted if flags & MCL_FUTURE else 0)
    if flags and not flags & MCL_CURRENT:
        return
    prev: VmArea | None = None
    position = 0
    while (vma := mm.mm_mt.find(position)) is not None:
        # Whole areas neither split nor fail.
        position = vma.end
        prev = _fixup(mm, prev, vma, vma.start, vma.end, (vma.flags & ~_MASK) | (wanted if flags else 0))
