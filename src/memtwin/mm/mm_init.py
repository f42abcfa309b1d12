# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot of the page allocator: which frames belong to which zone, and which are reserved (Linux: mm/mm_init.c).

Reserved are the first MiB of node 0 (firmware, and the twin's own fixed pages) and 64 bytes per page at the end of each
node, where Linux keeps ``struct page``. Nothing here costs time per page: memory that nobody touched needs no record.
"""

from __future__ import annotations

from typing import Final

from memtwin.errors import BadInput
from memtwin.hw.numa import Node, Topology
from memtwin.hw.ram import lazy_array
from memtwin.hw.work import Work
from memtwin.mm.buddy import MAX_ORDER, PAGEBLOCK_ORDER
from memtwin.mm.page import PG_RESERVED, PageArrays
from memtwin.mm.pcp import PerCpuPages
from memtwin.mm.zone import DMA32_END, DMA_END, ZONE_MOVABLE, ZONE_NAMES, Zone, lowmem_reserves

__all__ = ["ZoneLayout", "memmap_pages"]

FIRST_PFN: Final = 256  #: first frame that is not reserved
LOWMEM_RESERVE_RATIO: Final = (256, 256, 32, 0)  #: vm.lowmem_reserve_ratio
STRUCT_PAGES_PER_FRAME: Final = 64
#: Zones and nodes begin at multiples of the largest block, so one byte per block says which zone a frame is in.
ZONE_MAP_SHIFT: Final = MAX_ORDER


class ZoneLayout:
    """All zones of a machine.

    ``zones`` populated ones, ascending by pfn; ``node_zones[nid][zid]`` all four of each node; ``zone_map[pfn >>
    ZONE_MAP_SHIFT]`` index into ``zones``; ``block_types`` one byte per pageblock (``buddy.TYPE_XOR``);
    ``reserved_pages``, of which ``memmap_pages``.
    """

    __slots__ = ("block_types", "memmap_pages", "node_zones", "reserved_pages", "zone_map", "zones")

    def __init__(self, topology: Topology, pages: PageArrays, work: Work) -> None:
        """Raises BadInput if a node is too small for its own page records."""
        self.block_types = memoryview(lazy_array((pages.nr_pages >> PAGEBLOCK_ORDER) + 2))
        self.zones: list[Zone] = []
        self.node_zones: list[list[Zone]] = []
        self.memmap_pages = 0
        self.reserved_pages = 0
        zone_map = bytearray()
        bounds = (0, DMA_END, DMA32_END, pages.nr_pages, pages.nr_pages)
        for node in topology.nodes:
            first, end = max(node.start_pfn, FIRST_PFN), node.end_pfn - memmap_pages(node)
            if end <= first:
                raise BadInput(f"NUMA node {node.nid} is too small: {(node.end_pfn - node.start_pfn) * 4} KiB")
            self.memmap_pages += node.end_pfn - end
            self.reserved_pages += first - node.start_pfn + node.end_pfn - end
            zones: list[Zone] = []
            for zid in range(len(ZONE_NAMES)):
                start, stop = max(node.start_pfn, bounds[zid]), min(node.end_pfn, bounds[zid + 1])
                if zid == ZONE_MOVABLE or start >= stop:
                    start = stop = 0
                zone = Zone(node.nid, zid, start, stop, pages, self.block_types, work)
                if stop:
                    chunks = ((stop - 1) >> ZONE_MAP_SHIFT) + 1
                    zone_map += bytes((len(self.zones),)) * (chunks - len(zone_map))
                    self.zones.append(zone)
                low, high = max(start, first), min(stop, end)
                if low < high:
                    zone.add_range(low, high)
                    zone.managed = high - low
                zones.append(zone)
            reserves = lowmem_reserves([zone.managed for zone in zones], LOWMEM_RESERVE_RATIO)
            for zone, reserve in zip(zones, reserves, strict=True):
                zone.lowmem_reserve = reserve
                zone.pcps = [PerCpuPages() for _ in range(topology.nr_cpus)]
            self.node_zones.append(zones)
        self.zone_map = bytes(zone_map)
        pages.vec.flags[:FIRST_PFN] = PG_RESERVED


def memmap_pages(node: Node) -> int:
    """Frames that a node's page records take at its end."""
    return -(-(node.end_pfn - node.start_pfn) // STRUCT_PAGES_PER_FRAME)
