# SPDX-License-Identifier: GPL-2.0-or-later
"""The lock classes of the machine and the order they are taken in, as data (Linux keeps it in comments of mm/ and fs/).

A class stands for all locks made at one kind of place ("every mmap_lock"). ``CHAINS`` are read from outside to inside:
while a lock is held, only locks to its right may be taken. Chains that share classes combine; two classes no chain
connects have no declared order, and the checker learns one from what it sees. docs/lock-order.md is generated from
this file.

Sources: the page-cache order of the specification (R13), Documentation/mm/process_addrs.rst and
Documentation/filesystems/locking.rst for what lies around it, the order of hugetlb from its change of October 2023
("hugetlbfs: extend hugetlb_vma_lock to private VMAs", in v6.7).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["CHAINS", "CLASSES", "Chain", "Kind", "LockClass"]


class Kind(StrEnum):
    """How a lock of the class waits."""

    RWSEM = "rwsem"  #: sleeps; readers or one writer
    MUTEX = "mutex"  #: sleeps
    SPIN = "spinlock"  #: must not sleep while it is held
    BIT = "bit"  #: sleeps on a bit of a word (folio lock)
    CONTEXT = "context"  #: no lock: a state in which others may be taken (reclaim)


@dataclass(frozen=True, slots=True)
class LockClass:
    """``nesting``: when a second lock of the class may be taken. ``""``: never; ``"subclass"``: with a higher subclass
    number; the name of a class: while a lock of that class is held for writing (it keeps others from nesting the other
    way round).
    """

    name: str
    kind: Kind
    protects: str
    nesting: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """Classes from the outermost to the innermost."""

    title: str
    classes: tuple[str, ...]


CLASSES: Final[tuple[LockClass, ...]] = (
    LockClass("cgroup_mutex", Kind.MUTEX, "the tree of control groups"),
    LockClass("mem_hotplug_lock", Kind.RWSEM, "which memory is online"),
    LockClass("ksm_thread_mutex", Kind.MUTEX, "ksmd's state against a change of its knobs"),
    LockClass("memory_tier_lock", Kind.MUTEX, "tiers and their memory devices"),
    LockClass("damon_lock", Kind.MUTEX, "which monitoring contexts run"),
    LockClass("kdamond_lock", Kind.MUTEX, "the worker of one monitoring context"),
    LockClass("inode_rwsem", Kind.RWSEM, "size and content of a file against truncation", nesting="subclass"),
    LockClass("mmap_lock", Kind.RWSEM, "the VMAs of an address space", nesting="subclass"),
    LockClass("vma_lock", Kind.RWSEM, "one VMA", nesting="mmap_lock"),
    LockClass("uffd_map_changing_lock", Kind.RWSEM, "UFFDIO_COPY and its kin against a change of the mapping"),
    LockClass(
        "invalidate_lock", Kind.RWSEM, "page cache of a file against the removal of its pages", nesting="subclass"
    ),
    LockClass("hugetlb_fault_mutex", Kind.MUTEX, "one huge page's instantiation (hashed by mapping and index)"),
    LockClass("hugetlb_vma_lock", Kind.RWSEM, "shared page tables of a hugetlb VMA; private: its reservation map"),
    LockClass("hugetlb_resize_lock", Kind.MUTEX, "one resize of a huge page pool at a time"),
    LockClass(
        "folio_lock", Kind.BIT, "a folio's place in the page cache, its truncation and writeback", nesting="subclass"
    ),
    LockClass("hugetlb_folio_lock", Kind.BIT, "the same of a hugetlb folio", nesting="subclass"),
    LockClass("fs_reclaim", Kind.CONTEXT, "direct reclaim: every allocation that may wait enters it"),
    LockClass("shrinker_rwsem", Kind.RWSEM, "the list of shrinkers"),
    LockClass("i_mmap_rwsem", Kind.RWSEM, "which VMAs map a file", nesting="mmap_lock"),
    LockClass("anon_vma", Kind.RWSEM, "which VMAs may map pages of an anon_vma tree", nesting="mmap_lock"),
    LockClass("oom_lock", Kind.MUTEX, "one OOM kill at a time"),
    LockClass("pcpu_alloc_mutex", Kind.MUTEX, "chunks of the per-CPU allocator"),
    LockClass("mm_page_table_lock", Kind.SPIN, "the upper page tables of an address space"),
    LockClass("page_table_lock", Kind.SPIN, "the entries of one page table", nesting="subclass"),
    LockClass("tasklist_lock", Kind.SPIN, "the list of processes"),
    LockClass("ksm_mmlist_lock", Kind.SPIN, "the address spaces ksmd scans"),
    LockClass("khugepaged_mm_lock", Kind.SPIN, "the address spaces khugepaged scans"),
    LockClass("resv_map_lock", Kind.SPIN, "the regions of a hugetlb reservation map"),
    LockClass("hugetlb_lock", Kind.SPIN, "huge page pools: free lists, counts, surplus"),
    LockClass("subpool_lock", Kind.SPIN, "minimum and maximum of one hugetlb mount"),
    LockClass("memcg_move_lock", Kind.SPIN, "a folio's owner while its statistics change"),
    LockClass("swap_info_lock", Kind.SPIN, "the slots of a swap area"),
    LockClass("i_pages_lock", Kind.SPIN, "the page cache index of a file", nesting="subclass"),
    LockClass("zswap_tree_lock", Kind.SPIN, "compressed pages by swap slot"),
    LockClass("shmem_stat_lock", Kind.SPIN, "block counts of one tmpfs inode"),
    LockClass("list_lru_lock", Kind.SPIN, "one list of reclaimable objects"),
    LockClass("lru_lock", Kind.SPIN, "the LRU lists of one node and control group"),
    LockClass("slab_list_lock", Kind.SPIN, "partial slabs of a cache on a node"),
    LockClass("pcp_lock", Kind.SPIN, "one CPU's free pages of a zone"),
    LockClass("zone_lock", Kind.SPIN, "the free lists of a zone"),
    LockClass("wait_queue", Kind.SPIN, "the entries of one wait queue", nesting="subclass"),
)

CHAINS: Final[tuple[Chain, ...]] = (
    Chain(
        "a fault on a file, and what may be nested in it",
        (
            "inode_rwsem",
            "mmap_lock",
            "vma_lock",
            "uffd_map_changing_lock",
            "invalidate_lock",
            "folio_lock",
            "i_mmap_rwsem",
            "anon_vma",
            "page_table_lock",
            "memcg_move_lock",
            "i_pages_lock",
            "lru_lock",
            "wait_queue",
        ),
    ),
    Chain(
        "hugetlb: the folio lock is inside, not outside, of the mapping's",
        (
            "inode_rwsem",
            "mmap_lock",
            "hugetlb_fault_mutex",
            "hugetlb_vma_lock",
            "i_mmap_rwsem",
            "hugetlb_folio_lock",
            "page_table_lock",
            "hugetlb_lock",
            "zone_lock",
        ),
    ),
    Chain("hugetlb reservations", ("hugetlb_vma_lock", "resv_map_lock")),
    Chain("hugetlb pools", ("hugetlb_resize_lock", "hugetlb_lock")),
    Chain("hugetlb mounts", ("hugetlb_fault_mutex", "subpool_lock")),
    Chain("page tables", ("anon_vma", "mm_page_table_lock", "page_table_lock")),
    Chain(
        "an allocation that may wait enters reclaim, which takes what rmap needs",
        ("invalidate_lock", "folio_lock", "fs_reclaim", "shrinker_rwsem", "i_mmap_rwsem"),
    ),
    Chain("allocation with a mapping or control group locked", ("inode_rwsem", "fs_reclaim")),
    Chain("control groups", ("cgroup_mutex", "mmap_lock", "fs_reclaim")),
    Chain("hotplug", ("mem_hotplug_lock", "pcpu_alloc_mutex", "fs_reclaim")),
    Chain("killing for memory", ("oom_lock", "tasklist_lock")),
    Chain("KSM", ("ksm_thread_mutex", "mmap_lock", "ksm_mmlist_lock")),
    Chain("khugepaged", ("mmap_lock", "khugepaged_mm_lock")),
    Chain("DAMON", ("damon_lock", "kdamond_lock", "mmap_lock")),
    Chain("memory tiers", ("mem_hotplug_lock", "memory_tier_lock")),
    Chain("swap", ("folio_lock", "page_table_lock", "swap_info_lock", "i_pages_lock")),
    Chain("zswap", ("folio_lock", "zswap_tree_lock", "list_lru_lock", "slab_list_lock")),
    Chain("tmpfs", ("inode_rwsem", "folio_lock", "shmem_stat_lock")),
    Chain("memory management innermost", ("i_pages_lock", "list_lru_lock", "slab_list_lock", "pcp_lock", "zone_lock")),
    Chain("lists of pages", ("lru_lock", "zone_lock")),
    Chain("waking", ("fs_reclaim", "page_table_lock", "zone_lock", "wait_queue")),
)
