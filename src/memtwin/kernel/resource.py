# SPDX-License-Identifier: GPL-2.0-or-later
"""Resource limits and usage (kernel/sys.c)."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from memtwin.abi.resource import (
    RLIM_INFINITY,
    RLIM_NLIMITS,
    RLIMIT_AS,
    RLIMIT_CORE,
    RLIMIT_DATA,
    RLIMIT_MEMLOCK,
    RLIMIT_MSGQUEUE,
    RLIMIT_NICE,
    RLIMIT_NOFILE,
    RLIMIT_NPROC,
    RLIMIT_RTPRIO,
    RLIMIT_SIGPENDING,
    RLIMIT_STACK,
    RUSAGE_CHILDREN,
    RUSAGE_SELF,
    RUSAGE_THREAD,
)
from memtwin.fs.inode import linux_error
from memtwin.kernel.syscalls import Calls
from memtwin.kernel.time import NSEC_PER_SEC, cpu_time
from memtwin.kernel.uaccess import copy_from_user, copy_to_user

if TYPE_CHECKING:
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct

__all__ = ["CALLS", "default_rlimits", "rlimit"]

CALLS: Final = Calls()

#: Limits whose value a call accepts but nothing enforces yet.
_NOT_ENFORCED: Final = "only AS, DATA, MEMLOCK, NOFILE and STACK are enforced"
_ENFORCED: Final = (RLIMIT_AS, RLIMIT_CORE, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_NOFILE, RLIMIT_STACK)


def default_rlimits(ram_pages: int) -> dict[int, tuple[int, int]]:
    """(soft, hard) of every limit as init has them (asm-generic/resource.h); processes: one per 8 stacks of RAM,
    halved.
    """
    threads = max(20, ram_pages // 32) // 2
    limits = {resource: (RLIM_INFINITY, RLIM_INFINITY) for resource in range(RLIM_NLIMITS)}
    limits[RLIMIT_STACK] = (8 << 20, RLIM_INFINITY)
    limits[RLIMIT_CORE] = (0, RLIM_INFINITY)
    limits[RLIMIT_NPROC] = limits[RLIMIT_SIGPENDING] = (threads, threads)
    limits[RLIMIT_NOFILE] = (1024, 4096)
    limits[RLIMIT_MEMLOCK] = (8 << 20, 8 << 20)
    limits[RLIMIT_MSGQUEUE] = (819200, 819200)
    limits[RLIMIT_NICE] = limits[RLIMIT_RTPRIO] = (0, 0)
    return limits


def rlimit(task: TaskStruct, resource: int) -> int:
    """The soft limit."""
    return task.rlimits[resource][0]


def _set(sys: SyscallTable, task: TaskStruct, resource: int, soft: int, hard: int) -> None:
    if soft > hard:
        raise linux_error(errno.EINVAL)
    if resource == RLIMIT_NOFILE and hard > 1048576:  # fs.nr_open
        raise linux_error(errno.EPERM)
    task.rlimits[resource] = (soft, hard)
    if resource not in _ENFORCED:
        sys.not_modelled(f"limit {resource} of setrlimit")


def _check(sys: SyscallTable, task: TaskStruct, pid: int, resource: int) -> None:
    if resource >= RLIM_NLIMITS:
        raise linux_error(errno.EINVAL)
    if pid not in (0, task.pid):
        raise linux_error(errno.ESRCH)


@CALLS.define("prlimit64", "pid", "uint", "buf", "buf", partly=_NOT_ENFORCED)
def sys_prlimit64(sys: SyscallTable, task: TaskStruct, pid: int, resource: int, new: int, old: int) -> int:
    wanted = struct.unpack("<QQ", copy_from_user(task, new, 16)) if new else None
    _check(sys, task, pid, resource)
    before = task.rlimits[resource]
    if wanted is not None:
        _set(sys, task, resource, *wanted)
    if old:
        copy_to_user(task, old, struct.pack("<QQ", *before))
    return 0


@CALLS.define("getrlimit", "uint", "buf")
def sys_getrlimit(sys: SyscallTable, task: TaskStruct, resource: int, buf: int) -> int:
    _check(sys, task, 0, resource)
    copy_to_user(task, buf, struct.pack("<QQ", *task.rlimits[resource]))
    return 0


@CALLS.define("setrlimit", "uint", "buf", partly=_NOT_ENFORCED)
def sys_setrlimit(sys: SyscallTable, task: TaskStruct, resource: int, buf: int) -> int:
    soft, hard = struct.unpack("<QQ", copy_from_user(task, buf, 16))
    _check(sys, task, 0, resource)
    _set(sys, task, resource, soft, hard)
    return 0


@CALLS.define("getrusage", "int", "buf", partly="no block I/O, no context switches; all CPU time is user time")
def sys_getrusage(sys: SyscallTable, task: TaskStruct, who: int, buf: int) -> int:
    if who not in (RUSAGE_SELF, RUSAGE_CHILDREN, RUSAGE_THREAD):
        raise linux_error(errno.EINVAL)
    words = [0] * 18
    if who != RUSAGE_CHILDREN:
        assert task.mm is not None
        seconds, ns = divmod(cpu_time(sys, task), NSEC_PER_SEC)
        words[0:2] = seconds, ns // 1000
        words[4] = max(task.mm.hiwater_rss, task.mm.rss) * 4  # ru_maxrss, KiB
        words[8:10] = task.min_flt, task.maj_flt
    copy_to_user(task, buf, struct.pack("<18q", *words))
    return 0
