# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge leaves that a driver made, at fork; who maps a huge page, and where, when its pieces lie apart."""

from __future__ import annotations

import pytest
from huge import AT, MIB2, RW, area, pfn_of

from memtwin.abi.mman import (
    MADV_COLD,
    MADV_DONTNEED,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MAP_SHARED,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
)
from memtwin.experiments.fault_kinds import DeviceFile
from memtwin.experiments.thp_eligibility import DeviceOps
from memtwin.hw import paging
from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.machine import Machine
from memtwin.mm import huge_split
from memtwin.mm.mm_types import VM_MIXEDMAP
from memtwin.mm.mmap import do_mmap

ELSEWHERE = 0x1000A01000


def entry_of(process, addr):
    ctx = process.mm.ctx
    return ctx.ram.q[ctx.pt.lookup(process.mm, addr)[0]]


def device(m, process, kind):
    """2 MiB of device memory, mapped by one leaf, through which a shared area was written; its first frame."""
    m.kernel.mm_ctx.thp.enabled = "always"
    memory = m.kernel.page_alloc.alloc_pages(GFP_KERNEL, 9)
    file = DeviceFile(DeviceOps(memory), pages=512)
    m.kernel.sched.run_as(process.task, do_mmap, process.mm, AT, MIB2, RW, kind | MAP_FIXED, file, 0)
    vma = process.vmas()[0]
    vma.set_flags(vma.flags | VM_MIXEDMAP)
    process.touch(AT, kind == MAP_SHARED)
    return memory


@pytest.mark.parametrize(("kind", "writable"), [(MAP_SHARED, paging.RW), (MAP_PRIVATE, 0)])
def test_fork_copies_the_leaf_of_a_driver(kind, writable):
    """It is not the huge zero page, whose user the child would be; and a shared area may go on writing."""
    with Machine("64M") as m:
        p = m.spawn()
        memory = device(m, p, kind)
        assert m.kernel.mm_ctx.thp.zero_pfn == 0
        q = p.fork()
        m.check()
        assert (q.mm.huge_zero, m.kernel.mm_ctx.thp.zero_users, m.kernel.mm_ctx.thp.zero_pfn) == (False, 0, 0)
        for process in (p, q):
            entry = entry_of(process, AT)
            assert (entry & paging.PFN_MASK) >> 12 == memory
            assert entry & paging.PSE
            assert entry & paging.RW == writable
        assert entry_of(p, AT) & paging.DIRTY or kind == MAP_PRIVATE
        assert not entry_of(q, AT) & (paging.ACCESSED | paging.DIRTY)
        for process in (p, q):
            process.exit()
            m.check()
        m.kernel.page_alloc.free_pages(memory, 9)
        m.kernel.check_no_leak()


def test_a_child_writes_through_the_shared_leaf_of_a_driver():
    """No fault, as there is the right to write."""
    with Machine("64M") as m:
        p = m.spawn()
        memory = device(m, p, MAP_SHARED)
        q = p.fork()
        faults = m.kernel.events.pgfault
        p.write(AT + 8, b"parent")
        q.write(AT + 5 * 4096, b"child")
        assert m.kernel.events.pgfault == faults
        assert p.read(AT + 5 * 4096, 5) == b"child"
        m.check()
        for process in (p, q):
            process.exit()
        m.kernel.page_alloc.free_pages(memory, 9)
        m.kernel.check_no_leak()


def apart(m, moved=10):
    """A huge page of which ``moved`` pages lie elsewhere, all small entries read-only since a fork that has ended."""
    p = m.spawn()
    area(p)
    p.write(AT, b"x" * MIB2)
    p.mmap(ELSEWHERE, moved << 12, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
    p.mremap(AT + 4096, moved << 12, moved << 12, MREMAP_MAYMOVE | MREMAP_FIXED, ELSEWHERE)
    return p


def test_pieces_that_lie_apart_are_reused_by_their_only_process():
    with Machine("128M", kernel="6.18") as m:
        p = apart(m)
        p.fork().exit()
        m.check()
        for addr in (AT, AT + MIB2 - 4096, ELSEWHERE, ELSEWHERE + 9 * 4096):
            before = pfn_of(p, addr)
            p.write(addr, b"y")
            assert pfn_of(p, addr) == before
        m.check()
        p.exit()
        m.kernel.check_no_leak()


def test_one_piece_of_another_process_forbids_the_reuse():
    """Also of pages that it does not map itself."""
    with Machine("128M", kernel="6.18") as m:
        p = apart(m)
        q = p.fork()
        q.munmap(AT, MIB2)
        q.munmap(ELSEWHERE + 4096, 9 * 4096)
        m.check()
        for addr in (AT, ELSEWHERE, ELSEWHERE + 5 * 4096):
            before = pfn_of(p, addr)
            p.write(addr, b"y")
            assert pfn_of(p, addr) != before
            m.check()
        assert q.read(ELSEWHERE, 1) == b"x"
        q.exit()
        before = pfn_of(p, AT + 20 * 4096)
        p.write(AT + 20 * 4096, b"y")
        assert pfn_of(p, AT + 20 * 4096) == before
        m.check()
        p.exit()
        m.kernel.check_no_leak()


def test_a_page_somebody_else_holds_is_not_reused():
    with Machine("128M", kernel="6.18") as m:
        p = apart(m)
        p.fork().exit()
        head = pfn_of(p, AT)
        m.kernel.pages.refcount[head] += 1
        p.write(AT, b"y")
        assert pfn_of(p, AT) != head
        m.kernel.pages.refcount[head] -= 1
        m.check()
        p.exit()
        m.kernel.check_no_leak()


@pytest.mark.interpreted
def test_a_write_looks_at_no_other_process(monkeypatch):
    """Neither while others map the page, nor when its process is the last one."""
    with Machine("256M", kernel="6.18") as m:
        for _ in range(3):
            m.spawn().mmap(0, MIB2)
        p = apart(m)
        asked = []
        look = huge_split.mappings_of
        monkeypatch.setattr(huge_split, "mappings_of", lambda ctx, head, mms: asked.append(mms) or look(ctx, head, mms))
        q = p.fork()
        p.write(AT, b"y")
        q.exit()
        p.write(AT + 20 * 4096, b"y")
        p.write(ELSEWHERE, b"y")
        assert set(asked) <= {(p.mm,)}
        m.check()


@pytest.mark.parametrize("kernel", ["6.7", "6.18"])
def test_advice_splits_a_page_that_lies_apart(kernel):
    with Machine("128M", kernel=kernel) as m:
        p = apart(m)
        p.madvise(AT, 4096, MADV_COLD)
        m.check()
        assert m.kernel.events.thp_split_page == 1
        assert {m.kernel.pages.comp_order[pfn_of(p, addr)] for addr in (AT, AT + MIB2 - 4096, ELSEWHERE)} == {0}
        p.exit()
        m.kernel.check_no_leak()


@pytest.mark.parametrize("kernel", ["6.7", "6.18"])
@pytest.mark.parametrize("pages", [1, 30, 200])
def test_a_few_small_entries_go_at_once(kernel, pages):
    """Entries of three huge pages, dirty ones, some of which another process maps."""
    with Machine("128M", kernel=kernel) as m:
        p = m.spawn()
        area(p, 3 * MIB2)
        p.write(AT, b"x" * 3 * MIB2)
        q = p.fork()
        rss = p.mm.rss_anon
        edge = AT + MIB2 - 5 * 4096
        p.madvise(edge, pages << 12, MADV_DONTNEED)
        m.check()
        assert p.mm.rss_anon == rss - pages
        assert m.kernel.events.thp_deferred_split_page == 0
        q.madvise(edge, pages << 12, MADV_DONTNEED)
        m.check()
        assert m.kernel.events.thp_deferred_split_page == (1 if pages == 1 else 2)
        assert p.read(edge, pages << 12) == bytes(pages << 12)
        assert p.read(edge - 4096, 4096) == b"x" * 4096
        for process in (p, q):
            process.exit()
            m.check()
        m.kernel.check_no_leak()
