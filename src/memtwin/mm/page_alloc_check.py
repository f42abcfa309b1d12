# SPDX-License-Identifier: GPL-2.0-or-later
"""Invariants of the page allocator, recomputed from scratch (a part of ``kernel.check()``).

Only memory that was ever given out or listed is looked at: everything outside the zones' virgin ranges and
reservations. There every frame must be exactly one of: in a free block, on a per-CPU list, taken out because of poison,
or allocated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from memtwin.mm.buddy import (
    MAX_BLOCK,
    MAX_ORDER,
    NR_ORDERS,
    PAGEBLOCK_ORDER,
    PCP_TYPES,
    TYPE_XOR,
    Run,
)
from memtwin.mm.check import require
from memtwin.mm.page import PG_HEAD, PG_HWPOISON, PG_TAKENOFF
from memtwin.mm.pcp import index_order

if TYPE_CHECKING:
    from memtwin.mm.page_alloc import PageAllocator
    from memtwin.mm.zone import Zone

__all__ = ["check_page_allocator"]

Blocks = npt.NDArray[np.int64]  #: shape [n, 2]: first pfn, pages


def check_page_allocator(alloc: PageAllocator) -> None:
    """Raises InvariantBroken naming the first zone and thing that disagrees."""
    allocated = 0
    for zone in alloc.zones:
        where = f"node {zone.nid} zone {zone.name}"
        touched = _touched(zone, alloc.reserved_ranges(zone))
        free = _check_lists(zone, where, touched)
        stocked = _check_pcps(zone, where)
        allocated += _check_frames(alloc, zone, where, touched, np.concatenate((free, stocked)))
    counted = sum(zone.allocations + zone.extra_pages for zone in alloc.zones) - alloc.events.pgfree
    require(allocated == counted, f"{allocated} pages are allocated, but pgalloc_* and pgfree differ by {counted}")


def _check_lists(zone: Zone, where: str, touched: list[Run]) -> Blocks:
    """Free lists against markers and ``nr_free``; returns the listed blocks."""
    buddy = zone.pages.vec.buddy
    parts: list[Blocks] = []
    for order in range(NR_ORDERS):
        pfns = np.array([pfn for blocks in zone.lists[order] for pfn in blocks], dtype=np.int64)
        require(bool((buddy[pfns] == order + 1).all()), f"{where}: a listed block of order {order} has another marker")
        require(not (pfns & ((1 << order) - 1)).any(), f"{where}: a block of order {order} is not aligned")
        parts.append(np.stack((pfns, np.full(len(pfns), 1 << order)), axis=1))
        if order < MAX_ORDER:
            _check_merged(zone, where, pfns, order)
    blocks = np.concatenate(parts)
    markers = sum(int(np.count_nonzero(buddy[first:end])) for first, end in touched)
    require(markers == len(blocks), f"{where}: {markers} block markers, {len(blocks)} listed blocks")
    virgin = sum(end - first for first, end in zone.virgin)
    require(virgin == zone.virgin_blocks * MAX_BLOCK, f"{where}: virgin ranges hold {virgin} pages")
    require(
        zone.nr_free == int(blocks[:, 1].sum()) + virgin,
        f"{where}: nr_free is {zone.nr_free}, the lists hold {int(blocks[:, 1].sum()) + virgin} pages",
    )
    return blocks


def _check_merged(zone: Zone, where: str, pfns: npt.NDArray[np.int64], order: int) -> None:
    others = pfns ^ (1 << order)
    inside = others < zone.end
    pfns, others = pfns[inside], others[inside]
    pairs = zone.pages.vec.buddy[others] == order + 1
    if order >= PAGEBLOCK_ORDER:
        types = np.frombuffer(zone.block_types, dtype=np.uint8) ^ TYPE_XOR
        mine, theirs = types[pfns >> PAGEBLOCK_ORDER], types[others >> PAGEBLOCK_ORDER]
        pairs &= (mine == theirs) | ((mine < PCP_TYPES) & (theirs < PCP_TYPES))
    if pairs.any():
        require(False, f"{where}: block {int(pfns[pairs][0]):#x} of order {order} was not merged with its buddy")


def _check_pcps(zone: Zone, where: str) -> Blocks:
    blocks: list[tuple[int, int]] = []
    for cpu, pcp in enumerate(zone.pcps):
        held = 0
        for index, stack in enumerate(pcp.stacks):
            order = index_order(index)
            held += len(stack) << order
            blocks += [(pfn, 1 << order) for pfn in stack]
        require(held == pcp.count, f"{where}: cpu {cpu} counts {pcp.count} pages, its lists hold {held}")
    return np.array(blocks, dtype=np.int64).reshape(-1, 2)


def _check_frames(alloc: PageAllocator, zone: Zone, where: str, touched: list[Run], idle: Blocks) -> int:
    """Every touched frame is exactly one thing; returns how many are allocated. ``idle``: blocks free or on per-CPU
    lists."""
    plain = np.array([(pfn, 1 << order) for pfn, order in alloc.plain_blocks(zone)], dtype=np.int64).reshape(-1, 2)
    allocated = poisoned = found = 0
    vec = alloc.pages.vec
    for first, end in touched:
        cover = _cover(first, end, idle)
        _none(cover > 1, first, f"{where}: in two free blocks or lists")
        is_idle = cover > 0
        found += int(np.count_nonzero(is_idle))
        flags, refcount, order = vec.flags[first:end], vec.refcount[first:end], vec.comp_order[first:end]
        _none(is_idle & (refcount != 0), first, f"{where}: free with references")
        _none(is_idle & (vec.mapcount[first:end] != 0), first, f"{where}: free and mapped")
        _none(is_idle & (order != 0), first, f"{where}: free and part of a folio")
        _none(is_idle & (flags != 0), first, f"{where}: free with flags")
        out = ((flags & PG_TAKENOFF) != 0) | (((flags & PG_HWPOISON) != 0) & (refcount == 0))
        poisoned += int(np.count_nonzero(out))
        heads = np.arange(first, end, dtype=np.int64) >> order << order
        used = vec.refcount[heads] > 0
        used &= (order == 0) | ((vec.flags[heads] & PG_HEAD) != 0)
        used |= _cover(first, end, plain) > 0
        used &= ~out
        _none(~(used | out | is_idle), first, f"{where}: neither free nor in use")
        _none(used & is_idle, first, f"{where}: free and in use")
        allocated += int(np.count_nonzero(used))
    require(found == int(idle[:, 1].sum()), f"{where}: a free block lies outside the memory that was ever given out")
    require(poisoned == zone.poisoned, f"{where}: {poisoned} pages are taken out, {zone.poisoned} counted")
    total = zone.nr_free + sum(pcp.count for pcp in zone.pcps) + allocated + poisoned
    require(total == zone.managed, f"{where}: {total} pages found, {zone.managed} managed")
    return allocated


def _none(wrong: npt.NDArray[np.bool_], first: int, message: str) -> None:
    """Require that no element is set; ``first`` is the pfn of element 0."""
    if wrong.any():
        require(False, f"{message}: page {first + int(np.argmax(wrong)):#x}")


def _touched(zone: Zone, reserved: list[Run]) -> list[Run]:
    """The zone's range [first, end) without what is virgin or reserved."""
    pieces: list[Run] = []
    start = zone.start
    for first, end in sorted([*zone.virgin, *reserved]):
        if first > start:
            pieces.append((start, first))
        start = end
    if start < zone.end:
        pieces.append((start, zone.end))
    return pieces


def _cover(first: int, end: int, blocks: Blocks) -> npt.NDArray[np.int32]:
    """How many of ``blocks`` hold each frame of [first, end): int32[end - first]."""
    change = np.zeros(end - first + 1, dtype=np.int32)
    mine = blocks[(blocks[:, 0] >= first) & (blocks[:, 0] < end)]
    np.add.at(change, mine[:, 0] - first, 1)
    np.add.at(change, np.minimum(mine.sum(axis=1), end) - first, -1)
    cover: npt.NDArray[np.int32] = np.cumsum(change[:-1], dtype=np.int32)
    return cover
