# SPDX-License-Identifier: GPL-2.0-or-later
"""A process driven from Python: one method a system call, and accesses as its CPU would make them. No rule lives
here.

A kernel error is ``OSError`` with Linux's errno (``brk`` returns the break and never raises); a fatal fault is
``FatalSignal`` and the process lives on; after SIGKILL or exit every call raises ``ProcessKilled``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from memtwin.abi import mman
from memtwin.abi.signal import SIGKILL
from memtwin.cpu.direct import DirectCpu
from memtwin.errors import ProcessKilled
from memtwin.kernel.kernel import Kernel
from memtwin.kernel.task import TaskStruct
from memtwin.mm.gup import faultin_page_range
from memtwin.mm.mm_types import MmStruct, VmArea
from memtwin.mm.mmap import do_brk, do_mmap, do_munmap, setup_arg_pages
from memtwin.mm.mprotect import do_mprotect

__all__ = ["Process"]

P = ParamSpec("P")
R = TypeVar("R")

#: The stack of a spawned process: top and size as architecture, section 4 fixes them.
_STACK_TOP = 0x7FFFFFFFF000
_STACK_SIZE = 8 << 20
_RW = mman.PROT_READ | mman.PROT_WRITE
_ANON = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS


class Process:
    """One single-threaded process of a machine; made by ``Machine.spawn``."""

    __slots__ = ("_cpu", "kernel", "task", "touch")

    #: ``touch(addr, write)``: access one byte; the same as a one-byte load or store. Raises FatalSignal, ProcessKilled.
    touch: Callable[[int, bool], None]

    def __init__(self, kernel: Kernel, task: TaskStruct) -> None:
        self.kernel = kernel
        self.task = task
        self._cpu = DirectCpu(kernel.sched, task, self._killed)
        self.touch = self._cpu.touch

    @classmethod
    def spawn(cls, kernel: Kernel, name: str) -> Process:
        """A new process in ``kernel``. Raises OSError ENOMEM."""
        task = kernel.new_task(name)
        process = cls(kernel, task)
        try:
            process._call(process._set_up)
        except OSError:
            process.exit()
            raise
        return process

    def _set_up(self) -> None:
        self.task.mm = mm = self.kernel.mm_alloc()
        setup_arg_pages(mm, _STACK_TOP, _STACK_SIZE)
        mm.start_stack = _STACK_TOP - 16

    def _call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run kernel code as this process, at once, in the calling greenlet."""
        kernel, task = self.kernel, self.task
        if task.exit_code >= 0:
            raise ProcessKilled(f"process {task.pid} has exited")
        previous = kernel.sched.enter(task)
        try:
            return function(*args, **kwargs)
        finally:
            if task.fatal_signal_pending and task.exit_code < 0:
                kernel.exit_task(task, SIGKILL)
            kernel.sched.leave(previous)
            kernel.rcu.rcu_barrier()
            if task.fatal_signal_pending:
                raise ProcessKilled(f"process {task.pid} was killed")

    def _killed(self, sig: int) -> None:
        self.kernel.exit_task(self.task, sig)

    @property
    def mm(self) -> MmStruct:
        """The address space. Raises ProcessKilled after exit."""
        mm = self.task.mm
        if mm is None:
            raise ProcessKilled(f"process {self.task.pid} has exited")
        return mm

    @property
    def pid(self) -> int:
        """Process id."""
        return self.task.pid

    def vmas(self) -> list[VmArea]:
        """The areas, ascending."""
        return self.mm.areas()

    # -- system calls ---------------------------------------------------------------------------------------------

    def mmap(self, addr: int, length: int, prot: int = _RW, flags: int = _ANON) -> int:
        """mmap(2) of anonymous memory; the address. Raises OSError."""
        return self._call(do_mmap, self.mm, addr, length, prot, flags)

    def munmap(self, addr: int, length: int) -> None:
        """munmap(2). Raises OSError."""
        self._call(do_munmap, self.mm, addr, length)

    def mprotect(self, addr: int, length: int, prot: int) -> None:
        """mprotect(2). Raises OSError."""
        self._call(do_mprotect, self.mm, addr, length, prot)

    def brk(self, addr: int) -> int:
        """The raw brk system call: the break that holds afterwards."""
        return self._call(do_brk, self.mm, addr)

    def populate(self, addr: int, length: int, *, write: bool = True) -> None:
        """Have all pages of a range present, as MADV_POPULATE_WRITE (or _READ) does. Raises OSError ENOMEM, EINVAL,
        EFAULT.
        """
        self._call(self._populate, addr, length, write)

    def _populate(self, addr: int, length: int, write: bool) -> None:
        mm = self.mm
        mm.mmap_lock.down_read()
        try:
            self.task.min_flt += faultin_page_range(mm, addr, addr + length, write=write)
        finally:
            mm.mmap_lock.up_read()

    def exit(self, status: int = 0) -> None:
        """exit_group(2). All memory is given back; a second call does nothing."""
        if self.task.exit_code < 0:
            self._call(self.kernel.exit_task, self.task, (status & 0xFF) << 8)

    def kill(self) -> None:
        """End the process as SIGKILL does."""
        if self.task.exit_code < 0:
            self._call(self.kernel.exit_task, self.task, SIGKILL)

    # -- accesses -------------------------------------------------------------------------------------------------

    def read(self, addr: int, n: int) -> bytes:
        """Load ``n`` bytes, page by page, ascending. Raises FatalSignal, ProcessKilled."""
        return self._cpu.read(addr, n)

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data``, page by page, ascending. Raises FatalSignal, ProcessKilled."""
        self._cpu.write(addr, data)
