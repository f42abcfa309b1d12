# SPDX-License-Identifier: GPL-2.0-or-later
"""Who and where am I: ids, names, prctl, arch_prctl, sysinfo (kernel/sys.c, arch/x86/kernel/process_64.c).

Guests are root, in a session of their own; the first one's parent is outside, so getppid is 0.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from memtwin.fs.inode import linux_error
from memtwin.hw.paging import TASK_SIZE
from memtwin.kernel.syscalls import Calls
from memtwin.kernel.uaccess import copy_to_user, put_user, strncpy_from_user

if TYPE_CHECKING:
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct

__all__ = ["CALLS", "DOMAIN_NAME", "HOST_NAME", "release", "version"]

CALLS: Final = Calls()

HOST_NAME: Final = "memtwin"
DOMAIN_NAME: Final = "(none)"

PR_GET_DUMPABLE: Final = 3
PR_SET_NAME: Final = 15
PR_GET_NAME: Final = 16

ARCH_SET_GS: Final = 0x1001
ARCH_SET_FS: Final = 0x1002
ARCH_GET_FS: Final = 0x1003
ARCH_GET_GS: Final = 0x1004

GRND_NONBLOCK: Final = 1
GRND_RANDOM: Final = 2
GRND_INSECURE: Final = 4


def release(sys: SyscallTable) -> str:
    """What ``uname -r`` prints: the release that the machine's profile stands for."""
    name = sys.kernel.features.kernel
    if name in ("6.7", "before"):
        return "6.7.0-rc1"
    if name == "host":
        import platform

        return platform.release()
    return name if name.count(".") > 1 else f"{name}.0"


def version() -> str:
    """What ``uname -v`` prints."""
    return "#1 SMP PREEMPT_DYNAMIC memtwin"


@CALLS.define("uname", "buf")
def sys_uname(sys: SyscallTable, task: TaskStruct, buf: int) -> int:
    fields = ("Linux", HOST_NAME, release(sys), version(), "x86_64", DOMAIN_NAME)
    copy_to_user(task, buf, b"".join(field.encode()[:64].ljust(65, b"\0") for field in fields))
    return 0


@CALLS.define("getpid")
def sys_getpid(sys: SyscallTable, task: TaskStruct) -> int:
    return task.tgid


@CALLS.define("gettid")
def sys_gettid(sys: SyscallTable, task: TaskStruct) -> int:
    return task.pid


@CALLS.define("getppid")
def sys_getppid(sys: SyscallTable, task: TaskStruct) -> int:
    return 0


@CALLS.define("getpgrp")
def sys_getpgrp(sys: SyscallTable, task: TaskStruct) -> int:
    return task.tgid


@CALLS.define("getpgid", "pid")
def sys_getpgid(sys: SyscallTable, task: TaskStruct, pid: int) -> int:
    if pid in (0, task.pid):
        return task.tgid
    if pid not in sys.kernel.tasks:
        raise linux_error(errno.ESRCH)
    return pid


@CALLS.define("getsid", "pid")
def sys_getsid(sys: SyscallTable, task: TaskStruct, pid: int) -> int:
    return sys_getpgid(sys, task, pid)


@CALLS.define("getuid")
@CALLS.define("geteuid")
@CALLS.define("getgid")
@CALLS.define("getegid")
def sys_getuid(sys: SyscallTable, task: TaskStruct) -> int:
    return 0


@CALLS.define("getgroups", "int", "buf")
def sys_getgroups(sys: SyscallTable, task: TaskStruct, size: int, buf: int) -> int:
    if size < 0:
        raise linux_error(errno.EINVAL)
    return 0


@CALLS.define("getresuid", "buf", "buf", "buf")
@CALLS.define("getresgid", "buf", "buf", "buf")
def sys_getresuid(sys: SyscallTable, task: TaskStruct, real: int, effective: int, saved: int) -> int:
    for addr in (real, effective, saved):
        put_user(task, addr, 0, 4)
    return 0


@CALLS.define("umask", "int")
def sys_umask(sys: SyscallTable, task: TaskStruct, mask: int) -> int:
    old: int = task.fs.umask
    task.fs.umask = mask & 0o777
    return old


@CALLS.define("set_tid_address", "addr")
def sys_set_tid_address(sys: SyscallTable, task: TaskStruct, addr: int) -> int:
    task.clear_child_tid = addr
    return task.pid


@CALLS.define("sched_yield")
def sys_sched_yield(sys: SyscallTable, task: TaskStruct) -> int:
    sys.kernel.sched.yield_()
    return 0


@CALLS.define("sched_getaffinity", "pid", "uint", "buf")
def sys_sched_getaffinity(sys: SyscallTable, task: TaskStruct, pid: int, size: int, buf: int) -> int:
    cpus = sys.kernel.topology.nr_cpus
    if size * 8 < cpus or size & 7:
        raise linux_error(errno.EINVAL)
    if pid and pid not in sys.kernel.tasks:
        raise linux_error(errno.ESRCH)
    answer = ((1 << cpus) - 1).to_bytes((cpus + 63) // 64 * 8, "little")[:size]
    copy_to_user(task, buf, answer)
    return len(answer)


@CALLS.define("getcpu", "buf", "buf", "addr")
def sys_getcpu(sys: SyscallTable, task: TaskStruct, cpu: int, node: int, unused: int) -> int:
    if cpu:
        put_user(task, cpu, task.cpu, 4)
    if node:
        put_user(task, node, sys.kernel.topology.cpu_node[task.cpu], 4)
    return 0


@CALLS.define("prctl", "int", "ulong", "ulong", "ulong", "ulong", partly="PR_GET_NAME, PR_SET_NAME, PR_GET_DUMPABLE")
def sys_prctl(sys: SyscallTable, task: TaskStruct, option: int, a2: int, a3: int, a4: int, a5: int) -> int:
    if option == PR_GET_NAME:
        copy_to_user(task, a2, task.comm.encode(errors="surrogateescape").ljust(16, b"\0"))
        return 0
    if option == PR_SET_NAME:
        name = strncpy_from_user(task, a2, 4096)[:15]
        task.name = name.decode(errors="surrogateescape")
        return 0
    if option == PR_GET_DUMPABLE:
        return 1
    sys.not_modelled(f"prctl option {option}")
    raise linux_error(errno.EINVAL)


@CALLS.define("arch_prctl", "int", "addr", partly="ARCH_{SET,GET}_{FS,GS}")
def sys_arch_prctl(sys: SyscallTable, task: TaskStruct, option: int, addr: int) -> int:
    regs = task.regs
    if option in (ARCH_SET_FS, ARCH_SET_GS):
        if addr >= TASK_SIZE:
            raise linux_error(errno.EPERM)
        if option == ARCH_SET_FS:
            regs.fs_base = addr
        else:
            regs.gs_base = addr
        return 0
    if option in (ARCH_GET_FS, ARCH_GET_GS):
        put_user(task, addr, regs.fs_base if option == ARCH_GET_FS else regs.gs_base)
        return 0
    raise linux_error(errno.EINVAL)


@CALLS.define("sysinfo", "buf")
def sys_sysinfo(sys: SyscallTable, task: TaskStruct, buf: int) -> int:
    kernel = sys.kernel
    pages = (kernel.page_alloc.managed_pages, kernel.page_alloc.nr_free_pages(), _shmem_pages(sys), 0, 0, 0)
    uptime = -(-kernel.clock.now // 1_000_000_000)
    copy_to_user(
        task,
        buf,
        struct.pack(
            "<q3Q6QHH4xQQI4x",
            uptime,
            *(0, 0, 0),  # load averages: not modelled, and 0 in the first seconds of a machine
            *(count << 12 for count in pages),
            len(kernel.tasks),
            *(0, 0, 0),
            1,
        ),
    )
    return 0


def _shmem_pages(sys: SyscallTable) -> int:
    return sum(stat.nr_shmem for stat in sys.kernel.node_stats)


@CALLS.define("getrandom", "buf", "size", "flags")
def sys_getrandom(sys: SyscallTable, task: TaskStruct, buf: int, count: int, flags: int) -> int:
    if flags & ~(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE):
        raise linux_error(errno.EINVAL)
    if flags & (GRND_RANDOM | GRND_INSECURE) == GRND_RANDOM | GRND_INSECURE:
        raise linux_error(errno.EINVAL)
    count = min(count, 0x7FFF_F000)
    done = 0
    while done < count:
        piece = sys.random_bytes(min(count - done, 1 << 20))
        copy_to_user(task, buf + done, piece)
        done += len(piece)
    return done
