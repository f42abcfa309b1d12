# SPDX-License-Identifier: GPL-2.0-or-later
"""Locking pages, and the limits on locked and mapped memory (spec R8 mlock, R9)."""

from __future__ import annotations

from memtwin.verify import actions
from memtwin.verify.generate import Profile

__all__ = ["PROFILE"]

PROFILE = Profile(
    "mlock",
    weights={
        actions.mlock: 26,
        actions.mlockall: 4,
        actions.mmap_locked: 6,
        actions.lock_limit: 2,
        actions.limits: 3,
        actions.mmap_fixed: 18,
        actions.mmap_chosen: 3,
        actions.mmap_file: 3,
        actions.munmap: 6,
        actions.mprotect: 7,
        actions.madvise: 2,
        actions.zap: 2,
        actions.there_and_back: 3,
        actions.touch: 5,
        actions.brk: 5,
        actions.mremap: 5,
        actions.mseal: 0.3,
        actions.fork: 1,
    },
    openings={actions.near_map_limit: 0.008, actions.with_limits: 0.1, actions.lock_limit: 0.3},
    peek="maps status",
)
