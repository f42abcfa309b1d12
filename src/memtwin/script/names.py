# SPDX-License-Identifier: GPL-2.0-or-later
"""What the script language calls the flags of each system call; the values are Linux's (x86-64).

The tables are part of the language, so they are complete whether or not memtwin models what a flag does. A test holds
them against ``abi``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["FLAGS"]

Flags = Mapping[str, int]

_HUGE_SHIFT: Final = 26  # where MAP_HUGETLB and MFD_HUGETLB keep log2 of the page size


def _bits(names: str) -> Flags:
    """The names in order of their bits, from bit 0."""
    return {name: 1 << bit for bit, name in enumerate(names.split())}


_PROT: Final = {
    **{"none": 0, "r": 1, "w": 2, "x": 4, "rw": 3, "rx": 5, "wx": 6, "rwx": 7},
    **{"sem": 8, "growsdown": 0x0100_0000, "growsup": 0x0200_0000},
}
_MMAP: Final = {
    **{"shared": 1, "private": 2, "shared_validate": 3, "droppable": 8, "fixed": 0x10, "anon": 0x20, "32bit": 0x40},
    **{"growsdown": 0x100, "denywrite": 0x800, "locked": 0x2000, "noreserve": 0x4000, "populate": 0x8000},
    **{"nonblock": 0x1_0000, "stack": 0x2_0000, "hugetlb": 0x4_0000, "sync": 0x8_0000, "fixed_noreplace": 0x10_0000},
    **{"uninitialized": 0x400_0000},
    **{"huge_64kb": 16 << _HUGE_SHIFT, "huge_2mb": 21 << _HUGE_SHIFT, "huge_1gb": 30 << _HUGE_SHIFT},
}
_ADVICE: Final = {
    **{"normal": 0, "random": 1, "sequential": 2, "willneed": 3, "dontneed": 4, "free": 8, "remove": 9},
    **{"dontfork": 10, "dofork": 11, "mergeable": 12, "unmergeable": 13, "hugepage": 14, "nohugepage": 15},
    **{"dontdump": 16, "dodump": 17, "wipeonfork": 18, "keeponfork": 19, "cold": 20, "pageout": 21},
    **{"populate_read": 22, "populate_write": 23, "dontneed_locked": 24, "collapse": 25},
    **{"guard_install": 102, "guard_remove": 103},
}
_POLICY: Final = {
    **{"default": 0, "preferred": 1, "bind": 2, "interleave": 3, "local": 4, "preferred_many": 5},
    **{"weighted_interleave": 6, "numa_balancing": 1 << 13, "relative_nodes": 1 << 14, "static_nodes": 1 << 15},
}

#: Kind of argument (see ``operations``) -> its names.
FLAGS: Final[Mapping[str, Flags]] = {
    "prot": _PROT,
    "mmap": _MMAP,
    "advice": _ADVICE,
    "mremap": _bits("maymove fixed dontunmap"),
    "mlock2": _bits("onfault"),
    "mlockall": _bits("current future onfault"),
    "msync": _bits("async invalidate sync"),
    "memfd": {**_bits("cloexec sealing hugetlb noexec_seal exec"), "huge_2mb": 21 << _HUGE_SHIFT},
    "open": {"rdonly": 0, "wronly": 1, "rdwr": 2, "creat": 0o100, "trunc": 0o1000, "append": 0o2000},
    "fallocate": {
        **{"keep_size": 1, "punch_hole": 2, "collapse_range": 8},
        **{"zero_range": 0x10, "insert_range": 0x20, "unshare_range": 0x40},
    },
    "seals": _bits("seal shrink grow write future_write exec"),
    "uffd": {"user_mode_only": 1, "nonblock": 0o4000, "cloexec": 0o2000000},
    "features": _bits(
        "pagefault_flag_wp event_fork event_remap event_remove missing_hugetlbfs missing_shmem event_unmap sigbus "
        "thread_id minor_hugetlbfs minor_shmem exact_address wp_hugetlbfs_shmem wp_unpopulated poison wp_async move"
    ),
    "register": _bits("missing wp minor"),
    "uffd_wp": _bits("wp dontwake"),
    "uffd_mode": _bits("dontwake wp"),
    "scan": _bits("wp_matching check_wpasync"),
    "categories": _bits("wpallowed written file present swapped pfnzero huge soft_dirty guard"),
    "policy": _POLICY,
    "mbind": _bits("strict move move_all"),
    "limit": {"fsize": 1, "data": 2, "stack": 3, "nofile": 7, "memlock": 8, "as": 9},
    "capability": {
        "ipc_lock": 14,
        "sys_rawio": 17,
        "sys_ptrace": 19,
        "sys_admin": 21,
        "sys_nice": 23,
        "sys_resource": 24,
    },
}
