# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/slabinfo (mm/slab_common.c): a line a cache, the newest first, format version 2.1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from memtwin.mm.slab import KmemCache, SlabAllocator

__all__ = ["slabinfo"]

HEADER: Final = (
    "slabinfo - version: 2.1\n"
    "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>"
    " : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n"
)


def slabinfo(slab: SlabAllocator) -> str:
    """The text of the file. As SLUB does, objects on CPUs' stacks count as active; use ``KmemCache.active_objects``
    for the allocated ones."""
    return HEADER + "".join(_line(cache) for cache in reversed(slab.caches))


def _line(cache: KmemCache) -> str:
    slabs = cache.num_slabs
    active = cache.active_objects + cache.stacked_objects
    return (
        f"{cache.name:<17} {active:6} {cache.num_objects:6} {cache.size:6} {cache.objs_per_slab:4} {1 << cache.order:4}"
        f" : tunables {0:4} {0:4} {0:4} : slabdata {slabs:6} {slabs:6} {0:6}\n"
    )
