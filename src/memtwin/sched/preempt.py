# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a task may be interrupted by another, and who decides.

``Scheduler.hook`` is ``None`` or a function that is called with the name of the place, in the greenlet of the current
task::

    hook = sched.hook
    if hook is not None:
        hook("do_anonymous_page:allocated")

Written out like this it costs a few nanoseconds; behind a function it would cost ten times that. Every lock operation
is such a place by itself (``"down_read:mmap_lock"`` before the lock is looked at, ``"up_read:mmap_lock"`` after it was
given up); others are named where code reads something it later relies on. Nothing else switches tasks.

A hook that wants a switch calls ``Scheduler.preempt()`` (go to the end of the run queue) or ``Scheduler.park(why)``
(until somebody says ``unpark``). Both are legal inside a spinlock: the other task then runs on another CPU, and the
scheduler keeps everyone off the CPU of a task that has preemption disabled.

Explorers and recorders live above; here are only the protocols they implement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memtwin.sched.task import Task

__all__ = ["Hook", "Instrument", "Policy", "RandomPolicy"]

Hook = Callable[[str], None]


class Instrument:
    """What an observer may hear from a scheduler; each method does nothing until overridden.

    A method runs inside the scheduler: it may look, record and fire tracepoints, and may not block or switch.
    """

    def task_spawned(self, task: Task) -> None:
        """``task`` exists."""

    def task_exited(self, task: Task) -> None:
        """``task`` has run to its end (or was torn down)."""

    def task_switched(self, prev: Task, prev_state: int, next_: Task) -> None:
        """The CPU goes from ``prev`` (which is left in ``prev_state``) to ``next_``; the idle task is one of them."""

    def task_woken(self, task: Task) -> None:
        """``task`` became runnable."""

    def clock_jumped(self, before: int, after: int) -> None:
        """Everyone slept; the clock went from ``before`` to ``after`` (virtual ns)."""


class Policy:
    """Which runnable task is next. The base class is the default: first come, first served."""

    def choose(self, runnable: Sequence[Task]) -> int:
        """The index of the task to run; ``runnable`` is not empty, in the order in which the tasks became runnable."""
        return 0


class RandomPolicy(Policy):
    """Any of them, from a seeded stream: the same seed gives the same run."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, runnable: Sequence[Task]) -> int:
        return self._rng.randrange(len(runnable))
