# SPDX-License-Identifier: GPL-2.0-or-later
"""Clocks and sleeping (kernel/time/posix-timers.c, hrtimer.c): all of it virtual time.

CLOCK_REALTIME is the time of boot, which the machine's configuration gives, plus the virtual clock; the CPU clocks of
the only process are the virtual time since its start without its sleeps.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from memtwin.fs.inode import linux_error
from memtwin.kernel.syscalls import Calls
from memtwin.kernel.uaccess import copy_from_user, copy_to_user, put_user
from memtwin.sched.task import INTERRUPTIBLE

if TYPE_CHECKING:
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct

__all__ = ["CALLS", "cpu_time"]

CALLS: Final = Calls()

NSEC_PER_SEC: Final = 1_000_000_000
_TICK: Final = 4_000_000  #: ns, with the usual HZ=250

CLOCK_REALTIME: Final = 0
CLOCK_MONOTONIC: Final = 1
CLOCK_PROCESS_CPUTIME_ID: Final = 2
CLOCK_THREAD_CPUTIME_ID: Final = 3
_REALTIME: Final = (0, 5, 8, 11)  #: with COARSE, ALARM, TAI
_MONOTONIC: Final = (1, 4, 6, 7, 9)  #: with RAW, COARSE, BOOTTIME, BOOTTIME_ALARM
_COARSE: Final = (5, 6)
TIMER_ABSTIME: Final = 1


def cpu_time(sys: SyscallTable, task: TaskStruct) -> int:
    """Virtual ns of CPU time used."""
    return sys.kernel.clock.now - task.start_time - sys.slept.get(task.pid, 0)


def _now(sys: SyscallTable, task: TaskStruct, clock: int) -> int:
    """ns on ``clock``. EINVAL for an unknown one."""
    if clock in _REALTIME:
        now = sys.epoch + sys.kernel.clock.now
    elif clock in _MONOTONIC:
        now = sys.kernel.clock.now
    elif clock in (CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID):
        return cpu_time(sys, task)
    else:
        raise linux_error(errno.EINVAL)
    return now - now % _TICK if clock in _COARSE else now


@CALLS.define("clock_gettime", "int", "buf")
def sys_clock_gettime(sys: SyscallTable, task: TaskStruct, clock: int, buf: int) -> int:
    copy_to_user(task, buf, struct.pack("<qq", *divmod(_now(sys, task, clock), NSEC_PER_SEC)))
    return 0


@CALLS.define("clock_getres", "int", "buf")
def sys_clock_getres(sys: SyscallTable, task: TaskStruct, clock: int, buf: int) -> int:
    _now(sys, task, clock)
    if buf:
        copy_to_user(task, buf, struct.pack("<qq", 0, _TICK if clock in _COARSE else 1))
    return 0


@CALLS.define("gettimeofday", "buf", "buf")
def sys_gettimeofday(sys: SyscallTable, task: TaskStruct, tv: int, tz: int) -> int:
    if tv:
        seconds, ns = divmod(sys.epoch + sys.kernel.clock.now, NSEC_PER_SEC)
        copy_to_user(task, tv, struct.pack("<qq", seconds, ns // 1000))
    if tz:
        copy_to_user(task, tz, bytes(8))
    return 0


@CALLS.define("time", "buf")
def sys_time(sys: SyscallTable, task: TaskStruct, buf: int) -> int:
    seconds = (sys.epoch + sys.kernel.clock.now) // NSEC_PER_SEC
    if buf:
        put_user(task, buf, seconds)
    return seconds


@CALLS.define("times", "buf")
def sys_times(sys: SyscallTable, task: TaskStruct, buf: int) -> int:
    if buf:
        ticks = cpu_time(sys, task) // 10_000_000  # USER_HZ = 100
        copy_to_user(task, buf, struct.pack("<4q", ticks, 0, 0, 0))
    return sys.kernel.clock.now // 10_000_000


def _sleep(sys: SyscallTable, task: TaskStruct, ns: int, left: int) -> int:
    """Sleep for ``ns``; a signal ends it: EINTR with the rest at ``left``."""
    before = sys.kernel.clock.now
    rest = sys.kernel.sched.sleep(ns, INTERRUPTIBLE) if ns > 0 else 0
    sys.slept[task.pid] = sys.slept.get(task.pid, 0) + sys.kernel.clock.now - before
    if not rest:
        return 0
    if left:
        copy_to_user(task, left, struct.pack("<qq", *divmod(rest, NSEC_PER_SEC)))
    raise linux_error(errno.EINTR)


def _read_timespec(task: TaskStruct, addr: int) -> int:
    """ns at ``addr``. EFAULT, EINVAL."""
    seconds, ns = struct.unpack("<qq", copy_from_user(task, addr, 16))
    if seconds < 0 or not 0 <= ns < NSEC_PER_SEC:
        raise linux_error(errno.EINVAL)
    return int(seconds * NSEC_PER_SEC + ns)


@CALLS.define("nanosleep", "buf", "buf")
def sys_nanosleep(sys: SyscallTable, task: TaskStruct, request: int, left: int) -> int:
    return _sleep(sys, task, _read_timespec(task, request), left)


@CALLS.define("clock_nanosleep", "int", "int", "buf", "buf")
def sys_clock_nanosleep(sys: SyscallTable, task: TaskStruct, clock: int, flags: int, request: int, left: int) -> int:
    if clock == CLOCK_THREAD_CPUTIME_ID:
        raise linux_error(errno.EOPNOTSUPP)
    now = _now(sys, task, clock)
    ns = _read_timespec(task, request)
    if clock == CLOCK_PROCESS_CPUTIME_ID:
        sys.not_modelled("clock_nanosleep on CLOCK_PROCESS_CPUTIME_ID")
        raise linux_error(errno.EOPNOTSUPP)
    if flags & TIMER_ABSTIME:
        return _sleep(sys, task, ns - now, 0)
    return _sleep(sys, task, ns, left)
