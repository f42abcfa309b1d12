# SPDX-License-Identifier: GPL-2.0-or-later
"""Mappings and their flags: where they go, when they merge and split, what is refused (spec R1-R11)."""

from __future__ import annotations

from memtwin.verify import actions
from memtwin.verify.generate import Profile

__all__ = ["PROFILE"]

PROFILE = Profile(
    "vma",
    weights={
        actions.mmap_fixed: 26,
        actions.mmap_chosen: 6,
        actions.mmap_wrong: 1.5,
        actions.mmap_file: 5,
        actions.new_file: 1,
        actions.two_files: 0.5,
        actions.fill_between: 1.2,
        actions.two_userfaultfds: 0.6,
        actions.munmap: 11,
        actions.mprotect: 18,
        actions.there_and_back: 4,
        actions.madvise: 9,
        actions.mbind: 3,
        actions.mseal: 0.6,
        actions.guarded: 0.4,
        actions.guard: 0.4,
        actions.mincore: 0.8,
        actions.touch: 7,
        actions.zap: 0.7,
        actions.brk: 4,
        actions.mremap: 3,
        actions.mlock: 2,
        actions.userfaultfd: 2,
        actions.msync: 1,
        actions.prctl: 0.5,
        actions.below_stack_like: 0.5,
        actions.limits: 0.6,
        actions.sysctl: 1.5,
        actions.fork: 1,
    },
    openings={actions.near_map_limit: 0.012, actions.with_limits: 0.05, actions.with_sysctl: 0.04},
)
