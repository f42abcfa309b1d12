# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters of memory management (Linux: mm/vmstat.c, include/linux/vm_event_item.h, mmzone.h).

Events only grow and are machine-wide; node statistics are gauges of one node, zone statistics of one zone. The names
are those of /proc/vmstat. Whoever changes the state changes the gauge in the same step; ``kernel.check()`` recomputes
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

__all__ = ["NodeStat", "VmEvents"]

ZONES: Final = ("dma", "dma32", "normal", "movable")


class AllocationCounts(Protocol):
    """What a zone counts: see :class:`memtwin.mm.zone.Zone`."""

    zid: int
    allocations: int
    extra_pages: int


EVENTS: Final = (
    "allocstall_dma",
    "allocstall_dma32",
    "allocstall_movable",
    "allocstall_normal",
    "compact_stall",
    "drop_slab",
    "kswapd_high_wmark_hit_quickly",
    "kswapd_low_wmark_hit_quickly",
    "oom_kill",
    "pageoutrun",
    "pgactivate",
    "pgdeactivate",
    "pgfault",
    "pgfree",
    "pginodesteal",
    "pgmajfault",
    "pgpgin",
    "pgpgout",
    "pgscan_direct",
    "pgscan_kswapd",
    "pgsteal_direct",
    "pgsteal_kswapd",
    "pswpin",
    "pswpout",
    "slabs_scanned",
    "thp_collapse_alloc",
    "thp_collapse_alloc_failed",
    "thp_deferred_split_page",
    "thp_fault_alloc",
    "thp_fault_fallback",
    "thp_fault_fallback_charge",
    "thp_scan_exceed_none_pte",
    "thp_scan_exceed_share_pte",
    "thp_scan_exceed_swap_pte",
    "thp_split_page",
    "thp_split_page_failed",
    "thp_split_pmd",
    "thp_zero_page_alloc",
    "thp_zero_page_alloc_failed",
    "unevictable_pgs_culled",
)


class VmEvents:
    """Event counters, named as in /proc/vmstat; plain ``events.pgfault += 1``."""

    __slots__ = ("_zones", *EVENTS)

    def __init__(self) -> None:
        self._zones: Sequence[AllocationCounts] = ()
        for name in EVENTS:
            setattr(self, name, 0)

    def attach_zones(self, zones: Sequence[AllocationCounts]) -> None:
        """Let ``pgalloc_*`` be read from the zones, which count every allocation anyway."""
        self._zones = zones

    def pgalloc(self, zid: int) -> int:
        """Pages allocated from the zones of number ``zid`` (0 DMA, 1 DMA32, 2 Normal, 3 Movable) of all nodes."""
        return sum(zone.allocations + zone.extra_pages for zone in self._zones if zone.zid == zid)

    @property
    def pgalloc_dma(self) -> int:
        """Pages allocated from zone DMA."""
        return self.pgalloc(0)

    @property
    def pgalloc_dma32(self) -> int:
        """Pages allocated from zone DMA32."""
        return self.pgalloc(1)

    @property
    def pgalloc_normal(self) -> int:
        """Pages allocated from zone Normal."""
        return self.pgalloc(2)

    @property
    def pgalloc_movable(self) -> int:
        """Pages allocated from zone Movable."""
        return self.pgalloc(3)

    def snapshot(self) -> dict[str, int]:
        """All counters by name."""
        counts = {name: getattr(self, name) for name in (*EVENTS, *(f"pgalloc_{zone}" for zone in ZONES))}
        return dict(sorted(counts.items()))

    allocstall_dma: int
    allocstall_dma32: int
    allocstall_movable: int
    allocstall_normal: int
    compact_stall: int
    drop_slab: int
    kswapd_high_wmark_hit_quickly: int
    kswapd_low_wmark_hit_quickly: int
    oom_kill: int
    pageoutrun: int
    pgactivate: int
    pgdeactivate: int
    pgfault: int
    pgfree: int
    pginodesteal: int
    pgmajfault: int
    pgpgin: int
    pgpgout: int
    pgscan_direct: int
    pgscan_kswapd: int
    pgsteal_direct: int
    pgsteal_kswapd: int
    pswpin: int
    pswpout: int
    slabs_scanned: int
    thp_collapse_alloc: int
    thp_collapse_alloc_failed: int
    thp_deferred_split_page: int
    thp_fault_alloc: int
    thp_fault_fallback: int
    thp_fault_fallback_charge: int
    thp_scan_exceed_none_pte: int
    thp_scan_exceed_share_pte: int
    thp_scan_exceed_swap_pte: int
    thp_split_page: int
    thp_split_page_failed: int
    thp_split_pmd: int
    thp_zero_page_alloc: int
    thp_zero_page_alloc_failed: int
    unevictable_pgs_culled: int


GAUGES: Final = (
    "nr_anon_pages",
    "nr_anon_transparent_hugepages",
    "nr_file_pages",
    "nr_kernel_stack",
    "nr_mapped",
    "nr_page_table_pages",
    "nr_shmem",
    "nr_slab_reclaimable",
    "nr_slab_unreclaimable",
)


class NodeStat:
    """Gauges of one NUMA node, in pages unless said otherwise, named as in /proc/vmstat."""

    __slots__ = GAUGES

    def __init__(self) -> None:
        for name in GAUGES:
            setattr(self, name, 0)

    nr_anon_pages: int  #: anonymous pages mapped
    nr_anon_transparent_hugepages: int  #: huge anonymous pages with a huge leaf, of 2 MiB each
    nr_file_pages: int  #: page cache
    nr_kernel_stack: int  #: KiB
    nr_mapped: int  #: file pages mapped
    nr_page_table_pages: int
    nr_shmem: int
    nr_slab_reclaimable: int
    nr_slab_unreclaimable: int
