# SPDX-License-Identifier: GPL-2.0-or-later
"""Planted faults of the profile thp: rules about huge pages. Rows of :class:`.mutations.Mutation`."""

from __future__ import annotations

from memtwin.verify.mutations_pages import Row

__all__ = ["HUGE"]

_THP = ("thp",)

HUGE: tuple[Row, ...] = (
    (
        "huge-zero-split",
        "a write to the huge zero page splits it",
        "mm.huge_memory:do_huge_pmd_wp_page",
        "if ctx.thp_zero_write_alloc and",
        "if False and",
        _THP,
    ),
    (
        "huge-never-reused",
        "a write to a huge page that was shared once always splits it",
        "mm.huge_memory:do_huge_pmd_wp_page",
        "if not exclusive and pages.refcount[head] == 1 and",
        "if False and",
        _THP,
    ),
    (
        "huge-beyond-advice",
        "a fault maps a huge page in an area that does not want it",
        "mm.huge_memory:hugepage_vma_check",
        "if flags & VM_NOHUGEPAGE or",
        "if",
        _THP,
    ),
    (
        "split-not-exclusive",
        "the pages of a split leaf are not exclusive any more",
        "mm.huge_split:split_huge_pmd",
        "if pages.flags[head] & PG_ANON_EXCLUSIVE:",
        "if False:",
        _THP,
    ),
    (
        "small-never-reused",
        "a page of a huge page is always copied when a small entry is written",
        "mm.huge_split:wp_can_reuse_huge",
        "if pages.mapcount[pfn] > 1 or",
        "if True or",
        _THP,
    ),
    (
        "fork-keeps-exclusive",
        "a huge page stays exclusive over a fork",
        "mm.huge_range:copy_huge_pmd",
        "ctx.pages.flags[head] &= ~PG_ANON_EXCLUSIVE",
        "pass",
        _THP,
    ),
    (
        "huge-protect-upgrades",
        "mprotect makes every huge page writable at once, whoever shares it",
        "mm.huge_range:change_huge_pmd",
        " and mm.ctx.pages.flags[(entry & PFN_MASK) >> 12] & PG_ANON_EXCLUSIVE:",
        ":",
        _THP,
    ),
    (
        "tables-not-moved",
        "mremap moves entries, never whole tables",
        "mm.mremap:_MoveEntries.rows",
        "if whole and",
        "if False and",
        _THP,
    ),
    (
        "tables-when-needed",
        "mremap allocates tables only where entries go",
        "mm.mremap:_MoveEntries.few",
        "if not base or not at:",
        "if q[index + i] and (not base or not at):",
        _THP,
    ),
    (
        "collapse-goes-on",
        "MADV_COLLAPSE tries every block, whatever was in the way",
        "mm.khugepaged:_collapse_area",
        "if result not in _GO_ON:",
        "if False:",
        _THP,
    ),
    (
        "collapse-fills-holes",
        "MADV_COLLAPSE fills holes in areas of a userfaultfd",
        "mm.khugepaged:_scan",
        "none_limit = 0 if vma.flags & VM_UFFD_MISSING else",
        "none_limit =",
        _THP,
    ),
    (
        "collapse-clean",
        "a collapsed page is clean",
        "mm.huge_memory:set_huge_pmd",
        "vma.page_prot | PSE | DIRTY | write",
        "vma.page_prot | PSE | write",
        _THP,
    ),
    (
        "cold-keeps-huge",
        "MADV_COLD of a part of a huge page does not split it",
        "mm.huge_range:split_folios_for_advice",
        "if not ctx.thp.folios:",
        "if not free:",
        _THP,
    ),
    (
        "empty-tables-stay",
        "MADV_DONTNEED leaves empty tables behind",
        "mm.madvise_pages:_drop_or_age",
        "if mm.ctx.pt_reclaim:",
        "if False:",
        _THP,
    ),
)
