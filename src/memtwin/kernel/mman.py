# SPDX-License-Identifier: GPL-2.0-or-later
"""The system calls of memory management: arguments in, ``mm/`` does the work (mm/mmap.c, mprotect.c, mremap.c,
madvise.c, mlock.c, msync.c, mincore.c; spec R8).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from memtwin.abi.mman import MAP_ANONYMOUS
from memtwin.errors import NotModelled
from memtwin.fs.inode import linux_error
from memtwin.hw.ram import PAGE_MASK
from memtwin.kernel.syscalls import Calls
from memtwin.kernel.uaccess import copy_to_user
from memtwin.mm.madvise import do_madvise
from memtwin.mm.mincore import do_mincore, do_msync
from memtwin.mm.mlock import do_mlock, do_mlockall, do_munlock, do_munlockall
from memtwin.mm.mm_types import MmStruct
from memtwin.mm.mmap import do_brk, do_mmap, do_munmap
from memtwin.mm.mprotect import do_mprotect
from memtwin.mm.mremap import do_mremap

if TYPE_CHECKING:
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct

__all__ = ["CALLS"]

CALLS: Final = Calls()


def _mm(task: TaskStruct) -> MmStruct:
    assert task.mm is not None
    return task.mm


@CALLS.define("mmap", "addr", "size", "ulong", "ulong", "fd", "ulong", partly="no hugetlb pages")
def sys_mmap(
    sys: SyscallTable, task: TaskStruct, addr: int, length: int, prot: int, flags: int, fd: int, offset: int
) -> int:
    if offset & ~PAGE_MASK:
        raise linux_error(errno.EINVAL)
    file = None if flags & MAP_ANONYMOUS else task.files.get(fd)
    return do_mmap(_mm(task), addr, length, prot, flags, file, offset >> 12)


@CALLS.define("munmap", "addr", "size")
def sys_munmap(sys: SyscallTable, task: TaskStruct, addr: int, length: int) -> int:
    do_munmap(_mm(task), addr, length)
    return 0


@CALLS.define("brk", "addr")
def sys_brk(sys: SyscallTable, task: TaskStruct, addr: int) -> int:
    return do_brk(_mm(task), addr)


@CALLS.define("mprotect", "addr", "size", "ulong")
def sys_mprotect(sys: SyscallTable, task: TaskStruct, start: int, length: int, prot: int) -> int:
    do_mprotect(_mm(task), start, length, prot)
    return 0


@CALLS.define("mremap", "addr", "size", "size", "ulong", "addr")
def sys_mremap(
    sys: SyscallTable, task: TaskStruct, addr: int, old_len: int, new_len: int, flags: int, new_addr: int
) -> int:
    return do_mremap(_mm(task), addr, old_len, new_len, flags, new_addr)


@CALLS.define("madvise", "addr", "size", "int", partly="no poisoning, no collapse of shared memory")
def sys_madvise(sys: SyscallTable, task: TaskStruct, start: int, length: int, advice: int) -> int:
    try:
        do_madvise(_mm(task), start, length, advice)
    except NotModelled as missing:
        sys.not_modelled(str(missing))
        raise linux_error(errno.EINVAL) from None
    return 0


@CALLS.define("mlock", "addr", "size")
def sys_mlock(sys: SyscallTable, task: TaskStruct, start: int, length: int) -> int:
    do_mlock(_mm(task), start, length)
    return 0


@CALLS.define("mlock2", "addr", "size", "flags")
def sys_mlock2(sys: SyscallTable, task: TaskStruct, start: int, length: int, flags: int) -> int:
    do_mlock(_mm(task), start, length, flags)
    return 0


@CALLS.define("munlock", "addr", "size")
def sys_munlock(sys: SyscallTable, task: TaskStruct, start: int, length: int) -> int:
    do_munlock(_mm(task), start, length)
    return 0


@CALLS.define("mlockall", "flags")
def sys_mlockall(sys: SyscallTable, task: TaskStruct, flags: int) -> int:
    do_mlockall(_mm(task), flags)
    return 0


@CALLS.define("munlockall")
def sys_munlockall(sys: SyscallTable, task: TaskStruct) -> int:
    do_munlockall(_mm(task))
    return 0


@CALLS.define("msync", "addr", "size", "flags")
def sys_msync(sys: SyscallTable, task: TaskStruct, start: int, length: int, flags: int) -> int:
    do_msync(_mm(task), start, length, flags)
    return 0


@CALLS.define("mincore", "addr", "size", "addr")
def sys_mincore(sys: SyscallTable, task: TaskStruct, start: int, length: int, vec: int) -> int:
    copy_to_user(task, vec, do_mincore(_mm(task), start, length))
    return 0
