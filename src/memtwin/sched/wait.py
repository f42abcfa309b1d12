# SPDX-License-Identifier: GPL-2.0-or-later
"""Wait queues (include/linux/wait.h, kernel/sched/wait.c).

A queue is an explicit list of entries. Each entry has a wake function that decides, for a given wake-up and key,
whether the entry is meant: so one queue can serve many things, and two folios that hash to the same queue can be told
apart. Order is Linux's: priority entries first, then ordinary ones, latest first, then exclusive ones in order of
arrival. A wake-up calls every ordinary entry and stops after ``nr_exclusive`` exclusive ones that took it.

Rejected: hiding the list behind a condition variable. The change "wait-bookmark-removal" is about how this list is
walked.

Lock order: ``lock`` (class wait_queue) is innermost and is also taken by timer callbacks. Invariant: an entry is in the
list of ``entry.queue``, or in none when that is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from memtwin.sched.spinlock import SpinLock
from memtwin.sched.task import (
    INTERRUPTIBLE,
    NORMAL,
    RUNNING,
    UNINTERRUPTIBLE,
    WAKEKILL,
    Task,
    signal_pending_state,
)

if TYPE_CHECKING:
    from memtwin.sched.core import Scheduler

__all__ = [
    "WQ_FLAG_CUSTOM",
    "WQ_FLAG_DONE",
    "WQ_FLAG_EXCLUSIVE",
    "WQ_FLAG_PRIORITY",
    "WQ_FLAG_WOKEN",
    "WaitEntry",
    "WaitQueue",
    "WaitQueueStatistics",
    "WaitResult",
    "WakeFunction",
]

# Flag values of v6.7, after the bookmark flag (4 before) went away.
WQ_FLAG_EXCLUSIVE: Final = 1
WQ_FLAG_WOKEN: Final = 2
WQ_FLAG_CUSTOM: Final = 4
WQ_FLAG_DONE: Final = 8
WQ_FLAG_PRIORITY: Final = 16

WakeFunction = Callable[["WaitEntry", int, Any], int]


class WaitResult(Enum):
    """How a wait ended; only READY is true."""

    READY = "ready"
    TIMED_OUT = "timed out"
    INTERRUPTED = "interrupted by a signal"

    def __bool__(self) -> bool:
        return self is WaitResult.READY


class WaitEntry:
    """One waiter. ``wake(entry, mode, key)`` returns > 0 if it took the wake-up, 0 if not, < 0 to end the walk."""

    __slots__ = ("flags", "private", "queue", "task", "wake")

    def __init__(self, task: Task, wake: WakeFunction, flags: int = 0, private: Any = None) -> None:
        self.task: Final = task
        self.wake = wake
        self.flags = flags
        self.private = private  #: the wake function's (which folio, which bit)
        self.queue: WaitQueue | None = None


@dataclass(frozen=True, slots=True)
class WaitQueueStatistics:
    """``walks``: wake-ups that walked the list; ``woken``: waiters that took one; both so far."""

    name: str
    waiters: int
    walks: int
    woken: int


class WaitQueue:
    """A wait queue head. ``name`` is what a deadlock report says a task waits for."""

    __slots__ = ("_sched", "entries", "lock", "name", "walks", "woken")

    def __init__(self, sched: Scheduler, name: str) -> None:
        self.name: Final = name
        self.entries: Final[list[WaitEntry]] = []
        self.lock: Final = SpinLock(sched, "wait_queue")
        self.walks = 0
        self.woken = 0
        self._sched: Final = sched

    # ---- the list (callers hold ``lock``)

    def add_locked(self, entry: WaitEntry) -> None:
        """Insert in front of the ordinary entries, behind those of priority."""
        place = 0
        if not entry.flags & WQ_FLAG_PRIORITY:
            while place < len(self.entries) and self.entries[place].flags & WQ_FLAG_PRIORITY:
                place += 1
        self.entries.insert(place, entry)
        entry.queue = self

    def add_tail_locked(self, entry: WaitEntry) -> None:
        """Append."""
        self.entries.append(entry)
        entry.queue = self

    def remove_locked(self, entry: WaitEntry) -> None:
        """Take out; no-op if it is not queued."""
        if entry.queue is self:
            self.entries.remove(entry)
            entry.queue = None

    def walk_locked(self, mode: int, nr_exclusive: int, key: Any = None) -> int:
        """Offer a wake-up to the entries in order (``nr_exclusive`` 0: to all); returns how many took it."""
        taken = 0
        self.walks += 1
        for entry in tuple(self.entries):
            if entry.queue is not self:  # taken out by an earlier wake function
                continue
            exclusive = entry.flags & WQ_FLAG_EXCLUSIVE
            answer = entry.wake(entry, mode, key)
            if answer < 0:
                break
            if answer:
                taken += 1
                if exclusive:
                    nr_exclusive -= 1
                    if nr_exclusive == 0:
                        break
        self.woken += taken
        return taken

    # ---- waking

    def wake_up(self, nr_exclusive: int = 1, mode: int = NORMAL, key: Any = None) -> int:
        """Wake every ordinary waiter and ``nr_exclusive`` exclusive ones; returns how many took it."""
        if not self.entries:  # whoever queues itself from now on looks at its condition after that
            return 0
        self.lock.lock_irq()
        taken = self.walk_locked(mode, nr_exclusive, key)
        self.lock.unlock_irq()
        return taken

    def wake_up_all(self, key: Any = None) -> int:
        """Wake everyone."""
        return self.wake_up(0, NORMAL, key)

    def wake_up_interruptible(self, nr_exclusive: int = 1) -> int:
        """Wake those that sleep interruptibly."""
        return self.wake_up(nr_exclusive, INTERRUPTIBLE)

    def active(self) -> bool:
        """Whether anybody waits."""
        return bool(self.entries)

    # ---- waiting

    def default_wake(self, entry: WaitEntry, mode: int, key: Any) -> int:
        """Wake the entry's task; it stays queued."""
        return int(self._sched.wake_up(entry.task, mode))

    def autoremove_wake(self, entry: WaitEntry, mode: int, key: Any) -> int:
        """Wake the entry's task, and take the entry out if that woke it."""
        if not self._sched.wake_up(entry.task, mode):
            return 0
        self.remove_locked(entry)
        return 1

    def entry(self, exclusive: bool = False) -> WaitEntry:
        """An entry for the current task that leaves the queue when it is woken."""
        return WaitEntry(self._sched.current, self.autoremove_wake, WQ_FLAG_EXCLUSIVE if exclusive else 0)

    def prepare_to_wait(self, entry: WaitEntry, state: int) -> None:
        """Queue the current task's entry (once) and announce the sleep. Then check the condition, then schedule()."""
        self.lock.lock_irq()
        if entry.queue is None:
            if entry.flags & WQ_FLAG_EXCLUSIVE:
                self.add_tail_locked(entry)
            else:
                self.add_locked(entry)
        entry.task.state = state
        self.lock.unlock_irq()
        entry.task.waiting_on = self

    def finish_wait(self, entry: WaitEntry) -> None:
        """The wait is over, however it ended."""
        entry.task.state = RUNNING
        entry.task.waiting_on = None
        if entry.queue is not None:
            self.lock.lock_irq()
            self.remove_locked(entry)
            self.lock.unlock_irq()

    def wait_event(
        self,
        ready: Callable[[], bool],
        *,
        state: int = UNINTERRUPTIBLE,
        timeout: int | None = None,
        exclusive: bool = False,
    ) -> WaitResult:
        """Sleep until ``ready()``, checked before sleeping and after each wake-up; ``timeout`` in virtual ns.

        ``state`` says which signals end the wait (INTERRUPTIBLE: any, KILLABLE: fatal ones).
        """
        if ready():
            return WaitResult.READY
        sched = self._sched
        task = sched.current
        entry = self.entry(exclusive)
        left = timeout
        try:
            while True:
                self.prepare_to_wait(entry, state)
                if ready():
                    return WaitResult.READY
                if state & (INTERRUPTIBLE | WAKEKILL) and signal_pending_state(state, task):
                    return WaitResult.INTERRUPTED
                if left == 0:
                    return WaitResult.TIMED_OUT
                rest = sched.schedule_timeout(left)
                left = None if left is None else rest
        finally:
            self.finish_wait(entry)

    def statistics(self) -> WaitQueueStatistics:
        """Who waits now, and what happened so far."""
        return WaitQueueStatistics(self.name, len(self.entries), self.walks, self.woken)

    def describe_wait(self, task: Task) -> str:
        return self.name

    def blockers(self, task: Task) -> Sequence[Task]:
        return ()
