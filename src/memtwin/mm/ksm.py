# SPDX-License-Identifier: GPL-2.0-or-later
"""Which areas take part in same-page merging (Linux: mm/ksm.c): madvise per area, PR_SET_MEMORY_MERGE per process.

Merging itself is not modelled yet; this is what areas show of it.
"""

from __future__ import annotations

from typing import Final

from memtwin.mm.mm_types import (
    VM_DONTEXPAND,
    VM_HUGETLB,
    VM_IO,
    VM_MAYSHARE,
    VM_MERGEABLE,
    VM_MIXEDMAP,
    VM_PFNMAP,
    VM_SHARED,
    MmStruct,
)

__all__ = ["NEVER_MERGEABLE", "ksm_disable_merge_any", "ksm_enable_merge_any", "ksm_vma_flags"]

#: Areas with one of these are passed over without a word.
NEVER_MERGEABLE: Final = VM_SHARED | VM_MAYSHARE | VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_HUGETLB | VM_MIXEDMAP


def ksm_vma_flags(mm: MmStruct, flags: int) -> int:
    """Flags of a new area: mergeable if the process asked for it and the kind of memory allows it."""
    if mm.merge_any and not flags & NEVER_MERGEABLE:
        return flags | VM_MERGEABLE
    return flags


def ksm_enable_merge_any(mm: MmStruct) -> None:
    """PR_SET_MEMORY_MERGE 1: every area that can be mergeable is, and new ones will be; areas are not joined for it."""
    mm.mmap_lock.down_write()
    if not mm.merge_any:  # otherwise areas that were taken out since stay out
        mm.merge_any = True
        for vma in mm.areas():
            vma.set_flags(ksm_vma_flags(mm, vma.flags))
    mm.mmap_lock.up_write()


def ksm_disable_merge_any(mm: MmStruct) -> None:
    """PR_SET_MEMORY_MERGE 0: no area is mergeable any more, whoever asked for it. Does nothing if it was not on."""
    mm.mmap_lock.down_write()
    if mm.merge_any:
        mm.merge_any = False
        for vma in mm.areas():
            vma.set_flags(vma.flags & ~VM_MERGEABLE)
    mm.mmap_lock.up_write()
