# SPDX-License-Identifier: GPL-2.0-or-later
"""Restartable sequences (kernel/rseq.c): registration, and the numbers the kernel keeps in the registered area.

A thread stays on its CPU, is never preempted inside user code and gets no signal handler called, so the numbers are
written once and no sequence has to be aborted. Layout: uapi linux/rseq.h.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from memtwin.fs.inode import linux_error
from memtwin.hw.paging import TASK_SIZE
from memtwin.kernel.syscalls import Calls
from memtwin.kernel.uaccess import copy_from_user, copy_to_user

if TYPE_CHECKING:
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct

__all__ = ["CALLS", "RSEQ_ALIGN", "RSEQ_FEATURE_SIZE"]

CALLS: Final = Calls()

RSEQ_FEATURE_SIZE: Final = 28  #: bytes up to and with mm_cid (since 6.3)
RSEQ_ALIGN: Final = 32
RSEQ_FLAG_UNREGISTER: Final = 1
_ORIG_SIZE: Final = 32
_UNINITIALIZED: Final = 0xFFFFFFFF


@CALLS.define("rseq", "addr", "uint", "flags", "uint", partly="nothing ever aborts a sequence")
def sys_rseq(sys: SyscallTable, task: TaskStruct, addr: int, size: int, flags: int, sig: int) -> int:
    known = sys.rseq.get(task.pid)
    if flags & RSEQ_FLAG_UNREGISTER:
        if flags & ~RSEQ_FLAG_UNREGISTER or known is None or known[:2] != (addr, size):
            raise linux_error(errno.EINVAL)
        if known[2] != sig:
            raise linux_error(errno.EPERM)
        copy_to_user(task, addr, struct.pack("<II", 0, _UNINITIALIZED))
        copy_to_user(task, addr + 20, bytes(8))
        del sys.rseq[task.pid]
        return 0
    if flags:
        raise linux_error(errno.EINVAL)
    if known is not None:
        if known[:2] != (addr, size):
            raise linux_error(errno.EINVAL)
        raise linux_error(errno.EPERM if known[2] != sig else errno.EBUSY)
    if size < _ORIG_SIZE or addr % RSEQ_ALIGN:
        raise linux_error(errno.EINVAL)
    if addr + size > TASK_SIZE:
        raise linux_error(errno.EFAULT)
    copy_from_user(task, addr, _ORIG_SIZE)
    node = sys.kernel.topology.cpu_node[task.cpu]
    copy_to_user(task, addr, struct.pack("<II", task.cpu, task.cpu))
    copy_to_user(task, addr + 20, struct.pack("<II", node, 0))  # node_id, mm_cid: the first thread of its mm
    sys.rseq[task.pid] = (addr, size, sig)
    return 0
