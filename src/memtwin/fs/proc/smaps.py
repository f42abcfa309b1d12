# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/PID/smaps and smaps_rollup (fs/proc/task_mmu.c; spec R14): what the page tables of each area hold.

The tables are read whole rows at a time; pages are judged in bulk. A page counts for an area if its entry is present
(PROT_NONE included) and has a page behind it: the zero page counts nowhere. Pss is fixed point with 12 binary places;
each page adds its size divided by the number of entries that map it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from memtwin.fs.proc.task_mmu import VSYSCALL_LINE, maps_line
from memtwin.hw.paging import (
    ACCESSED,
    DIRTY,
    PFN_MASK,
    PKEY_MASK,
    PRESENT,
    PROT_NONE,
    PTE_MARKER_TYPE,
    SPECIAL,
    SWAP_ENTRY,
    SWAP_TYPE_MASK,
    SWAP_TYPE_SHIFT,
)
from memtwin.mm.huge_memory import hugepage_vma_check
from memtwin.mm.mm_types import FLAG_LETTERS, VM_EXEC, VM_LOCKED, MmStruct, VmArea
from memtwin.mm.page import PG_ANON, PG_DIRTY, PG_REFERENCED, PG_SWAPBACKED
from memtwin.mm.page_table import LeafRows

__all__ = ["smaps", "smaps_rollup"]

PSS_SHIFT: Final = 12
PKEY_SHIFT: Final = 59

Words = npt.NDArray[np.uint64]
Pfns = npt.NDArray[np.int64]


class MemSizeStats:
    """Sums over the entries walked, in pages; ``pss*`` in pages << 12 (a :class:`~memtwin.mm.page_table.RangeOp`)."""

    __slots__ = (
        "_locked",
        "_mm",
        "anon_huge",
        "anonymous",
        "file_pmd",
        "lazyfree",
        "private_clean",
        "private_dirty",
        "pss",
        "pss_anon",
        "pss_dirty",
        "pss_file",
        "pss_locked",
        "pss_shmem",
        "referenced",
        "rss",
        "shared_clean",
        "shared_dirty",
        "shmem_pmd",
        "swap",
    )

    def __init__(self, mm: MmStruct) -> None:
        self._mm = mm
        self._locked = False
        self.rss = self.anonymous = self.lazyfree = self.referenced = self.swap = 0
        self.private_clean = self.private_dirty = self.shared_clean = self.shared_dirty = 0
        self.pss = self.pss_anon = self.pss_file = self.pss_shmem = self.pss_dirty = self.pss_locked = 0
        self.anon_huge = self.shmem_pmd = self.file_pmd = 0

    def gather(self, vma: VmArea) -> None:
        """Add what ``vma`` maps."""
        self._locked = bool(vma.flags & VM_LOCKED)
        self._mm.ctx.pt.walk_range(self._mm, vma.start, vma.end, self)

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        self._entries(self._mm.ctx.ram.words[index : index + count])

    def rows(self, batch: LeafRows) -> None:
        """Whole tables."""
        self._entries(batch.gather().ravel())

    def huge(self, index: int, order: int, addr: int) -> None:
        """A huge leaf counts as the pages it maps."""
        entry = self._mm.ctx.ram.q[index]
        if entry & SPECIAL:
            return
        before = self.pss_anon, self.pss_shmem
        pages = 1 << order
        pfns = ((entry & PFN_MASK) >> 12) + np.arange(pages, dtype=np.int64)
        self._account(pfns, np.full(pages, entry & ACCESSED != 0), np.full(pages, entry & DIRTY != 0))
        if self.pss_anon != before[0]:
            self.anon_huge += pages
        elif self.pss_shmem != before[1]:
            self.shmem_pmd += pages
        else:
            self.file_pmd += pages

    def _entries(self, entries: Words) -> None:
        entries = entries[entries != 0]
        if not len(entries):
            return
        has_page = (entries & np.uint64(PRESENT | PROT_NONE)) != 0
        self._swapped(entries[~has_page])
        entries = entries[has_page & ((entries & np.uint64(SPECIAL)) == 0)]
        if len(entries):
            pfns = ((entries & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
            self._account(pfns, (entries & np.uint64(ACCESSED)) != 0, (entries & np.uint64(DIRTY)) != 0)

    def _swapped(self, entries: Words) -> None:
        """Swap entries; a marker holds no page."""
        types = (entries >> np.uint64(SWAP_TYPE_SHIFT)) & np.uint64(SWAP_TYPE_MASK)
        swapped = ((entries & np.uint64(SWAP_ENTRY)) != 0) & (types != PTE_MARKER_TYPE)
        self.swap += int(np.count_nonzero(swapped))

    def _account(self, pfns: Pfns, young: npt.NDArray[np.bool_], dirty: npt.NDArray[np.bool_]) -> None:
        """Add the pages ``pfns``; ``young``, ``dirty``: bits of the entries that map them."""
        vec = self._mm.ctx.pages.vec
        order = vec.comp_order[pfns]
        flags = vec.flags[(pfns >> order) << order]
        anon = (flags & np.uint32(PG_ANON)) != 0
        swapbacked = (flags & np.uint32(PG_SWAPBACKED)) != 0
        dirty = dirty | ((flags & np.uint32(PG_DIRTY)) != 0)
        young = young | ((flags & np.uint32(PG_REFERENCED)) != 0)
        mapcount = vec.mapcount[pfns].astype(np.int64)
        shared = mapcount > 1
        pss = np.int64(1 << PSS_SHIFT << 12) // np.maximum(mapcount, 1)
        self.rss += len(pfns)
        self.anonymous += int(np.count_nonzero(anon))
        self.lazyfree += int(np.count_nonzero(anon & ~swapbacked & ~dirty))
        self.referenced += int(np.count_nonzero(young))
        self.shared_dirty += int(np.count_nonzero(shared & dirty))
        self.shared_clean += int(np.count_nonzero(shared & ~dirty))
        self.private_dirty += int(np.count_nonzero(~shared & dirty))
        self.private_clean += int(np.count_nonzero(~shared & ~dirty))
        total = int(pss.sum())
        self.pss += total
        self.pss_anon += int(pss[anon].sum())
        self.pss_shmem += int(pss[~anon & swapbacked].sum())
        self.pss_file += int(pss[~anon & ~swapbacked].sum())
        self.pss_dirty += int(pss[dirty].sum())
        if self._locked:
            self.pss_locked += total

    def text(self, rollup: bool) -> str:
        """The lines that smaps and the rollup have in common."""
        if not self.rss and not self.swap and not rollup:
            return _EMPTY  # most areas of a process that has many
        pss = [self.pss, self.pss_dirty]
        if rollup:
            pss += [self.pss_anon, self.pss_file, self.pss_shmem]
        return (_ROLLUP if rollup else _AREA) % (
            self.rss * 4,
            *(value >> PSS_SHIFT + 10 for value in pss),
            self.shared_clean * 4,
            self.shared_dirty * 4,
            self.private_clean * 4,
            self.private_dirty * 4,
            self.referenced * 4,
            self.anonymous * 4,
            0,
            self.lazyfree * 4,
            self.anon_huge * 4,
            self.shmem_pmd * 4,
            self.file_pmd * 4,
            0,
            0,
            self.swap * 4,
            self.swap * 4,
            self.pss_locked >> PSS_SHIFT + 10,
        )


def _lines(keys: str) -> str:
    """A template of lines, one number of kB each."""
    return "".join(f"{key + ':':16}%8d kB\n" for key in keys.split())


_COMMON: Final = (
    " Shared_Clean Shared_Dirty Private_Clean Private_Dirty Referenced Anonymous KSM LazyFree AnonHugePages"
    " ShmemPmdMapped FilePmdMapped Shared_Hugetlb Private_Hugetlb Swap SwapPss Locked"
)
_AREA: Final = _lines("Rss Pss Pss_Dirty" + _COMMON)
_ROLLUP: Final = _lines("Rss Pss Pss_Dirty Pss_Anon Pss_File Pss_Shmem" + _COMMON)
_EMPTY: Final = _AREA % ((0,) * _AREA.count("%"))
_SIZES: Final = _lines("Size KernelPageSize MMUPageSize")
_END: Final = "THPeligible:    %8d\n%sVmFlags: %s\n"


def _letters(flags: int) -> str:
    """VmFlags in letters, each with a blank behind it."""
    return "".join(f"{letters} " for bit, letters in FLAG_LETTERS.items() if flags & bit)


def _area(head: str, pages: int, stats: MemSizeStats, eligible: bool, pkey: int | None, letters: str) -> str:
    """``pkey`` None: the CPU has no protection keys."""
    key = f"ProtectionKey:  {pkey:8}\n" if pkey is not None else ""
    return head + _SIZES % (pages * 4, 4, 4) + stats.text(False) + _END % (eligible, key, letters)


def smaps(mm: MmStruct) -> str:
    """/proc/PID/smaps."""
    pku = mm.ctx.pku
    parts = []
    letters: dict[int, str] = {}  # areas have few different flags
    for vma in mm.areas():
        flags = vma.flags
        if flags not in letters:
            letters[flags] = _letters(flags)
        stats = MemSizeStats(mm)
        stats.gather(vma)
        pkey = (vma.page_prot & PKEY_MASK) >> PKEY_SHIFT if pku else None
        eligible = hugepage_vma_check(vma, smaps=True)
        parts.append(_area(maps_line(mm, vma), vma.pages, stats, eligible, pkey, letters[flags]))
    # The vsyscall page belongs to no address space and may only be executed.
    parts.append(_area(VSYSCALL_LINE, 1, MemSizeStats(mm), False, 0 if pku else None, _letters(VM_EXEC)))
    return "".join(parts)


def smaps_rollup(mm: MmStruct) -> str:
    """/proc/PID/smaps_rollup: one entry for all areas, from the first one's start to the last one's end."""
    areas = mm.areas()
    stats = MemSizeStats(mm)
    for vma in areas:
        stats.gather(vma)
    start, end = (areas[0].start, areas[-1].end) if areas else (0, 0)
    head = f"{start:08x}-{end:08x} ---p 00000000 00:00 0 "
    return f"{head:73}[rollup]\n" + stats.text(True)
