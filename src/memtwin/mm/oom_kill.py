# SPDX-License-Identifier: GPL-2.0-or-later
"""Choosing a process to kill when an allocation can not succeed otherwise (Linux: mm/oom_kill.c).

Documentation/filesystems/proc.rst, oom_score_adj: the score is the memory a process uses (resident, swapped, page
tables) plus oom_score_adj thousandths of what the machine has; -1000 exempts. A tie goes to the process seen first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from memtwin.mm.mm_types import MmStruct

__all__ = ["OOM_SCORE_ADJ_MIN", "oom_badness", "oom_kill_message", "select_bad_process"]

OOM_SCORE_ADJ_MIN = -1000


class OomCandidate(Protocol):
    """What the choice needs of a process."""

    mm: MmStruct | None
    oom_score_adj: int
    fatal_signal_pending: bool

    @property
    def pid(self) -> int:
        """Process id."""

    @property
    def comm(self) -> str:
        """Name."""


C = TypeVar("C", bound=OomCandidate)


def oom_badness(task: OomCandidate, total_pages: int) -> int:
    """Score in pages; ``total_pages``: memory of the machine. The least number there is means: never."""
    mm = task.mm
    if mm is None or task.oom_score_adj == OOM_SCORE_ADJ_MIN:
        return -(1 << 63)
    return mm.rss + mm.rss_swap + (mm.pgtables_bytes >> 12) + task.oom_score_adj * total_pages // 1000


def select_bad_process(tasks: Iterable[C], total_pages: int) -> C | None:
    """The process to kill, or None where all are exempt."""
    chosen: C | None = None
    most = -(1 << 63)
    for task in tasks:
        score = oom_badness(task, total_pages)
        if score > most:
            chosen, most = task, score
    return chosen


def oom_kill_message(task: OomCandidate) -> str:
    """The line of the kernel log, in Linux's words."""
    mm = task.mm
    assert mm is not None
    return (
        f"Out of memory: Killed process {task.pid} ({task.comm}) total-vm:{mm.total_vm * 4}kB, "
        f"anon-rss:{mm.rss_anon * 4}kB, file-rss:{mm.rss_file * 4}kB, shmem-rss:{mm.rss_shmem * 4}kB, UID:0 "
        f"pgtables:{mm.pgtables_bytes >> 10}kB oom_score_adj:{task.oom_score_adj}"
    )
