# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutexes (kernel/locking/mutex.c): one owner, sleeping waiters, handed over in the order of arrival.

Only the owner may unlock, nobody may lock twice, and a timer callback can not lock at all. Optimistic spinning is not
modelled. Invariant: with anybody in ``_queue`` the mutex has an owner.
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
from memtwin.sched.task import INTERRUPTIBLE, KILLABLE, RUNNING, UNINTERRUPTIBLE, Task, signal_pending_state

if TYPE_CHECKING:
    from memtwin.sched.core import Scheduler

__all__ = ["Mutex", "MutexStatistics"]


@dataclass(frozen=True, slots=True)
class MutexStatistics:
    """``contended``: acquisitions that had to wait, so far; the rest is the state now."""

    name: str
    owner: str | None
    waiters: int
    contended: int


class Mutex(OwnedLock):
    """One mutex of class ``name`` (see ``lock_order.py``).

    The killable and interruptible variants return false if a signal ended the wait; the mutex is then not held.
    """

    __slots__ = ("_queue",)

    def __init__(self, sched: Scheduler, name: str) -> None:
        super().__init__(sched, name)
        self._queue: deque[Task] = deque()

    def lock(self, subclass: int = 0) -> None:
        """Take it; sleeps while somebody else has it."""
        sched = self._sched
        if self._dep is not None:
            self._dep.acquire(self, self.name, Kind.MUTEX, subclass=subclass)
        if sched.hook is not None:
            sched.hook(f"mutex_lock:{self.name}")
        if self.owner is None:
            self.owner = sched.current
            self._work.locks += 1
        else:
            self._wait(UNINTERRUPTIBLE)

    def lock_killable(self, subclass: int = 0) -> bool:
        """Take it unless a fatal signal comes first."""
        return self._lock_unless(KILLABLE, subclass)

    def lock_interruptible(self, subclass: int = 0) -> bool:
        """Take it unless a signal comes first."""
        return self._lock_unless(INTERRUPTIBLE, subclass)

    def trylock(self) -> bool:
        """Take it if it is free."""
        sched = self._sched
        if sched.hook is not None:
            sched.hook(f"mutex_trylock:{self.name}")
        if self.owner is not None:
            return False
        self.owner = sched.current
        self._work.locks += 1
        if self._dep is not None:
            self._dep.acquire(self, self.name, Kind.MUTEX, trylock=True)
        return True

    def unlock(self) -> None:
        """Give it up, or rather to the first who waits."""
        sched = self._sched
        if self.owner is not sched.current:
            raise InvariantBroken(f"mutex_unlock: {sched.current} does not hold {self.name}")
        if self._dep is not None:
            self._dep.release(self, self.name)
        self._pass_on()
        if sched.hook is not None:
            sched.hook(f"mutex_unlock:{self.name}")

    def statistics(self) -> MutexStatistics:
        """Who has it, how many wait, how often somebody had to."""
        owner = None if self.owner is None else str(self.owner)
        return MutexStatistics(self.name, owner, len(self._queue), self.contended)

    def describe_wait(self, task: Task) -> str:
        return f"{self.name}, held by {self.owner}"

    def blockers(self, task: Task) -> Sequence[Task]:
        return () if self.owner is None else (self.owner,)

    def _lock_unless(self, state: int, subclass: int) -> bool:
        sched = self._sched
        if self._dep is not None:
            self._dep.acquire(self, self.name, Kind.MUTEX, subclass=subclass)
        if sched.hook is not None:
            sched.hook(f"mutex_lock:{self.name}")
        if self.owner is None:
            self.owner = sched.current
            self._work.locks += 1
            return True
        return self._wait(state)

    def _wait(self, state: int) -> bool:
        """Queue up and sleep until made the owner; false if a signal came first."""
        sched = self._sched
        task = sched.current
        self._queue.append(task)
        self.contended += 1
        try:
            task.waiting_on = self
            check_cycle(task)
            while task in self._queue:
                if signal_pending_state(state, task):
                    self._give_up(task)
                    return False
                task.state = state
                task.waiting_on = self
                sched.schedule()
        except BaseException:
            self._give_up(task)
            raise
        task.state = RUNNING
        return True

    def _give_up(self, task: Task) -> None:
        """The wait ends without the mutex: leave the queue, or pass on what was handed over meanwhile."""
        task.waiting_on = None
        if task in self._queue:
            self._queue.remove(task)
        elif self.owner is task:
            self._pass_on()
        if self._dep is not None and self._dep.holds(self, self.name):
            self._dep.release(self, self.name)

    def _pass_on(self) -> None:
        if self._queue:
            self.owner = next_ = self._queue.popleft()
            self._work.locks += 1
            self._sched.wake_up(next_, KILLABLE | INTERRUPTIBLE)
        else:
            self.owner = None
