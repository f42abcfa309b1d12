# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks, locks and time of the simulated machine (kernel/sched/, kernel/locking/, kernel/time/, kernel/workqueue.c).

Read ``core.py`` first. The order of locks is declared in ``lock_order.py`` and checked by ``lockdep.py``;
docs/lock-order.md shows it. Nothing here knows memory management; everything above uses only the names exported here.
"""

from __future__ import annotations

from memtwin.sched.clock import MSEC, NSEC, SEC, USEC, Clock, Timer
from memtwin.sched.completion import Completion
from memtwin.sched.core import Scheduler
from memtwin.sched.lock_order import Kind
from memtwin.sched.lockdep import Lockdep
from memtwin.sched.mutex import Mutex
from memtwin.sched.preempt import Hook, Instrument, Policy, RandomPolicy
from memtwin.sched.rwsem import Rwsem
from memtwin.sched.seqcount import Seqcount
from memtwin.sched.spinlock import SpinLock
from memtwin.sched.task import (
    DEAD,
    INTERRUPTIBLE,
    KILLABLE,
    NORMAL,
    PARKED,
    RUNNING,
    UNINTERRUPTIBLE,
    WAKEKILL,
    Task,
    signal_pending_state,
    state_letter,
)
from memtwin.sched.wait import (
    WQ_FLAG_CUSTOM,
    WQ_FLAG_DONE,
    WQ_FLAG_EXCLUSIVE,
    WQ_FLAG_PRIORITY,
    WQ_FLAG_WOKEN,
    WaitEntry,
    WaitQueue,
    WaitResult,
)
from memtwin.sched.workqueue import WorkItem, Workqueue

__all__ = [
    "DEAD",
    "INTERRUPTIBLE",
    "KILLABLE",
    "MSEC",
    "NORMAL",
    "NSEC",
    "PARKED",
    "RUNNING",
    "SEC",
    "UNINTERRUPTIBLE",
    "USEC",
    "WAKEKILL",
    "WQ_FLAG_CUSTOM",
    "WQ_FLAG_DONE",
    "WQ_FLAG_EXCLUSIVE",
    "WQ_FLAG_PRIORITY",
    "WQ_FLAG_WOKEN",
    "Clock",
    "Completion",
    "Hook",
    "Instrument",
    "Kind",
    "Lockdep",
    "Mutex",
    "Policy",
    "RandomPolicy",
    "Rwsem",
    "Scheduler",
    "Seqcount",
    "SpinLock",
    "Task",
    "Timer",
    "WaitEntry",
    "WaitQueue",
    "WaitResult",
    "WorkItem",
    "Workqueue",
    "signal_pending_state",
    "state_letter",
]
