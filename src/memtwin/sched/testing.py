# SPDX-License-Identifier: GPL-2.0-or-later
"""Forcing an interleaving: how a test writes down a race between two tasks (after trio.testing.Sequencer).

In code of one's own, number the steps::

    seq = Sequencer(sched)
    def one():                      def two():
        with seq(0):                    with seq(1):
            look()                          change()
        with seq(2):
            act()

In code that is only called, name the preemption points it passes, in the order in which they are to be passed::

    with Sequencer(sched) as seq:
        seq.at("look:done", one)
        seq.at("down_write:mmap_lock", two)
        seq.at("act:start", one)
        sched.run(until=one)

A task that comes to a point of the plan before its turn waits there, and after its turn runs on to its next point in
the plan (or until it blocks or ends). Points that are not, or no longer, in the plan are passed freely. Waiting works
inside spinlocks too: the others are then on other CPUs, so give the machine as many CPUs as tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from memtwin.errors import InvariantBroken

if TYPE_CHECKING:
    from memtwin.sched.core import Scheduler
    from memtwin.sched.preempt import Hook
    from memtwin.sched.task import Task

__all__ = ["Sequencer"]


class Sequencer:
    """A total order of steps.

    As a context manager it installs itself as ``sched.hook``, and checks at the end that the plan was used up.
    """

    def __init__(self, sched: Scheduler) -> None:
        self._sched = sched
        self._plan: list[tuple[str, Task]] = []
        self._passed = 0
        self._waiting: list[tuple[str, Task]] = []
        self._next = 0
        self._at_number: dict[int, Task] = {}
        self._done: set[int] = set()
        self._before: Hook | None = None

    # ---- numbered steps

    @contextmanager
    def __call__(self, number: int) -> Iterator[None]:
        """Wait until steps 0 .. ``number`` - 1 are done, then run the body as step ``number``, once."""
        if number in self._done or number in self._at_number:
            raise InvariantBroken(f"sequence step {number} is used twice")
        task = self._sched.current
        while self._next != number:
            self._at_number[number] = task
            self._sched.park(f"sequence step {self._next}, to take step {number}")
        self._at_number.pop(number, None)
        try:
            yield
        finally:
            self._done.add(number)
            self._next += 1
            waiter = self._at_number.get(self._next)
            if waiter is not None:
                self._sched.unpark(waiter)

    # ---- named points

    def at(self, site: str, task: Task) -> None:
        """The next step of the plan: ``task`` passes the preemption point ``site``."""
        self._plan.append((site, task))

    def left(self) -> list[str]:
        """The steps of the plan not taken yet, in words."""
        return [f"{task} at {site}" for site, task in self._plan[self._passed :]]

    def __enter__(self) -> Self:
        self._before = self._sched.hook
        self._sched.hook = self._hook
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._sched.hook = self._before
        if kind is None and self.left():
            raise InvariantBroken(f"the planned order did not happen; left: {', '.join(self.left())}")

    def _hook(self, site: str) -> None:
        sched = self._sched
        if sched.in_irq:
            return
        step = (site, sched.current)
        if step not in self._plan[self._passed :]:
            return
        while self._plan[self._passed] != step:
            due_site, due_task = self._plan[self._passed]
            self._waiting.append(step)
            sched.park(f"its turn at {site}, after {due_task} at {due_site}")
        self._passed += 1
        if self._passed < len(self._plan):
            following = self._plan[self._passed]
            if following in self._waiting:
                self._waiting.remove(following)
                sched.unpark(following[1])
