# SPDX-License-Identifier: GPL-2.0-or-later
"""What the owner of an area may want to do itself (Linux: struct vm_operations_struct).

Drivers and files subclass it, so it stays an ordinary class where the rest of mm is compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from memtwin.mm.vm_fault import VM_FAULT_FALLBACK

if TYPE_CHECKING:
    from memtwin.mm.mm_types import VmArea
    from memtwin.mm.vm_fault import VmFault

__all__ = ["FILE_VM_OPS", "VmOperations"]


class VmOperations:
    """What the owner of an area wants to be asked or told (Linux: struct vm_operations_struct). The defaults do
    nothing.

    ``has_close``: ``close`` must be called when such an area is removed, so merging may not swallow it.
    ``has_huge_fault``: ``huge_fault`` may map a huge leaf.
    """

    has_close = False
    has_huge_fault = False

    def open(self, vma: VmArea) -> None:
        """``vma`` came into being by a copy or a split."""

    def close(self, vma: VmArea) -> None:
        """``vma`` goes away."""

    def may_split(self, vma: VmArea, addr: int) -> int:
        """0, or the errno with which a split at ``addr`` is refused."""
        return 0

    def huge_fault(self, vmf: VmFault, order: int) -> int:
        """Map ``4096 << order`` bytes (order 9 or 18) at once: VM_FAULT_* bits, FALLBACK for a small page. Alignment
        and the kind of mapping are this function's to judge.
        """
        return VM_FAULT_FALLBACK


#: Operations of ordinary mapped files.
FILE_VM_OPS: Final = VmOperations()
