# SPDX-License-Identifier: GPL-2.0-or-later
"""Work queues (kernel/workqueue.c): functions that run later, in a kernel thread, where they may sleep.

A queue has one worker a CPU, started when the first work arrives there, so work on one CPU runs one at a time and in
order. A work item is queued at most once; while it runs it may be queued again and then runs once more afterwards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from memtwin.errors import BadInput
from memtwin.sched.task import INTERRUPTIBLE
from memtwin.sched.wait import WaitQueue

if TYPE_CHECKING:
    from memtwin.sched.clock import Timer
    from memtwin.sched.core import Scheduler
    from memtwin.sched.task import Task

__all__ = ["WorkItem", "Workqueue", "WorkqueueStatistics"]


class WorkItem:
    """A function to be called by a worker. ``delay`` timers are part of it (Linux's delayed_work)."""

    __slots__ = ("fn", "name", "pending", "running", "timer")

    def __init__(self, fn: Callable[[], object], name: str) -> None:
        self.fn: Final = fn
        self.name: Final = name
        self.pending = False  #: on a list or behind a timer
        self.running = False
        self.timer: Timer | None = None

    def busy(self) -> bool:
        """Pending or running."""
        return self.pending or self.running


@dataclass(frozen=True, slots=True)
class WorkqueueStatistics:
    """``executed``: items run so far; the rest is the state now."""

    name: str
    queued: int
    executed: int
    workers: int


class Workqueue:
    """A named queue; ``close`` it before the scheduler if its work must not be lost."""

    __slots__ = ("_closed", "_finished", "_lists", "_more", "_sched", "_workers", "executed", "name")

    def __init__(self, sched: Scheduler, name: str) -> None:
        self.name: Final = name
        self.executed = 0
        self._sched: Final = sched
        self._lists: Final[list[deque[WorkItem]]] = [deque() for _ in range(sched.cpus)]
        self._more: Final = [WaitQueue(sched, f"work for {name}") for _ in range(sched.cpus)]
        self._finished: Final = WaitQueue(sched, f"work of {name} to finish")
        self._workers: Final[dict[int, Task]] = {}
        self._closed = False

    def queue_work(self, item: WorkItem, *, cpu: int | None = None) -> bool:
        """Run ``item`` soon (on the current CPU, or on ``cpu``); false if it is already pending."""
        if item.pending:
            return False
        item.pending = True
        self._append(item, self._sched.current.cpu if cpu is None else cpu)
        return True

    def queue_delayed_work(self, item: WorkItem, delay: int, *, cpu: int | None = None) -> bool:
        """Run ``item`` in ``delay`` virtual ns; false if it is already pending."""
        if item.pending:
            return False
        self._check_open()
        item.pending = True
        place = self._sched.current.cpu if cpu is None else cpu
        item.timer = self._sched.clock.timer_in(delay, lambda: self._append(item, place), item.name)
        return True

    def mod_delayed_work(self, item: WorkItem, delay: int, *, cpu: int | None = None) -> bool:
        """As ``queue_delayed_work``, but a pending item gets the new delay; true if it was pending."""
        pending = self.cancel_work(item)
        self.queue_delayed_work(item, delay, cpu=cpu)
        return pending

    def cancel_work(self, item: WorkItem) -> bool:
        """Take a pending item back; true if there was one to take. Does not wait for one that runs."""
        if not item.pending:
            return False
        item.pending = False
        if item.timer is not None:
            item.timer.cancel()
            item.timer = None
        else:
            for waiting in self._lists:
                if item in waiting:
                    waiting.remove(item)
        self._finished.wake_up_all()
        return True

    def cancel_work_sync(self, item: WorkItem) -> bool:
        """``cancel_work``, and wait until it does not run either."""
        cancelled = self.cancel_work(item)
        self._finished.wait_event(lambda: not item.running)
        return cancelled

    def flush_work(self, item: WorkItem) -> bool:
        """Start a delayed item now and wait until the item is neither pending nor running; false if it was idle."""
        if not item.busy():
            return False
        if item.timer is not None:
            self.mod_delayed_work(item, 0)
        self._finished.wait_event(lambda: not item.busy())
        return True

    def flush(self) -> None:
        """Wait until everything queued before has run (delayed work whose time has not come is not waited for)."""
        waiting = [item for line in self._lists for item in line]
        running = list(self._running())
        self._finished.wait_event(lambda: not any(i.busy() for i in waiting) and not any(i.running for i in running))

    def drain(self) -> None:
        """Wait until nothing is queued or runs any more, including what running work queues."""
        self._finished.wait_event(lambda: not any(self._lists) and not any(True for _ in self._running()))

    def close(self) -> None:
        """Drain, then end the workers. Delayed work must be flushed or cancelled before."""
        self.drain()
        self._closed = True
        for worker in list(self._workers.values()):
            self._sched.kthread_stop(worker)
        self._workers.clear()

    def statistics(self) -> WorkqueueStatistics:
        """Length, throughput and workers."""
        return WorkqueueStatistics(self.name, sum(map(len, self._lists)), self.executed, len(self._workers))

    def _check_open(self) -> None:
        if self._closed:
            raise BadInput(f"workqueue {self.name} is closed")

    def _running(self) -> list[WorkItem]:
        return [worker.private for worker in self._workers.values() if worker.private is not None]

    def _append(self, item: WorkItem, cpu: int) -> None:
        item.timer = None
        self._check_open()
        self._lists[cpu].append(item)
        if cpu in self._workers:
            self._more[cpu].wake_up()
        else:
            self._workers[cpu] = self._sched.spawn(lambda: self._worker(cpu), f"kworker/{cpu}:{self.name}", cpu=cpu)

    def _worker(self, cpu: int) -> None:
        sched = self._sched
        me = sched.current
        line = self._lists[cpu]
        more = self._more[cpu]
        while True:
            more.wait_event(lambda: bool(line) or me.should_stop, state=INTERRUPTIBLE)
            if not line:
                return
            item = line.popleft()
            item.pending = False
            item.running = True
            me.private = item
            try:
                item.fn()
            finally:
                item.running = False
                me.private = None
                self.executed += 1
            if sched.lockdep is not None:
                sched.lockdep.check_no_locks_held(me)
            self._finished.wake_up_all()
