# SPDX-License-Identifier: GPL-2.0-or-later
"""process_vm_readv(2), process_vm_writev(2) and the query of move_pages(2): arguments in, the files of these names in
``mm/`` do the work.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from memtwin.abi.capability import CAP_SYS_NICE
from memtwin.abi.fcntl import MAX_RW_COUNT
from memtwin.abi.mempolicy import MPOL_MF_MOVE, MPOL_MF_MOVE_ALL
from memtwin.fs.inode import linux_error
from memtwin.kernel.ptrace import may_access_mm
from memtwin.kernel.read_write import access_ok, copy_in, copy_out, import_iovec
from memtwin.kernel.syscalls import Calls
from memtwin.kernel.uaccess import copy_from_user, copy_to_user
from memtwin.mm.migrate import do_pages_stat
from memtwin.mm.process_vm_access import process_vm_rw

if TYPE_CHECKING:
    from memtwin.kernel.kernel import Kernel
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct
    from memtwin.mm.mm_types import MmStruct

__all__ = ["CALLS", "process_mm"]

CALLS: Final = Calls()

#: Pages of move_pages that are looked at before their states are told.
_ASKED_AT_ONCE: Final = 16


def process_mm(kernel: Kernel, caller: TaskStruct, pid: int) -> MmStruct:
    """The address space of process ``pid``, to be read and written. Raises OSError ESRCH, EPERM."""
    target = kernel.tasks.get(pid)
    if target is None or target.mm is None:
        raise OSError(errno.ESRCH, "process_vm: no such process")
    if not may_access_mm(kernel, caller, target, attach=True):
        raise OSError(errno.EPERM, "process_vm: the process has capabilities that the caller lacks")
    return target.mm


class _Iovec:
    """The caller's side: its own memory, range after range. What does not fit in one call is left out."""

    __slots__ = ("_pairs", "_task", "left")

    def __init__(self, task: TaskStruct, pairs: list[tuple[int, int]]) -> None:
        self._task = task
        self._pairs = [pair for pair in pairs if pair[1]]
        self._pairs.reverse()
        self.left = min(sum(length for _, length in pairs), MAX_RW_COUNT)

    def copy(self, page: memoryview, write: bool) -> int:
        """Move to (``write``: from) ``page`` until one of the two is at its end or the caller's memory is bad."""
        done = 0
        while done < len(page) and self.left:
            addr, length = self._pairs.pop()
            wanted = min(length, len(page) - done, self.left)
            if write:
                data = self._copy_in(addr, wanted)
                moved = len(data)
                page[done : done + moved] = data
            else:
                moved = copy_out(self._task, addr, bytes(page[done : done + wanted]))
            done += moved
            self.left -= moved
            if moved < length:
                self._pairs.append((addr + moved, length - moved))
            if moved < wanted:
                break
        return done

    def _copy_in(self, addr: int, wanted: int) -> bytes:
        try:
            return copy_in(self._task, addr, wanted)
        except OSError:
            return b""


def _process_vm(
    sys: SyscallTable,
    task: TaskStruct,
    pid: int,
    local: tuple[int, int],
    remote: tuple[int, int],
    flags: int,
    write: bool,
) -> int:
    """``local``, ``remote``: address and number of the ranges. What is empty is not looked at further."""
    if flags:
        raise linux_error(errno.EINVAL)
    pairs = import_iovec(task, local[0], local[1] & 0xFFFF_FFFF)  # an unsigned int in Linux, the other one is not
    for addr, length in pairs:
        access_ok(addr, length)
    mine = _Iovec(task, pairs)
    if not mine.left:
        return 0
    theirs = import_iovec(task, *remote)
    if not any(length for _, length in theirs):
        return 0
    return process_vm_rw(process_mm(sys.kernel, task, pid), mine, theirs, write=write)


@CALLS.define("process_vm_readv", "pid", "addr", "ulong", "addr", "ulong", "ulong")
def sys_process_vm_readv(
    sys: SyscallTable, task: TaskStruct, pid: int, local: int, local_count: int, remote: int, count: int, flags: int
) -> int:
    return _process_vm(sys, task, pid, (local, local_count), (remote, count), flags, write=False)


@CALLS.define("process_vm_writev", "pid", "addr", "ulong", "addr", "ulong", "ulong")
def sys_process_vm_writev(
    sys: SyscallTable, task: TaskStruct, pid: int, local: int, local_count: int, remote: int, count: int, flags: int
) -> int:
    return _process_vm(sys, task, pid, (local, local_count), (remote, count), flags, write=True)


@CALLS.define("move_pages", "pid", "ulong", "addr", "addr", "addr", "int", partly="the query only: no pages move")
def sys_move_pages(
    sys: SyscallTable, task: TaskStruct, pid: int, count: int, pages: int, nodes: int, status: int, flags: int
) -> int:
    if flags & ~(MPOL_MF_MOVE | MPOL_MF_MOVE_ALL):
        raise linux_error(errno.EINVAL)
    if flags & MPOL_MF_MOVE_ALL and not task.capable(CAP_SYS_NICE):
        raise linux_error(errno.EPERM)
    target = task if not pid else sys.kernel.tasks.get(pid)
    if target is None:
        raise linux_error(errno.ESRCH)
    if not may_access_mm(sys.kernel, task, target, attach=False):
        raise linux_error(errno.EPERM)
    if target.mm is None:
        raise linux_error(errno.EINVAL)
    if nodes:
        sys.not_modelled("move_pages: moving pages")
        raise linux_error(errno.ENOSYS)
    for first in range(0, count, _ASKED_AT_ONCE):
        part = min(_ASKED_AT_ONCE, count - first)
        addrs = struct.unpack(f"<{part}Q", copy_from_user(task, pages + first * 8, part * 8))
        found = do_pages_stat(target.mm, addrs)
        copy_to_user(task, status + first * 4, struct.pack(f"<{part}i", *found))
    return 0
