# SPDX-License-Identifier: GPL-2.0-or-later
"""Which areas may hold transparent huge pages (Linux: mm/huge_memory.c, hugepage_vma_check; spec
thp-huge-fault-eligibility).

Huge pages themselves are not modelled yet; what is decided here is what smaps shows as THPeligible. No area can be a
vdso, DAX or a stack under construction here, and no operations offer ``huge_fault``, so those steps never decide.
"""

from __future__ import annotations

from typing import Final

from memtwin.errors import NotModelled
from memtwin.hw.paging import ACCESSED, DIRTY, PMD_SIZE
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
from memtwin.mm.vm_fault import FAULT_FLAG_WRITE, VM_FAULT_FALLBACK, VmFault

__all__ = [
    "THP_ENABLED",
    "do_huge_pmd_anonymous_page",
    "do_huge_pmd_wp_page",
    "huge_pmd_set_accessed",
    "hugepage_vma_check",
]

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


# -- faults (called by handle_mm_fault where no last-level table covers the address) ---------------------------------


def do_huge_pmd_anonymous_page(vmf: VmFault) -> int:
    """First touch in an anonymous area that may have huge pages: VM_FAULT_* bits, FALLBACK for a small page. None is
    made yet.
    """
    return VM_FAULT_FALLBACK


def do_huge_pmd_wp_page(vmf: VmFault) -> int:
    """A write to the read-only huge leaf ``vmf.entry``. FALLBACK: it has been split, go on with small pages."""
    raise NotModelled(f"a write to a read-only huge leaf at {vmf.address:#x}")


def huge_pmd_set_accessed(vmf: VmFault) -> None:
    """The huge leaf permits the access already: set A, and D for a write."""
    vmf.mm.ctx.ram.q[vmf.index] |= ACCESSED | DIRTY if vmf.flags & FAULT_FLAG_WRITE else ACCESSED
