# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables: what a walk visits, scalar and vectorised alike, at all three leaf sizes; tables made and freed."""

import random

import numpy as np
import pytest

from memtwin import Machine
from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ
from memtwin.errors import InvariantBroken
from memtwin.hw.paging import PMD_SIZE, PRESENT, PSE, PUD_SIZE, RW, USER
from memtwin.mm import page_table

LEAF = PRESENT | USER | RW


class Record:
    """A range operation that notes every non-empty leaf it is shown."""

    def __init__(self, kernel):
        self.q = kernel.ram.q
        self.seen = []
        self.calls = []

    def few(self, index, count, addr):
        self.calls.append("few")
        self.seen += [(addr + (i << 12), 12, self.q[index + i]) for i in range(count) if self.q[index + i]]

    def rows(self, batch):
        self.calls.append("rows")
        entries, addr = batch.gather(), batch.page_addr()
        used = entries != 0
        self.seen += [(a, 12, e) for a, e in zip(addr[used].tolist(), entries[used].tolist(), strict=True)]

    def huge(self, index, order, addr):
        self.calls.append("huge")
        self.seen.append((addr, order + 12, self.q[index]))


@pytest.fixture
def machine():
    with Machine("64M") as machine:
        yield machine


def set_leaf(kernel, mm, addr, shift, entry):
    """Install a leaf of 4 KiB, 2 MiB or 1 GiB by hand."""
    base = kernel.pt.pte_alloc(mm, addr)
    if shift == 12:
        kernel.ram.q[base + (addr >> 12 & 511)] = entry
        return
    # Walk down to the table of the wanted level; the last-level table that was made on the way is left unused.
    del mm.pte_tables[addr >> 21]
    q, table = kernel.ram.q, mm.pgd
    for level in range(39, shift, -9):
        table = (q[(table << 9) + (addr >> level & 511)] & 0x000F_FFFF_FFFF_F000) >> 12
    q[(table << 9) + (addr >> shift & 511)] = entry | PSE


@pytest.mark.parametrize("few", [0, 40, 10**9], ids=["always-rows", "default", "always-few"])
def test_walk_shows_exactly_the_leaves_of_the_range(machine, monkeypatch, few):
    monkeypatch.setattr(page_table, "FEW", few)
    kernel = machine.kernel
    rng = random.Random(few)
    for trial in range(40):
        mm = kernel.mm_alloc()
        start = rng.randrange(0, 1 << 35) << 12
        span = rng.choice([3, 600, 5000, 600_000])
        leaves = {}
        for _ in range(rng.randrange(1, 60)):
            addr = start + (rng.randrange(span) << 12)
            leaves[addr] = rng.randrange(1, 1000) << 12 | LEAF
            set_leaf(kernel, mm, addr, 12, leaves[addr])
        lo = start + (rng.randrange(span) << 12)
        hi = lo + (rng.randrange(1, span + 1) << 12)
        record = Record(kernel)
        kernel.pt.walk_range(mm, lo, hi, record)
        expected = [(addr, 12, entry) for addr, entry in sorted(leaves.items()) if lo <= addr < hi]
        assert record.seen == expected, f"trial {trial}"


def test_huge_leaves_are_shown_once_in_place(machine):
    kernel = machine.kernel
    mm = kernel.mm_alloc()
    base = 5 << 30
    set_leaf(kernel, mm, base + 4096, 12, 1 << 12 | LEAF)
    set_leaf(kernel, mm, base + PMD_SIZE, 21, 512 << 12 | LEAF)
    set_leaf(kernel, mm, base + PUD_SIZE, 30, 0 | LEAF)
    record = Record(kernel)
    kernel.pt.walk_range(mm, base, base + 2 * PUD_SIZE, record)
    assert sorted(addr_shift[:2] for addr_shift in record.seen) == [
        (base + 4096, 12),
        (base + PMD_SIZE, 21),
        (base + PUD_SIZE, 30),
    ]
    # A range inside a huge leaf shows the whole leaf.
    inside = Record(kernel)
    kernel.pt.walk_range(mm, base + PMD_SIZE + 4096, base + PMD_SIZE + 8192, inside)
    assert [(a, s) for a, s, _ in inside.seen] == [(base + PMD_SIZE, 21)]
    assert kernel.pt.lookup(mm, base + PMD_SIZE + 12345)[1] == 21
    assert kernel.pt.lookup(mm, base + PUD_SIZE + 12345)[1] == 30
    assert kernel.pt.lookup(mm, base + 4096)[1] == 12
    assert kernel.pt.lookup(mm, 1 << 46) == (0, 0)


def test_batches_are_bounded_and_partial_rows_are_cut(machine):
    kernel = machine.kernel
    mm = kernel.mm_alloc()
    base = 7 << 30
    assert kernel.pt.pte_alloc_range(mm, base, base + 600 * PMD_SIZE)
    shapes = []

    class Shapes(Record):
        def rows(self, batch):
            shapes.append((len(batch.table), batch.lo, batch.hi))

    kernel.pt.walk_range(mm, base + 100 * 4096, base + 600 * PMD_SIZE - 200 * 4096, Shapes(kernel))
    assert sum(n for n, _, _ in shapes) == 600
    assert max(n for n, _, _ in shapes) <= page_table.BATCH_ROWS
    assert shapes[0] == (1, 100, 512) and shapes[-1] == (1, 0, 312)


def test_scatter_writes_what_gather_read(machine):
    kernel = machine.kernel
    mm = kernel.mm_alloc()
    base = 9 << 30
    kernel.pt.pte_alloc_range(mm, base, base + 4 * PMD_SIZE)

    class Fill(Record):
        def rows(self, batch):
            entries = batch.gather()
            entries[:] = (batch.page_addr() >> 12).astype(np.uint64)
            assert not batch.gather().any(), "gather must be a copy"
            batch.scatter(entries)

    kernel.pt.walk_range(mm, base + 4096 * 50, base + 4 * PMD_SIZE, Fill(kernel))
    for addr in (base + 50 * 4096, base + PMD_SIZE, base + 4 * PMD_SIZE - 4096):
        assert kernel.ram.q[kernel.pt.lookup(mm, addr)[0]] == addr >> 12
    assert kernel.ram.q[kernel.pt.lookup(mm, base + 49 * 4096)[0]] == 0


def test_tables_are_counted_and_given_back(machine):
    kernel = machine.kernel
    before = kernel.page_alloc.nr_free_pages() + kernel.page_alloc.nr_pcp_pages()
    process = machine.spawn()
    mm = process.mm
    addr = process.mmap(0, 64 << 20, PROT_READ)
    process.populate(addr, 64 << 20, write=False)
    # 32 tables for 64 MiB, or 33 when it straddles, and the levels above.
    assert 34 <= mm.pgtables_bytes >> 12 <= 36
    process.munmap(addr, 64 << 20)
    # The two tables above are shared with the range of the stack area, which is still there.
    assert mm.pgtables_bytes == 2 * 4096 and mm.pte_tables == {}
    process.exit()
    kernel.slab.shrink_all()
    assert kernel.page_alloc.nr_free_pages() + kernel.page_alloc.nr_pcp_pages() == before


def test_a_table_is_never_put_over_a_huge_leaf(machine):
    kernel = machine.kernel
    mm = kernel.mm_alloc()
    set_leaf(kernel, mm, PUD_SIZE + PMD_SIZE, 21, 512 << 12 | LEAF)
    mm.pte_tables.clear()
    with pytest.raises(InvariantBroken, match="huge leaf"):
        kernel.pt.pte_alloc(mm, PUD_SIZE + PMD_SIZE)


def test_exactly_the_tables_that_no_area_needs_are_left(machine):
    """Areas of one page to two GiB come and go: a table, at each level, is there as long as an area in its range is
    that had pages; the one row that munmap frees by plain code and the many that it frees in bulk.
    """
    rng = random.Random(5)
    process = machine.spawn()
    mm = process.mm
    sizes = (1 << 12, 3 << 12, 1 << 21, (1 << 21) + 4096, 1 << 30, 2 << 30)
    here = []
    for _ in range(300):
        if here and rng.random() < 0.45:
            start, size = here.pop(rng.randrange(len(here)))
            process.munmap(start, size)
        else:
            size = rng.choice(sizes)
            # Areas a page or a GiB apart, so that they share tables, or one of them only.
            start = (1 << 40) + rng.randrange(64) * (1 << rng.choice((13, 22, 31)))
            if any(start < s + n and s < start + size for s, n in here):
                continue
            process.mmap(start, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
            process.touch(start, False)
            process.touch(start + size - 4096, False)
            here.append((start, size))
        needed = set()
        for start, size in here:
            for addr in (start, start + size - 4096):
                needed |= {(shift, addr >> shift) for shift in (39, 30, 21)}
        # Only touched pages have tables.
        assert mm.pgtables_bytes == 4096 * len(needed) and set(mm.pte_tables) == {at for s, at in needed if s == 21}
        if rng.random() < 0.1:
            machine.check()
    process.exit()
    machine.check()
