# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/vmstat, zoneinfo, buddyinfo and pagetypeinfo (mm/vmstat.c).

Names and order are those of 6.7 with memory cgroups, NUMA, swap, huge pages and zswap configured. What the twin does
not count is there with 0. Where a zone is empty, zoneinfo ends with its ``protection`` line, as in Linux.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from memtwin.mm.buddy import ISOLATE, NR_ORDERS, NR_TYPES, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, TYPE_NAMES
from memtwin.mm.pcp import vm_stat_threshold
from memtwin.mm.vmstat import NodeStat
from memtwin.mm.zone import WMARK_HIGH, WMARK_LOW, WMARK_MIN, WMARK_PROMO, Zone

if TYPE_CHECKING:
    from memtwin.mm.page_alloc import PageAllocator

__all__ = ["buddyinfo", "pagetypeinfo", "vmstat", "zoneinfo"]


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ZONE_STATS_TEXT: Final = """
nr_free_pages nr_zone_inactive_anon nr_zone_active_anon nr_zone_inactive_file nr_zone_active_file nr_zone_unevictable
nr_zone_write_pending nr_mlock nr_bounce nr_zspages nr_free_cma
"""
ZONE_STATS: Final = tuple(_ZONE_STATS_TEXT.split())
_NUMA_STATS_TEXT: Final = """
numa_hit numa_miss numa_foreign numa_interleave numa_local numa_other
"""
NUMA_STATS: Final = tuple(_NUMA_STATS_TEXT.split())
_NODE_STATS_TEXT: Final = """
nr_inactive_anon nr_active_anon nr_inactive_file nr_active_file nr_unevictable nr_slab_reclaimable
nr_slab_unreclaimable nr_isolated_anon nr_isolated_file workingset_nodes workingset_refault_anon
workingset_refault_file workingset_activate_anon workingset_activate_file workingset_restore_anon
workingset_restore_file workingset_nodereclaim nr_anon_pages nr_mapped nr_file_pages nr_dirty nr_writeback
nr_writeback_temp nr_shmem nr_shmem_hugepages nr_shmem_pmdmapped nr_file_hugepages nr_file_pmdmapped
nr_anon_transparent_hugepages nr_vmscan_write nr_vmscan_immediate_reclaim nr_dirtied nr_written nr_throttled_written
nr_kernel_misc_reclaimable nr_foll_pin_acquired nr_foll_pin_released nr_kernel_stack nr_page_table_pages
nr_sec_page_table_pages nr_swapcached pgpromote_success pgpromote_candidate
"""
NODE_STATS: Final = tuple(_NODE_STATS_TEXT.split())
_EVENTS_TEXT: Final = """
pgpgin pgpgout pswpin pswpout pgalloc_dma pgalloc_dma32 pgalloc_normal pgalloc_movable allocstall_dma allocstall_dma32
allocstall_normal allocstall_movable pgskip_dma pgskip_dma32 pgskip_normal pgskip_movable pgfree pgactivate
pgdeactivate pglazyfree pgfault pgmajfault pglazyfreed pgrefill pgreuse pgsteal_kswapd pgsteal_direct
pgsteal_khugepaged pgdemote_kswapd pgdemote_direct pgdemote_khugepaged pgscan_kswapd pgscan_direct pgscan_khugepaged
pgscan_direct_throttle pgscan_anon pgscan_file pgsteal_anon pgsteal_file zone_reclaim_success zone_reclaim_failed
pginodesteal slabs_scanned kswapd_inodesteal kswapd_low_wmark_hit_quickly kswapd_high_wmark_hit_quickly pageoutrun
pgrotated drop_pagecache drop_slab oom_kill numa_pte_updates numa_huge_pte_updates numa_hint_faults
numa_hint_faults_local numa_pages_migrated pgmigrate_success pgmigrate_fail thp_migration_success thp_migration_fail
thp_migration_split compact_migrate_scanned compact_free_scanned compact_isolated compact_stall compact_fail
compact_success compact_daemon_wake compact_daemon_migrate_scanned compact_daemon_free_scanned
htlb_buddy_alloc_success htlb_buddy_alloc_fail unevictable_pgs_culled unevictable_pgs_scanned unevictable_pgs_rescued
unevictable_pgs_mlocked unevictable_pgs_munlocked unevictable_pgs_cleared unevictable_pgs_stranded thp_fault_alloc
thp_fault_fallback thp_fault_fallback_charge thp_collapse_alloc thp_collapse_alloc_failed thp_file_alloc
thp_file_fallback thp_file_fallback_charge thp_file_mapped thp_split_page thp_split_page_failed
thp_deferred_split_page thp_split_pmd thp_scan_exceed_none_pte thp_scan_exceed_swap_pte thp_scan_exceed_share_pte
thp_split_pud thp_zero_page_alloc thp_zero_page_alloc_failed thp_swpout thp_swpout_fallback balloon_inflate
balloon_deflate balloon_migrate swap_ra swap_ra_hit ksm_swpin_copy cow_ksm zswpin zswpout direct_map_level2_splits
direct_map_level3_splits
"""
EVENTS: Final = tuple(_EVENTS_TEXT.split())
DIRTY_BACKGROUND_RATIO: Final = 10  #: vm.dirty_background_ratio
DIRTY_RATIO: Final = 20  #: vm.dirty_ratio


def vmstat(alloc: PageAllocator) -> str:
    """The text of /proc/vmstat: gauges of all zones and nodes, then events."""
    rows = [(name, sum(_zone_stat(zone, name) for zone in alloc.zones)) for name in (*ZONE_STATS, *NUMA_STATS)]
    rows += [(name, sum(getattr(stat, name, 0) for stat in alloc.node_stats)) for name in NODE_STATS]
    dirtyable = alloc.nr_free_pages() + sum(stat.nr_file_pages - stat.nr_shmem for stat in alloc.node_stats)
    rows += [
        ("nr_dirty_threshold", dirtyable * DIRTY_RATIO // 100),
        ("nr_dirty_background_threshold", dirtyable * DIRTY_BACKGROUND_RATIO // 100),
    ]
    rows += [(name, getattr(alloc.events, name, 0)) for name in EVENTS]
    rows.append(("nr_unstable", 0))
    return "".join(f"{name} {value}\n" for name, value in rows)


def buddyinfo(alloc: PageAllocator) -> str:
    """The text of /proc/buddyinfo: free blocks per order of every zone that has memory."""
    return "".join(
        f"Node {zone.nid}, zone {zone.name:>8} " + "".join(f"{count:6} " for count in zone.counts()) + "\n"
        for zone in alloc.zones
    )


def pagetypeinfo(alloc: PageAllocator) -> str:
    """The text of /proc/pagetypeinfo: free blocks per type and order, and pageblocks per type."""
    lines = [f"Page block order: {PAGEBLOCK_ORDER}\nPages per block:  {PAGEBLOCK_PAGES}\n\n"]
    lines.append(
        f"{'Free pages count per migrate type at order':43} " + "".join(f"{o:6} " for o in range(NR_ORDERS)) + "\n"
    )
    for zone in alloc.zones:
        for migratetype in range(NR_TYPES):
            counts = (zone.nr_blocks(order, migratetype) for order in range(NR_ORDERS))
            lines.append(
                f"Node {zone.nid:4}, zone {zone.name:>8}, type {TYPE_NAMES[migratetype]:>12} "
                + "".join(f"{count:6} " for count in counts)
                + "\n"
            )
    lines.append("\n" + f"{'Number of blocks type':23}" + "".join(f"{name:>12} " for name in TYPE_NAMES) + "\n")
    for zone in alloc.zones:
        blocks = "".join(f"{zone.nr_pageblocks(migratetype):12} " for migratetype in range(ISOLATE + 1))
        lines.append(f"Node {zone.nid}, zone {zone.name:>8} {blocks}\n")
    return "".join(lines)


def zoneinfo(alloc: PageAllocator) -> str:
    """The text of /proc/zoneinfo: all zones of all nodes; the node's own gauges stand in its first zone with memory."""
    parts: list[str] = []
    for nid, zones in enumerate(alloc.node_zones):
        node_stat: NodeStat | None = alloc.node_stats[nid]
        for zone in zones:
            parts.append(f"Node {nid}, zone {zone.name:>8}")
            if zone.spanned and node_stat is not None:
                parts.append("\n  per-node stats")
                parts += [f"\n      {name:<12} {getattr(node_stat, name, 0)}" for name in NODE_STATS]
                node_stat = None
            parts.append(_zone_text(zone, alloc))
    return "".join(parts)


def _zone_text(zone: Zone, alloc: PageAllocator) -> str:
    sizes = (
        ("boost", zone.boost),
        ("min", zone.wmark(WMARK_MIN)),
        ("low", zone.wmark(WMARK_LOW)),
        ("high", zone.wmark(WMARK_HIGH)),
        ("promo", zone.wmark(WMARK_PROMO)),
        ("spanned", zone.spanned),
        ("present", zone.spanned),
        ("managed", zone.managed),
        ("cma", 0),
    )
    text = f"\n  pages free     {zone.nr_free}"
    text += "".join(f"\n        {name:<8} {pages}" for name, pages in sizes)
    text += "\n        protection: (" + ", ".join(map(str, zone.lowmem_reserve)) + ")"
    if not zone.spanned:
        return text + "\n"
    text += "".join(f"\n      {name:<12} {_zone_stat(zone, name)}" for name in (*ZONE_STATS, *NUMA_STATS))
    text += "\n  pagesets"
    threshold = vm_stat_threshold(zone.managed, alloc.topology.nr_cpus)
    for cpu, pcp in enumerate(zone.pcps):
        text += (
            f"\n    cpu: {cpu}\n              count:    {pcp.count}\n              high:     {pcp.high}"
            f"\n              batch:    {pcp.batch}\n              high_min: {pcp.high_min}"
            f"\n              high_max: {pcp.high_max}\n  vm stats threshold: {threshold}"
        )
    return text + f"\n  node_unreclaimable:  0\n  start_pfn:           {zone.start}\n"


def _zone_stat(zone: Zone, name: str) -> int:
    if name == "nr_free_pages":
        return zone.nr_free
    if name == "numa_hit":
        return zone.allocations - zone.numa_miss
    if name == "numa_local":
        return zone.allocations - zone.numa_other
    return getattr(zone, name, 0) if name in ("numa_miss", "numa_foreign", "numa_other") else 0
