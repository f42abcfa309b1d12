# SPDX-License-Identifier: GPL-2.0-or-later
"""anon_vma chains (Linux: mm/rmap.c; spec R6): which areas may hold the anonymous pages of which origin.

An area gets its ``anon_vma`` at its first anonymous page; ``pages.mapping`` holds its id. ``anon_vma_chain`` of an
area lists every anon_vma its pages may belong to: its own, and after fork those of its ancestors. Two areas may merge
only if their anon_vmas agree, which is why the chain's length shows through (``mm/vma.py``).

Invariants: ``entries`` of an anon_vma counts the chain links that lead to it; the last link frees it. ``active``
counts the areas whose ``anon_vma`` it is, ``children`` the anon_vmas below it.
"""

from __future__ import annotations

from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.mm.context import MmContext
from memtwin.mm.mm_types import VM_ACCESS_FLAGS, VM_STICKY, MmStruct, VmArea
from memtwin.mm.page import PG_ANON, PG_ANON_EXCLUSIVE

__all__ = [
    "AnonVma",
    "AnonVmaChain",
    "anon_vma_clone",
    "anon_vma_fork",
    "anon_vma_prepare",
    "folio_move_anon_rmap",
    "unlink_anon_vmas",
]


class AnonVma:
    """What the anonymous pages of one or more areas have in common. ``addr``: its object in the cache."""

    __slots__ = ("active", "addr", "children", "entries", "id", "parent")

    def __init__(self, anon_id: int, addr: int, parent: AnonVma | None) -> None:
        self.id = anon_id
        self.addr = addr
        self.parent = parent
        self.entries = 0
        self.active = 0
        self.children = 0


class AnonVmaChain:
    """One link of an area to an anon_vma. ``addr``: its object in the cache."""

    __slots__ = ("addr", "anon_vma")

    def __init__(self, addr: int, anon_vma: AnonVma) -> None:
        self.addr = addr
        self.anon_vma = anon_vma


def _anon_vma_alloc(ctx: MmContext, parent: AnonVma | None) -> AnonVma | None:
    addr = ctx.anon_vma_cache.alloc(GFP_KERNEL)
    if not addr:
        return None
    ctx.mapping_ids += 1
    anon_vma = ctx.anon_vmas[ctx.mapping_ids] = AnonVma(ctx.mapping_ids, addr, parent)
    if parent is not None:
        parent.children += 1
    return anon_vma


def _anon_vma_free(ctx: MmContext, anon_vma: AnonVma) -> None:
    if anon_vma.parent is not None:
        anon_vma.parent.children -= 1
    del ctx.anon_vmas[anon_vma.id]
    ctx.anon_vma_cache.free(anon_vma.addr)


def _link(ctx: MmContext, vma: VmArea, anon_vma: AnonVma) -> bool:
    """Add ``anon_vma`` to the area's chain; False without memory."""
    addr = ctx.avc_cache.alloc(GFP_KERNEL)
    if not addr:
        return False
    vma.anon_vma_chain.append(AnonVmaChain(addr, anon_vma))
    anon_vma.entries += 1
    return True


def _compatible_for_sharing(a: VmArea, b: VmArea) -> bool:
    """Whether two adjacent areas could merge later if only their access rights became equal (spec R6)."""
    return (
        a.end == b.start
        and a.policy == b.policy
        and a.file is b.file
        and not (a.flags ^ b.flags) & ~(VM_ACCESS_FLAGS | VM_STICKY)
        and b.pgoff == a.pgoff + a.pages
    )


def _reusable_anon_vma(mm: MmStruct, vma: VmArea) -> AnonVma | None:
    """A neighbour's anon_vma that ``vma`` can share: next first, then previous."""
    following: VmArea | None = mm.mm_mt.load(vma.end)
    if following is not None and _compatible_for_sharing(vma, following) and len(following.anon_vma_chain) == 1:
        return following.anon_vma
    previous: VmArea | None = mm.mm_mt.load(vma.start - 1) if vma.start else None
    if previous is not None and _compatible_for_sharing(previous, vma) and len(previous.anon_vma_chain) == 1:
        return previous.anon_vma
    return None


def anon_vma_prepare(mm: MmStruct, vma: VmArea) -> bool:
    """Give ``vma`` an anon_vma if it has none: a neighbour's, or a new one. False without memory."""
    if vma.anon_vma is not None:
        return True
    ctx = mm.ctx
    shared = _reusable_anon_vma(mm, vma)
    anon_vma = shared if shared is not None else _anon_vma_alloc(ctx, None)
    if anon_vma is None:
        return False
    if not _link(ctx, vma, anon_vma):
        if shared is None:
            _anon_vma_free(ctx, anon_vma)
        return False
    vma.anon_vma = anon_vma
    anon_vma.active += 1
    return True


def anon_vma_clone(ctx: MmContext, dst: VmArea, src: VmArea) -> bool:
    """Let ``dst`` reach everything that ``src`` reaches; False without memory, ``dst`` unlinked again.

    With ``dst.anon_vma`` unset (fork) an anon_vma of the chain that no area uses and that has no child but itself may
    become its own, which keeps the hierarchy from growing with every generation.
    """
    for link in src.anon_vma_chain:
        if not _link(ctx, dst, link.anon_vma):
            dst.anon_vma = None
            unlink_anon_vmas(ctx, dst)
            return False
        anon_vma = link.anon_vma
        childless = anon_vma.children < (2 if anon_vma.parent is None else 1)
        if dst.anon_vma is None and src.anon_vma is not None and childless and not anon_vma.active:
            dst.anon_vma = anon_vma
    if dst.anon_vma is not None:
        dst.anon_vma.active += 1
    return True


def anon_vma_fork(ctx: MmContext, child: VmArea, parent: VmArea) -> bool:
    """Link the child's copy of an area, which has no anon_vma yet: to all of the parent's, and to one of its own.
    False without memory.
    """
    if parent.anon_vma is None:
        return True
    if not anon_vma_clone(ctx, child, parent):
        return False
    if child.anon_vma is not None:
        return True
    own = _anon_vma_alloc(ctx, parent.anon_vma)
    if own is None:
        unlink_anon_vmas(ctx, child)
        return False
    if not _link(ctx, child, own):
        _anon_vma_free(ctx, own)
        unlink_anon_vmas(ctx, child)
        return False
    child.anon_vma = own
    own.active += 1
    return True


def unlink_anon_vmas(ctx: MmContext, vma: VmArea) -> None:
    """``vma`` goes away or starts anew; its anonymous pages are already unmapped."""
    if vma.anon_vma is not None:
        vma.anon_vma.active -= 1
        vma.anon_vma = None
    chain, vma.anon_vma_chain = vma.anon_vma_chain, []
    for link in reversed(chain):
        anon_vma = link.anon_vma
        anon_vma.entries -= 1
        ctx.avc_cache.free(link.addr)
        if not anon_vma.entries:
            _anon_vma_free(ctx, anon_vma)


def folio_move_anon_rmap(ctx: MmContext, vma: VmArea, folio: int, page: int) -> None:
    """The folio, which is locked and mapped by ``vma`` alone, belongs to the area's own anon_vma from now on.

    Before ``rmap-exclusive-out-of-move`` this was about the ``page`` of it that is mapped, and made it exclusive; since
    then the caller does, on the page it knows to be its own.
    """
    assert vma.anon_vma is not None and ctx.pages.flags[folio] & PG_ANON
    order = ctx.pages.comp_order[folio]
    if order:
        ctx.pages.vec.mapping[folio : folio + (1 << order)] = vma.anon_vma.id
    else:
        ctx.pages.mapping[folio] = vma.anon_vma.id
    if not ctx.exclusive_out_of_move:
        ctx.pages.flags[page] |= PG_ANON_EXCLUSIVE
