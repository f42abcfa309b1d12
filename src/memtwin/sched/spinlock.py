# SPDX-License-Identifier: GPL-2.0-or-later
"""Spinlocks (kernel/locking/spinlock.c): for short sections that do not sleep.

While a task holds one, preemption is off on its CPU: sleeping is an error, and no other task runs on that CPU. In a
world that runs to block, a spinlock can be found taken only after the preemption hook moved on inside the section; the
one who finds it then waits off the queue, its own CPU blocked, as a spinning CPU is. Waiters get it in the order of
arrival (Linux's queued spinlocks do so too).

``lock_irq`` also holds back timer callbacks. Needed exactly for locks that callbacks take; lockdep finds who forgot it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memtwin.errors import InvariantBroken
from memtwin.sched.deadlock import check_cycle
from memtwin.sched.lock_order import Kind
from memtwin.sched.owned import OwnedLock
from memtwin.sched.task import Task

if TYPE_CHECKING:
    from memtwin.sched.core import Scheduler

__all__ = ["SpinLock", "SpinLockStatistics"]


@dataclass(frozen=True, slots=True)
class SpinLockStatistics:
    """``contended``: acquisitions that had to spin, so far; the rest is the state now."""

    name: str
    owner: str | None
    waiters: int
    contended: int


class SpinLock(OwnedLock):
    """One spinlock of class ``name`` (see ``lock_order.py``)."""

    __slots__ = ("_queue",)

    def __init__(self, sched: Scheduler, name: str) -> None:
        super().__init__(sched, name)
        self._queue: deque[Task] | None = None

    def lock(self, subclass: int = 0) -> None:
        """Take it and turn preemption off."""
        sched = self._sched
        if self._dep is not None:
            self._dep.acquire(self, self.name, Kind.SPIN, subclass=subclass)
        if sched.hook is not None:
            sched.hook(f"spin_lock:{self.name}")
        task = sched.current
        task.preempt_count += 1
        if self.owner is None:
            self.owner = task
            self._work.locks += 1
        else:
            self._spin(task)

    def trylock(self) -> bool:
        """Take it if it is free."""
        sched = self._sched
        if sched.hook is not None:
            sched.hook(f"spin_trylock:{self.name}")
        if self.owner is not None:
            return False
        task = sched.current
        task.preempt_count += 1
        self.owner = task
        self._work.locks += 1
        if self._dep is not None:
            self._dep.acquire(self, self.name, Kind.SPIN, trylock=True)
        return True

    def unlock(self) -> None:
        """Give it up; preemption is on again with the last one."""
        sched = self._sched
        task = sched.current
        if self.owner is not task:
            raise InvariantBroken(f"spin_unlock: {task} does not hold {self.name}")
        task.preempt_count -= 1
        if self._dep is not None:
            self._dep.release(self, self.name)
        if self._queue is None:
            self.owner = None
        else:
            self._pass_on()
        if sched.hook is not None:
            sched.hook(f"spin_unlock:{self.name}")

    def lock_irq(self, subclass: int = 0) -> None:
        """``lock()`` with timer callbacks held back until ``unlock_irq()``; nests, so it is Linux's irqsave as well."""
        self._sched.current.irqs_off += 1
        self.lock(subclass)

    def unlock_irq(self) -> None:
        """``unlock()``, and callbacks that came due meanwhile run."""
        self.unlock()
        self._sched.local_irq_enable()

    def statistics(self) -> SpinLockStatistics:
        """Who has it, how many spin, how often somebody had to."""
        owner = None if self.owner is None else str(self.owner)
        return SpinLockStatistics(self.name, owner, len(self._queue or ()), self.contended)

    def describe_wait(self, task: Task) -> str:
        return f"spinlock {self.name}, held by {self.owner}"

    def blockers(self, task: Task) -> Sequence[Task]:
        return () if self.owner is None else (self.owner,)

    def _spin(self, task: Task) -> None:
        sched = self._sched
        if self._queue is None:
            self._queue = deque()
        self._queue.append(task)
        self.contended += 1
        try:
            task.waiting_on = self
            check_cycle(task)
            task.waiting_on = None
            sched.park(self)
        except BaseException:
            if self.owner is task:
                self._pass_on()
            elif self._queue is not None:
                self._queue.remove(task)
                self._queue = self._queue or None
            task.preempt_count -= 1
            if self._dep is not None and self._dep.holds(self, self.name):
                self._dep.release(self, self.name)
            raise

    def _pass_on(self) -> None:
        queue = self._queue
        if queue is None:
            self.owner = None
            return
        self.owner = next_ = queue.popleft()
        if not queue:
            self._queue = None
        self._work.locks += 1
        self._sched.unpark(next_)
