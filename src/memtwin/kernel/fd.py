# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls on descriptors that move no data: close, dup, fcntl, ioctl, poll (fs/file.c, fcntl.c, ioctl.c,
select.c).
"""

from __future__ import annotations

import errno
import select
import struct
from typing import TYPE_CHECKING, Final

from memtwin.abi.fcntl import (
    F_DUPFD,
    F_DUPFD_CLOEXEC,
    F_GETFD,
    F_GETFL,
    F_SETFD,
    F_SETFL,
    FD_CLOEXEC,
    O_CLOEXEC,
    O_PATH,
    SETFL_MASK,
)
from memtwin.abi.resource import RLIMIT_NOFILE
from memtwin.errors import Deadlock
from memtwin.fs.inode import linux_error
from memtwin.fs.tty import StdioFile
from memtwin.kernel.resource import rlimit
from memtwin.kernel.syscalls import Calls
from memtwin.kernel.uaccess import copy_from_user, copy_to_user

if TYPE_CHECKING:
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct

__all__ = ["CALLS"]

CALLS: Final = Calls()

FIOCLEX: Final = 0x5451
FIONCLEX: Final = 0x5450

POLLNVAL: Final = 0x20


@CALLS.define("close", "fd")
def sys_close(sys: SyscallTable, task: TaskStruct, fd: int) -> int:
    task.files.close(fd)
    return 0


@CALLS.define("close_range", "uint", "uint", "flags", partly="no CLOSE_RANGE_UNSHARE")
def sys_close_range(sys: SyscallTable, task: TaskStruct, first: int, last: int, flags: int) -> int:
    if flags & ~6 or first > last:
        raise linux_error(errno.EINVAL)
    for fd in [fd for fd in task.files.fds if first <= fd <= last]:
        if flags & 4:  # CLOSE_RANGE_CLOEXEC
            task.files.close_on_exec[fd] = None
        else:
            task.files.close(fd)
    return 0


@CALLS.define("dup", "fd")
def sys_dup(sys: SyscallTable, task: TaskStruct, fd: int) -> int:
    return int(task.files.install(task.files.get_raw(fd), rlimit(task, RLIMIT_NOFILE)))


@CALLS.define("dup2", "fd", "fd")
def sys_dup2(sys: SyscallTable, task: TaskStruct, old: int, new: int) -> int:
    file = task.files.get_raw(old)
    if old != new:
        task.files.replace(new, file, rlimit(task, RLIMIT_NOFILE))
    return new


@CALLS.define("dup3", "fd", "fd", "flags")
def sys_dup3(sys: SyscallTable, task: TaskStruct, old: int, new: int, flags: int) -> int:
    if flags & ~O_CLOEXEC or old == new:
        raise linux_error(errno.EINVAL)
    if not 0 <= new < rlimit(task, RLIMIT_NOFILE):
        raise linux_error(errno.EBADF)
    task.files.replace(new, task.files.get_raw(old), rlimit(task, RLIMIT_NOFILE), bool(flags & O_CLOEXEC))
    return new


@CALLS.define("fcntl", "fd", "uint", "ulong", partly="F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL")
def sys_fcntl(sys: SyscallTable, task: TaskStruct, fd: int, cmd: int, arg: int) -> int:
    files = task.files
    file = files.get_raw(fd)
    if file.flags & O_PATH and cmd not in (F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL):
        raise linux_error(errno.EBADF)
    if cmd in (F_DUPFD, F_DUPFD_CLOEXEC):
        limit = rlimit(task, RLIMIT_NOFILE)
        if not 0 <= arg < limit:
            raise linux_error(errno.EINVAL)
        return int(files.install(file, limit, arg, cmd == F_DUPFD_CLOEXEC))
    if cmd == F_GETFD:
        return FD_CLOEXEC if fd in files.close_on_exec else 0
    if cmd == F_SETFD:
        _set_cloexec(task, fd, bool(arg & FD_CLOEXEC))
        return 0
    if cmd == F_GETFL:
        return int(file.flags)
    if cmd == F_SETFL:
        file.flags = file.flags & ~SETFL_MASK | arg & SETFL_MASK
        return 0
    sys.not_modelled(f"fcntl command {cmd}")
    raise linux_error(errno.EINVAL)


def _set_cloexec(task: TaskStruct, fd: int, on: bool) -> None:
    if on:
        task.files.close_on_exec[fd] = None
    else:
        task.files.close_on_exec.pop(fd, None)


@CALLS.define("ioctl", "fd", "uint", "addr", partly="TCGETS, TIOCGWINSZ, FIONREAD, FIOCLEX, FIONCLEX")
def sys_ioctl(sys: SyscallTable, task: TaskStruct, fd: int, cmd: int, arg: int) -> int:
    file = task.files.get(fd)
    if cmd in (FIOCLEX, FIONCLEX):
        _set_cloexec(task, fd, cmd == FIOCLEX)
        return 0
    answer = file.ioctl(cmd)
    if answer is None:
        sys.not_modelled(f"ioctl {cmd:#x} on a terminal")
        raise linux_error(errno.ENOTTY)
    copy_to_user(task, arg, answer)
    return 0


@CALLS.define("poll", "addr", "uint", "int")
def sys_poll(sys: SyscallTable, task: TaskStruct, addr: int, count: int, timeout: int) -> int:
    if count > rlimit(task, RLIMIT_NOFILE):
        raise linux_error(errno.EINVAL)
    wanted = list(struct.iter_unpack("<ihh", copy_from_user(task, addr, 8 * count)))
    answers = _poll(task, wanted)
    if not any(answers) and timeout:
        _wait_for_input(sys, task, wanted, timeout)
        answers = _poll(task, wanted)
    records = (struct.pack("<ihh", fd, events, got) for (fd, events, _), got in zip(wanted, answers, strict=True))
    copy_to_user(task, addr, b"".join(records))
    return sum(map(bool, answers))


def _poll(task: TaskStruct, wanted: list[tuple[int, int, int]]) -> list[int]:
    """What is ready now, for each (descriptor, events, _)."""
    answers = []
    for fd, events, _ in wanted:
        file = task.files.fds.get(fd)
        if fd < 0:
            answers.append(0)
        elif file is None or file.flags & O_PATH:
            answers.append(POLLNVAL)
        else:
            answers.append(file.poll(events))
    return answers


def _wait_for_input(sys: SyscallTable, task: TaskStruct, wanted: list[tuple[int, int, int]], timeout: int) -> None:
    """Wait for the host's descriptors, the only ones that are not always ready, or let ``timeout`` ms pass."""
    waiting = select.poll()
    host = False
    for fd, events, _ in wanted:
        file = task.files.fds.get(fd)
        if isinstance(file, StdioFile):
            waiting.register(file.fd, events)
            host = True
    if host:
        if waiting.poll(timeout if timeout > 0 else None):
            return
    elif timeout < 0:
        raise Deadlock(f"{task.comm}({task.pid}) polls for ever, and nothing it asks for can become ready")
    sys.kernel.sched.sleep(timeout * 1_000_000)
