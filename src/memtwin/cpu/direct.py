# SPDX-License-Identifier: GPL-2.0-or-later
"""The direct CPU: memory accesses made through the API, one page after the other, ascending, as a program would make
them.

It walks the same tables as the emulated CPU and leaves the same A and D bits behind. An access that the kernel
answers with a signal raises FatalSignal and leaves the process alive, as if it had a handler; SIGKILL ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from memtwin.abi.signal import SIGKILL
from memtwin.arch.x86.mm.fault import SignalInfo, do_user_addr_fault
from memtwin.errors import FatalSignal, ProcessKilled
from memtwin.hw.paging import ACCESSED, DIRTY, PF_PROT, PF_USER, PF_WRITE, PKEY_EXECUTE_ONLY, PRESENT, RW, USER
from memtwin.kernel.task import TaskStruct
from memtwin.kernel.uaccess import translate
from memtwin.sched import Scheduler

__all__ = ["DirectCpu"]

_READ = PRESENT | USER
_WRITE = PRESENT | USER | RW
#: What must not be there: a protection key that denies access.
_DENIED = PKEY_EXECUTE_ONLY


class DirectCpu:
    """Makes the accesses of one task. ``kill`` is called with the signal when the kernel kills the task."""

    __slots__ = ("_kill", "_sched", "_task")

    def __init__(self, sched: Scheduler, task: TaskStruct, kill: Callable[[int], None]) -> None:
        self._sched = sched
        self._task = task
        self._kill = kill

    def touch(self, addr: int, write: bool) -> None:
        """Access one byte. Raises FatalSignal, ProcessKilled."""
        task = self._task
        sched = self._sched
        need, mark = (_WRITE, ACCESSED | DIRTY) if write else (_READ, ACCESSED)
        while True:
            mm = task.mm
            if mm is None:
                raise ProcessKilled(f"process {task.pid} has exited")
            entry = 0
            base = mm.pte_tables.get(addr >> 21)
            if base is not None:
                q = mm.ctx.ram.q
                index = base + (addr >> 12 & 511)
                entry = q[index]
                if entry & (need | _DENIED) == need:
                    if entry & mark != mark:
                        q[index] = entry | mark
                    return
            elif addr >> 21 in mm.deposits:
                self._access(addr, write, 0)
                return
            error = PF_USER | (PF_WRITE if write else 0) | (PF_PROT if entry & PRESENT else 0)
            previous = sched.enter(task)
            try:
                signal = do_user_addr_fault(task, addr, error)
            finally:
                sched.leave(previous)
            if signal is not None:
                self._raise(signal, 0)
            # The handler leaves A (and D) set in the entry it installs; only after losing a race against another
            # thread, or without memory, is the access made again.
            base = mm.pte_tables.get(addr >> 21)
            if base is None and addr >> 21 in mm.deposits:
                return
            if base is not None and mm.ctx.ram.q[base + (addr >> 12 & 511)] & need == need:
                return

    def _check_alive(self) -> None:
        if self._task.mm is None:
            raise ProcessKilled(f"process {self._task.pid} has exited")

    def _access(self, addr: int, write: bool, done: int) -> int:
        """Physical address of ``addr``; raises FatalSignal (``done`` bytes went before) or ProcessKilled."""
        task = self._task
        physical = translate(task, addr, write, user=True)
        if not isinstance(physical, int):
            self._raise(physical, done)
        return physical

    def _raise(self, signal: SignalInfo, done: int) -> NoReturn:
        if signal.sig == SIGKILL:
            self._kill(SIGKILL)
            raise ProcessKilled(f"process {self._task.pid} was killed: out of memory")
        raise FatalSignal(signal.sig, signal.code, signal.addr, done)

    def read(self, addr: int, n: int) -> bytes:
        """Load ``n`` bytes. Raises FatalSignal (``done`` bytes could be read), ProcessKilled."""
        self._check_alive()
        sched = self._sched
        previous = sched.enter(self._task)
        parts: list[memoryview] = []
        done = 0
        try:
            while done < n:
                at = addr + done
                physical = self._access(at, False, done)
                size = min(n - done, 4096 - (at & 4095))
                assert self._task.mm is not None
                parts.append(self._task.mm.ctx.ram.mem[physical : physical + size])
                done += size
            return b"".join(parts)
        finally:
            sched.leave(previous)

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data``. Raises FatalSignal (``done`` bytes are stored), ProcessKilled."""
        self._check_alive()
        sched = self._sched
        previous = sched.enter(self._task)
        done, n = 0, len(data)
        try:
            while done < n:
                at = addr + done
                physical = self._access(at, True, done)
                size = min(n - done, 4096 - (at & 4095))
                assert self._task.mm is not None
                self._task.mm.ctx.ram.mem[physical : physical + size] = data[done : done + size]
                done += size
        finally:
            sched.leave(previous)
