# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees of processes: what a child's address space is, and how it goes on (spec R11, R6)."""

from __future__ import annotations

from memtwin.verify import actions
from memtwin.verify.generate import Profile

__all__ = ["PROFILE"]

PROFILE = Profile(
    "fork",
    weights={
        actions.fork: 14,
        actions.wiped: 1.5,
        actions.mmap_fixed: 22,
        actions.mmap_file: 3,
        actions.fill_between: 1.5,
        actions.munmap: 7,
        actions.mprotect: 12,
        actions.there_and_back: 4,
        actions.madvise: 9,
        actions.touch: 18,
        actions.zap: 2,
        actions.brk: 4,
        actions.mremap: 4,
        actions.mlock: 3,
        actions.cow: 8,
        actions.access: 6,
        actions.populate: 1.5,
        actions.guard: 1,
        actions.big_area: 0.5,
        actions.new_file: 1,
        actions.look: 2,
    },
    dump="maps smaps pagemap status",
    peek="pagemap status",
    bases=(0, 488),
)
