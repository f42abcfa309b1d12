# SPDX-License-Identifier: GPL-2.0-or-later
"""NUMA memory policies of areas and tasks (Linux: mm/mempolicy.c;
Documentation/admin-guide/mm/numa_memory_policy.rst).

A policy decides where new pages come from, and two areas with different policies are never one (spec R2 g). Moving
pages that are there already comes with migration: MPOL_MF_MOVE is accepted where every page is in place by itself
(one node).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memtwin.abi import mempolicy as mp
from memtwin.abi.capability import CAP_SYS_NICE
from memtwin.errors import NotModelled
from memtwin.hw.paging import PFN_MASK, PRESENT, PROT_NONE, SPECIAL
from memtwin.hw.ram import PAGE_MASK
from memtwin.mm.context import MmContext
from memtwin.mm.mm_types import MmStruct, VmArea
from memtwin.mm.page_table import LeafRows
from memtwin.mm.vma import areas_in, each_area

__all__ = ["MemPolicy", "describe", "do_mbind", "mpol_new"]

_MODES_WITH_NODES = (mp.MPOL_BIND, mp.MPOL_INTERLEAVE, mp.MPOL_PREFERRED_MANY, mp.MPOL_WEIGHTED_INTERLEAVE)


@dataclass(frozen=True, slots=True)
class MemPolicy:
    """``mode`` MPOL_*; ``flags`` of MPOL_MODE_FLAGS; ``nodes`` bit mask of the nodes in use; ``user_nodemask`` as
    given, kept only with static or relative nodes; ``home_node`` -1 when none. Equal policies compare equal.
    """

    mode: int
    flags: int
    nodes: int
    user_nodemask: int
    home_node: int = -1


def _check_mode(ctx: MmContext, mode: int) -> None:
    """Raises OSError EINVAL for an unknown mode or flags that exclude each other."""
    newest = mp.MPOL_WEIGHTED_INTERLEAVE if ctx.features.kernel == "host" else mp.MPOL_PREFERRED_MANY
    both = mp.MPOL_F_STATIC_NODES | mp.MPOL_F_RELATIVE_NODES
    if mode & ~mp.MPOL_MODE_FLAGS > newest or mode & both == both:
        raise OSError(errno.EINVAL, "mempolicy: unknown mode, or static and relative nodes at once")


def mpol_new(ctx: MmContext, mode: int, nodemask: int) -> MemPolicy | None:
    """The policy that mode (with its flags) and node mask describe; None for the default. Raises OSError EINVAL."""
    _check_mode(ctx, mode)
    flags = mode & mp.MPOL_MODE_FLAGS
    mode &= ~mp.MPOL_MODE_FLAGS
    both = mp.MPOL_F_STATIC_NODES | mp.MPOL_F_RELATIVE_NODES
    if flags & mp.MPOL_F_NUMA_BALANCING and mode not in (mp.MPOL_BIND, mp.MPOL_PREFERRED_MANY):
        raise OSError(errno.EINVAL, "mempolicy: NUMA balancing goes with MPOL_BIND only")
    if mode == mp.MPOL_DEFAULT:
        if nodemask:
            raise OSError(errno.EINVAL, "mempolicy: the default takes no nodes")
        return None
    if mode == mp.MPOL_PREFERRED and not nodemask:
        if flags & both:
            raise OSError(errno.EINVAL, "mempolicy: an empty set can be neither static nor relative")
        mode = mp.MPOL_LOCAL
    elif mode == mp.MPOL_LOCAL:
        if nodemask or flags & both:
            raise OSError(errno.EINVAL, "mempolicy: MPOL_LOCAL takes no nodes")
    elif not nodemask:
        raise OSError(errno.EINVAL, "mempolicy: this mode needs nodes")
    online = (1 << len(ctx.topology.nodes)) - 1
    nodes = _contextualise(nodemask, flags, online) if mode != mp.MPOL_LOCAL else 0
    if mode != mp.MPOL_LOCAL and not nodes:
        raise OSError(errno.EINVAL, "mempolicy: none of the nodes exists")
    if mode == mp.MPOL_PREFERRED:
        nodes &= -nodes
    return MemPolicy(mode, flags, nodes, nodemask if flags & both else 0)


def describe(policy: MemPolicy | None) -> tuple[int, int]:
    """(mode with its flags, node mask) as get_mempolicy(2) tells them; the default is (MPOL_DEFAULT, 0)."""
    if policy is None:
        return mp.MPOL_DEFAULT, 0
    mask = policy.user_nodemask if policy.user_nodemask else policy.nodes
    return policy.mode | policy.flags, mask


def _contextualise(nodemask: int, flags: int, online: int) -> int:
    """Nodes in use: the given ones that exist; relative ones count round the existing ones."""
    if not flags & mp.MPOL_F_RELATIVE_NODES:
        return nodemask & online
    count = online.bit_count()
    return sum({1 << bit % count for bit in range(nodemask.bit_length()) if nodemask >> bit & 1})


def do_mbind(mm: MmStruct, start: int, length: int, mode: int, nodemask: int, flags: int) -> None:
    """mbind(2). Raises OSError EINVAL, EPERM, EFAULT (a hole), ENOMEM; NotModelled where pages would have to move."""
    if flags & ~(mp.MPOL_MF_STRICT | mp.MPOL_MF_MOVE | mp.MPOL_MF_MOVE_ALL):
        raise OSError(errno.EINVAL, "mbind: unknown flag")
    if flags & mp.MPOL_MF_MOVE_ALL and mm.owner is not None and not mm.owner.capable(CAP_SYS_NICE):
        raise OSError(errno.EPERM, "mbind: MPOL_MF_MOVE_ALL needs CAP_SYS_NICE")
    _check_mode(mm.ctx, mode)
    if start & ~PAGE_MASK:
        raise OSError(errno.EINVAL, "mbind: unaligned address")
    end = start + ((length + 4095) & PAGE_MASK & (1 << 64) - 1)
    if end >= 1 << 64:
        raise OSError(errno.EINVAL, "mbind: the range wraps")
    if end == start:
        return
    policy = mpol_new(mm.ctx, mode, nodemask)
    if flags & (mp.MPOL_MF_MOVE | mp.MPOL_MF_MOVE_ALL) and len(mm.ctx.topology.nodes) > 1:
        raise NotModelled("mbind: moving pages between nodes comes with migration")
    mm.mmap_lock.down_write()
    try:
        moving = flags & (mp.MPOL_MF_MOVE | mp.MPOL_MF_MOVE_ALL)
        _check_range(mm, start, end, policy, nodemask if flags & mp.MPOL_MF_STRICT and not moving else None)
        _bind_range(mm, start, end, policy)
    finally:
        mm.mmap_lock.up_write()


def _check_range(mm: MmStruct, start: int, end: int, policy: MemPolicy | None, strict: int | None) -> None:
    """A hole is EFAULT; the default policy minds only a range without any area. With ``strict``, a mask of nodes, the
    pages of each area are looked at once it is known that no hole follows it.
    """
    hole = OSError(errno.EFAULT, "mbind: part of the range is not mapped")
    areas = areas_in(mm, start, end)
    if not areas or (policy is not None and areas[0].start > start):
        raise hole
    if policy is None:
        return
    for vma, behind in zip(areas, [area.start for area in areas[1:]] + [end], strict=True):
        if min(vma.end, end) < behind:
            raise hole
        if strict is not None:
            _check_pages(mm, max(vma.start, start), min(vma.end, end), strict)


def _check_pages(mm: MmStruct, start: int, end: int, nodemask: int) -> None:
    """MPOL_MF_STRICT without moving: a page on a node that was not named is EIO. Raises OSError EIO."""
    pages = _Nodes(mm)
    mm.ctx.pt.walk_range(mm, start, end, pages)
    if pages.seen & ~nodemask:
        raise OSError(errno.EIO, "mbind: MPOL_MF_STRICT and a page on another node")


class _Nodes:
    """Bit mask of the nodes that the pages of a range are on (a :class:`~memtwin.mm.page_table.RangeOp`)."""

    __slots__ = ("_ctx", "seen")

    def __init__(self, mm: MmStruct) -> None:
        self._ctx = mm.ctx
        self.seen = 0

    def _add(self, entries: npt.NDArray[np.uint64]) -> None:
        mapped = entries[((entries & np.uint64(PRESENT | PROT_NONE)) != 0) & ((entries & np.uint64(SPECIAL)) == 0)]
        pfns = ((mapped & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        for nid, count in enumerate(self._ctx.per_node(pfns)):
            self.seen |= bool(count) << nid

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        self._add(self._ctx.ram.words[index : index + count])

    def rows(self, batch: LeafRows) -> None:
        """Whole tables."""
        self._add(batch.gather())

    def huge(self, index: int, order: int, addr: int) -> None:
        """A huge leaf: all of its page is on one node."""
        self._add(self._ctx.ram.words[index : index + 1])


def _bind_range(mm: MmStruct, start: int, end: int, policy: MemPolicy | None) -> None:
    prev: VmArea | None = None
    for vma in each_area(mm, start, end):
        low, high = max(vma.start, start), min(vma.end, end)
        if prev is None or prev.end < low:
            prev = vma if low > vma.start else (mm.mm_mt.load(low - 1) if low else None)
        if vma.policy == policy:
            prev = vma
            continue
        changed = mm.ctx.modify.mbind(mm, prev, vma, low, high, policy)
        changed.start_write()
        changed.policy = policy
        prev = changed
