# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/PID/numa_maps (fs/proc/task_mmu.c, mpol_to_str in mm/mempolicy.c; spec R14): each area's policy, and on which
nodes its pages are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from memtwin.abi import mempolicy as mp
from memtwin.hw.paging import DIRTY, MAPPED, PFN_MASK, SPECIAL
from memtwin.mm.mm_types import VM_LOCKED, MmStruct, VmArea
from memtwin.mm.page import PG_ACTIVE, PG_ANON, PG_DIRTY, PG_SWAPCACHE, PG_UNEVICTABLE, PG_WRITEBACK

if TYPE_CHECKING:
    from memtwin.mm.mempolicy import MemPolicy
    from memtwin.mm.page_table import LeafRows

__all__ = ["mpol_to_str", "numa_maps"]

_NAMES: Final = {
    mp.MPOL_PREFERRED: "prefer",
    mp.MPOL_BIND: "bind",
    mp.MPOL_INTERLEAVE: "interleave",
    mp.MPOL_LOCAL: "local",
    mp.MPOL_PREFERRED_MANY: "prefer (many)",
    mp.MPOL_WEIGHTED_INTERLEAVE: "weighted interleave",
}
_FLAGS: Final = (
    (mp.MPOL_F_STATIC_NODES, "static"),
    (mp.MPOL_F_RELATIVE_NODES, "relative"),
    (mp.MPOL_F_NUMA_BALANCING, "balancing"),
)
#: What a path's bytes that would end it in the line become.
_ESCAPES: Final = {ord(char): f"\\{ord(char):03o}" for char in "\n\t= "}


def mpol_to_str(policy: MemPolicy | None) -> str:
    """A policy in words; None is the default."""
    if policy is None:
        return "default"
    flags = "|".join(name for flag, name in _FLAGS if policy.flags & flag)
    nodes = _ranges(policy.nodes)
    return _NAMES[policy.mode] + (f"={flags}" if flags else "") + (f":{nodes}" if nodes else "")


def _ranges(mask: int) -> str:
    """A set of numbers as Linux lists it: 0-2,5."""
    numbers = [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in parts)


class _NumaStats:
    """Counts the pages of one area (a :class:`~memtwin.mm.page_table.RangeOp`)."""

    __slots__ = (
        "_ctx",
        "_unevictable",
        "active",
        "anon",
        "dirty",
        "mapcount_max",
        "nodes",
        "pages",
        "swapcache",
        "writeback",
    )

    def __init__(self, mm: MmStruct, vma: VmArea) -> None:
        self._ctx = mm.ctx
        # Pages of a locked area are on the list of those that can not be evicted, and count as active.
        self._unevictable = bool(vma.flags & VM_LOCKED)
        self.pages = self.anon = self.dirty = self.active = self.writeback = self.swapcache = self.mapcount_max = 0
        self.nodes = [0] * len(mm.ctx.topology.nodes)

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        self._entries(self._ctx.ram.words[index : index + count])

    def rows(self, batch: LeafRows) -> None:
        """Whole tables."""
        self._entries(batch.gather().ravel())

    def _entries(self, entries: npt.NDArray[np.uint64]) -> None:
        entries = entries[((entries & np.uint64(MAPPED)) != 0) & ((entries & np.uint64(SPECIAL)) == 0)]
        pfns = ((entries & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        self._count(pfns, (entries & np.uint64(DIRTY)) != 0, 1)

    def huge(self, index: int, order: int, addr: int) -> None:
        """A huge leaf counts as all its pages."""
        entry = self._ctx.ram.q[index]
        if not entry & SPECIAL:
            pfn = (entry & PFN_MASK) >> 12
            self._count(np.array([pfn], dtype=np.int64), np.array([entry & DIRTY != 0]), 1 << order)

    def _count(self, pfns: npt.NDArray[np.int64], dirty: npt.NDArray[np.bool_], pages: int) -> None:
        if not len(pfns):
            return
        vec = self._ctx.pages.vec
        order = vec.comp_order[pfns]
        flags = vec.flags[(pfns >> order) << order]

        def number(bits: int) -> int:
            return int(np.count_nonzero(flags & np.uint32(bits))) * pages

        self.pages += len(pfns) * pages
        self.anon += number(PG_ANON)
        self.dirty += int(np.count_nonzero(dirty | ((flags & np.uint32(PG_DIRTY)) != 0))) * pages
        self.active += len(pfns) * pages if self._unevictable else number(PG_ACTIVE | PG_UNEVICTABLE)
        self.writeback += number(PG_WRITEBACK)
        self.swapcache += number(PG_SWAPCACHE)
        self.mapcount_max = max(self.mapcount_max, int(vec.mapcount[pfns].max()))
        for nid, count in enumerate(self._ctx.per_node(pfns)):
            self.nodes[nid] += count * pages

    def text(self) -> str:
        """The fields; those that are 0 or say nothing new are left out."""
        if not self.pages:
            return ""
        fields = [
            ("anon", self.anon),
            ("dirty", self.dirty),
            ("mapped", self.pages if self.pages not in (self.anon, self.dirty) else 0),
            ("mapmax", self.mapcount_max if self.mapcount_max > 1 else 0),
            ("swapcache", self.swapcache),
        ]
        parts = [f" {name}={value}" for name, value in fields if value]
        if self.active < self.pages:
            parts.append(f" active={self.active}")
        if self.writeback:
            parts.append(f" writeback={self.writeback}")
        parts += [f" N{nid}={count}" for nid, count in enumerate(self.nodes) if count]
        return "".join(parts) + " kernelpagesize_kB=4"


def _where(mm: MmStruct, vma: VmArea) -> str:
    if vma.file is not None:
        return f" file={vma.file.path.translate(_ESCAPES)}"
    if vma.start < mm.brk and vma.end > mm.start_brk:
        return " heap"
    return " stack" if vma.start <= mm.start_stack <= vma.end else ""


def numa_maps(mm: MmStruct, task_policy: MemPolicy | None) -> str:
    """The text; ``task_policy`` holds where an area has none of its own."""
    lines = []
    for vma in mm.areas():
        stats = _NumaStats(mm, vma)
        mm.ctx.pt.walk_range(mm, vma.start, vma.end, stats)
        policy = mpol_to_str(vma.policy if vma.policy is not None else task_policy)
        lines.append(f"{vma.start:08x} {policy}{_where(mm, vma)}{stats.text()}\n")
    return "".join(lines)
