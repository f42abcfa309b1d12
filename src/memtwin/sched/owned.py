# SPDX-License-Identifier: GPL-2.0-or-later
"""What a lock is that one task owns: mutexes and spinlocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from memtwin.sched.core import Scheduler
    from memtwin.sched.task import Task

__all__ = ["OwnedLock"]


class OwnedLock:
    """Who has a lock and how often somebody had to wait (``contended``); how to wait is the kind's own business."""

    __slots__ = ("_dep", "_sched", "_work", "contended", "name", "owner")

    def __init__(self, sched: Scheduler, name: str) -> None:
        self.name: Final = name
        self.owner: Task | None = None
        self.contended = 0
        self._sched: Final = sched
        self._work: Final = sched.work
        self._dep: Final = sched.lockdep

    def is_locked(self) -> bool:
        """Held by anybody."""
        return self.owner is not None

    def held_by(self, task: Task) -> bool:
        """Held by ``task``."""
        return self.owner is task

    def assert_held(self) -> None:
        """With lockdep: the current task must hold it."""
        if self._dep is not None:
            self._dep.assert_held(self, self.name)
