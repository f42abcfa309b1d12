# SPDX-License-Identifier: GPL-2.0-or-later
"""Which areas may hold transparent huge pages (Linux: mm/huge_memory.c, hugepage_vma_check; spec
thp-huge-fault-eligibility).

Huge pages themselves are not modelled yet; what is decided here is what smaps shows as THPeligible. No area can be a
vdso, DAX or a stack under construction here, and no operations offer ``huge_fault``, so those steps never decide.
"""

from __future__ import annotations

from typing import Final

from memtwin.hw.paging import PMD_SIZE
from memtwin.mm.mm_types import (
    VM_DONTEXPAND,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_MIXEDMAP,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VmArea,
)

__all__ = ["THP_ENABLED", "hugepage_vma_check"]

#: /sys/kernel/mm/transparent_hugepage/enabled after boot (CONFIG_TRANSPARENT_HUGEPAGE_MADVISE).
THP_ENABLED: Final = "madvise"

VM_NO_KHUGEPAGED: Final = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP | VM_HUGETLB


def hugepage_vma_check(
    vma: VmArea,
    *,
    smaps: bool = False,
    in_pf: bool = False,
    enforce_sysfs: bool = True,
    enabled: str = THP_ENABLED,
) -> bool:
    """Whether ``vma`` may have huge pages. ``smaps``, ``in_pf``: who asks, neither for khugepaged; ``enabled``:
    ``always``, ``madvise`` or ``never``, heeded with ``enforce_sysfs``.
    """
    flags = vma.flags
    if flags & VM_NOHUGEPAGE or vma.mm.thp_disabled:
        return False
    later = (in_pf or smaps) and vma.mm.ctx.features.has("thp-huge-fault-eligibility")
    if flags & VM_NO_KHUGEPAGED and not later:
        return False
    if not in_pf and (vma.end - PMD_SIZE) // PMD_SIZE * PMD_SIZE < vma.start:
        return False
    if enforce_sysfs and not (enabled == "always" or (enabled == "madvise" and flags & VM_HUGEPAGE)):
        return False
    if not vma.is_anonymous:
        return False  # shmem_enabled is "never"; no operations have huge_fault; CONFIG_READ_ONLY_THP_FOR_FS is off
    return vma.anon_vma is not None or smaps or in_pf
