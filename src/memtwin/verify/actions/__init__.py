# SPDX-License-Identifier: GPL-2.0-or-later
"""What the generator can write: one function an operation, or a short idiom of several.

Each aims at boundaries, writes lines and keeps the author's picture true in the ordinary case.
"""

from __future__ import annotations

from memtwin.verify.actions.attributes import madvise, mbind, mprotect, mseal, msync, prctl, there_and_back
from memtwin.verify.actions.limits import limits, lock_limit, moves_near_map_limit, near_map_limit, with_limits
from memtwin.verify.actions.locking import mlock, mlockall, mmap_locked
from memtwin.verify.actions.mapping import (
    brk,
    fill_between,
    mmap_chosen,
    mmap_file,
    mmap_fixed,
    mmap_wrong,
    munmap,
    new_file,
    remap_file_pages,
    two_files,
)
from memtwin.verify.actions.moving import move_there_and_back, mremap
from memtwin.verify.actions.pages import below_stack_like, touch, zap
from memtwin.verify.actions.processes import fork, wiped
from memtwin.verify.actions.sysctls import sysctl, with_sysctl
from memtwin.verify.actions.userfaultfd import two_userfaultfds, userfaultfd

__all__ = [
    "below_stack_like",
    "brk",
    "fill_between",
    "fork",
    "limits",
    "lock_limit",
    "madvise",
    "mbind",
    "mlock",
    "mlockall",
    "mmap_chosen",
    "mmap_file",
    "mmap_fixed",
    "mmap_locked",
    "mmap_wrong",
    "move_there_and_back",
    "moves_near_map_limit",
    "mprotect",
    "mremap",
    "mseal",
    "msync",
    "munmap",
    "near_map_limit",
    "new_file",
    "prctl",
    "remap_file_pages",
    "sysctl",
    "there_and_back",
    "touch",
    "two_files",
    "two_userfaultfds",
    "userfaultfd",
    "wiped",
    "with_limits",
    "with_sysctl",
    "zap",
]
