# SPDX-License-Identifier: GPL-2.0-or-later
"""What an allocation's GFP mask means for the allocator (Linux: include/linux/gfp.h, ``struct alloc_context`` of
mm/internal.h)."""

from __future__ import annotations

from memtwin.hw.numa import Topology
from memtwin.lib import gfp_types as g
from memtwin.mm.buddy import MOVABLE, RECLAIMABLE, UNMOVABLE
from memtwin.mm.zone import (
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_MIN_RESERVE,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    WMARK_LOW,
    ZONE_DMA,
    ZONE_DMA32,
    ZONE_MOVABLE,
    ZONE_NORMAL,
    Zone,
)

__all__ = ["AllocPlan", "gfp_alloc_flags", "gfp_migratetype", "gfp_zone"]


class AllocPlan:
    """How allocations with one GFP mask, from one CPU, for one node proceed; valid until a watermark changes.

    ``zones`` in order of preference, ``zone`` the first; ``highest`` the highest zone number allowed; ``mark`` free
    pages above which an order-0 allocation from ``zone`` needs no further thought; ``pcp`` and ``stack`` this CPU's
    lists there, ``local`` its node.
    """

    __slots__ = (
        "alloc_flags",
        "gfp",
        "highest",
        "local",
        "mark",
        "migratetype",
        "pcp",
        "stack",
        "zero",
        "zone",
        "zones",
    )

    def __init__(self, gfp: int, nid: int, cpu: int, topology: Topology, node_zones: list[list[Zone]]) -> None:
        """``nid`` -1 prefers the CPU's own node."""
        self.gfp = gfp
        self.local = topology.cpu_node[cpu]
        self.highest = highest = gfp_zone(gfp)
        start = self.local if nid < 0 else nid
        nodes = (start,) if gfp & g.THISNODE else topology.fallback[start]
        zones = [node_zones[node][zid] for node in nodes for zid in range(highest, -1, -1)]
        # Without any (DMA memory of a node that has none) an empty zone stands in, in which every attempt fails.
        self.zones = tuple(zone for zone in zones if zone.managed) or (node_zones[start][highest],)
        self.zone = zone = self.zones[0]
        self.migratetype = gfp_migratetype(gfp)
        self.alloc_flags = gfp_alloc_flags(gfp)
        # Normal is kept unfragmented while there is a DMA32 zone to go to.
        if zone.zid == ZONE_NORMAL and node_zones[zone.nid][ZONE_DMA32].managed:
            self.alloc_flags |= ALLOC_NOFRAGMENT
        self.mark = zone.wmark(WMARK_LOW) + zone.lowmem_reserve[highest] + zone.nr_highatomic
        self.pcp = zone.pcps[cpu]
        self.stack = self.pcp.stacks[self.migratetype]
        self.zero = bool(gfp & g.ZERO)


def gfp_zone(gfp: int) -> int:
    """Highest zone an allocation may use (ZONE_*)."""
    if gfp & g.DMA:
        return ZONE_DMA
    if gfp & g.DMA32:
        return ZONE_DMA32
    return ZONE_MOVABLE if gfp & (g.HIGHMEM | g.MOVABLE) == g.HIGHMEM | g.MOVABLE else ZONE_NORMAL


def gfp_migratetype(gfp: int) -> int:
    """Migratetype of an allocation."""
    if gfp & g.MOVABLE:
        return MOVABLE
    return RECLAIMABLE if gfp & g.RECLAIMABLE else UNMOVABLE


def gfp_alloc_flags(gfp: int) -> int:
    """ALLOC_* bits that follow from the GFP mask: who may not sleep may dip into reserves (HIGHATOMIC for order > 0
    only)."""
    flags = ALLOC_MIN_RESERVE if gfp & g.HIGH else 0
    if not gfp & (g.DIRECT_RECLAIM | g.NOMEMALLOC):
        flags |= ALLOC_NON_BLOCK | ALLOC_HIGHATOMIC
    if gfp & g.KSWAPD_RECLAIM:
        flags |= ALLOC_KSWAPD
    return flags
