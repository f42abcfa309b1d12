# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals of a single-threaded program (kernel/signal.c): dispositions, masks, the alternate stack, default actions.

Delivery to a handler is not modelled yet: a signal that has one ends the process as the default action would, and says
so. Invariants: SIGKILL and SIGSTOP are never blocked, ignored or handled; ``pending`` holds only signals that are
blocked.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from memtwin.fs.inode import linux_error
from memtwin.kernel.exit import do_exit
from memtwin.kernel.syscalls import Calls
from memtwin.kernel.uaccess import copy_from_user, copy_to_user, put_user

if TYPE_CHECKING:
    from memtwin.arch.x86.mm.fault import SignalInfo
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct

__all__ = ["CALLS", "SigHand", "force_sig", "send_sig", "signal_name"]

CALLS: Final = Calls()

_TABLE: Final = """
0 HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU
XFSZ VTALRM PROF WINCH IO PWR SYS
"""
_NAMES: Final = _TABLE.split()
NSIG: Final = 64

SIGKILL: Final = 9
SIGPIPE: Final = 13
SIGCHLD: Final = 17
SIGCONT: Final = 18
SIGSTOP: Final = 19
_IGNORED_BY_DEFAULT: Final = (SIGCHLD, SIGCONT, 23, 28)  # URG, WINCH
_STOPS: Final = (SIGSTOP, 20, 21, 22)

SIG_DFL: Final = 0
SIG_IGN: Final = 1
SIG_BLOCK: Final = 0
SIG_UNBLOCK: Final = 1
SIG_SETMASK: Final = 2

SS_DISABLE: Final = 2
SS_AUTODISARM: Final = 1 << 31
MINSIGSTKSZ: Final = 2048

_UNBLOCKABLE: Final = 1 << SIGKILL - 1 | 1 << SIGSTOP - 1
_ACTION: Final = struct.Struct("<QQQQ")  # handler, flags, restorer, mask


def signal_name(sig: int) -> str:
    """ "SIGSEGV" for 11, "SIGRT 35" for a real-time signal."""
    return f"SIG{_NAMES[sig]}" if sig < len(_NAMES) else f"SIGRT {sig}"


class SigHand:
    """What a process wants done with its signals, and what is blocked and pending. Masks: bit ``sig - 1``."""

    __slots__ = ("actions", "altstack", "blocked", "pending")

    def __init__(self) -> None:
        self.actions: dict[int, tuple[int, int, int, int]] = {}  #: signal -> handler, flags, restorer, mask
        self.altstack = (0, SS_DISABLE, 0)  #: address, flags, size in bytes
        self.blocked = 0
        self.pending = 0

    def handler(self, sig: int) -> int:
        """SIG_DFL, SIG_IGN or an address."""
        return self.actions.get(sig, (SIG_DFL, 0, 0, 0))[0]


def force_sig(sys: SyscallTable, task: TaskStruct, info: SignalInfo) -> None:
    """A signal that the program's own instruction raised: blocking or ignoring it does not help."""
    hand: SigHand = task.sighand
    if hand.handler(info.sig) not in (SIG_DFL, SIG_IGN) and info.sig != SIGKILL:
        sys.not_modelled(f"calling a signal handler ({signal_name(info.sig)} at {info.addr:#x})")
    _die(sys, task, info.sig, info.code, info.addr)


def send_sig(sys: SyscallTable, task: TaskStruct, sig: int) -> None:
    """Somebody sends ``sig`` to the process."""
    hand: SigHand = task.sighand
    handler = hand.handler(sig)
    if sig == SIGKILL:
        handler = SIG_DFL
    elif hand.blocked & 1 << sig - 1 and sig != SIGSTOP:
        hand.pending |= 1 << sig - 1
        return
    if handler == SIG_IGN or (handler == SIG_DFL and sig in _IGNORED_BY_DEFAULT):
        return
    if handler != SIG_DFL:
        sys.not_modelled(f"calling a signal handler ({signal_name(sig)})")
    elif sig in _STOPS:
        sys.not_modelled(f"stopping a process ({signal_name(sig)})")
        return
    _die(sys, task, sig, 0, 0)


def _die(sys: SyscallTable, task: TaskStruct, sig: int, code: int, addr: int) -> None:
    sys.died_of = (sig, code, addr)
    trace = sys.kernel.trace.signal_generate
    if trace is not None:
        trace(sig, 0, code, task.comm, task.pid, True, 0)
    do_exit(sys, task, sig)


def _recalculate(sys: SyscallTable, task: TaskStruct) -> None:
    """Deliver what has become unblocked, lowest number first."""
    hand: SigHand = task.sighand
    while task.exit_code < 0:
        ready = hand.pending & ~hand.blocked
        if not ready:
            return
        sig = (ready & -ready).bit_length()
        hand.pending &= ~(1 << sig - 1)
        send_sig(sys, task, sig)


def _check_set_size(size: int) -> None:
    if size != 8:
        raise linux_error(errno.EINVAL)


@CALLS.define("rt_sigaction", "signal", "addr", "addr", "size", partly="handlers are recorded, never called")
def sys_rt_sigaction(sys: SyscallTable, task: TaskStruct, sig: int, new: int, old: int, size: int) -> int:
    _check_set_size(size)
    action = _ACTION.unpack(copy_from_user(task, new, _ACTION.size)) if new else None
    if not 1 <= sig <= NSIG or (action is not None and sig in (SIGKILL, SIGSTOP)):
        raise linux_error(errno.EINVAL)
    hand: SigHand = task.sighand
    before = hand.actions.get(sig, (SIG_DFL, 0, 0, 0))
    if action is not None:
        handler, flags, restorer, mask = action
        hand.actions[sig] = (handler, flags, restorer, mask & ~_UNBLOCKABLE)
        if handler == SIG_IGN or (handler == SIG_DFL and sig in _IGNORED_BY_DEFAULT):
            hand.pending &= ~(1 << sig - 1)
    if old:
        copy_to_user(task, old, _ACTION.pack(*before))
    return 0


@CALLS.define("rt_sigprocmask", "int", "addr", "addr", "size")
def sys_rt_sigprocmask(sys: SyscallTable, task: TaskStruct, how: int, new: int, old: int, size: int) -> int:
    _check_set_size(size)
    hand: SigHand = task.sighand
    before = hand.blocked
    if new:
        mask = int.from_bytes(copy_from_user(task, new, 8), "little") & ~_UNBLOCKABLE
        if how == SIG_BLOCK:
            hand.blocked |= mask
        elif how == SIG_UNBLOCK:
            hand.blocked &= ~mask
        elif how == SIG_SETMASK:
            hand.blocked = mask
        else:
            raise linux_error(errno.EINVAL)
    if old:
        put_user(task, old, before)
    _recalculate(sys, task)
    return 0


@CALLS.define("rt_sigpending", "addr", "size")
def sys_rt_sigpending(sys: SyscallTable, task: TaskStruct, addr: int, size: int) -> int:
    if size > 8:
        raise linux_error(errno.EINVAL)
    copy_to_user(task, addr, int(task.sighand.pending).to_bytes(8, "little")[:size])
    return 0


@CALLS.define("sigaltstack", "addr", "addr")
def sys_sigaltstack(sys: SyscallTable, task: TaskStruct, new: int, old: int) -> int:
    hand: SigHand = task.sighand
    stack = struct.unpack("<QI4xQ", copy_from_user(task, new, 24)) if new else None
    before = hand.altstack
    if stack is not None:
        addr, flags, size = stack
        mode = flags & ~SS_AUTODISARM
        if mode not in (0, 1, SS_DISABLE):  # 1: SS_ONSTACK
            raise linux_error(errno.EINVAL)
        if mode == SS_DISABLE:
            addr = size = 0
        elif size < MINSIGSTKSZ:
            raise linux_error(errno.ENOMEM)
        hand.altstack = (addr, flags, size)
    if old:
        copy_to_user(task, old, struct.pack("<QI4xQ", *before))
    return 0


def _kill(sys: SyscallTable, task: TaskStruct, pid: int, sig: int) -> int:
    if not 0 <= sig <= NSIG:
        raise linux_error(errno.EINVAL)
    if pid not in (task.pid, 0, -task.tgid):
        raise linux_error(errno.ESRCH)
    if sig:
        send_sig(sys, task, sig)
    return 0


@CALLS.define("kill", "pid", "signal", partly="to the process itself and its group")
def sys_kill(sys: SyscallTable, task: TaskStruct, pid: int, sig: int) -> int:
    return _kill(sys, task, pid, sig)


@CALLS.define("tkill", "pid", "signal", partly="to the thread itself")
def sys_tkill(sys: SyscallTable, task: TaskStruct, pid: int, sig: int) -> int:
    if pid <= 0:
        raise linux_error(errno.EINVAL)
    return _kill(sys, task, pid, sig)


@CALLS.define("tgkill", "pid", "pid", "signal", partly="to the thread itself")
def sys_tgkill(sys: SyscallTable, task: TaskStruct, tgid: int, pid: int, sig: int) -> int:
    if pid <= 0 or tgid <= 0:
        raise linux_error(errno.EINVAL)
    if tgid != task.tgid:
        raise linux_error(errno.ESRCH)
    return _kill(sys, task, pid, sig)
