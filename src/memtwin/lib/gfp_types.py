# SPDX-License-Identifier: GPL-2.0-or-later
"""Allocation flags (Linux: include/linux/gfp_types.h): what an allocation may do when memory is short.

The numbers are memtwin's own choice; only names and meaning follow Linux (user space never sees the numbers). They
live in ``lib`` because data structures hand them through to the allocator they were given.
"""

from __future__ import annotations

DMA = 0x01
HIGHMEM = 0x02
DMA32 = 0x04
MOVABLE = 0x08
RECLAIMABLE = 0x10
HIGH = 0x20  #: may dip into the reserves (atomic contexts)
IO = 0x40
FS = 0x80
ZERO = 0x100
DIRECT_RECLAIM = 0x400  #: the caller may sleep and reclaim
KSWAPD_RECLAIM = 0x800  #: wakes kswapd
WRITE = 0x1000
NOWARN = 0x2000
RETRY_MAYFAIL = 0x4000
NOFAIL = 0x8000
NORETRY = 0x10000
MEMALLOC = 0x20000  #: ignores all watermarks
COMP = 0x40000  #: compound page
NOMEMALLOC = 0x80000
HARDWALL = 0x100000  #: cpuset limits apply
THISNODE = 0x200000
ACCOUNT = 0x400000  #: charged to the task's memory cgroup

RECLAIM = DIRECT_RECLAIM | KSWAPD_RECLAIM
GFP_ATOMIC = HIGH | KSWAPD_RECLAIM
GFP_KERNEL = RECLAIM | IO | FS
GFP_KERNEL_ACCOUNT = GFP_KERNEL | ACCOUNT
GFP_NOWAIT = KSWAPD_RECLAIM | NOWARN
GFP_NOIO = RECLAIM
GFP_NOFS = RECLAIM | IO
GFP_USER = GFP_KERNEL | HARDWALL
GFP_HIGHUSER = GFP_USER | HIGHMEM
GFP_HIGHUSER_MOVABLE = GFP_HIGHUSER | MOVABLE
GFP_TRANSHUGE_LIGHT = (GFP_HIGHUSER_MOVABLE | COMP | NOMEMALLOC | NOWARN) & ~RECLAIM
GFP_TRANSHUGE = GFP_TRANSHUGE_LIGHT | DIRECT_RECLAIM

#: Name of every single bit, for messages and tracepoints.
NAMES: dict[int, str] = {
    value: f"__GFP_{name}"
    for name, value in sorted(globals().items(), key=lambda item: str(item[0]))
    if isinstance(value, int) and not name.startswith(("_", "GFP")) and value.bit_count() == 1
}


def gfpflags_allow_blocking(gfp: int) -> bool:
    """Whether an allocation with these flags may sleep."""
    return bool(gfp & DIRECT_RECLAIM)


def gfp_names(gfp: int) -> str:
    """The flags as ``GFP_KERNEL|__GFP_ZERO``, longest named combination first."""
    if not gfp:
        return "none"
    parts: list[str] = []
    for name, value in _COMBINATIONS:
        if gfp & value == value:
            parts.append(name)
            gfp &= ~value
    parts += [name for bit, name in sorted(NAMES.items()) if gfp & bit]
    return "|".join(parts)


_COMBINATIONS: list[tuple[str, int]] = sorted(
    ((name, value) for name, value in globals().items() if name.startswith("GFP_")),
    key=lambda item: (-item[1].bit_count(), item[0]),
)
