# SPDX-License-Identifier: GPL-2.0-or-later
"""Knobs: visible differences of later kernels, so that the twin can be compared with the kernel that runs here.

None is a change of the catalogue; all are off in 6.7. Releases are those known, brackets those observed by booting 6.1,
6.7.3, a late 6.12 (6.12.95) and 6.18. ``6.7-6.18`` marks what was only seen on 6.18 (MAP_DROPPABLE, PROCMAP_QUERY and
vvar_vclock by a probe that lives on as a test of this package).
"""

from __future__ import annotations

from memtwin.changes.catalogue.model import Knob, Since

__all__ = ["KNOBS"]

_TO_6_12 = "6.7.3-6.12"
_TO_6_18 = "6.12-6.18"
_ON_6_18 = "6.7-6.18"


def _switch(id_: str, subsystem: str, release: str, summary: str) -> Knob:
    """A knob that is off or on."""
    return Knob(id_, subsystem, summary, (Since("on", release),))


KNOBS: tuple[Knob, ...] = (
    # VMAs: merging, mapping, placing
    _switch(
        "post-merge-faulted-unfaulted", "vma", "6.16", "a faulted range made equal to an unfaulted neighbour merges"
    ),
    _switch(
        "post-mmap-merge-prev-first",
        "vma",
        _TO_6_12,
        "mmap that fills a hole between two separately faulted VMAs joins the previous one, not the next",
    ),
    _switch(
        "post-mmap-merge-unfaulted-prev",
        "vma",
        _TO_6_12,
        "mmap that fills a hole between an unfaulted previous and a faulted next VMA makes one VMA of all three",
    ),
    _switch(
        "post-mmap-fixed-fail-keeps",
        "vma",
        _TO_6_12,
        "MAP_FIXED that fails after its range was chosen (overcommit, seal, hugetlb pool) leaves the old mapping "
        "intact",
    ),
    _switch(
        "post-mmap-fixed-fail-splits",
        "vma",
        _TO_6_12,
        "MAP_FIXED refused by RLIMIT_AS or RLIMIT_DATA leaves the VMA split at the ends of the range",
    ),
    _switch(
        "post-merge-close-fix",
        "vma",
        "6.8",
        "vm_ops.close blocks a merge exactly when that VMA would be removed; before, case 7 leaks the third VMA",
    ),
    Knob(
        "post-mmap-thp-align",
        "vma",
        "private anonymous mappings that the kernel places are aligned to 2 MiB: all of at least 2 MiB, or only "
        "multiples",
        (Since("all", "6.7-6.7.3"), Since("pmd-multiple", _TO_6_12)),
    ),
    _switch(
        "post-thp-align-topdown", "vma", _TO_6_12, "successive aligned mappings are packed; before, 2 MiB are lost"
    ),
    _switch(
        "post-dev-zero-thp-align", "vma", _TO_6_18, "private mappings of /dev/zero of at least 2 MiB are aligned too"
    ),
    _switch(
        "post-map-stack-nohugepage", "vma", _TO_6_12, "MAP_STACK sets VM_NOHUGEPAGE, so it merges no more with others"
    ),
    _switch("post-droppable", "vma", _ON_6_18, "MAP_DROPPABLE, and `dp` in VmFlags"),
    _switch("post-mseal", "vma", "6.10", "mseal(2), and `sl` in VmFlags"),
    _switch("post-overcommit-log-bytes", "vma", _ON_6_18, "the log line of an overcommit refusal adds `bytes: N`"),
    # mremap
    _switch("post-mremap-checks-first", "mremap", "6.17", "all arguments are checked before the source is looked up"),
    _switch(
        "post-mremap-fail-clean", "mremap", "6.17", "a failing MREMAP_FIXED leaves target and source tail in place"
    ),
    _switch("post-mremap-multi-vma", "mremap", "6.17", "same-length MREMAP_FIXED moves several VMAs at once"),
    _switch(
        "post-mremap-dontunmap-locked",
        "mremap",
        _TO_6_18,
        "MREMAP_DONTUNMAP of a locked VMA adds its length to VmLck again",
    ),
    # fork and trees
    _switch(
        "post-fork-mt-dup", "fork", "6.8", "fork copies the tree of VMAs node for node instead of refilling a new one"
    ),
    # faults and accounting
    _switch(
        "post-majflt-tried",
        "fault",
        "6.7-6.7.3",
        "a cold file fault under the VMA lock counts as major for the task (January 2024)",
    ),
    _switch(
        "post-anon-prepare-vma-lock",
        "fault",
        _TO_6_12,
        "the first anonymous fault of a VMA stays under the VMA lock; a wait for a userfaultfd there counts as minor",
    ),
    _switch("post-hugetlb-vma-lock", "fault", "not observed", "hugetlb faults take the VMA lock instead of mmap_lock"),
    _switch(
        "post-rss-exact", "fault", "6.7.3-6.12.95", "RSS in status and statm is exact instead of off by up to a batch"
    ),
    # madvise and friends
    _switch(
        "post-populate-stop-at-hole",
        "madvise",
        _TO_6_12,
        "MADV_POPULATE_* stops at a hole instead of going on behind it",
    ),
    _switch(
        "post-pageout-keeps-young", "madvise", _TO_6_12, "MADV_PAGEOUT keeps the accessed bits of pages that cannot go"
    ),
    _switch("post-process-madvise-self", "madvise", _TO_6_18, "process_madvise on oneself accepts every advice"),
    _switch(
        "post-pt-reclaim",
        "madvise",
        "6.14",
        "MADV_DONTNEED frees page tables that it leaves empty, so that the next fault there may map a huge page",
    ),
    _switch("post-madv-guard", "madvise", "6.13", "MADV_GUARD_INSTALL and MADV_GUARD_REMOVE, and pagemap bit 58"),
    _switch(
        "post-guard-flag",
        "madvise",
        _TO_6_18,
        "an area with guard pages has `gu` in VmFlags, which fork goes by; before, it was given an anon_vma",
    ),
    _switch(
        "post-move-pages-enoent", "migrate", _TO_6_12, "a move_pages query says ENOENT for an empty entry, not EFAULT"
    ),
    # huge pages
    _switch(
        "post-thp-zero-write-alloc",
        "thp",
        _TO_6_18,
        "a write to the huge zero page maps a new huge page; before, the leaf is split and one small page copied",
    ),
    _switch(
        "post-thp-split-zeropage",
        "thp",
        _TO_6_12,
        "splitting a huge page maps the zero page instead of its pages that hold only zeroes",
    ),
    _switch(
        "post-thp-mm-exclusive",
        "thp",
        _TO_6_18,
        "a write through a small entry of a huge page reuses it if only this address space maps the huge page; before, "
        "only if nothing else at all does",
    ),
    _switch(
        "post-thp-advice-batch",
        "thp",
        _TO_6_12,
        "MADV_FREE, COLD and PAGEOUT leave a huge page whole that small entries map and the range covers",
    ),
    _switch(
        "post-thp-deferred-partial",
        "thp",
        _TO_6_12,
        "a huge page whose small entries all go in one step is not queued for splitting before it is freed",
    ),
    _switch(
        "post-thp-collapse-readonly",
        "thp",
        _TO_6_18,
        "MADV_COLLAPSE and khugepaged collapse pages that no entry may write; before, EINVAL",
    ),
    # hugetlb
    _switch(
        "post-hugetlb-restore-reserve",
        "hugetlb",
        "6.9",
        "zapping a page of a private reserved mapping gives its reservation back",
    ),
    # PAGEMAP_SCAN, userfaultfd, soft-dirty, /proc
    _switch("post-scan-none-written", "pagemap", _TO_6_18, "PAGEMAP_SCAN reports an empty entry as WRITTEN"),
    _switch("post-scan-soft-dirty", "pagemap", _TO_6_12, "PAGEMAP_SCAN knows the category SOFT_DIRTY (0x80)"),
    _switch("post-scan-guard", "pagemap", _TO_6_18, "PAGEMAP_SCAN knows the category GUARD (0x100)"),
    _switch("post-softdirty-sticky", "pagemap", "not observed", "the soft-dirty flag of a VMA survives every merge"),
    _switch("post-procmap-query", "proc", _ON_6_18, "ioctl(PROCMAP_QUERY) on /proc/PID/maps"),
    _switch("post-vvar-vclock", "proc", _ON_6_18, "a VMA named [vvar_vclock] beside [vvar]"),
    _switch(
        "post-uffd-move", "userfaultfd", "6.8", "UFFDIO_MOVE, feature bit 0x10000, bit 0x20 of the register ioctls"
    ),
    _switch(
        "post-uffd-unregister-own",
        "userfaultfd",
        _ON_6_18,
        "UFFDIO_UNREGISTER of an area that belongs to another userfaultfd is EINVAL",
    ),
)
