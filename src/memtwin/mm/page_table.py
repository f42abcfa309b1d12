# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables: walking, allocating, freeing, and the one iterator that all work on ranges goes through (architecture,
section 3).

The tables are real x86-64 tables in simulated RAM. A table's frame carries PG_TABLE; ``pages.private`` of it counts
its non-empty entries. ``mm.pte_tables`` caches where each last-level table is; only this module changes it.

A huge leaf of 2 MiB keeps a last-level table in reserve (``mm.deposits``), so that splitting it can not fail; it
counts in ``pgtables_bytes`` like any other. A huge leaf without access has PROT_NONE instead of PRESENT, as a small
entry would.

A range operation is an object with three methods (:class:`RangeOp`): ``few`` for a handful of entries, as plain code
on single words (below about 40 entries that is faster than NumPy, measured), ``rows`` for batches of whole tables,
``huge`` for leaves above the last level. :func:`PageTables.walk_range` decides which one to call; callers do not.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from memtwin.errors import InvariantBroken
from memtwin.hw.paging import ENTRIES, PFN_MASK, PGD_SHIFT, PMD_SHIFT, PRESENT, PROT_NONE, PSE, PUD_SHIFT, TABLE_FLAGS
from memtwin.hw.ram import Ram
from memtwin.hw.work import Work
from memtwin.lib.gfp_types import GFP_KERNEL_ACCOUNT, ZERO
from memtwin.mm.mm_types import MmStruct
from memtwin.mm.page import PG_TABLE, PageArrays
from memtwin.mm.page_alloc import PageAllocator
from memtwin.mm.vmstat import NodeStat

__all__ = ["HUGE_LEAF", "HugeLeaves", "LeafRows", "PageTables", "RangeOp"]

GFP_PGTABLE: Final = GFP_KERNEL_ACCOUNT | ZERO
#: Up to this many entries scalar code is faster than NumPy (measured crossover 32-64).
FEW: Final = 40
#: From so many huge leaves on doing all at once is faster.
FEW_HUGE: Final = 4
#: Tables gathered at once: 128 rows are 512 KiB of entries. From 1 MiB on NumPy's temporary arrays come from the host
#: anew each time, which costs more than what is done to them (measured: 32 to 128 rows alike, 256 half as fast).
BATCH_ROWS: Final = 128
#: What :meth:`PageTables.pte_alloc` says where a huge leaf came in between.
HUGE_LEAF: Final = -1
_LAST: Final = ENTRIES - 1


class LeafRows:
    """A batch of last-level tables: ``n`` rows of entries ``[lo, hi)``, the same columns in each.

    ``addr`` int64[n]: virtual address of entry 0 of each row; ``table`` int64[n]: frame of each table.
    """

    __slots__ = ("_ram", "addr", "hi", "lo", "table")

    def __init__(
        self, ram: Ram, addr: npt.NDArray[np.int64], table: npt.NDArray[np.int64], lo: int = 0, hi: int = ENTRIES
    ) -> None:
        self._ram = ram
        self.addr = addr
        self.table = table
        self.lo = lo
        self.hi = hi

    def gather(self) -> npt.NDArray[np.uint64]:
        """The entries as a fresh uint64[n, hi - lo]."""
        if len(self.table) == 1:
            return self._ram.frames[self.table[0], self.lo : self.hi].reshape(1, -1).copy()
        return self._ram.frames[self.table, self.lo : self.hi]

    def scatter(self, entries: npt.NDArray[np.uint64]) -> None:
        """Write entries of the shape that :meth:`gather` returned."""
        self._ram.frames[self.table, self.lo : self.hi] = entries

    def page_addr(self) -> npt.NDArray[np.int64]:
        """Virtual address of every entry, int64[n, hi - lo]."""
        return self.addr[:, None] + (np.arange(self.lo, self.hi, dtype=np.int64) << 12)


class RangeOp(Protocol):
    """What is done to the leaves of a range."""

    def few(self, index: int, count: int, addr: int) -> None:
        """``count`` entries from ``ram.q[index]`` on, all in one table, the first mapping ``addr``."""

    def rows(self, batch: LeafRows) -> None:
        """Whole or partial tables."""

    def huge(self, index: int, order: int, addr: int) -> None:
        """The leaf ``ram.q[index]`` maps ``4096 << order`` bytes at ``addr``; it may reach beyond the range."""


#: What is done to several huge leaves of one middle table at once: their indices in ``ram.q`` and their addresses,
#: int64[n] each, ascending.
HugeLeaves = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], None]


class PageTables:
    """Allocation and walking of page tables; one object a machine."""

    __slots__ = ("_alloc", "_node_stats", "_pages", "_pfn_to_nid", "_q", "_ram", "_work", "kernel_entries")

    def __init__(
        self,
        ram: Ram,
        pages: PageArrays,
        alloc: PageAllocator,
        node_stats: list[NodeStat],
        pfn_to_nid: Callable[[int], int],
        work: Work,
    ) -> None:
        self._ram = ram
        self._q = ram.q
        self._pages = pages
        self._alloc = alloc
        self._node_stats = node_stats
        self._pfn_to_nid = pfn_to_nid
        self._work = work
        #: Top-level entries (index, value) that every address space shares: the CPU's supervisor page.
        self.kernel_entries: list[tuple[int, int]] = []

    # -- tables ---------------------------------------------------------------------------------------------------

    def _table_alloc(self) -> int:
        pfn = self._alloc.alloc_pages(GFP_PGTABLE)
        if pfn:
            self._pages.flags[pfn] |= PG_TABLE
            self._node_stats[self._pfn_to_nid(pfn)].nr_page_table_pages += 1
        return pfn

    def _table_free(self, pfn: int) -> None:
        """Every entry of the table has been cleared, so its frame holds zeroes again."""
        pages = self._pages
        pages.flags[pfn] &= ~PG_TABLE
        pages.private[pfn] = 0
        self._node_stats[self._pfn_to_nid(pfn)].nr_page_table_pages -= 1
        self._alloc.free_pages(pfn)

    def pgd_alloc(self) -> int:
        """A new top-level table with the entries all address spaces share; its frame, or 0 without memory."""
        pfn = self._table_alloc()
        if pfn:
            for index, value in self.kernel_entries:
                self._q[(pfn << 9) + index] = value
        return pfn

    def pgd_free(self, pfn: int) -> None:
        """Free a top-level table whose user entries are all gone."""
        for index, _ in self.kernel_entries:
            self._q[(pfn << 9) + index] = 0
        self._table_free(pfn)

    def pte_alloc(self, mm: MmStruct, addr: int) -> int:
        """Index in ``ram.q`` of entry 0 of the last-level table for ``addr``, allocating what is missing; 0 without
        memory, HUGE_LEAF if another thread mapped a huge leaf while the allocation slept.
        """
        base = mm.pte_tables.get(addr >> PMD_SHIFT)
        if base is not None:
            return base
        index = self.pmd_alloc(mm, addr)
        if not index:
            return 0
        entry = self._q[index]
        if entry:
            raise InvariantBroken(f"a page table asked for at {addr:#x}, where a huge leaf is")
        table = self._table_alloc()
        if not table:
            return 0
        base = mm.pte_tables.get(addr >> PMD_SHIFT)
        if base is not None:  # the allocation slept, and another thread was faster
            self._table_free(table)
            return base
        if self._q[index]:
            self._table_free(table)
            return HUGE_LEAF
        mm.pgtables_bytes += 4096
        self.install_table(mm, addr, index, table)
        return table << 9

    def pmd_alloc(self, mm: MmStruct, addr: int) -> int:
        """Index in ``ram.q`` of the entry that covers the 2 MiB around ``addr``, allocating the tables above; 0 without
        memory.
        """
        q = self._q
        table = mm.pgd
        for shift in (PGD_SHIFT, PUD_SHIFT):
            index = (table << 9) + (addr >> shift & _LAST)
            entry = q[index]
            if not entry & PRESENT:
                child = self._table_alloc()
                if not child:
                    return 0
                if q[index]:  # the allocation slept, and another thread was faster
                    self._table_free(child)
                    return self.pmd_alloc(mm, addr)
                q[index] = entry = child << 12 | TABLE_FLAGS
                self._pages.private[table] += 1
                mm.pgtables_bytes += 4096
            elif entry & PSE and shift != PGD_SHIFT:
                raise InvariantBroken(f"a page table asked for at {addr:#x}, where a huge leaf is")
            table = (entry & PFN_MASK) >> 12
        return (table << 9) + (addr >> PMD_SHIFT & _LAST)

    def pud_none(self, mm: MmStruct, addr: int) -> bool:
        """Whether nothing at all, not even a table, is there for the GiB around ``addr``."""
        entry = self._q[(mm.pgd << 9) + (addr >> PGD_SHIFT & _LAST)]
        return not entry & PRESENT or not self._q[((entry & PFN_MASK) >> 3) + (addr >> PUD_SHIFT & _LAST)]

    def install_table(self, mm: MmStruct, addr: int, index: int, table: int) -> None:
        """Let the entry ``index``, empty or a huge leaf, point to the last-level table ``table``, counted already."""
        if not self._q[index]:
            self._pages.private[index >> 9] += 1
        self._q[index] = table << 12 | TABLE_FLAGS
        mm.pte_tables[addr >> PMD_SHIFT] = table << 9

    def remove_table(self, mm: MmStruct, addr: int, index: int) -> int:
        """Take the last-level table for ``addr`` out of the entry ``index``; its frame, still counted."""
        base = mm.pte_tables.pop(addr >> PMD_SHIFT)
        self._q[index] = 0
        self._pages.private[index >> 9] -= 1
        return base >> 9

    # -- tables in reserve for huge leaves (Linux: pgtable_trans_huge_deposit and _withdraw) ------------------------

    def pte_alloc_one(self, mm: MmStruct) -> int:
        """A table for a huge leaf to come; its frame, counted, or 0 without memory."""
        table = self._table_alloc()
        if table:
            mm.pgtables_bytes += 4096
        return table

    def pte_alloc_bulk(self, mm: MmStruct, count: int) -> list[int]:
        """Tables for as many huge leaves to come; fewer without memory."""
        pfns = self._alloc.alloc_bulk(GFP_PGTABLE, count)
        tables: list[int] = pfns.tolist()
        if tables:
            self._pages.vec.flags[pfns] |= np.uint32(PG_TABLE)
            self._count_tables(tables, 1)
            mm.pgtables_bytes += 4096 * len(tables)
        return tables

    def _count_tables(self, tables: list[int], sign: int) -> None:
        if len(self._node_stats) == 1:
            self._node_stats[0].nr_page_table_pages += sign * len(tables)
            return
        for table in tables:
            self._node_stats[self._pfn_to_nid(table)].nr_page_table_pages += sign

    def pte_free(self, mm: MmStruct, table: int) -> None:
        """Free an empty last-level table that is in no entry."""
        mm.pgtables_bytes -= 4096
        self._table_free(table)

    def pte_free_bulk(self, mm: MmStruct, tables: list[int]) -> None:
        """The same for many."""
        vec = self._pages.vec
        pfns = np.array(tables, dtype=np.int64)
        vec.flags[pfns] &= np.uint32(~PG_TABLE & 0xFFFFFFFF)
        vec.private[pfns] = 0
        self._count_tables(tables, -1)
        mm.pgtables_bytes -= 4096 * len(tables)
        self._alloc.free_bulk(pfns)

    def set_huge(self, mm: MmStruct, addr: int, index: int, entry: int, table: int) -> None:
        """Let the empty entry ``index`` be the huge leaf ``entry`` for ``addr``, with ``table`` in reserve."""
        self._q[index] = entry
        self._pages.private[index >> 9] += 1
        mm.deposits[addr >> PMD_SHIFT] = table

    def set_huge_leaves(
        self,
        mm: MmStruct,
        addrs: npt.NDArray[np.int64],
        indices: npt.NDArray[np.int64],
        entries: npt.NDArray[np.uint64],
        tables: list[int],
    ) -> None:
        """The same for many huge leaves of one middle table."""
        self._ram.words[indices] = entries
        self._pages.private[int(indices[0]) >> 9] += len(indices)
        mm.deposits.update(zip((addrs >> PMD_SHIFT).tolist(), tables, strict=True))

    def clear_huge(self, mm: MmStruct, addr: int, index: int) -> int:
        """Empty the entry of a huge leaf; the frame of the table in reserve."""
        self._q[index] = 0
        self._pages.private[index >> 9] -= 1
        return mm.deposits.pop(addr >> PMD_SHIFT)

    def clear_huge_leaves(
        self, mm: MmStruct, indices: npt.NDArray[np.int64], addrs: npt.NDArray[np.int64]
    ) -> list[int]:
        """The same for many huge leaves of one middle table (see HugeLeaves)."""
        self._ram.words[indices] = 0
        self._pages.private[int(indices[0]) >> 9] -= len(indices)
        pop = mm.deposits.pop
        return [pop(slot) for slot in (addrs >> PMD_SHIFT).tolist()]

    def pte_alloc_range(self, mm: MmStruct, start: int, end: int) -> bool:
        """Have last-level tables for all of [start, end) but where huge leaves are; False without memory (what was
        allocated stays, as in Linux).
        """
        addr = start >> PMD_SHIFT << PMD_SHIFT
        while addr < end:
            if addr >> PMD_SHIFT not in mm.deposits and not self.pte_alloc(mm, addr):  # HUGE_LEAF is as good
                return False
            addr += 1 << PMD_SHIFT
        return True

    def lookup(self, mm: MmStruct, addr: int) -> tuple[int, int]:
        """The leaf entry that covers ``addr`` at any level, present or not: its index in ``ram.q`` and the shift of
        the level.

        The shift is 12, 21 or 30; (0, 0) where a table is missing.
        """
        q = self._q
        table = mm.pgd
        for shift in (PGD_SHIFT, PUD_SHIFT, PMD_SHIFT):
            index = (table << 9) + (addr >> shift & _LAST)
            entry = q[index]
            if entry & PSE and shift != PGD_SHIFT:
                return index, shift
            if not entry & PRESENT:
                return 0, 0
            table = (entry & PFN_MASK) >> 12
        return (table << 9) + (addr >> 12 & _LAST), 12

    # -- ranges ---------------------------------------------------------------------------------------------------

    def walk_range(
        self, mm: MmStruct, start: int, end: int, op: RangeOp, huge_leaves: HugeLeaves | None = None
    ) -> None:
        """Apply ``op`` to every leaf table and huge leaf of [start, end), ascending; places without tables are
        skipped. ``huge_leaves`` is called instead of ``op.huge`` where several huge leaves of 2 MiB follow each other.
        """
        first_table, last_table = start >> PMD_SHIFT, (end - 1) >> PMD_SHIFT
        if first_table == last_table:
            count = (end - start) >> 12
            base = mm.pte_tables.get(first_table)
            if base is not None and count <= FEW:
                op.few(base + (start >> 12 & _LAST), count, start)
                return
        addr = start
        while addr < end:
            stop = min((addr >> PUD_SHIFT) + 1 << PUD_SHIFT, end)
            self._walk_pud(mm, addr, stop, op, huge_leaves)
            addr = stop

    def _walk_pud(self, mm: MmStruct, start: int, end: int, op: RangeOp, huge_leaves: HugeLeaves | None) -> None:
        """[start, end) lies in one GiB: one middle table, whose entries are read in one slice."""
        q = self._q
        entry = q[(mm.pgd << 9) + (start >> PGD_SHIFT & _LAST)]
        if not entry & PRESENT:
            return
        index = ((entry & PFN_MASK) >> 3) + (start >> PUD_SHIFT & _LAST)
        entry = q[index]
        if not entry & PRESENT:
            return
        if entry & PSE:
            op.huge(index, 18, start >> PUD_SHIFT << PUD_SHIFT)
            return
        middle = (entry & PFN_MASK) >> 3
        lo = start >> PMD_SHIFT & _LAST
        hi = ((end - 1) >> PMD_SHIFT & _LAST) + 1
        entries = self._ram.words[middle + lo : middle + hi]
        addr0 = start >> PMD_SHIFT << PMD_SHIFT
        present = np.flatnonzero(entries & np.uint64(PRESENT | PROT_NONE))
        is_huge = (entries[present] & np.uint64(PSE)) != 0
        if not is_huge.any():
            self._rows(start, end, addr0, present, entries, op)
            return
        edges = [0, *(np.flatnonzero(np.diff(is_huge)) + 1).tolist(), len(present)]
        for first, last in pairwise(edges):
            run = present[first:last]
            if not is_huge[first]:
                self._rows(start, end, addr0, run, entries, op)
            elif huge_leaves is not None and len(run) >= FEW_HUGE and ((entries[run] & np.uint64(PSE)) != 0).all():
                places = run.astype(np.int64)
                huge_leaves(middle + lo + places, addr0 + (places << PMD_SHIFT))
            else:
                for i in range(first, last):
                    at = int(present[i])
                    if int(entries[at]) & PSE:
                        op.huge(middle + lo + at, 9, addr0 + (at << PMD_SHIFT))
                    else:  # it was split meanwhile
                        self._rows(start, end, addr0, present[i : i + 1], entries, op)

    def _rows(
        self,
        start: int,
        end: int,
        addr0: int,
        present: npt.NDArray[np.intp],
        entries: npt.NDArray[np.uint64],
        op: RangeOp,
    ) -> None:
        """``present`` counts the ``entries`` that point to tables. They are looked at again right before each use: an
        ``op`` that waits, as populating does, may find tables gone that were there when it began.
        """
        addr = addr0 + (present.astype(np.int64) << PMD_SHIFT)
        first, last = 0, len(present)
        if last and start > addr[0]:
            stop = min(end, int(addr[0]) + (1 << PMD_SHIFT))
            self._partial(int(entries[present[0]]), int(addr[0]), start, stop, op)
            first = 1
        tail = last > first and end < addr[last - 1] + (1 << PMD_SHIFT)
        if tail:
            last -= 1
        for i in range(first, last, BATCH_ROWS):
            rows = slice(i, min(i + BATCH_ROWS, last))
            table, at = entries[present[rows]], addr[rows]
            there = table & np.uint64(PRESENT | PSE) == np.uint64(PRESENT)
            if not there.all():
                table, at = table[there], at[there]
                if not len(at):
                    continue
            op.rows(LeafRows(self._ram, at, ((table & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)))
        if tail:
            self._partial(int(entries[present[last]]), int(addr[last]), int(addr[last]), end, op)

    def _partial(self, entry: int, row_addr: int, start: int, end: int, op: RangeOp) -> None:
        if entry & (PRESENT | PSE) != PRESENT:
            return
        table = (entry & PFN_MASK) >> 12
        lo, hi = (start - row_addr) >> 12, (end - row_addr) >> 12
        if hi - lo <= FEW:
            op.few((table << 9) + lo, hi - lo, start)
        else:
            op.rows(LeafRows(self._ram, np.array([row_addr]), np.array([table]), lo, hi))

    # -- freeing --------------------------------------------------------------------------------------------------

    def free_pgtables(self, mm: MmStruct, start: int, end: int, floor: int, ceiling: int) -> None:
        """Free the tables of [start, end), whose leaves have been cleared and which lies in the hole [floor, ceiling):
        those that lie wholly in the hole.
        """
        row = start >> PMD_SHIFT << PMD_SHIFT
        if end - row <= 1 << PMD_SHIFT:
            # One last-level table, nearly always: plain code, NumPy would cost more than all the rest of munmap.
            if floor <= row and row + (1 << PMD_SHIFT) <= ceiling:
                self._free_path(mm, row, floor, ceiling)
            return
        self._free_level(mm, mm.pgd, PGD_SHIFT, 0, start, end, floor, ceiling)

    def free_empty_tables(self, mm: MmStruct, start: int, end: int) -> None:
        """Free the last-level tables whose 2 MiB lie in [start, end) and which have no entries (post-pt-reclaim). Takes
        ``page_table_lock``: faults that found a table without it look again once they have it.
        """
        first, last = -(-start >> PMD_SHIFT), end >> PMD_SHIFT
        private = self._pages.private
        mm.page_table_lock.lock()
        slots = range(first, last) if last - first < len(mm.pte_tables) else sorted(mm.pte_tables)
        for slot in slots:
            base = mm.pte_tables.get(slot) if first <= slot < last else None
            if base is not None and not private[base >> 9]:
                index = self.pmd_alloc(mm, slot << PMD_SHIFT)
                self.pte_free(mm, self.remove_table(mm, slot << PMD_SHIFT, index))
        mm.page_table_lock.unlock()

    def _free_path(self, mm: MmStruct, addr: int, floor: int, ceiling: int) -> None:
        """Free the last-level table at ``addr``, which lies in the hole, and what it leaves empty above."""
        q, private = self._q, self._pages.private
        path: list[tuple[int, int]] = []  # index of an entry, and the shift of its level
        table = mm.pgd
        for shift in (PGD_SHIFT, PUD_SHIFT, PMD_SHIFT):
            index = (table << 9) + (addr >> shift & _LAST)
            entry = q[index]
            if not entry & PRESENT or (entry & PSE and shift != PGD_SHIFT):
                break
            path.append((index, shift))
            table = (entry & PFN_MASK) >> 12
        for index, shift in reversed(path):
            child = (q[index] & PFN_MASK) >> 12
            base = addr >> shift << shift
            if private[child] or base < floor or base + (1 << shift) > ceiling:
                return
            if shift == PMD_SHIFT:
                mm.pte_tables.pop(addr >> PMD_SHIFT, None)
            q[index] = 0
            private[index >> 9] -= 1
            mm.pgtables_bytes -= 4096
            self._table_free(child)

    def _free_level(
        self, mm: MmStruct, table: int, shift: int, base: int, start: int, end: int, floor: int, ceiling: int
    ) -> None:
        """Free the children of ``table`` (whose entries cover ``1 << shift`` bytes, the first one ``base``) that cover
        a part of [start, end) and lie in the hole.
        """
        q, private = self._q, self._pages.private
        span = 1 << shift
        lo = max(start - base, 0) >> shift
        hi = min((end - base + span - 1) >> shift, ENTRIES if shift != PGD_SHIFT else ENTRIES // 2)
        row = table << 9
        words = self._ram.words[row + lo : row + hi]
        for i in np.flatnonzero(words & np.uint64(PRESENT)).tolist():
            index = row + lo + i
            entry = q[index]
            if entry & PSE and shift != PGD_SHIFT:
                continue
            child = (entry & PFN_MASK) >> 12
            addr = base + ((lo + i) << shift)
            if shift > PMD_SHIFT:
                self._free_level(mm, child, shift - 9, addr, start, end, floor, ceiling)
            if addr >= floor and addr + span <= ceiling and not private[child]:
                if shift == PMD_SHIFT:
                    mm.pte_tables.pop(addr >> PMD_SHIFT, None)
                q[index] = 0
                private[table] -= 1
                mm.pgtables_bytes -= 4096
                self._table_free(child)
