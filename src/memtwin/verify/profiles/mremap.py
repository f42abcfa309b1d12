# SPDX-License-Identifier: GPL-2.0-or-later
"""Moving, growing, shrinking and duplicating mappings (spec R8 mremap, R15)."""

from __future__ import annotations

from memtwin.verify import actions
from memtwin.verify.generate import Profile

__all__ = ["PROFILE"]

PROFILE = Profile(
    "mremap",
    weights={
        actions.mremap: 34,
        actions.move_there_and_back: 5,
        actions.mmap_fixed: 20,
        actions.mmap_chosen: 3,
        actions.mmap_file: 5,
        actions.new_file: 0.7,
        actions.fill_between: 0.7,
        actions.two_userfaultfds: 0.3,
        actions.munmap: 5,
        actions.mprotect: 6,
        actions.madvise: 3,
        actions.touch: 12,
        actions.mlock: 3,
        actions.brk: 1,
        actions.mbind: 0.7,
        actions.mseal: 0.5,
        actions.sysctl: 0.7,
        actions.userfaultfd: 0.7,
        actions.limits: 0.7,
        actions.fork: 0.8,
    },
    openings={
        actions.near_map_limit: 0.008,
        actions.moves_near_map_limit: 0.012,
        actions.with_limits: 0.05,
        actions.with_sysctl: 0.02,
    },
)
