# SPDX-License-Identifier: GPL-2.0-or-later
"""Reader/writer semaphores (kernel/locking/rwsem.c): many readers or one writer, in the order of arrival.

Whoever finds the semaphore taken, or anybody queued for it, goes to the end of the queue. A release hands the
semaphore over before the next one runs, so nobody can slip in: to the writer at the head, or, if a reader is there, to
every queued reader (as Linux does since 5.2, at most 256 at once). New readers queue behind a waiting writer: writers
do not starve, and a task that takes the same semaphore for reading twice can deadlock. Optimistic spinning and lock
stealing are not modelled.

Invariant: ``writer`` and ``readers`` are never both set; ``_queue`` is None when empty.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from memtwin.errors import InvariantBroken
from memtwin.sched.deadlock import check_cycle
from memtwin.sched.lock_order import Kind
from memtwin.sched.task import INTERRUPTIBLE, KILLABLE, RUNNING, UNINTERRUPTIBLE, Task, signal_pending_state

if TYPE_CHECKING:
    from memtwin.sched.core import Scheduler

__all__ = ["MAX_READERS_WAKEUP", "Rwsem", "RwsemStatistics"]

#: Most readers that one release lets in (kernel/locking/rwsem.c, same name).
MAX_READERS_WAKEUP: Final = 256


class _Waiter:
    __slots__ = ("granted", "task", "write")

    def __init__(self, task: Task, write: bool) -> None:
        self.task: Final = task
        self.write: Final = write
        self.granted = False


@dataclass(frozen=True, slots=True)
class RwsemStatistics:
    """``contended``: acquisitions that had to wait, so far; the rest is the state now."""

    name: str
    readers: int
    writer: str | None
    waiting_readers: int
    waiting_writers: int
    contended: int


class Rwsem:
    """One semaphore of class ``name`` (see ``lock_order.py``). Every acquiring method may sleep, the try variants
    never do.

    The killable and interruptible variants return false if a signal ended the wait; the semaphore is then not held.
    """

    __slots__ = ("_dep", "_queue", "_sched", "_work", "contended", "name", "readers", "write_seq", "writer")

    def __init__(self, sched: Scheduler, name: str) -> None:
        self.name: Final = name
        self.writer: Task | None = None
        self.readers: list[Task] = []
        self.contended = 0
        #: How many writers have given it up: whoever remembers it as a writer can later be told apart from the next.
        self.write_seq = 0
        self._queue: deque[_Waiter] | None = None
        self._sched: Final = sched
        self._work: Final = sched.work
        self._dep: Final = sched.lockdep

    # ---- reading

    def down_read(self, subclass: int = 0) -> None:
        """Take it for reading; ``subclass`` is for the checker only, as in all methods."""
        sched = self._sched
        if self._dep is not None:
            self._dep.acquire(self, self.name, Kind.RWSEM, read=True, subclass=subclass)
        if sched.hook is not None:
            sched.hook(f"down_read:{self.name}")
        if self.writer is None and self._queue is None:
            self.readers.append(sched.current)
            self._work.locks += 1
        else:
            self._wait(False, UNINTERRUPTIBLE)

    def down_read_killable(self, subclass: int = 0) -> bool:
        """Take it for reading unless a fatal signal comes first."""
        return self._down_unless(False, KILLABLE, subclass)

    def down_read_interruptible(self, subclass: int = 0) -> bool:
        """Take it for reading unless a signal comes first."""
        return self._down_unless(False, INTERRUPTIBLE, subclass)

    def down_read_trylock(self) -> bool:
        """Take it for reading if no writer has it or waits for it."""
        sched = self._sched
        if sched.hook is not None:
            sched.hook(f"down_read_trylock:{self.name}")
        if self.writer is not None or self._queue is not None:
            return False
        self.readers.append(sched.current)
        self._work.locks += 1
        if self._dep is not None:
            self._dep.acquire(self, self.name, Kind.RWSEM, read=True, trylock=True)
        return True

    def up_read(self) -> None:
        """Give up reading."""
        sched = self._sched
        try:
            self.readers.remove(sched.current)
        except ValueError:
            raise InvariantBroken(f"up_read: {sched.current} does not hold {self.name} for reading") from None
        if self._dep is not None:
            self._dep.release(self, self.name)
        if self._queue is not None:
            self._hand_over()
        if sched.hook is not None:
            sched.hook(f"up_read:{self.name}")

    # ---- writing

    def down_write(self, subclass: int = 0) -> None:
        """Take it for writing."""
        sched = self._sched
        if self._dep is not None:
            self._dep.acquire(self, self.name, Kind.RWSEM, subclass=subclass)
        if sched.hook is not None:
            sched.hook(f"down_write:{self.name}")
        if self.writer is None and not self.readers and self._queue is None:
            self.writer = sched.current
            self._work.locks += 1
        else:
            self._wait(True, UNINTERRUPTIBLE)

    def down_write_killable(self, subclass: int = 0) -> bool:
        """Take it for writing unless a fatal signal comes first."""
        return self._down_unless(True, KILLABLE, subclass)

    def down_write_trylock(self) -> bool:
        """Take it for writing if it is free and nobody waits."""
        sched = self._sched
        if sched.hook is not None:
            sched.hook(f"down_write_trylock:{self.name}")
        if self.writer is not None or self.readers or self._queue is not None:
            return False
        self.writer = sched.current
        self._work.locks += 1
        if self._dep is not None:
            self._dep.acquire(self, self.name, Kind.RWSEM, trylock=True)
        return True

    def up_write(self) -> None:
        """Give up writing."""
        sched = self._sched
        if self.writer is not sched.current:
            raise InvariantBroken(f"up_write: {sched.current} does not hold {self.name} for writing")
        self.write_seq += 1
        self.writer = None
        if self._dep is not None:
            self._dep.release(self, self.name)
        if self._queue is not None:
            self._hand_over()
        if sched.hook is not None:
            sched.hook(f"up_write:{self.name}")

    def downgrade_write(self) -> None:
        """Turn the write lock into a read lock without a gap; queued readers come in, a queued writer does not."""
        sched = self._sched
        if self.writer is not sched.current:
            raise InvariantBroken(f"downgrade_write: {sched.current} does not hold {self.name} for writing")
        self.write_seq += 1
        self.writer = None
        self.readers.append(sched.current)
        if self._dep is not None:
            self._dep.downgrade(self, self.name)
        if self._queue is not None:
            self._hand_over()
        if sched.hook is not None:
            sched.hook(f"downgrade_write:{self.name}")

    # ---- questions

    def is_locked(self) -> bool:
        """Held by anybody, for reading or writing."""
        return self.writer is not None or bool(self.readers)

    def is_contended(self) -> bool:
        """Whether somebody waits."""
        return self._queue is not None

    def held_by(self, task: Task) -> bool:
        """Held by ``task``, for reading or writing."""
        return self.writer is task or task in self.readers

    def assert_held(self) -> None:
        """With lockdep: the current task must hold it."""
        if self._dep is not None:
            self._dep.assert_held(self, self.name)

    def assert_held_write(self) -> None:
        """With lockdep: the current task must hold it for writing."""
        if self._dep is not None:
            self._dep.assert_held_write(self, self.name)

    def statistics(self) -> RwsemStatistics:
        """Who has it, who waits, how often somebody had to."""
        queue = self._queue or ()
        writers = sum(waiter.write for waiter in queue)
        writer = None if self.writer is None else str(self.writer)
        return RwsemStatistics(self.name, len(self.readers), writer, len(queue) - writers, writers, self.contended)

    def describe_wait(self, task: Task) -> str:
        holders = [self.writer] if self.writer is not None else self.readers
        how = "write" if self.writer is not None else "read"
        names = ", ".join(map(str, dict.fromkeys(holders))) or "nobody"
        mode = "write" if any(waiter.write and waiter.task is task for waiter in self._queue or ()) else "read"
        return f"{self.name} ({mode}), held by {names} ({how})"

    def blockers(self, task: Task) -> Sequence[Task]:
        """Holders that exclude it, and the writers queued before it (a fair queue: it waits for them too)."""
        found = [] if self.writer is None else [self.writer]
        for waiter in self._queue or ():
            if waiter.task is task:
                if waiter.write:
                    found += self.readers
                break
            if waiter.write:
                found.append(waiter.task)
        return found

    # ---- waiting

    def _down_unless(self, write: bool, state: int, subclass: int) -> bool:
        sched = self._sched
        if self._dep is not None:
            self._dep.acquire(self, self.name, Kind.RWSEM, read=not write, subclass=subclass)
        if sched.hook is not None:
            sched.hook(f"down_{'write' if write else 'read'}:{self.name}")
        if self.writer is None and self._queue is None:
            if not write:
                self.readers.append(sched.current)
                self._work.locks += 1
                return True
            if not self.readers:
                self.writer = sched.current
                self._work.locks += 1
                return True
        return self._wait(write, state)

    def _wait(self, write: bool, state: int) -> bool:
        """Queue up and sleep until handed the semaphore; false if a signal came first."""
        sched = self._sched
        task = sched.current
        waiter = _Waiter(task, write)
        if self._queue is None:
            self._queue = deque()
        self._queue.append(waiter)
        self.contended += 1
        try:
            task.waiting_on = self
            check_cycle(task)
            while not waiter.granted:
                if signal_pending_state(state, task):
                    self._give_up(waiter)
                    return False
                task.state = state
                task.waiting_on = self
                sched.schedule()
        except BaseException:
            self._give_up(waiter)
            raise
        task.state = RUNNING
        return True

    def _give_up(self, waiter: _Waiter) -> None:
        """The wait ends without the semaphore: leave the queue, or pass on what was handed over meanwhile."""
        waiter.task.waiting_on = None
        if waiter.granted:
            if waiter.write:
                self.writer = None
            else:
                self.readers.remove(waiter.task)
        elif self._queue is not None:
            self._queue.remove(waiter)
            if not self._queue:
                self._queue = None
        if self._dep is not None and self._dep.holds(self, self.name):
            self._dep.release(self, self.name)
        if self._queue is not None:
            self._hand_over()

    def _hand_over(self) -> None:
        """Something was released: let in whoever is next, if that is possible now."""
        queue = self._queue
        if queue is None or self.writer is not None:
            return
        first = queue[0]
        if first.write:
            if not self.readers:
                queue.popleft()
                self.writer = first.task
                self._grant(first)
        else:
            chosen = [waiter for waiter in queue if not waiter.write][:MAX_READERS_WAKEUP]
            for waiter in chosen:
                queue.remove(waiter)
                self.readers.append(waiter.task)
                self._grant(waiter)
        if not queue:
            self._queue = None

    def _grant(self, waiter: _Waiter) -> None:
        waiter.granted = True
        self._work.locks += 1
        self._sched.wake_up(waiter.task, KILLABLE | INTERRUPTIBLE)
