# SPDX-License-Identifier: GPL-2.0-or-later
"""The tracepoints there are, as data: category, name and fields.

Names and fields are Linux's (``/sys/kernel/tracing/events/CATEGORY/NAME/format``, read on 6.18) where Linux has the
event; pointers stand for what they point to (an mm by its number, a page by its pfn). Where 6.7 and later differ in a
field, the table has the newer shape. Category ``memtwin`` is our own: what Linux decides in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["POINTS", "Point"]


@dataclass(frozen=True, slots=True)
class Point:
    """One tracepoint. ``fields`` in the order in which the code that fires it gives them."""

    category: str
    name: str
    fields: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """``category:name``, as perf writes it."""
        return f"{self.category}:{self.name}"


_TABLE: Final = """
kmem            kmem_cache_alloc                 call_site ptr name bytes_req bytes_alloc gfp_flags node accounted
kmem            kmem_cache_free                  call_site ptr name
kmem            kmalloc                          call_site ptr bytes_req bytes_alloc gfp_flags node
kmem            kfree                            call_site ptr
kmem            mm_page_alloc                    pfn order gfp_flags migratetype
kmem            mm_page_free                     pfn order
kmem            mm_page_free_batched             pfn
kmem            mm_page_alloc_zone_locked        pfn order migratetype percpu_refill
kmem            mm_page_pcpu_drain               pfn order migratetype
kmem            mm_page_alloc_extfrag            pfn alloc_order fallback_order alloc_migratetype \
fallback_migratetype change_ownership
kmem            rss_stat                         mm_id curr member size
exceptions      page_fault_user                  address ip error_code
exceptions      page_fault_kernel                address ip error_code
mmap            vm_unmapped_area                 addr total_vm flags length low_limit high_limit align_mask align_offset
mmap            exit_mmap                        mm mt
mmap_lock       mmap_lock_start_locking          mm memcg_id write
mmap_lock       mmap_lock_acquire_returned       mm memcg_id write success
mmap_lock       mmap_lock_released               mm memcg_id write
maple_tree      ma_op                            fn min max index last node
maple_tree      ma_read                          fn min max index last node
maple_tree      ma_write                         fn min max index last piv val node
tlb             tlb_flush                        reason pages
raw_syscalls    sys_enter                        id args
raw_syscalls    sys_exit                         id ret
sched           sched_switch                     prev_comm prev_pid prev_prio prev_state next_comm next_pid next_prio
sched           sched_wakeup                     comm pid prio target_cpu
sched           sched_wakeup_new                 comm pid prio target_cpu
sched           sched_process_fork               parent_comm parent_pid child_comm child_pid
sched           sched_process_exec               filename pid old_pid
sched           sched_process_exit               comm pid prio group_dead
signal          signal_generate                  sig errno code comm pid group result
signal          signal_deliver                   sig errno code sa_handler sa_flags
filemap         mm_filemap_add_to_page_cache     pfn i_ino index s_dev order
filemap         mm_filemap_delete_from_page_cache pfn i_ino index s_dev order
filemap         mm_filemap_fault                 i_ino s_dev index
filemap         mm_filemap_get_pages             i_ino s_dev index last_index
filemap         mm_filemap_map_pages             i_ino s_dev index last_index
writeback       writeback_dirty_folio            name ino index
writeback       folio_wait_writeback             name ino index
pagemap         mm_lru_insertion                 folio pfn lru flags
pagemap         mm_lru_activate                  folio pfn
vmscan          mm_vmscan_kswapd_sleep           nid
vmscan          mm_vmscan_kswapd_wake            nid zid order
vmscan          mm_vmscan_wakeup_kswapd          nid zid order gfp_flags
vmscan          mm_vmscan_direct_reclaim_begin   order gfp_flags
vmscan          mm_vmscan_direct_reclaim_end     nr_reclaimed
vmscan          mm_vmscan_memcg_reclaim_begin    order gfp_flags
vmscan          mm_vmscan_memcg_reclaim_end      nr_reclaimed
vmscan          mm_vmscan_lru_isolate            highest_zoneidx order nr_requested nr_scanned nr_skipped nr_taken lru
vmscan          mm_vmscan_lru_shrink_active      nid nr_taken nr_active nr_deactivated nr_referenced priority \
reclaim_flags
vmscan          mm_vmscan_lru_shrink_inactive    nid nr_scanned nr_reclaimed nr_dirty nr_writeback nr_congested \
nr_immediate nr_activate0 nr_activate1 nr_ref_keep nr_unmap_fail priority reclaim_flags
vmscan          mm_vmscan_write_folio            pfn reclaim_flags
vmscan          mm_vmscan_throttled              nid usec_timeout usec_delayed reason
vmscan          mm_shrink_slab_start             shr shrink nid nr_objects_to_shrink gfp_flags cache_items delta \
total_scan priority
vmscan          mm_shrink_slab_end               shr nid shrink unused_scan new_scan retval total_scan
compaction      mm_compaction_begin              zone_start migrate_pfn free_pfn zone_end sync
compaction      mm_compaction_end                zone_start migrate_pfn free_pfn zone_end sync status
compaction      mm_compaction_migratepages       nr_migrated nr_failed
migrate         mm_migrate_pages_start           mode reason
migrate         mm_migrate_pages                 succeeded failed thp_succeeded thp_failed thp_split \
large_folio_split mode reason
migrate         set_migration_pte                addr pte order
migrate         remove_migration_pte             addr pte order
huge_memory     mm_khugepaged_scan_pmd           mm pfn referenced none_or_zero status unmapped
huge_memory     mm_khugepaged_scan_file          mm pfn filename present swap result
huge_memory     mm_khugepaged_collapse_file      mm hpfn index addr is_shmem filename nr result
huge_memory     mm_collapse_huge_page            mm isolated status
huge_memory     mm_collapse_huge_page_isolate    pfn none_or_zero referenced status
huge_memory     mm_collapse_huge_page_swapin     mm swapped_in referenced ret
ksm             ksm_start_scan                   seq rmap_entries
ksm             ksm_stop_scan                    seq rmap_entries
ksm             ksm_enter                        mm
ksm             ksm_exit                         mm
ksm             ksm_merge_one_page               pfn rmap_item mm err
ksm             ksm_merge_with_ksm_page          ksm_page pfn rmap_item mm err
ksm             ksm_remove_ksm_page              pfn
ksm             ksm_remove_rmap_item             pfn rmap_item mm
damon           damon_aggregated                 target_id nr_regions start end nr_accesses age
damon           damos_before_apply               context_idx scheme_idx target_idx start end nr_accesses age nr_regions
oom             mark_victim                      pid comm total_vm anon_rss file_rss shmem_rss uid pgtables \
oom_score_adj
oom             reclaim_retry_zone               node zone_idx order reclaimable available min_wmark \
no_progress_loops wmark_check
oom             compact_retry                    order priority result retries max_retries ret
oom             wake_reaper                      pid
oom             start_task_reaping               pid
oom             finish_task_reaping              pid
memtwin         memtwin_vma_merge                mm start end pgoff merge_case
memtwin         memtwin_vma_no_merge             mm addr reason
memtwin         memtwin_vma_split                mm start end addr
memtwin         memtwin_fault_done               mm address flags result
memtwin         memtwin_fault_fallback           mm address reason
memtwin         memtwin_refused                  what errno reason
memtwin         memtwin_reclaim_skip             pfn reason
memtwin         memtwin_ksm_skip                 mm address reason
memtwin         memtwin_charge_failed            memcg nr_pages reason
memtwin         memtwin_lock_contended           lock holder
"""


def _parse(table: str) -> dict[str, Point]:
    points = {}
    for line in table.split("\n"):
        words = line.split()
        if words:
            point = Point(words[0], words[1], tuple(words[2:]))
            assert point.name not in points, point.name
            points[point.name] = point
    return points


#: Every tracepoint by name, in the order of the table.
POINTS: Final[dict[str, Point]] = _parse(_TABLE)
