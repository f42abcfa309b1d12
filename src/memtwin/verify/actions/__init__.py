# SPDX-License-Identifier: GPL-2.0-or-later
"""What the generator can write: one function an operation, or a short idiom of several.

Each aims at boundaries, writes lines and keeps the author's picture true in the ordinary case.
"""

from __future__ import annotations

from memtwin.verify.actions.advice import (
    advise_pages,
    aged,
    free_and_page_out,
    guard,
    guarded,
    locked_and_dropped,
    punch,
)
from memtwin.verify.actions.attributes import madvise, mbind, mprotect, mseal, msync, prctl, there_and_back
from memtwin.verify.actions.faults import (
    access,
    beyond_the_file,
    big_area,
    cow,
    file_io,
    look,
    map_populate,
    mincore,
    populate,
    read_then_write,
)
from memtwin.verify.actions.huge import (
    advise_huge,
    collapse_huge,
    huge_area,
    huge_processes,
    lock_huge,
    map_huge,
    move_huge,
    populate_huge,
    protect_huge,
    read_huge,
    uffd_huge,
    unmap_huge,
    write_huge,
    zap_huge,
)
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
    "access",
    "advise_huge",
    "advise_pages",
    "aged",
    "below_stack_like",
    "beyond_the_file",
    "big_area",
    "brk",
    "collapse_huge",
    "cow",
    "file_io",
    "fill_between",
    "fork",
    "free_and_page_out",
    "guard",
    "guarded",
    "huge_area",
    "huge_processes",
    "limits",
    "lock_huge",
    "lock_limit",
    "locked_and_dropped",
    "look",
    "madvise",
    "map_huge",
    "map_populate",
    "mbind",
    "mincore",
    "mlock",
    "mlockall",
    "mmap_chosen",
    "mmap_file",
    "mmap_fixed",
    "mmap_locked",
    "mmap_wrong",
    "move_huge",
    "move_there_and_back",
    "moves_near_map_limit",
    "mprotect",
    "mremap",
    "mseal",
    "msync",
    "munmap",
    "near_map_limit",
    "new_file",
    "populate",
    "populate_huge",
    "prctl",
    "protect_huge",
    "punch",
    "read_huge",
    "read_then_write",
    "remap_file_pages",
    "sysctl",
    "there_and_back",
    "touch",
    "two_files",
    "two_userfaultfds",
    "uffd_huge",
    "unmap_huge",
    "userfaultfd",
    "wiped",
    "with_limits",
    "with_sysctl",
    "write_huge",
    "zap",
    "zap_huge",
]
