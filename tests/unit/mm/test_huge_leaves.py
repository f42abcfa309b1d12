# SPDX-License-Identifier: GPL-2.0-or-later
"""Many huge leaves at once do what one after the other does: zap, fork, mprotect."""

from __future__ import annotations

import errno

import pytest

from memtwin.abi.mman import (
    MADV_DONTNEED,
    MADV_HUGEPAGE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)
from memtwin.machine import Machine
from memtwin.mm import page_table
from memtwin.mm.fault_inject import FaultInjection
from memtwin.mm.huge_split import split_huge_page

RW = PROT_READ | PROT_WRITE
MIB2 = 2 << 20
AT = 0x103FE00000  #: one block below the end of a GiB
BLOCKS = 24

pytestmark = pytest.mark.interpreted


def filled(m, prot=RW):
    """Blocks of all kinds: huge pages, some written by a second thread of touches, the huge zero page, small pages,
    nothing, a page in pieces; across the end of a middle table.
    """
    p = m.spawn()
    p.mmap(AT, BLOCKS * MIB2, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
    p.madvise(AT, BLOCKS * MIB2, MADV_HUGEPAGE)
    for i in range(BLOCKS):
        if i == 9:
            continue
        if i in (11, 12, 13, 21):
            p.read(AT + i * MIB2, 1)
        else:
            p.write(AT + i * MIB2 + i * 5000, bytes([i + 1]))
    p.madvise(AT + 15 * MIB2 + 8192, 12288, MADV_DONTNEED)
    return p


def seen(m, *processes):
    """What can be told of it."""
    m.check()
    kernel = m.kernel
    free = kernel.page_alloc.nr_free_pages() + kernel.page_alloc.nr_pcp_pages()
    told = [
        {
            name: getattr(kernel.events, name)
            for name in ("pgfault", "thp_split_pmd", "thp_deferred_split_page", "pgfree")
        },
        [
            (stat.nr_anon_pages, stat.nr_anon_transparent_hugepages, stat.nr_page_table_pages)
            for stat in kernel.mm_ctx.node_stats
        ],
        (kernel.mm_ctx.thp.folios, kernel.mm_ctx.thp.zero_users, free),
        (kernel.work.ptes, kernel.work.pages_copied),
    ]
    for process in processes:
        told += [
            process.read_file("/proc/self/smaps_rollup"),
            process.mm.pgtables_bytes,
            sorted(process.mm.deposits),
            [
                process.read(AT + i * MIB2 + i * 5000, 2)
                for i in range(BLOCKS)
                if (AT + i * MIB2) >> 21 in process.mm.deposits and process.vmas()
            ],
        ]
    return told


def dontneed(m):
    p = filled(m)
    told = seen(m, p)
    p.madvise(AT + MIB2 + 4096, 20 * MIB2, MADV_DONTNEED)
    told += seen(m, p)
    p.munmap(AT, BLOCKS * MIB2)
    told += seen(m, p)
    p.exit()
    return told + seen(m)


def fork(m):
    p = filled(m)
    q = p.fork()
    told = seen(m, p, q)
    q.write(AT + 3 * MIB2, b"q")
    p.munmap(AT + 4 * MIB2 + 4096, 4096)
    told += seen(m, p, q)
    q.madvise(AT, 8 * MIB2, MADV_DONTNEED)
    told += seen(m, p, q)
    p.exit()
    told += seen(m, q)
    q.exit()
    return told + seen(m)


def rights(m):
    p = filled(m)
    told = seen(m, p)
    for prot in (PROT_READ, 0, RW, PROT_READ | PROT_EXEC, RW):
        p.mprotect(AT, BLOCKS * MIB2, prot)
        entries = [m.kernel.ram.q[m.kernel.mm_ctx.pt.lookup(p.mm, slot << 21)[0]] for slot in sorted(p.mm.deposits)]
        told.append([entry & ~(((1 << 40) - 1) << 12) for entry in entries])
        m.check()
    q = p.fork()
    p.mprotect(AT, BLOCKS * MIB2, PROT_READ)
    p.mprotect(AT, BLOCKS * MIB2, RW)
    told += seen(m, p, q)
    for process in (p, q):
        process.exit()
    return told + seen(m)


def executable(m):
    p = filled(m, RW | PROT_EXEC)
    told = seen(m, p)
    q = p.fork()
    p.madvise(AT, 20 * MIB2, MADV_DONTNEED)
    told += seen(m, p, q)
    for process in (q, p):
        process.exit()
    return told + seen(m)


@pytest.mark.parametrize("kernel", ["6.7", "6.18"])
@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("scenario", [dontneed, fork, rights, executable])
def test_many_are_like_one_after_the_other(monkeypatch, scenario, nodes, kernel):
    told = []
    for few in (4, 1000):
        monkeypatch.setattr(page_table, "FEW_HUGE", few)
        with Machine("256M", kernel=kernel, nodes=nodes) as m:
            told.append(scenario(m))
            m.kernel.check_no_leak()
    assert told[0] == told[1]


def test_a_fork_without_memory_for_tables_gives_everything_back():
    """Whichever table it lacks."""
    with Machine("256M") as m:
        p = filled(m)
        alloc = m.kernel.page_alloc
        failed = 0
        for nth in range(1, 200):
            alloc.fault = FaultInjection(fail_nth=nth, slabs=False)
            try:
                p.fork().exit()
            except OSError as error:
                assert error.errno == errno.ENOMEM
                failed += 1
            done = not alloc.fault.failed
            alloc.fault = None
            m.check()
            if done:
                break
        assert done
        assert failed > BLOCKS - 4  # one a table in reserve, at least
        assert p.read(AT + 5 * MIB2 + 25000, 1) == bytes([6])
        p.exit()
        m.kernel.check_no_leak()


class Splits(FaultInjection):
    """Reclaim, in the ``nth`` allocation, splits the huge page ``head``; nothing fails."""

    def __init__(self, ctx, head, nth):
        super().__init__(slabs=False)
        self.ctx, self.head, self.nth = ctx, head, nth

    def should_fail_page(self, gfp, order):
        self.nth -= 1
        if not self.nth:
            assert split_huge_page(self.ctx, self.head)
        return False


@pytest.mark.parametrize("blocks", [1, 8])
def test_a_huge_page_that_is_split_while_fork_looks_for_memory(blocks):
    for nth in range(1, 14):
        with Machine("128M") as m:
            p = m.spawn()
            p.mmap(AT + MIB2, blocks * MIB2, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
            p.madvise(AT + MIB2, blocks * MIB2, MADV_HUGEPAGE)
            for i in range(blocks):
                p.write(AT + (i + 1) * MIB2 + 4096, bytes([i + 1]))
            ctx = m.kernel.mm_ctx
            last = AT + blocks * MIB2
            head = (m.kernel.ram.q[ctx.pt.lookup(p.mm, last)[0]] & (1 << 52) - 4096) >> 12
            m.kernel.page_alloc.fault = Splits(ctx, head, nth)
            q = p.fork()
            split = m.kernel.page_alloc.fault.nth <= 0
            m.kernel.page_alloc.fault = None
            m.check()
            assert (m.kernel.events.thp_split_page == 1) == split
            for i in range(blocks):
                assert q.read(AT + (i + 1) * MIB2 + 4096, 1) == bytes([i + 1])
            q.write(last + 4096, b"q")
            assert p.read(last + 4096, 1) == bytes([blocks])
            for process in (p, q):
                process.exit()
            m.check()
            m.kernel.check_no_leak()


def test_a_poisoned_frame_of_one_of_many_does_not_come_back():
    with Machine("256M") as m:
        p = filled(m)
        ctx = m.kernel.mm_ctx
        head = (m.kernel.ram.q[ctx.pt.lookup(p.mm, AT + 2 * MIB2)[0]] & (1 << 52) - 4096) >> 12
        m.kernel.page_alloc.set_hwpoison(head + 5)
        p.munmap(AT, BLOCKS * MIB2)
        m.check()
        assert sum(zone.poisoned for zone in m.kernel.page_alloc.zones) == 1
        assert [m.kernel.page_alloc.is_free_buddy_page(head + i) for i in (4, 5, 6)] == [True, False, True]
        p.exit()
        m.check()
