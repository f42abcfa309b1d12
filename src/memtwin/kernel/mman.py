# SPDX-License-Identifier: GPL-2.0-or-later
"""The system calls of memory management: arguments in, ``mm/`` does the work (mm/mmap.c, mprotect.c, madvise.c; spec
R8).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from memtwin.abi.mman import MAP_ANONYMOUS
from memtwin.fs.inode import linux_error
from memtwin.hw.ram import PAGE_MASK
from memtwin.kernel.syscalls import Calls
from memtwin.mm.memory import zap_page_range
from memtwin.mm.mm_types import VM_HUGETLB, VM_LOCKED, VM_PFNMAP, MmStruct
from memtwin.mm.mmap import do_brk, do_mmap, do_munmap
from memtwin.mm.mprotect import do_mprotect

if TYPE_CHECKING:
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct

__all__ = ["CALLS", "madvise_dontneed"]

CALLS: Final = Calls()

_WORD: Final = 1 << 64
PROT_SEM: Final = 8
PROT_GROWSDOWN: Final = 0x0100_0000
PROT_GROWSUP: Final = 0x0200_0000

MADV_WILLNEED: Final = 3
MADV_DONTNEED: Final = 4
#: Advice that Linux 6.7 knows (uapi asm-generic/mman-common.h); anything else is EINVAL there too.
_KNOWN_ADVICE: Final = (0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 100, 101)


def _mm(task: TaskStruct) -> MmStruct:
    assert task.mm is not None
    return task.mm


@CALLS.define("mmap", "addr", "size", "ulong", "ulong", "fd", "ulong", partly="no huge pages, no locked mappings")
def sys_mmap(
    sys: SyscallTable, task: TaskStruct, addr: int, length: int, prot: int, flags: int, fd: int, offset: int
) -> int:
    if offset & ~PAGE_MASK:
        raise linux_error(errno.EINVAL)
    if flags & MAP_ANONYMOUS:
        return do_mmap(_mm(task), addr, length, prot, flags)
    file = task.files.get(fd)
    if not length:
        raise linux_error(errno.EINVAL)
    if not file.readable:
        raise linux_error(errno.EACCES)
    _ = file.mapping  # ENODEV
    return do_mmap(_mm(task), addr, length, prot, flags, file, offset >> 12)


@CALLS.define("munmap", "addr", "size")
def sys_munmap(sys: SyscallTable, task: TaskStruct, addr: int, length: int) -> int:
    do_munmap(_mm(task), addr, length)
    return 0


@CALLS.define("brk", "addr")
def sys_brk(sys: SyscallTable, task: TaskStruct, addr: int) -> int:
    return do_brk(_mm(task), addr)


@CALLS.define("mprotect", "addr", "size", "ulong", partly="no PROT_GROWSDOWN")
def sys_mprotect(sys: SyscallTable, task: TaskStruct, start: int, length: int, prot: int) -> int:
    if prot & (PROT_GROWSDOWN | PROT_GROWSUP):
        if prot & (PROT_GROWSDOWN | PROT_GROWSUP) != PROT_GROWSDOWN | PROT_GROWSUP:
            sys.not_modelled("mprotect with PROT_GROWSDOWN or PROT_GROWSUP")
        raise linux_error(errno.EINVAL)
    do_mprotect(_mm(task), start, length, prot & ~PROT_SEM)
    return 0


@CALLS.define("madvise", "addr", "size", "int", partly="MADV_DONTNEED; MADV_WILLNEED, which has nothing to read ahead")
def sys_madvise(sys: SyscallTable, task: TaskStruct, start: int, length: int, advice: int) -> int:
    if advice not in _KNOWN_ADVICE:
        raise linux_error(errno.EINVAL)
    rounded = (length + 4095) & PAGE_MASK
    if start & ~PAGE_MASK or rounded % _WORD < length or start + rounded > _WORD:
        raise linux_error(errno.EINVAL)
    if not rounded:
        return 0
    if advice == MADV_DONTNEED:
        madvise_dontneed(_mm(task), start, start + rounded)
    elif advice == MADV_WILLNEED:
        if _areas_in(_mm(task), start, start + rounded)[1]:
            raise linux_error(errno.ENOMEM)
    else:
        sys.not_modelled(f"madvise advice {advice}")
        raise linux_error(errno.EINVAL)
    return 0


def _areas_in(mm: MmStruct, start: int, end: int) -> tuple[list[tuple[int, int, int]], bool]:
    """(start, end, VM_* flags) of what is mapped in the range, and whether there is a hole in it."""
    pieces = []
    position, hole = start, False
    for vma in mm.areas():
        if vma.end <= start or vma.start >= end:
            continue
        hole |= vma.start > position
        pieces.append((max(vma.start, start), min(vma.end, end), vma.flags))
        position = vma.end
    return pieces, hole or position < end


def madvise_dontneed(mm: MmStruct, start: int, end: int) -> None:
    """MADV_DONTNEED: drop the pages of [start, end), area by area. EINVAL at a locked one, ENOMEM at the end if there
    was a hole.
    """
    mm.mmap_lock.down_read()
    try:
        pieces, hole = _areas_in(mm, start, end)
        for first, last, flags in pieces:
            if flags & (VM_LOCKED | VM_PFNMAP | VM_HUGETLB):
                raise linux_error(errno.EINVAL)
            zap_page_range(mm, first, last)
        if hole:
            raise linux_error(errno.ENOMEM)
    finally:
        mm.mmap_lock.up_read()
