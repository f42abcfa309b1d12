# SPDX-License-Identifier: GPL-2.0-or-later
"""The lock of a folio: bit PG_locked, and who sleeps for it (Linux: folio_lock and folio_unlock, mm/filemap.c).

The lock belongs to no task: a read locks the folio, and the disk's interrupt unlocks it. Waiters are exclusive and come
in the order of arrival. Each folio has a queue of its own here, made when somebody has to wait; Linux's 256 hashed
queues come with the page cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memtwin.errors import InvariantBroken
from memtwin.mm.page import PG_LOCKED, PageArrays
from memtwin.sched import Kind, Scheduler, WaitQueue
from memtwin.sched.task import KILLABLE, UNINTERRUPTIBLE

if TYPE_CHECKING:
    from memtwin.sched.lockdep import Lockdep

__all__ = ["FolioLocks"]


class FolioLocks:
    """The folio locks of one machine; a folio is named by its head pfn."""

    __slots__ = ("_dep", "_flags", "_queues", "_sched", "_waiters")

    def __init__(self, sched: Scheduler, pages: PageArrays) -> None:
        self._sched = sched
        self._flags = pages.flags
        self._dep: Lockdep | None = sched.lockdep
        self._queues: dict[int, WaitQueue] = {}
        self._waiters: dict[int, int] = {}  #: how many tasks use each queue: asleep, or on their way there or back

    def trylock(self, folio: int) -> bool:
        """Take it if it is free."""
        hook = self._sched.hook
        if hook is not None:
            hook("folio_trylock")
        if self._flags[folio] & PG_LOCKED:
            return False
        self._flags[folio] |= PG_LOCKED
        if self._dep is not None:
            self._dep.acquire(folio, "folio_lock", Kind.BIT, trylock=True)
        return True

    def lock(self, folio: int) -> None:
        """Take it; sleeps while it is taken."""
        self._lock(folio, UNINTERRUPTIBLE)

    def lock_killable(self, folio: int) -> bool:
        """Take it unless a fatal signal comes first."""
        return self._lock(folio, KILLABLE)

    def _lock(self, folio: int, state: int) -> bool:
        if self._dep is not None:
            self._dep.acquire(folio, "folio_lock", Kind.BIT)
        hook = self._sched.hook
        if hook is not None:
            hook("folio_lock")
        if self._take(folio):
            return True
        queue = self._enter_queue(folio)
        try:
            if queue.wait_event(lambda: self._take(folio), state=state, exclusive=True):
                return True
        finally:
            self._leave_queue(folio)
        if self._dep is not None:
            self._dep.release(folio, "folio_lock")
        return False

    def wait_locked_killable(self, folio: int) -> bool:
        """Sleep until nobody has it, without taking it; false if a fatal signal came first. The folio is referenced."""
        flags = self._flags
        if not flags[folio] & PG_LOCKED:
            return True
        queue = self._enter_queue(folio)
        try:
            return bool(queue.wait_event(lambda: not flags[folio] & PG_LOCKED, state=KILLABLE))
        finally:
            self._leave_queue(folio)

    def _take(self, folio: int) -> bool:
        if self._flags[folio] & PG_LOCKED:
            return False
        self._flags[folio] |= PG_LOCKED
        return True

    def _enter_queue(self, folio: int) -> WaitQueue:
        """The queue of the folio, which stays until the last who entered it has left."""
        queue = self._queues.get(folio)
        if queue is None:
            queue = self._queues[folio] = WaitQueue(self._sched, f"the lock of folio {folio:#x}")
            self._waiters[folio] = 0
        self._waiters[folio] += 1
        return queue

    def _leave_queue(self, folio: int) -> None:
        left = self._waiters[folio] - 1
        self._waiters[folio] = left
        if not left:
            del self._queues[folio], self._waiters[folio]

    def unlock(self, folio: int) -> None:
        """Give it up; the first who waits may have it."""
        if self._dep is not None:
            self._dep.release(folio, "folio_lock")
        if not self._queues and self._flags[folio] & PG_LOCKED:  # nobody waits for any
            self._flags[folio] &= ~PG_LOCKED
        else:
            self.end_io(folio)
        hook = self._sched.hook
        if hook is not None:
            hook("folio_unlock")

    def start_io(self, folio: int) -> None:
        """Lock a fresh folio on behalf of the disk that will fill it: no task holds it."""
        self._flags[folio] |= PG_LOCKED

    def end_io(self, folio: int) -> None:
        """The lock bit goes, from a task or from the disk's interrupt."""
        if not self._flags[folio] & PG_LOCKED:
            raise InvariantBroken(f"folio {folio:#x} is unlocked and was not locked")
        self._flags[folio] &= ~PG_LOCKED
        queue = self._queues.get(folio)
        if queue is not None:
            queue.wake_up()
