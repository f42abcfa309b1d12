# SPDX-License-Identifier: GPL-2.0-or-later
"""Accesses and faults: addresses and signals, contents, which pages are one, counters (spec R12, R13)."""

from __future__ import annotations

from memtwin.verify import actions
from memtwin.verify.generate import Profile

__all__ = ["PROFILE"]

PROFILE = Profile(
    "fault",
    weights={
        actions.mmap_fixed: 16,
        actions.mmap_file: 6,
        actions.new_file: 1,
        actions.map_populate: 4,
        actions.beyond_the_file: 2,
        actions.access: 30,
        actions.read_then_write: 6,
        actions.populate: 5,
        actions.mincore: 4,
        actions.mprotect: 12,
        actions.munmap: 5,
        actions.zap: 5,
        actions.file_io: 5,
        actions.big_area: 1.5,
        actions.below_stack_like: 1.5,
        actions.mremap: 4,
        actions.move_there_and_back: 0.7,
        actions.mlock: 2,
        actions.cow: 3,
        actions.fork: 2,
        actions.brk: 2,
        actions.look: 2,
    },
    dump="maps smaps pagemap status",
    peek="pagemap status",
    bases=(0, 488),
)
