# SPDX-License-Identifier: GPL-2.0-or-later
"""Sequence counts (include/linux/seqlock.h): readers that do not lock, but notice that a writer was there.

A writer makes the count odd, writes, makes it even; writers exclude each other by a lock of their own. A reader takes
the count before and compares after::

    while True:
        seq = count.read_begin()
        ...
        if not count.read_retry(seq):
            break
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from memtwin.errors import InvariantBroken

if TYPE_CHECKING:
    from memtwin.sched.core import Scheduler

__all__ = ["Seqcount", "SeqcountStatistics"]


@dataclass(frozen=True, slots=True)
class SeqcountStatistics:
    """``retries``: readers that had to start again, so far."""

    name: str
    sequence: int
    retries: int


class Seqcount:
    """``sequence`` is odd while a write is under way."""

    __slots__ = ("_sched", "name", "retries", "sequence")

    def __init__(self, sched: Scheduler, name: str) -> None:
        self.name: Final = name
        self.sequence = 0
        self.retries = 0
        self._sched: Final = sched

    def read_begin(self) -> int:
        """The count to compare with; waits for a write under way to end."""
        sched = self._sched
        if sched.hook is not None:
            sched.hook(f"read_begin:{self.name}")
        while self.sequence & 1:
            sched.cpu_relax(f"the writer of {self.name}")
        return self.sequence

    def read_retry(self, seq: int) -> bool:
        """Whether a write began since ``read_begin`` returned ``seq``: what was read is not to be used."""
        sched = self._sched
        if sched.hook is not None:
            sched.hook(f"read_retry:{self.name}")
        if self.sequence == seq:
            return False
        self.retries += 1
        return True

    def write_begin(self) -> None:
        """A write is under way. The caller holds the lock that excludes other writers."""
        if self.sequence & 1:
            raise InvariantBroken(f"two writers of {self.name} at once")
        self.sequence += 1
        sched = self._sched
        sched.current.preempt_count += 1  # a reader on this CPU would spin for ever
        if sched.hook is not None:
            sched.hook(f"write_begin:{self.name}")

    def write_end(self) -> None:
        """The write is complete."""
        if not self.sequence & 1:
            raise InvariantBroken(f"write_end of {self.name} without write_begin")
        self.sequence += 1
        sched = self._sched
        sched.current.preempt_count -= 1
        if sched.hook is not None:
            sched.hook(f"write_end:{self.name}")

    def statistics(self) -> SeqcountStatistics:
        """The count and the retries."""
        return SeqcountStatistics(self.name, self.sequence, self.retries)
