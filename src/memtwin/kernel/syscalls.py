# SPDX-License-Identifier: GPL-2.0-or-later
"""The system call table: number, name, kinds of the arguments, handler, how much of it is modelled
(arch/x86/entry/common.c).

A handler is ``fn(sys, task, *arguments) -> int``; it returns what the call answers in RAX and raises ``OSError`` with
Linux's errno. Handlers stand in the files that bear Linux's names (``sys.py``, ``time.py`` ...), and each file lists
its own in ``CALLS``.

A call that is not modelled answers ENOSYS and is told once by name; so is a part of a modelled call that is not (an
ioctl, a prctl option): silence would be worse than any errno.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

from memtwin.abi.syscall_nr import NAMES, NUMBERS

if TYPE_CHECKING:
    from memtwin.fs.proc.base import ProcTask
    from memtwin.fs.vfs import Vfs
    from memtwin.kernel.kernel import Kernel
    from memtwin.kernel.task import TaskStruct

__all__ = ["EPOCH", "Call", "Calls", "Handler", "SyscallTable"]

Handler = Callable[..., int]

#: Default time of boot, ns since 1970: the day 6.7-rc1 was released (12 November 2023, 00:00 UTC).
EPOCH: Final = 1_699_747_200 * 1_000_000_000


def _int(value: int) -> int:
    """The low 32 bits as a signed number."""
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value & 0x8000_0000 else value


def _uint(value: int) -> int:
    return value & 0xFFFF_FFFF


def _long(value: int) -> int:
    return value - (1 << 64) if value & 1 << 63 else value


#: Kinds of arguments: what a register becomes before the handler sees it. Those without an entry stay unsigned 64-bit
#: numbers.
_CONVERT: Final[dict[str, Callable[[int], int]]] = {
    "int": _int,
    "fd": _int,
    "dirfd": _int,
    "pid": _int,
    "signal": _int,
    "uint": _uint,
    "flags": _uint,
    "mode": _uint,
    "long": _long,
    "offset": _long,
}
_PLAIN: Final = frozenset({"addr", "buf", "path", "size", "ulong"})


@dataclass(frozen=True, slots=True)
class Call:
    """One row of the table. ``kinds``: what each argument is; ``status``: "modelled" or "partly", with a ``note`` on
    what is not.
    """

    nr: int
    name: str
    kinds: tuple[str, ...]
    handler: Handler
    status: str
    note: str


class Calls(list[Call]):
    """The calls of one file."""

    def define(self, name: str, *kinds: str, partly: str = "") -> Callable[[Handler], Handler]:
        """Decorator: the function handles ``name``, whose arguments are of these ``kinds``. ``partly``: what is not
        modelled.
        """
        unknown = [kind for kind in kinds if kind not in _CONVERT and kind not in _PLAIN]
        assert not unknown, f"{name}: unknown kinds {unknown}"

        def add(handler: Handler) -> Handler:
            self.append(Call(NUMBERS[name], name, kinds, handler, "partly" if partly else "modelled", partly))
            return handler

        return add


def _all_calls() -> list[Call]:
    from memtwin.kernel import exit as exit_
    from memtwin.kernel import (
        fd,
        futex,
        mman,
        namei,
        process_vm_access,
        read_write,
        readonly,
        resource,
        rseq,
        signal,
        sys,
        time,
    )

    modules: tuple[Any, ...] = (
        *(exit_, fd, futex, mman, namei, process_vm_access, read_write, readonly),
        *(resource, rseq, signal, sys, time),
    )
    return [call for module in modules for call in module.CALLS]


def coverage() -> dict[str, tuple[str, str]]:
    """Every call of Linux by name -> (modelled, partly or not; note)."""
    known = {call.name: (call.status, call.note) for call in _all_calls()}
    return {name: known.get(name, ("not", "")) for name in NAMES.values()}


def _read_memory(task: ProcTask, start: int, end: int) -> bytes:
    """Bytes of a process for /proc; nothing where not all of it is mapped."""
    from memtwin.kernel.task import TaskStruct
    from memtwin.kernel.uaccess import copy_from_user

    assert isinstance(task, TaskStruct)
    try:
        return copy_from_user(task, start, end - start)
    except OSError:
        return b""


def _may_access(kernel: Kernel, task: ProcTask, attach: bool) -> bool:
    """Whether the current process may read (``attach``: change) the memory of another; from outside all may."""
    from memtwin.kernel.ptrace import may_access_mm
    from memtwin.kernel.task import TaskStruct

    assert isinstance(task, TaskStruct)
    current = kernel.tasks.get(kernel.sched.current.tid)
    return current is None or may_access_mm(kernel, current, task, attach=attach)


class SyscallTable:
    """The calls of one machine, and what they need besides memory management.

    ``counts``: calls made, by number; ``unmodelled``: what was asked for and is not modelled, in order of appearance ->
    how often; ``epoch``: time of boot, ns since 1970; ``random``: the stream behind getrandom(2) and /dev/urandom;
    ``slept``: virtual ns that a process slept, by pid; ``rseq``: address, length and signature registered, by pid;
    ``died_of``: signal, si_code and address that killed the last process; ``vfs``: the files.
    """

    def __init__(self, kernel: Kernel, *, epoch: int = EPOCH) -> None:
        from memtwin.fs.vfs import Vfs
        from memtwin.kernel.procfs import register

        self.kernel: Final = kernel
        self.epoch: Final = epoch
        self.slept: dict[int, int] = {}
        self.rseq: dict[int, tuple[int, int, int]] = {}
        self.died_of: tuple[int, int, int] | None = None
        self.random: Final = Random(f"getrandom {kernel.seed}")
        self.counts: dict[int, int] = {}
        self.unmodelled: dict[str, int] = {}
        self.calls: Final = {call.nr: call for call in _all_calls()}
        self._entries: Final = {call.nr: (call.handler, self._converters(call)) for call in self.calls.values()}
        self.vfs: Final[Vfs] = Vfs(
            epoch=epoch,
            random_bytes=self.random_bytes,
            tasks=lambda: kernel.tasks,
            current=lambda: kernel.tasks.get(kernel.sched.current.tid),
            read_memory=_read_memory,
            may_access=partial(_may_access, kernel),
        )
        register(self)
        kernel.syscalls = self

    @staticmethod
    def _converters(call: Call) -> tuple[Callable[[int], int] | None, ...]:
        return tuple(_CONVERT.get(kind) for kind in call.kinds)

    def dispatch(self, task: TaskStruct, args: tuple[int, int, int, int, int, int, int]) -> int:
        """Do the call ``args[0]`` with six raw arguments; the value for RAX as an unsigned 64-bit number."""
        nr = args[0] & 0xFFFF_FFFF
        self.counts[nr] = self.counts.get(nr, 0) + 1
        entry = self._entries.get(nr)
        if entry is None:
            self.not_modelled(NAMES.get(nr, f"system call {nr}"))
            return -errno.ENOSYS & 0xFFFF_FFFF_FFFF_FFFF
        trace = self.kernel.trace
        if trace.sys_enter is not None:
            trace.sys_enter(nr, args[1:])
        handler, converters = entry
        values = [
            convert(value) if convert is not None else value
            for convert, value in zip(converters, args[1:], strict=False)
        ]
        try:
            result = handler(self, task, *values)
        except OSError as error:
            assert error.errno is not None
            result = -error.errno
        if trace.sys_exit is not None:
            trace.sys_exit(nr, result)
        return result & 0xFFFF_FFFF_FFFF_FFFF

    def not_modelled(self, what: str) -> None:
        """Somebody asked for ``what``: told once in the kernel log, counted for the summary."""
        seen = self.unmodelled.get(what, 0)
        self.unmodelled[what] = seen + 1
        if not seen:
            self.kernel.printk(f"{what}: not modelled")

    def random_bytes(self, count: int) -> bytes:
        """The next ``count`` bytes of the seeded stream."""
        return self.random.randbytes(count)


def __getattr__(name: str) -> Any:
    # The table of all calls imports the files that import this one; so the page is made when somebody asks for it.
    if name == "COVERAGE":
        return coverage()
    raise AttributeError(name)
