# SPDX-License-Identifier: GPL-2.0-or-later
"""Recomputes what the address spaces keep incrementally: counters from areas, RSS and mapcounts from the page tables
themselves.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from memtwin.hw.paging import ENTRIES, PFN_MASK, PGD_SHIFT, PMD_SHIFT, PRESENT, PROT_NONE, PSE, PUD_SHIFT, SPECIAL
from memtwin.mm.check import require
from memtwin.mm.context import MmContext
from memtwin.mm.mm_types import (
    VM_ACCOUNT,
    VM_EXEC,
    VM_GROWSDOWN,
    VM_LOCKED,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    VmArea,
)
from memtwin.mm.page import PG_ANON, PG_TABLE
from memtwin.mm.page_table import LeafRows

__all__ = ["check_address_spaces"]


class _Totals:
    """What all tables of the machine add up to."""

    def __init__(self) -> None:
        self.mapped: list[npt.NDArray[np.int64]] = []  #: frames of all counted entries
        self.tables: dict[int, int] = {}  #: table frame -> mm id
        self.huge: dict[int, int] = {}  #: head of a huge page -> huge leaves that map it
        self.small: list[npt.NDArray[np.int64]] = []  #: frames of all counted small entries
        self.huge_zero = 0
        self.committed = 0
        self.anon_users: dict[int, int] = {}
        self.file_users: dict[int, int] = {}


def check_address_spaces(ctx: MmContext) -> None:
    """Raises InvariantBroken naming the first counter that disagrees."""
    totals = _Totals()
    for mm in ctx.mms.values():
        _check_areas(mm, totals)
        _check_tables(ctx, mm, totals)
    accounted = totals.committed + ctx.commit_leaked
    for anon_id, anon_vma in ctx.anon_vmas.items():
        users = totals.anon_users.get(anon_id, 0)
        require(anon_vma.entries == users, f"anon_vma {anon_id} counts {anon_vma.entries} links, there are {users}")
    for mapping_id, mapping in ctx.mappings.items():
        users = totals.file_users.get(mapping_id, 0)
        require(mapping.i_mmap == users, f"mapping {mapping_id} counts {mapping.i_mmap} areas, there are {users}")
        accounted += mapping.committed
    require(ctx.committed == accounted, f"Committed_AS is {ctx.committed} pages, areas and known leaks say {accounted}")
    _check_pages(ctx, totals)


def _check_areas(mm: MmStruct, totals: _Totals) -> None:
    mm.mm_mt.check()
    areas = mm.areas()
    require(len(areas) == mm.map_count, f"mm {mm.id}: map_count {mm.map_count}, {len(areas)} areas")
    true = dict.fromkeys(("total_vm", "data_vm", "exec_vm", "stack_vm"), 0)
    end = locked = 0
    for vma in areas:
        require(end <= vma.start < vma.end, f"mm {mm.id}: {vma!r} overlaps or is empty")
        require(vma.page_prot == vma.vma_page_prot(vma.flags), f"mm {mm.id}: page_prot of {vma!r}")
        require(mm.mm_mt.load(vma.start) is vma and mm.mm_mt.load(vma.end - 1) is vma, f"mm {mm.id}: tree at {vma!r}")
        end = vma.end
        true["total_vm"] += vma.pages
        kind = _vm_stat_kind(vma.flags)
        if kind:
            true[kind] += vma.pages
        _check_anon_pages(mm, vma)
        if vma.flags & VM_ACCOUNT:
            totals.committed += vma.pages
        for link in vma.anon_vma_chain:
            totals.anon_users[link.anon_vma.id] = totals.anon_users.get(link.anon_vma.id, 0) + 1
        if vma.flags & VM_LOCKED:
            locked += vma.pages
        if vma.file is not None:
            mapping_id = vma.file.mapping.id
            totals.file_users[mapping_id] = totals.file_users.get(mapping_id, 0) + 1
    if not mm.ctx.mremap_dontunmap_locked:
        require(mm.locked_vm == locked, f"mm {mm.id}: locked_vm is {mm.locked_vm}, areas say {locked}")
    for name, pages in true.items():
        kept = getattr(mm, name)
        require(kept == pages, f"mm {mm.id}: {name} is {kept}, areas say {pages}")


def _vm_stat_kind(flags: int) -> str:
    """Which counter besides total_vm an area belongs to (spec R9): written a second time, so that it can disagree."""
    if flags & VM_GROWSDOWN:
        return "stack_vm"
    if flags & (VM_WRITE | VM_EXEC) == VM_EXEC:
        return "exec_vm"
    return "data_vm" if flags & (VM_WRITE | VM_SHARED) == VM_WRITE else ""


def _check_anon_pages(mm: MmStruct, vma: VmArea) -> None:
    """Every anonymous page of an area belongs to an anon_vma that its chain reaches, or nobody finds it again."""
    owners = _Owners(mm)
    mm.ctx.pt.walk_range(mm, vma.start, vma.end, owners)
    reached = {link.anon_vma.id for link in vma.anon_vma_chain}
    require(owners.ids <= reached, f"mm {mm.id}: {vma!r} has pages of anon_vmas {sorted(owners.ids - reached)}")
    require((vma.anon_vma is None) == (not reached), f"mm {mm.id}: {vma!r} has a chain and no anon_vma, or none")


class _Owners:
    """Ids of the anon_vmas that own the anonymous pages of a range (a RangeOp that only reads)."""

    def __init__(self, mm: MmStruct) -> None:
        self._ram = mm.ctx.ram
        self._vec = mm.ctx.pages.vec
        self.ids: set[int] = set()

    def _add(self, entries: npt.NDArray[np.uint64]) -> None:
        mapped = entries[((entries & np.uint64(PRESENT | PROT_NONE)) != 0) & ((entries & np.uint64(SPECIAL)) == 0)]
        pfns = ((mapped & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        pfns = pfns[(self._vec.flags[pfns] & np.uint32(PG_ANON)) != 0]
        self.ids.update(np.unique(self._vec.mapping[pfns]).tolist())

    def few(self, index: int, count: int, addr: int) -> None:
        self._add(self._ram.words[index : index + count])

    def rows(self, batch: LeafRows) -> None:
        self._add(batch.gather())

    def huge(self, index: int, order: int, addr: int) -> None:
        self._add(self._ram.words[index : index + 1])


def _tables(ctx: MmContext, mm: MmStruct) -> Iterator[tuple[int, int, int]]:
    """(frame, shift of what one entry covers, first address) of every table below the top, parents first."""
    stack = [(mm.pgd, PGD_SHIFT, 0)]
    while stack:
        table, shift, base = stack.pop()
        if shift != PGD_SHIFT:
            yield table, shift, base
        if shift == 12:
            continue
        entries = ctx.ram.frames[table][: ENTRIES // 2 if shift == PGD_SHIFT else ENTRIES]
        for i in np.flatnonzero(entries & np.uint64(PRESENT)).tolist():
            entry = int(entries[i])
            if not (entry & PSE and shift in (PUD_SHIFT, PMD_SHIFT)):
                stack.append(((entry & PFN_MASK) >> 12, shift - 9, base + (i << shift)))


def _check_tables(ctx: MmContext, mm: MmStruct, totals: _Totals) -> None:
    count = 0
    leaves: dict[int, int] = {}
    rss = {"rss_anon": 0, "rss_file": 0, "rss_shmem": 0}
    for table, shift, base in _tables(ctx, mm):
        count += 1
        require(table not in totals.tables, f"mm {mm.id}: table frame {table:#x} is used twice")
        require(bool(ctx.pages.flags[table] & PG_TABLE), f"mm {mm.id}: frame {table:#x} is no page table")
        totals.tables[table] = mm.id
        entries = ctx.ram.frames[table]
        used = int(np.count_nonzero(entries))
        kept = ctx.pages.private[table]
        require(kept == used, f"mm {mm.id}: table {table:#x} at {base:#x} counts {kept} entries, has {used}")
        if shift == PMD_SHIFT:
            _count_huge(ctx, mm, base, entries, rss, totals)
        if shift == 12:
            leaves[base >> PMD_SHIFT] = table << 9
            _count_leaf(ctx, mm, base, entries, rss, totals)
    require(leaves == mm.pte_tables, f"mm {mm.id}: cache of last-level tables is stale")
    for slot, table in mm.deposits.items():
        require(table not in totals.tables, f"mm {mm.id}: table frame {table:#x}, in reserve, is used twice")
        require(not ctx.ram.frames[table].any(), f"mm {mm.id}: the table in reserve at {slot << PMD_SHIFT:#x} is used")
        totals.tables[table] = mm.id
    count += len(mm.deposits)
    require(mm.pgtables_bytes == count * 4096, f"mm {mm.id}: pgtables_bytes {mm.pgtables_bytes}, {count} tables")
    totals.huge_zero += mm.huge_zero
    slots = sum(int(np.count_nonzero(ctx.ram.frames[t] & np.uint64(PSE))) for t, s, _ in _tables(ctx, mm) if s == 21)
    require(slots == len(mm.deposits), f"mm {mm.id}: {len(mm.deposits)} tables in reserve for {slots} huge leaves")
    for name, true in rss.items():
        require(getattr(mm, name) == true, f"mm {mm.id}: {name} is {getattr(mm, name)}, the tables say {true}")


def _count_huge(
    ctx: MmContext,
    mm: MmStruct,
    base: int,
    entries: npt.NDArray[np.uint64],
    rss: dict[str, int],
    totals: _Totals,
) -> None:
    """The huge leaves of one middle table: each in one area, with a table in reserve."""
    for i in np.flatnonzero(entries & np.uint64(PSE)).tolist():
        addr, entry = base + (i << PMD_SHIFT), int(entries[i])
        vma = mm.mm_mt.load(addr)
        inside = vma is not None and addr + (1 << PMD_SHIFT) <= vma.end
        require(inside, f"mm {mm.id}: the huge leaf at {addr:#x} is not in one area")
        require(addr >> PMD_SHIFT in mm.deposits, f"mm {mm.id}: the huge leaf at {addr:#x} has no table in reserve")
        head = (entry & PFN_MASK) >> 12
        if entry & SPECIAL:
            if head == ctx.thp.zero_pfn:
                require(mm.huge_zero, f"mm {mm.id}: maps the huge zero page and does not hold it")
            continue
        require(ctx.pages.comp_order[head] == 9, f"mm {mm.id}: the leaf at {addr:#x} maps {head:#x}, no huge page")
        totals.huge[head] = totals.huge.get(head, 0) + 1
        totals.mapped.append(np.arange(head, head + ENTRIES, dtype=np.int64))
        rss["rss_anon"] += ENTRIES


def _count_leaf(
    ctx: MmContext,
    mm: MmStruct,
    base: int,
    entries: npt.NDArray[np.uint64],
    rss: dict[str, int],
    totals: _Totals,
) -> None:
    index = np.flatnonzero(entries)
    for first in (index[:1].tolist(), index[-1:].tolist()):
        for i in first:
            addr = base + (i << 12)
            require(mm.mm_mt.load(addr) is not None, f"mm {mm.id}: an entry at {addr:#x}, where no area is")
    mapped = entries[((entries & np.uint64(PRESENT | PROT_NONE)) != 0) & ((entries & np.uint64(SPECIAL)) == 0)]
    pfns = ((mapped & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
    totals.mapped.append(pfns)
    totals.small.append(pfns)
    anon = (ctx.pages.vec.flags[pfns] & np.uint32(PG_ANON)) != 0
    rss["rss_anon"] += int(np.count_nonzero(anon))
    for pfn in pfns[~anon].tolist():
        mapping = ctx.mappings.get(ctx.pages.mapping[pfn])
        require(mapping is not None, f"mm {mm.id}: frame {pfn:#x} is mapped and belongs to nobody")
        assert mapping is not None
        rss["rss_shmem" if mapping.shmem else "rss_file"] += 1


def _check_pages(ctx: MmContext, totals: _Totals) -> None:
    vec = ctx.pages.vec
    mapped = np.concatenate(totals.mapped) if totals.mapped else np.empty(0, dtype=np.int64)
    pfns, counts = np.unique(mapped, return_counts=True)
    wrong = np.flatnonzero(vec.mapcount[pfns] != counts)
    if len(wrong):
        pfn, count = int(pfns[wrong[0]]), int(counts[wrong[0]])
        require(False, f"frame {pfn:#x} is mapped {count} times, its mapcount says {ctx.pages.mapcount[pfn]}")
    anon = pfns[(vec.flags[pfns] & np.uint32(PG_ANON)) != 0]
    nr_anon = sum(stat.nr_anon_pages for stat in ctx.node_stats)
    require(nr_anon == len(anon), f"nr_anon_pages is {nr_anon}, {len(anon)} anonymous pages are mapped")
    nr_mapped = sum(stat.nr_mapped for stat in ctx.node_stats)
    files = len(pfns) - len(anon)
    require(nr_mapped == files, f"nr_mapped is {nr_mapped}, {files} file pages are mapped")
    _check_huge_pages(ctx, totals)
    cached = sum(len(mapping.folios) for mapping in ctx.mappings.values())
    nr_file = sum(stat.nr_file_pages for stat in ctx.node_stats)
    require(nr_file == cached, f"nr_file_pages is {nr_file}, the mappings hold {cached}")
    nr_tables = sum(stat.nr_page_table_pages for stat in ctx.node_stats)
    tables = len(totals.tables) + len(ctx.mms)
    require(nr_tables == tables, f"nr_page_table_pages is {nr_tables}, there are {tables} tables")


def _check_huge_pages(ctx: MmContext, totals: _Totals) -> None:
    """References and leaf counts of the huge anonymous pages that are mapped."""
    thp, pages = ctx.thp, ctx.pages
    small = np.concatenate(totals.small) if totals.small else np.empty(0, dtype=np.int64)
    small = small[pages.vec.comp_order[small] == 9]
    heads, counts = np.unique(small >> 9 << 9, return_counts=True)
    held = dict(zip(heads.tolist(), counts.tolist(), strict=True))
    for head in totals.huge:
        held.setdefault(head, 0)
    for head, references in held.items():
        leaves = totals.huge.get(head, 0)
        kept = pages.private[head + 1]
        require(kept == leaves, f"huge page {head:#x} counts {kept} huge leaves, there are {leaves}")
        references += leaves
        kept = pages.refcount[head]
        require(kept >= references, f"huge page {head:#x} has {kept} references, {references} entries map it")
    require(thp.folios >= len(held), f"{thp.folios} huge pages are counted, {len(held)} are mapped")
    nr_huge = sum(stat.nr_anon_transparent_hugepages for stat in ctx.node_stats)
    require(nr_huge == len(totals.huge), f"{nr_huge} huge pages counted with a huge leaf, there are {len(totals.huge)}")
    require(
        thp.zero_users == totals.huge_zero, f"{thp.zero_users} users of the huge zero page, it has {totals.huge_zero}"
    )
    for head in thp.deferred:
        require(pages.comp_order[head] == 9, f"{head:#x} waits to be split and is no huge page")
