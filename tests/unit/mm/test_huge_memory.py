# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge anonymous pages: what is counted where, and who gives what back."""

from __future__ import annotations

import errno

import pytest
from huge import AT, MIB2, RW, area, pfn_of

from memtwin.abi.mman import (
    MADV_COLD,
    MADV_COLLAPSE,
    MADV_DONTNEED,
    MADV_FREE,
    MADV_GUARD_INSTALL,
    MADV_HUGEPAGE,
    MADV_POPULATE_WRITE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PROT_READ,
)
from memtwin.lib.gfp_types import DIRECT_RECLAIM, GFP_TRANSHUGE_LIGHT, KSWAPD_RECLAIM, NORETRY
from memtwin.machine import Machine
from memtwin.mm.huge_mm import Thp
from memtwin.mm.huge_split import split_huge_page
from memtwin.mm.mm_types import VM_HUGEPAGE


def machine(**more):
    return Machine("256M", **more)


def event(process, name):
    return getattr(process.kernel.events, name)


def is_huge_page(process, addr):
    """Whether the page at ``addr`` is a part of a huge page."""
    return process.kernel.pages.comp_order[pfn_of(process, addr)] == 9


def meminfo(process, key):
    return int(process.read_file("/proc/meminfo").split(f"{key}:", 1)[1].split()[0])


def status(process, key):
    return int(process.read_file("/proc/self/status").split(f"{key}:", 1)[1].split()[0])


def touch(process, addr):
    process.write(addr, b"x")


def ended(m, *processes):
    """Everything is given back when the last process ends."""
    m.check()
    for process in processes:
        process.exit()
        m.check()
    m.kernel.check_no_leak()


def test_a_write_maps_a_huge_page_with_a_table_in_reserve():
    with machine() as m:
        p = m.spawn()
        touch(p, 0x7FFFFFFFE000)  # the tables on the way exist, but for those of 1 GiB below the area
        tables = status(p, "VmPTE")
        at = area(p)
        p.touch(at + 5, True)
        m.check()
        assert event(p, "thp_fault_alloc") == 1
        assert meminfo(p, "AnonHugePages") == meminfo(p, "AnonPages") - 4 == 2048
        assert status(p, "RssAnon") == 2052
        assert status(p, "VmPTE") == tables + 3 * 4  # two on the way and one in reserve
        p.munmap(at, MIB2)
        assert meminfo(p, "AnonHugePages") == 0
        assert status(p, "VmPTE") == tables
        ended(m, p)


def test_without_memory_in_one_piece_small_pages_do():
    with machine() as m:
        p = m.spawn()
        at = area(p)
        alloc = m.kernel.page_alloc
        taken = []
        while pfn := alloc.alloc_pages(GFP_TRANSHUGE_LIGHT, 9):
            taken.append(pfn)
        touch(p, at)
        assert (event(p, "thp_fault_alloc"), event(p, "thp_fault_fallback")) == (0, 1)
        assert status(p, "RssAnon") == 4
        for pfn in taken:
            alloc.free_pages(pfn, 9)
        ended(m, p)


def test_the_huge_zero_page_is_shared_and_goes_when_memory_is_short():
    with machine() as m:
        p = m.spawn()
        at = area(p, 2 * MIB2)
        p.read(at, 1)
        p.read(at + MIB2, 1)
        q = p.fork()
        assert q.read(at + 7, 1) == b"\0"
        m.check()
        assert event(p, "thp_zero_page_alloc") == 1
        assert status(p, "VmRSS") == 0
        p.exit()
        assert m.kernel.huge_zero_shrinker.count_objects(0, 0) == 0
        q.exit()
        assert m.kernel.huge_zero_shrinker.count_objects(0, 0) == 512
        ended(m)
        assert m.kernel.mm_ctx.thp.zero_pfn == 0


def test_without_use_zero_page_a_read_gets_a_page():
    with machine() as m:
        p = m.spawn()
        m.kernel.mm_ctx.thp.use_zero_page = False
        p.read(area(p), 1)
        assert event(p, "thp_fault_alloc") == 1
        ended(m, p)


@pytest.mark.parametrize(
    ("defrag", "advised", "reclaims", "wakes"),
    [
        ("always", False, True, False),
        ("always", True, True, False),
        ("defer", True, False, True),
        ("defer+madvise", False, False, True),
        ("defer+madvise", True, True, False),
        ("madvise", False, False, False),
        ("madvise", True, True, False),
        ("never", True, False, False),
    ],
)
def test_how_hard_a_fault_tries(defrag, advised, reclaims, wakes):
    thp = Thp()
    thp.defrag = defrag
    gfp = thp.gfp_mask(VM_HUGEPAGE if advised else 0)
    assert (bool(gfp & DIRECT_RECLAIM), bool(gfp & KSWAPD_RECLAIM)) == (reclaims, wakes)
    assert bool(gfp & NORETRY) == (defrag == "always" and not advised)


def test_a_part_given_back_waits_for_the_split_of_the_page():
    with machine() as m:
        p = m.spawn()
        at = area(p)
        touch(p, at)
        free = m.kernel.page_alloc.nr_free_pages() + m.kernel.page_alloc.nr_pcp_pages()
        p.madvise(at + 4096, 100 << 12, MADV_DONTNEED)
        m.check()
        assert meminfo(p, "AnonPages") == 2048 - 400
        assert [event(p, name) for name in ("thp_split_pmd", "thp_deferred_split_page", "thp_split_page")] == [1, 1, 0]
        assert m.kernel.page_alloc.nr_free_pages() + m.kernel.page_alloc.nr_pcp_pages() == free
        m.kernel.page_alloc.reclaim.drop_slab((0,))
        m.check()
        assert event(p, "thp_split_page") == 1
        assert m.kernel.page_alloc.nr_free_pages() + m.kernel.page_alloc.nr_pcp_pages() == free + 100
        assert not is_huge_page(p, at)
        assert p.read(at, 1) == b"x"
        ended(m, p)


def test_a_page_that_others_map_is_split_in_all_of_them():
    with machine() as m:
        p = m.spawn()
        at = area(p)
        touch(p, at + 8192)
        q = p.fork()
        p.munmap(at, 4096)
        q.munmap(at, 4096)
        m.check()
        m.kernel.page_alloc.reclaim.drop_slab((0,))
        m.check()
        assert event(p, "thp_split_page") == 1
        assert pfn_of(p, at + 8192) == pfn_of(q, at + 8192)
        touch(q, at + 8192)
        assert pfn_of(p, at + 8192) != pfn_of(q, at + 8192)
        ended(m, p, q)


def test_a_page_somebody_holds_is_not_split():
    with machine() as m:
        p = m.spawn()
        at = area(p)
        touch(p, at)
        head = pfn_of(p, at)
        m.kernel.page_alloc.get_page(head)
        assert not split_huge_page(m.kernel.mm_ctx, head)
        assert event(p, "thp_split_page_failed") == 1
        m.kernel.page_alloc.put_page(head)
        ended(m, p)


def test_fork_shares_and_the_last_one_reuses():
    with machine() as m:
        p = m.spawn()
        at = area(p)
        touch(p, at)
        q = p.fork()
        m.check()
        assert meminfo(p, "AnonHugePages") == 2048
        assert pfn_of(q, at) == pfn_of(p, at)
        q.exit()
        touch(p, at)
        m.check()
        assert event(p, "thp_split_pmd") == 0
        q = p.fork()
        touch(p, at + 4096)
        m.check()
        assert event(p, "thp_split_pmd") == 1
        assert (is_huge_page(p, at), is_huge_page(p, at + 4096)) == (True, False)
        assert meminfo(p, "AnonPages") == 2052
        ended(m, p, q)


@pytest.mark.parametrize(("kernel", "huge"), [("6.7", False), ("6.18", True)])
def test_small_entries_of_a_huge_page_only_one_process_maps(kernel, huge):
    """post-thp-mm-exclusive: 6.7 copies page after page, because the entries themselves count as other users."""
    with machine(kernel=kernel) as m:
        p = m.spawn()
        at = area(p)
        touch(p, at)
        q = p.fork()
        touch(p, at)
        q.exit()
        touch(p, at + 4096)
        m.check()
        assert is_huge_page(p, at + 4096) == huge
        ended(m, p)


@pytest.mark.parametrize(("kernel", "whole"), [("6.7", False), ("6.18", True)])
def test_advice_about_a_whole_page_with_small_entries(kernel, whole):
    """post-thp-advice-batch."""
    with machine(kernel=kernel) as m:
        p = m.spawn()
        at = area(p)
        p.write(at, b"x" * MIB2)
        p.mprotect(at + 4096, 4096, PROT_READ)
        p.mprotect(at + 4096, 4096, RW)
        p.madvise(at, MIB2, MADV_COLD)
        m.check()
        assert is_huge_page(p, at) == whole
        ended(m, p)


@pytest.mark.parametrize("kernel", ["6.7", "6.18"])
def test_deferred_split_counts(kernel):
    """post-thp-deferred-partial: 6.7 queues a page even if all its small entries go at once."""
    with machine(kernel=kernel) as m:
        p = m.spawn()
        at = area(p, 2 * MIB2)
        touch(p, at)
        p.mprotect(at + 4096, 4096, PROT_READ)
        p.mprotect(at + 4096, 4096, RW)
        p.madvise(at, MIB2, MADV_DONTNEED)
        assert event(p, "thp_deferred_split_page") == (kernel == "6.7")
        ended(m, p)


def test_free_leaves_a_shared_huge_page_alone():
    with machine() as m:
        p = m.spawn()
        at = area(p)
        touch(p, at)
        q = p.fork()
        p.madvise(at, MIB2, MADV_FREE)
        p.madvise(at, 4096, MADV_FREE)
        m.check()
        assert is_huge_page(p, at)
        assert event(p, "thp_split_page") == 0
        ended(m, p, q)


@pytest.mark.parametrize("shift", [0, 4096])
def test_moving(shift):
    with machine() as m:
        p = m.spawn()
        at = area(p, 2 * MIB2)
        touch(p, at)
        touch(p, at + MIB2)
        old = pfn_of(p, at)
        to = AT + 16 * MIB2 + shift
        p.mremap(at, 2 * MIB2, 2 * MIB2, MREMAP_MAYMOVE | MREMAP_FIXED, to)
        m.check()
        assert pfn_of(p, to) == old
        assert event(p, "thp_split_pmd") == (2 if shift else 0)
        ended(m, p)


def test_bytes_go_where_they_belong():
    with machine() as m:
        p = m.spawn()
        at = area(p)
        text = bytes(i * 7 & 255 for i in range(MIB2 // 64)) * 64
        p.write(at, text)
        assert p.read(at, MIB2) == text
        p.munmap(at + 5 * 4096, 4096)
        q = p.fork()
        q.write(at + 4096, b"hello")
        assert p.read(at, 5 * 4096) == text[: 5 * 4096]
        assert q.read(at + 4096, 6) == b"hello" + text[4101:4102]
        ended(m, p, q)


def collapsible(process, pages=3, at=AT):
    """2 MiB of which the first pages are small ones."""
    process.mmap(at, MIB2, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
    for page in range(pages):
        process.write(at + page * 4096, bytes([page + 1]) * 4096)
    return at


def test_collapse_keeps_the_bytes_and_frees_the_small_pages():
    with machine() as m:
        p = m.spawn()
        at = collapsible(p)
        p.madvise(at, MIB2, MADV_COLLAPSE)
        m.check()
        assert (event(p, "thp_collapse_alloc"), meminfo(p, "AnonHugePages"), status(p, "RssAnon")) == (1, 2048, 2048)
        assert p.read(at, 4 * 4096) == b"".join(bytes([i]) * 4096 for i in (1, 2, 3, 0))
        p.madvise(at, MIB2, MADV_COLLAPSE)  # there already
        assert event(p, "thp_collapse_alloc") == 1
        ended(m, p)


def test_collapse_in_a_child_leaves_the_parents_pages():
    with machine() as m:
        p = m.spawn()
        at = collapsible(p)
        q = p.fork()
        q.write(at + 5 * 4096, b"y")
        q.madvise(at, MIB2, MADV_COLLAPSE)
        m.check()
        assert (is_huge_page(q, at), is_huge_page(p, at)) == (True, False)
        assert q.read(at + 5 * 4096, 1) == b"y"
        assert p.read(at, 1) == b"\1"
        ended(m, p, q)


@pytest.mark.parametrize(("kernel", "errno_"), [("6.7", errno.EINVAL), ("6.18", 0)])
def test_collapse_of_pages_nobody_may_write(kernel, errno_):
    """post-thp-collapse-readonly."""
    with machine(kernel=kernel) as m:
        p = m.spawn()
        at = collapsible(p)
        p.mprotect(at, MIB2, PROT_READ)
        try:
            p.madvise(at, MIB2, MADV_COLLAPSE)
            got = 0
        except OSError as error:
            got = error.errno
        assert got == errno_
        ended(m, p)


def test_collapse_refuses_what_is_held_and_where_nothing_is():
    with machine() as m:
        p = m.spawn()
        at = collapsible(p)
        with pytest.raises(OSError) as caught:
            p.madvise(at + MIB2, MIB2, MADV_COLLAPSE)
        assert caught.value.errno == errno.ENOMEM
        m.kernel.page_alloc.get_page(pfn_of(p, at))
        with pytest.raises(OSError) as caught:
            p.madvise(at, MIB2, MADV_COLLAPSE)
        assert caught.value.errno == errno.EAGAIN
        m.kernel.page_alloc.put_page(pfn_of(p, at))
        p.madvise(at, MIB2, MADV_DONTNEED)
        p.mmap(at + MIB2, MIB2, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
        with pytest.raises(OSError) as caught:
            p.madvise(at + MIB2, MIB2, MADV_COLLAPSE)
        assert caught.value.errno == errno.EINVAL
        ended(m, p)


def test_what_is_in_the_way_first_decides():
    """6.18: a page that is held says EAGAIN and the next block is tried; a guard EINVAL and it is not."""

    def collapse(prepare):
        with machine(kernel="6.18") as m:
            p = m.spawn()
            collapsible(p)
            at = collapsible(p, at=AT + MIB2)
            collapsible(p, at=AT + 2 * MIB2)
            prepare(m, p, at)
            allocated = event(p, "thp_collapse_alloc")
            with pytest.raises(OSError) as caught:
                p.madvise(AT, 3 * MIB2, MADV_COLLAPSE)
            blocks = [is_huge_page(p, AT + n * MIB2 + 8 * 4096) for n in range(3)]
            allocated = event(p, "thp_collapse_alloc") - allocated
            m.check()
            return caught.value.errno, blocks, allocated

    def held(page):
        return lambda m, p, at: m.kernel.page_alloc.get_page(pfn_of(p, at + page * 4096))

    def guard(page):
        return lambda m, p, at: p.madvise(at + page * 4096, 4096, MADV_GUARD_INSTALL)

    def both(*steps):
        return lambda m, p, at: [step(m, p, at) for step in steps]

    assert collapse(held(1)) == (errno.EAGAIN, [True, False, True], 2)
    assert collapse(guard(1)) == (errno.EINVAL, [True, False, False], 2)
    assert collapse(both(guard(1), held(2)))[:2] == (errno.EAGAIN, [True, False, True])


def test_the_first_page_in_the_way_decides_with_a_userfaultfd():
    def collapse(hole, held):
        with machine() as m:
            p = m.spawn()
            at = collapsible(p)
            m.kernel.page_alloc.get_page(pfn_of(p, at + held * 4096))
            p.madvise(at + hole * 4096, 4096, MADV_DONTNEED)
            fd = p.userfaultfd(0)
            p.uffd_api(fd, 0)
            p.uffd_register(fd, at, MIB2, 1)
            with pytest.raises(OSError) as caught:
                p.madvise(at, MIB2, MADV_COLLAPSE)
            return caught.value.errno

    assert (collapse(hole=1, held=2), collapse(hole=2, held=1)) == (errno.EBUSY, errno.EAGAIN)


def test_a_huge_page_is_charged_and_falls_back_to_small_ones():
    with machine() as m:
        p = m.spawn()
        at = area(p)
        charged = []
        ctx = m.kernel.mm_ctx

        def charge(pfn, mm, gfp):
            charged.append(1 << ctx.pages.comp_order[pfn])
            return charged[-1] == 1

        ctx.mem_cgroup_charge = charge
        p.write(at, b"x")
        assert charged == [512, 1]
        assert (event(p, "thp_fault_fallback"), event(p, "thp_fault_fallback_charge")) == (1, 1)
        m.check()
        with pytest.raises(OSError) as caught:
            p.madvise(at, MIB2, MADV_COLLAPSE)
        assert caught.value.errno == errno.EBUSY
        assert charged[-1] == 512
        p.madvise(at, MIB2, MADV_POPULATE_WRITE)
        assert charged.count(1) == 512
        ctx.mem_cgroup_charge = None
        ended(m, p)


def test_khugepaged_heeds_its_limits():
    files = "/sys/kernel/mm/transparent_hugepage/"
    with machine() as m:
        p = m.spawn()
        at = collapsible(p)
        khugepaged = m.kernel.khugepaged
        assert khugepaged.run() == 0  # nothing was advised
        p.madvise(at, MIB2, MADV_HUGEPAGE)
        p.write_file(files + "khugepaged/max_ptes_none", "100")
        assert khugepaged.run() == 0
        assert event(p, "thp_scan_exceed_none_pte") > 0
        p.write_file(files + "khugepaged/max_ptes_none", "511")
        p.write_file(files + "enabled", "never")
        assert khugepaged.run() == 0
        p.write_file(files + "enabled", "madvise")
        assert khugepaged.run() == 1
        m.check()
        assert p.read_file(files + "khugepaged/pages_collapsed") == "1\n"
        assert int(p.read_file(files + "khugepaged/full_scans")) > 0
        ended(m, p)


def test_khugepaged_goes_on_where_it_stopped():
    with machine() as m:
        p = m.spawn()
        for block in range(4):
            collapsible(p, at=AT + block * MIB2)
        p.madvise(AT, 4 * MIB2, MADV_HUGEPAGE)
        m.kernel.mm_ctx.thp.khugepaged.pages_to_scan = 600
        made = [m.kernel.khugepaged.run() for _ in range(4)]
        m.check()
        assert sum(made) == 4 and max(made) <= 2
        ended(m, p)


def test_the_files():
    files = "/sys/kernel/mm/transparent_hugepage/"
    with machine() as m:
        p = m.spawn()
        assert p.read_file(files + "enabled") == "always [madvise] never\n"
        assert p.read_file(files + "defrag") == "always defer defer+madvise [madvise] never\n"
        assert p.read_file(files + "hpage_pmd_size") == "2097152\n"
        assert p.write_file(files + "defrag", "defer\n") == 6
        assert p.read_file(files + "defrag") == "always [defer] defer+madvise madvise never\n"
        for name, bad in [
            ("enabled", "bogus"),
            ("enabled", "madvise \n"),
            ("use_zero_page", "2"),
            ("use_zero_page", "0x1"),
            ("khugepaged/max_ptes_none", "512"),
            ("khugepaged/pages_to_scan", "0"),
            ("khugepaged/scan_sleep_millisecs", "4294967296"),
        ]:
            with pytest.raises(OSError) as caught:
                p.write_file(files + name, bad)
            assert caught.value.errno == errno.EINVAL
        with pytest.raises(OSError) as caught:
            p.write_file(files + "khugepaged/full_scans", "1")
        assert caught.value.errno == errno.EACCES
