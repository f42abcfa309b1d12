# SPDX-License-Identifier: GPL-2.0-or-later
"""What every part of memory management shares: the allocators, counters and caches of one machine.

Linux keeps these in globals; memtwin has none (architecture, section 4), so an address space carries a reference to its
machine's context instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from memtwin.lib.ratelimit import Ratelimit
from memtwin.mm.fault_lock_stats import FaultLockStats
from memtwin.mm.folio_lock import FolioLocks
from memtwin.mm.huge_mm import Thp
from memtwin.mm.page import PG_RESERVED
from memtwin.mm.sysctl import VmSysctl

if TYPE_CHECKING:
    from memtwin.changes import Features
    from memtwin.events.tracepoint import Tracepoints
    from memtwin.hw.numa import Topology
    from memtwin.hw.ram import Ram
    from memtwin.hw.tlb import Tlb
    from memtwin.hw.work import Work
    from memtwin.mm.filemap import AddressSpace
    from memtwin.mm.mm_types import MmStruct, VmArea
    from memtwin.mm.page import PageArrays
    from memtwin.mm.page_alloc import PageAllocator
    from memtwin.mm.page_table import PageTables
    from memtwin.mm.rmap import AnonVma
    from memtwin.mm.slab import KmemCache, SlabAllocator
    from memtwin.mm.vma_modify import VmaModify
    from memtwin.mm.vmstat import NodeStat, VmEvents
    from memtwin.sched import Scheduler

__all__ = ["FaultStats", "MmContext"]


_FAULT_KINDS: Final = (
    "anon_write",
    "anon_zero",
    "cow",
    "file_read",
    "oom",
    "shared_file",
    "sigbus",
    "sigsegv",
    "spurious",
    "stack_growth",
    "wp_copy",
    "wp_reuse",
)


class FaultStats:
    """How page faults were resolved, by kind; told in the summary of a run."""

    __slots__ = _FAULT_KINDS

    def __init__(self) -> None:
        for name in _FAULT_KINDS:
            setattr(self, name, 0)

    anon_write: int  #: first write to anonymous memory: a new page
    anon_zero: int  #: first read of anonymous memory: the zero page
    cow: int  #: first write to a private file mapping, page not mapped before
    file_read: int  #: read of a file mapping
    oom: int
    shared_file: int  #: write to a shared mapping
    sigbus: int
    sigsegv: int
    spurious: int  #: the entry permitted the access already
    stack_growth: int
    wp_copy: int  #: write to a read-only page: copied
    wp_reuse: int  #: write to a read-only page: made writable

    def as_dict(self) -> dict[str, int]:
        """Kinds that occurred, by name."""
        return {name: getattr(self, name) for name in _FAULT_KINDS if getattr(self, name)}


class MmContext:
    """Everything one machine's memory management owns besides the address spaces themselves."""

    __slots__ = (
        "_node_ends",
        "anon_prepare_vma_lock",
        "anon_vma_cache",
        "anon_vmas",
        "avc_cache",
        "commit_leaked",
        "committed",
        "config",
        "dev_zero_thp_align",
        "events",
        "exclusive_out_of_move",
        "fault_lock_release",
        "fault_locks",
        "fault_stats",
        "features",
        "folio_locks",
        "guard_flag",
        "gup_internal_flags",
        "gup_vma_never_null",
        "gup_zero_pin_is_error",
        "madv_guard",
        "majflt_tried",
        "map_stack_nohugepage",
        "maple_cache",
        "mapping_ids",
        "mappings",
        "may_reuse",
        "mem_cgroup_charge",
        "merge_close_fix",
        "merge_faulted_unfaulted",
        "mm_cache",
        "mm_ids",
        "mmap_fixed_fail_keeps",
        "mmap_fixed_fail_splits",
        "mmap_merge_prev_first",
        "mmap_merge_unfaulted_prev",
        "mmap_thp_align",
        "mms",
        "modify",
        "mprotect_unaccount",
        "mremap_checks_first",
        "mremap_dontunmap_locked",
        "mremap_fail_clean",
        "mremap_multi_vma",
        "mseal",
        "node_stats",
        "overcommit_log_bytes",
        "page_alloc",
        "pagefault_oom_rs",
        "pageout_keeps_young",
        "pages",
        "pku",
        "populate_stop_at_hole",
        "printk",
        "process_madvise_self",
        "pt",
        "pt_reclaim",
        "ram",
        "sched",
        "slab",
        "sysctl",
        "thp",
        "thp_advice_batch",
        "thp_align_topdown",
        "thp_collapse_readonly",
        "thp_deferred_partial",
        "thp_huge_fault",
        "thp_mm_exclusive",
        "thp_split_zeropage",
        "thp_zero_write_alloc",
        "tlb",
        "topology",
        "trace",
        "uffd_unregister_own",
        "vma_cache",
        "vma_lock_cow_faults",
        "vma_lock_read_faults",
        "vma_lock_ro_write_faults",
        "vma_lock_shared_faults",
        "vmf_anon_prepare",
        "warned",
        "work",
        "zero_pfn",
    )

    def __init__(
        self,
        *,
        ram: Ram,
        topology: Topology,
        pages: PageArrays,
        page_alloc: PageAllocator,
        pt: PageTables,
        slab: SlabAllocator,
        tlb: Tlb,
        sched: Scheduler,
        features: Features,
        work: Work,
        events: VmEvents,
        node_stats: list[NodeStat],
        trace: Tracepoints,
        zero_pfn: int,
        printk: Callable[[str], None],
        modify: VmaModify,
        may_reuse: Callable[[MmContext, VmArea, int], bool],
        config: frozenset[str] = frozenset(),
        pku: bool = False,
    ) -> None:
        self.ram = ram
        self.topology = topology
        self.pages = pages
        self.page_alloc = page_alloc
        self.pt = pt
        self.slab = slab
        self.tlb = tlb
        self.sched = sched
        self.features = features
        self.work = work
        self.events = events
        self.node_stats = node_stats
        self.trace = trace
        self.zero_pfn = zero_pfn
        self.thp = Thp()
        self.printk = printk
        self.fault_stats = FaultStats()
        #: Which lock each fault of user mode took, and why.
        self.fault_locks = FaultLockStats()
        self.folio_locks = FolioLocks(sched, pages)
        #: Charges a page to the control group of an address space, False when over its limit: (pfn, mm, gfp). None
        #: without control groups.
        self.mem_cgroup_charge: Callable[[int, MmStruct, int], bool] | None = None
        #: Warnings that were given and are given once.
        self.warned: set[str] = set()
        self._node_ends = np.array([node.end_pfn for node in topology.nodes], dtype=np.int64)
        # Object sizes as /proc/slabinfo of 6.7 and 6.18 shows them.
        self.mm_cache: KmemCache = slab.kmem_cache_create("mm_struct", 1408)
        self.vma_cache: KmemCache = slab.kmem_cache_create("vm_area_struct", 192, account=True)
        self.anon_vma_cache: KmemCache = slab.kmem_cache_create("anon_vma", 104, account=True)
        self.avc_cache: KmemCache = slab.kmem_cache_create("anon_vma_chain", 64, account=True)
        self.maple_cache: KmemCache = slab.kmem_cache_create("maple_node", 256)
        self.mms: dict[int, MmStruct] = {}
        self.mm_ids = 0
        self.anon_vmas: dict[int, AnonVma] = {}
        self.mappings: dict[int, AddressSpace] = {}
        #: Last id given to an anon_vma or file mapping; both share one space because ``pages.mapping`` holds either.
        self.mapping_ids = 0
        #: Pages promised to address spaces (Committed_AS).
        self.committed = 0
        #: Part of it that nobody gives back: Linux charges the growth of every growing-down area, but uncharges only
        #: those with VM_ACCOUNT (live 6.18: a read-only one grown by 100 pages leaves 400 kB behind).
        self.commit_leaked = 0
        self.sysctl = VmSysctl()
        #: How often it is told that a fault found no memory.
        self.pagefault_oom_rs = Ratelimit()
        #: How attributes of areas are changed: the shape after or before ``vma-modify``.
        self.modify = modify
        #: Whether a write fault may reuse an anonymous page: the shape after or before ``wp-can-reuse-anon-folio``.
        self.may_reuse = may_reuse
        #: CONFIG_* options that show; those the machine's description does not name are off.
        self.config = config
        #: The CPU has protection keys.
        self.pku = pku
        self._choose_features()

    def _choose_features(self) -> None:
        """Copy the switches of this subsystem into attributes; each is asked at the one place where behaviour parts."""
        has = self.features.has
        self.mprotect_unaccount = has("mprotect-unaccount-unfaulted")
        self.merge_faulted_unfaulted = has("post-merge-faulted-unfaulted")
        self.merge_close_fix = has("post-merge-close-fix")
        self.mmap_merge_prev_first = has("post-mmap-merge-prev-first")
        self.mmap_merge_unfaulted_prev = has("post-mmap-merge-unfaulted-prev")
        self.mmap_fixed_fail_keeps = has("post-mmap-fixed-fail-keeps")
        self.mmap_fixed_fail_splits = has("post-mmap-fixed-fail-splits")
        self.mmap_thp_align = self.features.value("post-mmap-thp-align")
        self.thp_align_topdown = has("post-thp-align-topdown")
        self.dev_zero_thp_align = has("post-dev-zero-thp-align")
        self.map_stack_nohugepage = has("post-map-stack-nohugepage")
        self.mremap_checks_first = has("post-mremap-checks-first")
        self.mremap_fail_clean = has("post-mremap-fail-clean")
        self.mremap_multi_vma = has("post-mremap-multi-vma")
        self.mremap_dontunmap_locked = has("post-mremap-dontunmap-locked")
        self.populate_stop_at_hole = has("post-populate-stop-at-hole")
        self.process_madvise_self = has("post-process-madvise-self")
        self.madv_guard = has("post-madv-guard")
        self.guard_flag = has("post-guard-flag")
        self.pageout_keeps_young = has("post-pageout-keeps-young")
        self.pt_reclaim = has("post-pt-reclaim")
        self.mseal = has("post-mseal")
        self.uffd_unregister_own = has("post-uffd-unregister-own")
        self.thp_huge_fault = has("thp-huge-fault-eligibility")
        self.thp_zero_write_alloc = has("post-thp-zero-write-alloc")
        self.thp_split_zeropage = has("post-thp-split-zeropage")
        self.thp_mm_exclusive = has("post-thp-mm-exclusive")
        self.thp_advice_batch = has("post-thp-advice-batch")
        self.thp_collapse_readonly = has("post-thp-collapse-readonly")
        self.thp_deferred_partial = has("post-thp-deferred-partial")
        self.overcommit_log_bytes = has("post-overcommit-log-bytes")
        self.fault_lock_release = has("fault-lock-release")
        self.vmf_anon_prepare = has("vmf-anon-prepare")
        self.vma_lock_shared_faults = has("vma-lock-shared-faults")
        self.vma_lock_cow_faults = has("vma-lock-cow-faults")
        self.vma_lock_read_faults = has("vma-lock-read-faults")
        self.vma_lock_ro_write_faults = has("vma-lock-ro-write-faults")
        self.anon_prepare_vma_lock = has("post-anon-prepare-vma-lock")
        self.majflt_tried = has("post-majflt-tried")
        self.gup_internal_flags = has("gup-internal-flags")
        self.gup_zero_pin_is_error = has("gup-zero-pin-is-error")
        self.gup_vma_never_null = has("gup-vma-remote-never-null")
        self.exclusive_out_of_move = has("rmap-exclusive-out-of-move")

    def warn_once(self, where: str, what: str) -> None:
        """A warning of the kernel about itself, ``what`` at ``where``: told in its log the first time only."""
        if where not in self.warned:
            self.warned.add(where)
            self.printk(f"WARNING: {where}: {what}")

    def count_anon(self, pfns: npt.NDArray[np.int64], sign: int) -> None:
        """Add the frames to (``sign`` 1) or take them off (-1) the ``nr_anon_pages`` gauges of their nodes."""
        for nid, count in enumerate(self.per_node(pfns)):
            self.node_stats[nid].nr_anon_pages += sign * count

    def count_file_mapped(self, pfns: npt.NDArray[np.int64], sign: int) -> None:
        """The same for ``nr_mapped``."""
        for nid, count in enumerate(self.per_node(pfns)):
            self.node_stats[nid].nr_mapped += sign * count

    def per_node(self, pfns: npt.NDArray[np.int64]) -> list[int]:
        """How many of the frames each node owns."""
        if len(self.node_stats) == 1:
            return [len(pfns)]
        counts: list[int] = np.bincount(self.nids(pfns), minlength=len(self.node_stats)).tolist()
        return counts

    def nids(self, pfns: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """The node that owns each of the frames."""
        return np.searchsorted(self._node_ends, pfns, side="right")

    def node_stat(self, pfn: int) -> NodeStat:
        """The gauges of the node that owns frame ``pfn``."""
        stats = self.node_stats
        return stats[0] if len(stats) == 1 else stats[self.topology.pfn_to_nid(pfn)]

    def map_zero_page(self) -> None:
        """Mark the frame every first read maps: reserved, never counted, all zero."""
        self.pages.flags[self.zero_pfn] |= PG_RESERVED
