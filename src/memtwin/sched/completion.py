# SPDX-License-Identifier: GPL-2.0-or-later
"""Completions (kernel/sched/completion.c): "wait until somebody else is done", with a count of how often that happened.

Each ``complete`` lets one waiter through, now or later, in order of arrival; ``complete_all`` lets everybody through
from then on, until ``reinit``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from memtwin.sched.task import UNINTERRUPTIBLE
from memtwin.sched.wait import WaitQueue, WaitQueueStatistics, WaitResult

if TYPE_CHECKING:
    from memtwin.sched.core import Scheduler

__all__ = ["Completion"]

_ALL: Final = -1


class Completion:
    """``done``: how many waiters may pass; -1 once ``complete_all`` was called."""

    __slots__ = ("done", "queue")

    def __init__(self, sched: Scheduler, name: str) -> None:
        self.done = 0
        self.queue: Final = WaitQueue(sched, name)

    def complete(self) -> None:
        """Let one waiter pass. Legal in timer callbacks."""
        if self.done != _ALL:
            self.done += 1
        self.queue.wake_up(1)

    def complete_all(self) -> None:
        """Let everyone pass, for good."""
        self.done = _ALL
        self.queue.wake_up_all()

    def reinit(self) -> None:
        """Start again; nobody may be waiting."""
        self.done = 0

    def is_done(self) -> bool:
        """Whether a wait would pass at once."""
        return self.done != 0

    def try_wait(self) -> bool:
        """Pass if that is possible at once."""
        if self.done == 0:
            return False
        if self.done != _ALL:
            self.done -= 1
        return True

    def wait(self, *, state: int = UNINTERRUPTIBLE, timeout: int | None = None) -> WaitResult:
        """Sleep until allowed to pass; ``timeout`` in virtual ns, ``state`` as for ``WaitQueue.wait_event``."""
        return self.queue.wait_event(self.try_wait, state=state, timeout=timeout, exclusive=True)

    def statistics(self) -> WaitQueueStatistics:
        """Those of its wait queue."""
        return self.queue.statistics()
