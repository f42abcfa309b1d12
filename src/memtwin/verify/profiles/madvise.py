# SPDX-License-Identifier: GPL-2.0-or-later
"""Advice about pages and areas, guards, mincore, sealing: what stays, what goes, what is refused (spec R8)."""

from __future__ import annotations

from memtwin.verify import actions
from memtwin.verify.generate import Profile

__all__ = ["PROFILE"]

PROFILE = Profile(
    "madvise",
    weights={
        actions.mmap_fixed: 16,
        actions.mmap_file: 6,
        actions.new_file: 1,
        actions.map_populate: 2,
        actions.access: 16,
        actions.advise_pages: 28,
        actions.madvise: 8,
        actions.guard: 5,
        actions.guarded: 2,
        actions.free_and_page_out: 4,
        actions.punch: 3,
        actions.aged: 2,
        actions.locked_and_dropped: 2,
        actions.mseal: 1,
        actions.mincore: 4,
        actions.mprotect: 8,
        actions.munmap: 4,
        actions.mremap: 3,
        actions.file_io: 2,
        actions.big_area: 1,
        actions.cow: 2,
        actions.fork: 3,
        actions.look: 2,
    },
    dump="maps smaps pagemap status",
    peek="pagemap status",
    bases=(0, 488),
)
