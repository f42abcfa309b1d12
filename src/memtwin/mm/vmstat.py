# SPDX-License-Identifier: GPL-2.0-or-later
"""Counters of memory management (Linux: mm/vmstat.c, include/linux/vm_event_item.h, mmzone.h).

Events only grow and are machine-wide; node statistics are gauges of one node, zone statistics of one zone. The names are those
of /proc/vmstat. Whoever changes the state changes the gauge in the same step; ``kernel.check()`` recomputes them.
"""

from __future__ import annotations

__all__ = ["NodeStat", "VmEvents"]


class VmEvents:
    """Event counters, named as in /proc/vmstat; plain ``events.pgfault += 1``."""

    __slots__ = (
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
        "pgalloc_dma",
        "pgalloc_dma32",
        "pgalloc_movable",
        "pgalloc_normal",
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
        "thp_fault_alloc",
        "thp_fault_fallback",
        "unevictable_pgs_culled",
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

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
    pgalloc_dma: int
    pgalloc_dma32: int
    pgalloc_movable: int
    pgalloc_normal: int
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
    thp_fault_alloc: int
    thp_fault_fallback: int
    unevictable_pgs_culled: int


class NodeStat:
    """Gauges of one NUMA node, in pages unless said otherwise, named as in /proc/vmstat."""

    __slots__ = (
        "nr_anon_pages",
        "nr_file_pages",
        "nr_kernel_stack",
        "nr_mapped",
        "nr_page_table_pages",
        "nr_shmem",
        "nr_slab_reclaimable",
        "nr_slab_unreclaimable",
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    nr_anon_pages: int  #: anonymous pages mapped
    nr_file_pages: int  #: page cache
    nr_kernel_stack: int  #: KiB
    nr_mapped: int  #: file pages mapped
    nr_page_table_pages: int
    nr_shmem: int
    nr_slab_reclaimable: int
    nr_slab_unreclaimable: int
