# SPDX-License-Identifier: GPL-2.0-or-later
"""What to say when nothing can go on (Linux has kernel/hung_task.c and lockdep's "blocked tasks" for it).

Tasks that wait for something know what (``Task.waiting_on``); locks know who stands in the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memtwin.errors import Deadlock
from memtwin.sched.task import RUNNING, Task

if TYPE_CHECKING:
    from memtwin.sched.core import Scheduler

__all__ = ["check_cycle", "report"]


def report(sched: Scheduler, headline: str) -> str:
    """``headline``, then one line for each blocked task and for each runnable one whose CPU is taken."""
    lines = [f"deadlock: {headline}"]
    lines += [f"  {task} waits for {task.wait_description()}" for task in sched.blocked_tasks()]
    for task, holder in sched.held_up():
        lines.append(f"  {task} can not run: {holder} has preemption disabled on CPU {task.cpu}")
    return "\n".join(lines)


def check_cycle(task: Task) -> None:
    """Raise ``Deadlock`` if ``task``, about to wait, closes a cycle of tasks that wait for each other."""
    cycle = _path(task, task, [])
    if cycle:
        lines = [f"deadlock: {' -> '.join(str(each) for each in [*cycle, task])} wait for each other"]
        lines += [f"  {each} waits for {each.wait_description()}" for each in cycle]
        task.state = RUNNING
        task.waiting_on = None
        raise Deadlock("\n".join(lines))


def _path(start: Task, goal: Task, seen: list[Task]) -> Sequence[Task]:
    seen.append(start)
    for blocker in start.wait_blockers():
        if blocker is goal:
            return [start]
        if blocker not in seen:
            rest = _path(blocker, goal, seen)
            if rest:
                return [start, *rest]
    return ()
