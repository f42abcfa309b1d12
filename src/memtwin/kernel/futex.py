# SPDX-License-Identifier: GPL-2.0-or-later
"""futex(2) and the robust list for a single thread (kernel/futex/).

Nobody else can wake a lone thread: WAKE finds no one, WAIT on an unchanged word sleeps until its timeout, and without
one it never ends, which is told as a deadlock instead of hanging.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from memtwin.errors import Deadlock
from memtwin.fs.inode import linux_error
from memtwin.kernel.syscalls import Calls
from memtwin.kernel.uaccess import copy_from_user, get_user

if TYPE_CHECKING:
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct

__all__ = ["CALLS"]

CALLS: Final = Calls()

FUTEX_WAIT: Final = 0
FUTEX_WAKE: Final = 1
FUTEX_WAIT_BITSET: Final = 9
FUTEX_WAKE_BITSET: Final = 10
FUTEX_PRIVATE_FLAG: Final = 128
FUTEX_CLOCK_REALTIME: Final = 256
_NSEC: Final = 1_000_000_000


@CALLS.define("futex", "addr", "int", "uint", "addr", "addr", "uint", partly="WAIT and WAKE of a single thread")
def sys_futex(
    sys: SyscallTable, task: TaskStruct, addr: int, op: int, value: int, timeout: int, addr2: int, value3: int
) -> int:
    command = op & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)
    if command in (FUTEX_WAKE, FUTEX_WAKE_BITSET):
        if addr & 3 or (command == FUTEX_WAKE_BITSET and not value3):
            raise linux_error(errno.EINVAL)
        return 0
    if command not in (FUTEX_WAIT, FUTEX_WAIT_BITSET):
        sys.not_modelled(f"futex operation {command}")
        raise linux_error(errno.ENOSYS)
    if addr & 3 or (command == FUTEX_WAIT_BITSET and not value3):
        raise linux_error(errno.EINVAL)
    ns = None
    if timeout:
        seconds, rest = struct.unpack("<qq", copy_from_user(task, timeout, 16))
        if seconds < 0 or not 0 <= rest < _NSEC:
            raise linux_error(errno.EINVAL)
        ns = seconds * _NSEC + rest
    if get_user(task, addr, 4) != value:
        raise linux_error(errno.EAGAIN)
    if ns is None:
        raise Deadlock(
            f"{task.comm}({task.pid}) waits for the futex at {addr:#x}, and no other thread exists to wake it"
        )
    if command == FUTEX_WAIT_BITSET:  # an absolute time
        ns -= sys.kernel.clock.now + (sys.epoch if op & FUTEX_CLOCK_REALTIME else 0)
    if ns > 0:
        sys.kernel.sched.sleep(ns)
    raise linux_error(errno.ETIMEDOUT)


@CALLS.define("set_robust_list", "addr", "size")
def sys_set_robust_list(sys: SyscallTable, task: TaskStruct, head: int, size: int) -> int:
    if size != 24:
        raise linux_error(errno.EINVAL)
    task.robust_list = head  # only another thread could hold or wait for its locks
    return 0
