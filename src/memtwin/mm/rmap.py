# SPDX-License-Identifier: GPL-2.0-or-later
"""Reverse mapping of anonymous pages (Linux: mm/rmap.c; spec R6): so far the identity that an anonymous page carries.

An area gets its ``anon_vma`` at its first anonymous page; ``pages.mapping`` holds its id. Splitting an area lets both
halves share it. Invariant: ``users`` counts the areas that refer to it, and the last one frees it.
"""

from __future__ import annotations

from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.mm.context import MmContext
from memtwin.mm.mm_types import VmArea

__all__ = ["AnonVma", "anon_vma_clone", "anon_vma_prepare", "unlink_anon_vmas"]


class AnonVma:
    """What the anonymous pages of one or more areas have in common. ``addr``: its object in the cache."""

    __slots__ = ("addr", "id", "users")

    def __init__(self, anon_id: int, addr: int) -> None:
        self.id = anon_id
        self.addr = addr
        self.users = 1


def anon_vma_prepare(ctx: MmContext, vma: VmArea) -> bool:
    """Give ``vma`` an anon_vma if it has none; False without memory."""
    if vma.anon_vma is not None:
        return True
    addr = ctx.anon_vma_cache.alloc(GFP_KERNEL)
    if not addr:
        return False
    ctx.mapping_ids += 1
    vma.anon_vma = ctx.anon_vmas[ctx.mapping_ids] = AnonVma(ctx.mapping_ids, addr)
    return True


def anon_vma_clone(dst: VmArea, src: VmArea) -> None:
    """``dst`` is a piece of ``src`` or a copy: it shares its anon_vma."""
    dst.anon_vma = src.anon_vma
    if dst.anon_vma is not None:
        dst.anon_vma.users += 1


def unlink_anon_vmas(ctx: MmContext, vma: VmArea) -> None:
    """``vma`` goes away; its pages are already unmapped."""
    anon_vma = vma.anon_vma
    if anon_vma is None:
        return
    vma.anon_vma = None
    anon_vma.users -= 1
    if not anon_vma.users:
        del ctx.anon_vmas[anon_vma.id]
        ctx.anon_vma_cache.free(anon_vma.addr)
