# SPDX-License-Identifier: GPL-2.0-or-later
"""The scheduler's events as tracepoints (include/trace/events/sched.h); sched itself lies below and fires none.

Priorities are not modelled: every task has 120, nice 0.
"""

from __future__ import annotations

from typing import Final

from memtwin.events.tracepoint import Tracepoints
from memtwin.sched import Instrument, Task, state_letter

__all__ = ["SchedEvents"]

_PRIO: Final = 120


class SchedEvents(Instrument):
    """Add to ``Scheduler.instruments`` to get ``sched_switch``, ``sched_wakeup`` and ``sched_process_exit``."""

    def __init__(self, tp: Tracepoints) -> None:
        self._tp: Final = tp

    def task_switched(self, prev: Task, prev_state: int, next_: Task) -> None:
        trace = self._tp.sched_switch
        if trace is not None:
            trace(prev.name, prev.tid, _PRIO, state_letter(prev_state), next_.name, next_.tid, _PRIO)

    def task_woken(self, task: Task) -> None:
        trace = self._tp.sched_wakeup
        if trace is not None:
            trace(task.name, task.tid, _PRIO, task.cpu)

    def task_exited(self, task: Task) -> None:
        trace = self._tp.sched_process_exit
        if trace is not None:
            trace(task.name, task.tid, _PRIO, False)
