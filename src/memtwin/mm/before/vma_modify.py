# SPDX-License-Identifier: GPL-2.0-or-later
"""The shape before ``vma-modify``: each of the seven call sites merges and splits by itself.

Same order everywhere (merge, cut off what is below, cut off what is above) and the same errors. They differ in what
they hand to the merge, and mprotect alone had a debug check on the flags of what it merged into. Experiment
``vma-modify`` compares both shapes on random sequences of calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memtwin.errors import InvariantBroken
from memtwin.mm.mm_types import VM_STICKY, MmStruct, VmArea
from memtwin.mm.vma import split_vma, vma_merge
from memtwin.mm.vma_modify import VmaModify

if TYPE_CHECKING:
    from memtwin.mm.mempolicy import MemPolicy
    from memtwin.mm.userfaultfd import UserfaultfdCtx

__all__ = ["InlinedVmaModify"]


class InlinedVmaModify(VmaModify):
    """Seven inlined copies, as 6.6 has them."""

    def mprotect(self, mm: MmStruct, prev: VmArea | None, vma: VmArea, start: int, end: int, flags: int) -> VmArea:
        pgoff = vma.pgoff + ((start - vma.start) >> 12)
        merged = vma_merge(
            mm, prev, start, end, flags, vma.anon_vma, vma.file, pgoff, vma.policy, vma.uffd_ctx, vma.anon_name
        )
        if merged is not None:
            if (merged.flags ^ flags) & ~VM_STICKY:
                raise InvariantBroken(f"mprotect merged into {merged!r}, whose flags differ from the new ones")
            return merged
        if start != vma.start:
            split_vma(mm, vma, start, new_below=True)
        if end != vma.end:
            split_vma(mm, vma, end, new_below=False)
        return vma

    def mlock(self, mm: MmStruct, prev: VmArea | None, vma: VmArea, start: int, end: int, flags: int) -> VmArea:
        pgoff = vma.pgoff + ((start - vma.start) >> 12)
        merged = vma_merge(
            mm, prev, start, end, flags, vma.anon_vma, vma.file, pgoff, vma.policy, vma.uffd_ctx, vma.anon_name
        )
        if merged is not None:
            return merged
        if start != vma.start:
            split_vma(mm, vma, start, new_below=True)
        if end != vma.end:
            split_vma(mm, vma, end, new_below=False)
        return vma

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
        pgoff = vma.pgoff + ((start - vma.start) >> 12)
        merged = vma_merge(
            mm, prev, start, end, flags, vma.anon_vma, vma.file, pgoff, vma.policy, vma.uffd_ctx, anon_name
        )
        if merged is not None:
            return merged
        if start != vma.start:
            split_vma(mm, vma, start, new_below=True)
        if end != vma.end:
            split_vma(mm, vma, end, new_below=False)
        return vma

    def mbind(
        self, mm: MmStruct, prev: VmArea | None, vma: VmArea, start: int, end: int, policy: MemPolicy | None
    ) -> VmArea:
        pgoff = vma.pgoff + ((start - vma.start) >> 12)
        merged = vma_merge(
            mm, prev, start, end, vma.flags, vma.anon_vma, vma.file, pgoff, policy, vma.uffd_ctx, vma.anon_name
        )
        if merged is not None:
            return merged
        if vma.start != start:
            split_vma(mm, vma, start, new_below=True)
        if vma.end != end:
            split_vma(mm, vma, end, new_below=False)
        return vma

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
        pgoff = vma.pgoff + ((start - vma.start) >> 12)
        merged = vma_merge(mm, prev, start, end, flags, vma.anon_vma, vma.file, pgoff, vma.policy, ctx, vma.anon_name)
        if merged is not None:
            return merged
        if vma.start < start:
            split_vma(mm, vma, start, new_below=True)
        if vma.end > end:
            split_vma(mm, vma, end, new_below=False)
        return vma

    def uffd_unregister(
        self, mm: MmStruct, prev: VmArea | None, vma: VmArea, start: int, end: int, flags: int
    ) -> VmArea:
        pgoff = vma.pgoff + ((start - vma.start) >> 12)
        merged = vma_merge(mm, prev, start, end, flags, vma.anon_vma, vma.file, pgoff, vma.policy, None, vma.anon_name)
        if merged is not None:
            return merged
        if vma.start < start:
            split_vma(mm, vma, start, new_below=True)
        if vma.end > end:
            split_vma(mm, vma, end, new_below=False)
        return vma

    def uffd_release(self, mm: MmStruct, prev: VmArea | None, vma: VmArea, flags: int) -> VmArea:
        merged = vma_merge(
            mm,
            prev,
            vma.start,
            vma.end,
            flags,
            vma.anon_vma,
            vma.file,
            vma.pgoff,
            vma.policy,
            None,
            vma.anon_name,
        )
        return merged if merged is not None else vma
