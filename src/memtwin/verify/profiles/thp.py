# SPDX-License-Identifier: GPL-2.0-or-later
"""Transparent huge pages of anonymous memory: faults, splits, copy-on-write, moves, collapse, in several processes."""

from __future__ import annotations

from memtwin.verify import actions
from memtwin.verify.generate import Profile

__all__ = ["PROFILE"]

PROFILE = Profile(
    "thp",
    weights={
        actions.write_huge: 22,
        actions.read_huge: 9,
        actions.protect_huge: 14,
        actions.zap_huge: 9,
        actions.unmap_huge: 4,
        actions.map_huge: 4,
        actions.move_huge: 6,
        actions.advise_huge: 6,
        actions.collapse_huge: 7,
        actions.populate_huge: 4,
        actions.lock_huge: 2,
        actions.uffd_huge: 2,
        actions.huge_processes: 12,
    },
    openings={actions.huge_area: 1.0},
    length=(14, 26),
    dump="maps smaps pagemap status",
    peeks=0.0,
)
