# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks: everything that executes kernel code (include/linux/sched.h).

A task is either *driven* through the API (its system calls run in the greenlet of whoever calls ``p.mmap()``; between
calls it is ``PARKED``, that is, in user mode), or it *runs by itself* on a greenlet of its own (guest threads, ksmd,
kswapd, workers).

Invariants
    ``greenlet`` is the greenlet whose stack holds the task's kernel frames; ``None`` means the hub's (or none, when
    parked).
    ``on_rq`` is false exactly while the task sleeps inside ``Scheduler.schedule()``.
    ``state`` is what the task *wants* (Linux's ``__state``): a task that has set INTERRUPTIBLE but not yet called
    ``schedule()`` still runs, and a wake-up in between only sets it back to RUNNING. No wake-up can be lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from greenlet import greenlet  # type: ignore[import-untyped, unused-ignore]

    from memtwin.sched.clock import Timer
    from memtwin.sched.lockdep import Held

__all__ = [
    "DEAD",
    "INTERRUPTIBLE",
    "KILLABLE",
    "NORMAL",
    "PARKED",
    "RUNNING",
    "UNINTERRUPTIBLE",
    "WAKEKILL",
    "Task",
    "WaitsFor",
    "signal_pending_state",
    "state_letter",
]

# Bits of Task.state; names and meaning as in Linux, except PARKED (in user mode, driven through the API).
RUNNING: Final = 0x0
INTERRUPTIBLE: Final = 0x1
UNINTERRUPTIBLE: Final = 0x2
PARKED: Final = 0x40
DEAD: Final = 0x80
WAKEKILL: Final = 0x100
KILLABLE: Final = WAKEKILL | UNINTERRUPTIBLE
NORMAL: Final = INTERRUPTIBLE | UNINTERRUPTIBLE


class WaitsFor(Protocol):
    """What a blocked task waits for, so that a report can say it and a cycle can be found."""

    def describe_wait(self, task: Task) -> str:
        """One phrase after "waits for": the thing, and who stands in the way."""
        ...

    def blockers(self, task: Task) -> Sequence[Task]:
        """The tasks that must act before ``task`` can go on; empty when nobody in particular must."""
        ...


class Task:
    """One thread of control of the simulated machine; owned by its ``Scheduler``."""

    __slots__ = (
        "__weakref__",
        "blocked_since",
        "cpu",
        "exit_waiters",
        "fatal_signal_pending",
        "fn",
        "greenlet",
        "held",
        "irqs_off",
        "maj_flt",
        "min_flt",
        "mm",
        "name",
        "on_rq",
        "preempt_count",
        "private",
        "result",
        "should_stop",
        "signal_pending",
        "state",
        "tid",
        "timer",
        "waiting_on",
        "wpcopy_count",
    )

    def __init__(self, tid: int, name: str, cpu: int, state: int = PARKED) -> None:
        self.tid: Final = tid  #: thread id, unique in the scheduler while the task lives
        self.name = name  #: Linux's comm
        self.cpu = cpu  #: index of the simulated CPU it runs on
        self.state = state
        self.on_rq = True
        self.greenlet: greenlet | None = None
        self.fn: Any = None  #: what a task of its own runs, until it starts
        self.result: Any = None  #: what that function returned
        self.preempt_count = 0  #: spinlocks held (each disables preemption)
        self.irqs_off = 0  #: nesting of disabled interrupts
        self.held: list[Held] = []  #: kept by lockdep only
        self.waiting_on: WaitsFor | str | None = None
        self.blocked_since = 0  #: virtual ns
        self.timer: Timer | None = None  #: the timeout of the wait in progress
        self.signal_pending = False  #: set by the owner of signals, then ``Scheduler.signal_wake_up``
        self.fatal_signal_pending = False
        self.should_stop = False  #: kthread_stop() was called
        self.exit_waiters: list[Task] = []
        self.mm: Any = None  #: the owner's: address space
        self.min_flt = 0  #: the owner's: page faults taken, without and with I/O
        self.maj_flt = 0
        self.wpcopy_count = 0  #: the owner's: times it was delayed by copying a write-protected page
        self.private: Any = None  #: the owner's: anything else

    def __repr__(self) -> str:
        return f"<Task {self} {state_letter(self.state)}>"

    def __str__(self) -> str:
        return f"{self.name}({self.tid})"

    @property
    def blocked(self) -> bool:
        """Whether the task sleeps in the kernel."""
        return not self.on_rq

    def wait_description(self) -> str:
        """What the task waits for, in words."""
        what = self.waiting_on
        if what is None:
            return "a wake-up"
        return what if isinstance(what, str) else what.describe_wait(self)

    def wait_blockers(self) -> Sequence[Task]:
        """The tasks that stand in the way of this one, as far as known."""
        what = self.waiting_on
        return () if what is None or isinstance(what, str) else what.blockers(self)

    # A task is itself something to wait for: its exit (Scheduler.join).

    def describe_wait(self, task: Task) -> str:
        return f"the exit of {self}"

    def blockers(self, task: Task) -> Sequence[Task]:
        return (self,)


def state_letter(state: int) -> str:
    """The letter ps(1) shows for a state: R, S, D, X; ``U`` is memtwin's own for "in user mode, driven through the
    API".
    """
    if state & DEAD:
        return "X"
    if state & PARKED:
        return "U"
    if state & INTERRUPTIBLE:
        return "S"
    return "D" if state & UNINTERRUPTIBLE else "R"


def signal_pending_state(state: int, task: Task) -> bool:
    """Whether a task that would sleep in ``state`` has a signal that forbids it."""
    if state & INTERRUPTIBLE:
        return task.signal_pending or task.fatal_signal_pending
    return bool(state & WAKEKILL) and task.fatal_signal_pending
