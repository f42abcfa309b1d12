# SPDX-License-Identifier: GPL-2.0-or-later
"""The seven places that change an attribute over a range of one area, and the routine they share since ``vma-modify``
(6.7).

Each method is one call site: it returns the area that is exactly [start, end) or the one the range was merged into,
and the caller then sets flags, policy or context on it. A machine without the change gets ``mm/before/vma_modify.py``
instead. ``prev``: the area before ``start``, or ``vma`` itself when ``start`` is inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memtwin.mm.mm_types import MmStruct, VmArea
from memtwin.mm.vma import vma_modify

if TYPE_CHECKING:
    from memtwin.mm.mempolicy import MemPolicy
    from memtwin.mm.userfaultfd import UserfaultfdCtx

__all__ = ["VmaModify"]


class VmaModify:
    """The common shape. Every method raises OSError when a split fails; a split already made stays."""

    def mprotect(self, mm: MmStruct, prev: VmArea | None, vma: VmArea, start: int, end: int, flags: int) -> VmArea:
        """mprotect_fixup."""
        return vma_modify(mm, prev, vma, start, end, flags, vma.policy, vma.uffd_ctx, vma.anon_name)

    def mlock(self, mm: MmStruct, prev: VmArea | None, vma: VmArea, start: int, end: int, flags: int) -> VmArea:
        """mlock_fixup."""
        return vma_modify(mm, prev, vma, start, end, flags, vma.policy, vma.uffd_ctx, vma.anon_name)

    def madvise(
        self,
        mm: MmStruct,
        prev: VmArea | None,
        vma: VmArea,
        start: int,
        end: int,
        flags: int,
        anon_name: str | None,
    ) -> VmArea:
        """madvise_update_vma, for the flag advices and PR_SET_VMA_ANON_NAME."""
        return vma_modify(mm, prev, vma, start, end, flags, vma.policy, vma.uffd_ctx, anon_name)

    def mbind(
        self, mm: MmStruct, prev: VmArea | None, vma: VmArea, start: int, end: int, policy: MemPolicy | None
    ) -> VmArea:
        """mbind_range."""
        return vma_modify(mm, prev, vma, start, end, vma.flags, policy, vma.uffd_ctx, vma.anon_name)

    def uffd_register(
        self,
        mm: MmStruct,
        prev: VmArea | None,
        vma: VmArea,
        start: int,
        end: int,
        flags: int,
        ctx: UserfaultfdCtx,
    ) -> VmArea:
        """userfaultfd_register."""
        return vma_modify(mm, prev, vma, start, end, flags, vma.policy, ctx, vma.anon_name)

    def uffd_unregister(
        self, mm: MmStruct, prev: VmArea | None, vma: VmArea, start: int, end: int, flags: int
    ) -> VmArea:
        """userfaultfd_unregister."""
        return vma_modify(mm, prev, vma, start, end, flags, vma.policy, None, vma.anon_name)

    def uffd_release(self, mm: MmStruct, prev: VmArea | None, vma: VmArea, flags: int) -> VmArea:
        """userfaultfd_release: the whole area, so it may merge but never splits and never fails."""
        return vma_modify(mm, prev, vma, vma.start, vma.end, flags, vma.policy, None, vma.anon_name)
