# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults beside those who take their pages and tables away: a task is held at a chosen lock operation while another one
runs, or all are switched by a seeded hook. And what a fault leaves behind that can not be finished.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from interleaved import run_interleaved

from memtwin.abi import mman
from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE
from memtwin.abi.signal import SIGBUS, SIGSEGV
from memtwin.arch.x86.mm.fault import do_user_addr_fault
from memtwin.errors import NotModelled
from memtwin.experiments.fault_kinds import DISK, DeviceFile
from memtwin.fs.proc.clear_refs import clear_refs
from memtwin.hw.paging import GUARD_ENTRY, PF_USER, PF_WRITE, SWAP_ENTRY, SWAP_OFFSET_SHIFT, SWAP_TYPE_SHIFT
from memtwin.kernel.uaccess import copy_to_user
from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE
from memtwin.machine import Machine
from memtwin.mm.fault_inject import FaultInjection
from memtwin.mm.filemap import FILE_VM_OPS, FileVmOps
from memtwin.mm.get_user_pages import get_user_pages_unlocked
from memtwin.mm.madvise import do_madvise
from memtwin.mm.mmap import do_mmap, do_munmap
from memtwin.mm.mprotect import do_mprotect
from memtwin.mm.page import PG_LOCKED
from memtwin.mm.vm_fault import FAULT_FLAG_DEFAULT, VM_FAULT_MAJOR, VM_FAULT_OOM, VM_FAULT_RETRY, VmFault
from memtwin.mm.vm_ops import VmOperations
from memtwin.process import Process

RW = PROT_READ | PROT_WRITE
ANON = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED
BASE = 0x7F0000000000
PAGE = 4096
HUGE = 2 << 20
PTL, UNLOCK = "spin_lock:page_table_lock", "spin_unlock:page_table_lock"
TURNS = 60  #: how often the task that is held lets the others run; who waits for it is as far as it gets by then


def fault(process: Process, addr: int, write: bool = True) -> None:
    """Resolve a fault of user mode at ``addr`` as the current task."""
    task = process.kernel.sched.current
    assert do_user_addr_fault(task, addr, PF_USER | (PF_WRITE if write else 0)) is None


def beside(process: Process, site: str, nth: int, first: Callable[[], None], second: Callable[[], None]) -> list[str]:
    """Run ``first`` up to the ``nth`` time that it is at ``site``, then ``second`` as far as it gets, then both to
    their ends. Who ended when; the machine is checked.
    """
    kernel, mm = process.kernel, process.mm
    sched = kernel.sched
    order: list[str] = []
    seen = 0

    def switch(at: str) -> None:
        nonlocal seen
        if sched.current is held and at == site:
            seen += 1
            if seen == nth:
                for _ in range(TURNS):
                    sched.preempt()

    def run(name: str, body: Callable[[], None]) -> Callable[[], None]:
        def task() -> None:
            body()
            order.append(name)

        return task

    held = sched.spawn(run("first", first), "first", mm=mm)
    other = sched.spawn(run("second", second), "second", mm=mm)
    sched.hook = switch
    try:
        sched.run(held)
        sched.run(other)
    finally:
        sched.hook = None
    assert seen >= nth
    kernel.check()
    return order


def over(machine: Machine) -> None:
    """All processes go; nothing may be left."""
    kernel = machine.kernel
    for task in list(kernel.tasks.values()):
        kernel.sched.run_as(task, kernel.exit_task, task, 9)
    kernel.check_no_leak()


def machine_with_area(kernel: str = "host", length: int = HUGE, advice: int | None = None) -> tuple[Machine, Process]:
    machine = Machine("128M", cpus=3, lockdep=True, kernel=kernel)
    process = machine.spawn()
    process.mmap(BASE, length, RW, ANON)
    if advice is not None:
        process.madvise(BASE, length, advice)
    return machine, process


# -- page tables that go while a fault waits ---------------------------------------------------------------------------


def _map(process: Process, file: DeviceFile, flags: int, prot: int = RW) -> None:
    sched = process.kernel.sched
    sched.run_as(process.task, do_mmap, process.mm, BASE, HUGE, prot, flags | MAP_FIXED, file, 0)


def _anon(process: Process) -> None:
    process.mmap(BASE, HUGE, RW, ANON)
    process.write(BASE, b"x")


def _zero(process: Process) -> None:
    _anon(process)
    process.touch(BASE + PAGE, False)


def _forked(process: Process) -> None:
    _anon(process)
    process.write(BASE + PAGE, b"y")
    process.fork()


class Tracked(FileVmOps):
    """Shared entries are read-only first, and the owner is asked."""

    has_page_mkwrite = True


def _file(flags: int, ops: VmOperations, touched: bool = False) -> Callable[[Process], None]:
    def prepare(process: Process) -> None:
        _map(process, DeviceFile(ops, pages=512), flags)
        process.touch(BASE + 8 * 16 * PAGE, flags == MAP_PRIVATE)  # a table, and an anon_vma
        if touched:
            process.touch(BASE + PAGE, False)

    return prepare


#: What is mapped, whether the fault writes, and at which of its page_table_locks it is held.
TABLES = {
    "anonymous, read": (_anon, False, 1),
    "anonymous, write": (_anon, True, 1),
    "zero page, write": (_zero, True, 1),
    "zero page, copy": (_zero, True, 2),
    "shared with a child, write": (_forked, True, 1),
    "shared with a child, copy": (_forked, True, 2),
    "file, around": (_file(MAP_SHARED, FILE_VM_OPS), False, 1),
    "file, private copy": (_file(MAP_PRIVATE, FILE_VM_OPS), True, 1),
    "file, shared write": (_file(MAP_SHARED, Tracked()), True, 1),
    "file, write to a read-only entry": (_file(MAP_SHARED, Tracked(), touched=True), True, 1),
    "file, the same behind page_mkwrite": (_file(MAP_SHARED, Tracked(), touched=True), True, 2),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_freed_while_a_fault_waits_for_its_lock(kind: str) -> None:
    """MADV_DONTNEED frees the tables it empties (post-pt-reclaim) with mmap_lock held for reading only."""
    prepare, write, nth = TABLES[kind]
    with Machine("128M", cpus=3, lockdep=True, kernel="host", with_=["post-pt-reclaim"]) as machine:
        process = machine.spawn()
        prepare(process)
        mm = process.mm
        assert BASE >> 21 in mm.pte_tables

        def drop() -> None:
            do_madvise(mm, BASE, HUGE, mman.MADV_DONTNEED)
            assert BASE >> 21 not in mm.pte_tables

        assert beside(process, PTL, nth, lambda: fault(process, BASE + PAGE, write), drop) == ["second", "first"]
        process.touch(BASE + PAGE, write)
        machine.check()
        over(machine)


# -- entries that change while a fault has them locked -----------------------------------------------------------------


def _guard(process: Process) -> None:
    do_madvise(process.mm, BASE, PAGE, mman.MADV_GUARD_INSTALL)


CHANGES: dict[str, Callable[[Process], None]] = {
    "dontneed": lambda p: do_madvise(p.mm, BASE, PAGE, mman.MADV_DONTNEED),
    "free": lambda p: do_madvise(p.mm, BASE, PAGE, mman.MADV_FREE),
    "cold": lambda p: do_madvise(p.mm, BASE, PAGE, mman.MADV_COLD),
    "pageout": lambda p: do_madvise(p.mm, BASE, PAGE, mman.MADV_PAGEOUT),
    "guards": _guard,
    "clear_refs": lambda p: clear_refs(p.mm, 1),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kernel", ["6.7", "host"])
def test_who_changes_entries_waits_for_a_fault_that_has_them(kernel: str, change: str) -> None:
    """The fault asks whether it may reuse its page, and holds page_table_lock meanwhile."""
    if kernel == "6.7" and change == "guards":
        return
    machine, process = machine_with_area(kernel, 8 * PAGE)
    with machine:
        process.write(BASE, b"x")
        process.fork().exit()
        act = CHANGES[change]
        order = beside(process, "folio_trylock", 1, lambda: fault(process, BASE), lambda: act(process))
        assert order == ["first", "second"]
        over(machine)


def memory_file(process: Process, kind: int) -> int:
    """A memory file of eight pages, mapped at BASE; its descriptor."""
    fd = process.memfd_create("m")
    process.ftruncate(fd, 8 * PAGE)
    process.mmap(BASE, 8 * PAGE, RW, kind | MAP_FIXED, fd)
    return fd


def test_a_hole_is_punched_beside_a_fault_that_has_the_entry() -> None:
    """Nobody holds mmap_lock for that."""
    with Machine("64M", cpus=3, lockdep=True) as machine:
        process = machine.spawn()
        fd = memory_file(process, MAP_PRIVATE)
        process.write(BASE, b"x")
        process.fork().exit()
        order = beside(process, "folio_trylock", 1, lambda: fault(process, BASE), lambda: process.ftruncate(fd, 0))
        assert order == ["first", "second"]
        assert not process.mm.rss
        over(machine)


@pytest.mark.parametrize("site", ["folio_trylock", "folio_unlock", PTL])
def test_a_truncated_page_is_mapped_by_nobody(site: str) -> None:
    """A fault has the page of the file already when the file becomes shorter."""
    with Machine("64M", cpus=3, lockdep=True) as machine:
        process = machine.spawn()
        fd = memory_file(process, MAP_SHARED)
        signals = []

        def access() -> None:
            signals.append(do_user_addr_fault(process.kernel.sched.current, BASE, PF_USER | PF_WRITE))

        beside(process, site, 1, access, lambda: process.ftruncate(fd, 0))
        assert not process.mm.rss and signals[0] in (None, (SIGBUS, 2, BASE))
        over(machine)


def test_a_page_is_not_paged_out_under_the_fault_that_maps_it() -> None:
    """It is mapped, and the fault has its lock still."""
    with Machine("64M", cpus=3, lockdep=True) as machine:
        process = machine.spawn()
        memory_file(process, MAP_SHARED)

        def page_out() -> None:
            do_madvise(process.mm, BASE, PAGE, mman.MADV_PAGEOUT)

        order = beside(process, UNLOCK, 2, lambda: fault(process, BASE, False), page_out)
        assert order == ["second", "first"] and process.mm.rss == 1
        process.madvise(BASE, PAGE, mman.MADV_PAGEOUT)
        assert not process.mm.rss
        over(machine)


# -- huge pages --------------------------------------------------------------------------------------------------------


def _huge(kernel: str) -> tuple[Machine, Process]:
    machine, process = machine_with_area(kernel, 2 * HUGE, mman.MADV_HUGEPAGE)
    process.write(BASE, b"x")
    return machine, process


@pytest.mark.parametrize("kernel", ["6.7", "host"])
@pytest.mark.parametrize("length", [HUGE, PAGE])
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("alone", [True, False])
def test_a_huge_leaf_goes_while_a_write_waits_for_its_lock(kernel: str, length: int, nth: int, alone: bool) -> None:
    if alone and nth == 2:
        return  # it is reused under the first
    machine, process = _huge(kernel)
    with machine:
        child = process.fork()
        if alone:
            child.exit()
        reused = machine.kernel.mm_ctx.fault_stats.wp_reuse

        def drop() -> None:
            do_madvise(process.mm, BASE, length, mman.MADV_DONTNEED)

        order = beside(process, PTL, nth, lambda: fault(process, BASE + 5 * PAGE), drop)
        assert order == ["second", "first"]
        assert machine.kernel.mm_ctx.fault_stats.wp_reuse == reused
        process.write(BASE + 5 * PAGE, b"y")
        assert process.read(BASE + 5 * PAGE, 1) == b"y" and process.read(BASE, 1) == b"\0"
        machine.check()
        over(machine)


def test_the_huge_zero_page_goes_while_a_write_waits() -> None:
    machine, process = machine_with_area("6.7", 2 * HUGE, mman.MADV_HUGEPAGE)
    with machine:
        process.touch(BASE, False)

        def drop() -> None:
            do_madvise(process.mm, BASE, HUGE, mman.MADV_DONTNEED)

        assert beside(process, PTL, 1, lambda: fault(process, BASE), drop) == ["second", "first"]
        over(machine)


def test_taking_a_huge_page_out_of_the_sharing_is_no_reuse_by_a_write() -> None:
    machine, process = _huge("host")
    with machine:
        process.fork().exit()
        stats = machine.kernel.mm_ctx.fault_stats
        other = machine.spawn()
        before = stats.wp_reuse
        assert other.process_vm_readv(process, BASE, 1) == b"x"  # a pin: the page must be exclusive
        assert stats.wp_reuse == before
        process.write(BASE, b"y")
        assert stats.wp_reuse == before + 1
        over(machine)


def test_a_huge_page_is_not_split_under_a_fault_that_looks_at_it() -> None:
    """Reclaim splits huge pages of which parts are unmapped, without any lock of the address spaces."""
    machine, process = _huge("6.7")
    with machine:
        process.write(BASE + 5 * PAGE, b"x")
        process.fork().exit()
        for start, end in ((0, 5), (6, 512)):
            process.madvise(BASE + start * PAGE, (end - start) * PAGE, mman.MADV_DONTNEED)
        events, reclaim = machine.kernel.events, machine.kernel.page_alloc.reclaim
        order = beside(
            process, "folio_trylock", 1, lambda: fault(process, BASE + 5 * PAGE), lambda: reclaim.drop_slab((0,))
        )
        assert order == ["second", "first"] and not events.thp_split_page
        reclaim.drop_slab((0,))
        machine.check()
        assert events.thp_split_page == 1 and process.read(BASE + 5 * PAGE, 1) == b"x"
        over(machine)


@pytest.mark.parametrize("nth", range(1, 4))
def test_a_block_is_collapsed_beside_a_fault_in_it(nth: int) -> None:
    """MADV_COLLAPSE has mmap_lock for writing, which a fault under the lock of the area does not heed by itself."""
    machine, process = machine_with_area("host", HUGE)
    with machine:
        process.write(BASE, b"x")

        def access() -> None:
            for i in range(5, 8):
                fault(process, BASE + i * PAGE)

        beside(process, PTL, nth, access, lambda: do_madvise(process.mm, BASE, HUGE, mman.MADV_COLLAPSE))
        assert BASE >> 21 in process.mm.deposits and process.read(BASE, 1) == b"x"
        over(machine)


# -- all at once -------------------------------------------------------------------------------------------------------


def interleaved(mode: str, kernel: str, seed: int, steps: int = 120) -> None:
    """Two threads fault all over four blocks that a third one empties, fills, collapses, guards and cuts (filling:
    one thread faults, two empty and fill).
    """
    machine = Machine("128M", cpus=3, seed=seed, lockdep=True, kernel=kernel)
    process = machine.spawn()
    sched, mm = machine.kernel.sched, process.mm
    process.mmap(BASE, 4 * HUGE, RW, ANON)
    if mode in ("huge", "collapse"):
        process.madvise(BASE, 4 * HUGE, mman.MADV_HUGEPAGE)
    rng = Random(seed)

    def faults() -> None:
        task = sched.current
        for _ in range(steps):
            addr = BASE + rng.randrange(4) * HUGE + rng.choice((0, 1, 2, 509, 510, 511)) * PAGE
            signal = do_user_addr_fault(task, addr, PF_USER | (PF_WRITE if rng.random() < 0.6 else 0))
            assert signal is None or mode == "guards"

    def change(addr: int) -> None:
        if mode == "collapse":
            do_madvise(mm, addr, HUGE, mman.MADV_COLLAPSE)
            do_munmap(mm, addr + 4 * PAGE, PAGE)
            do_mmap(mm, addr + 4 * PAGE, PAGE, RW, ANON)
            do_madvise(mm, addr, HUGE, mman.MADV_HUGEPAGE)
        elif mode == "guards":
            do_madvise(mm, addr, rng.choice((HUGE, 2 * PAGE)), mman.MADV_GUARD_INSTALL)
            do_madvise(mm, addr, HUGE, mman.MADV_GUARD_REMOVE)
        elif mode == "populate":
            advice = rng.choice((mman.MADV_POPULATE_READ, mman.MADV_POPULATE_WRITE, mman.MADV_DONTNEED))
            low = addr - 3 * PAGE if addr > BASE and advice != mman.MADV_DONTNEED else addr
            do_madvise(mm, low, addr + HUGE - low, advice)
        else:
            last = mman.MADV_PAGEOUT if mode == "small" else mman.MADV_DONTNEED  # of a huge page it is not modelled
            advice = (mman.MADV_DONTNEED, mman.MADV_DONTNEED, mman.MADV_FREE, mman.MADV_COLD, last)
            do_madvise(mm, addr, HUGE if mode == "small" else rng.choice((HUGE, 2 * PAGE)), rng.choice(advice))

    def changes() -> None:
        for _ in range(steps):
            try:
                change(BASE + rng.randrange(4) * HUGE)
            except OSError as error:
                assert error.errno in (errno.EINVAL, errno.EAGAIN, errno.ENOMEM)

    run_interleaved(machine, process, (faults, changes if mode == "populate" else faults, changes), rng)
    machine.close()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kernel", ["6.7", "host"])
@pytest.mark.parametrize("mode", ["small", "huge", "collapse", "populate", "guards"])
def test_faults_beside_those_who_take_pages_away(mode: str, kernel: str, seed: int) -> None:
    if mode == "guards" and kernel == "6.7":
        return
    interleaved(mode, kernel, seed)


@pytest.mark.parametrize("kernel", ["6.7", "host"])
@pytest.mark.parametrize("seed", range(100, 108))
def test_faults_beside_those_who_cut_their_file(kernel: str, seed: int) -> None:
    """A memory file that is mapped shared and private becomes shorter and longer, and gets holes."""
    pages, steps = 24, 100
    machine = Machine("64M", cpus=3, seed=seed, lockdep=True, kernel=kernel)
    process = machine.spawn()
    sched, mm = machine.kernel.sched, process.mm
    fd = process.memfd_create("m")
    process.ftruncate(fd, pages * PAGE)
    shared, private = BASE, BASE + HUGE
    process.mmap(shared, pages * PAGE, RW, MAP_SHARED | MAP_FIXED, fd)
    process.mmap(private, pages * PAGE, RW, MAP_PRIVATE | MAP_FIXED, fd)
    mapped = mm.mm_mt.load(shared).file
    rng = Random(seed)

    def faults() -> None:
        task = sched.current
        for _ in range(steps):
            addr = rng.choice((shared, private)) + rng.randrange(pages) * PAGE
            signal = do_user_addr_fault(task, addr, PF_USER | (PF_WRITE if rng.random() < 0.6 else 0))
            assert signal is None or signal.sig in (SIGBUS, SIGSEGV)

    def changes() -> None:
        advice = (mman.MADV_REMOVE, mman.MADV_DONTNEED, mman.MADV_PAGEOUT, mman.MADV_COLD)
        for _ in range(steps):
            start, length = rng.randrange(20) * PAGE, rng.randrange(1, 4) * PAGE
            what = rng.randrange(6)
            if what == 0:
                mapped.inode.truncate(rng.randrange(pages * PAGE))
            elif what == 1:
                mapped.inode.truncate(pages * PAGE)
            elif what == 2:
                mapped.inode.write(b"x" * 5000, start + 123)
            elif what == 3:
                do_mprotect(mm, rng.choice((shared, private)) + start, length, rng.choice((RW, PROT_READ)))
            elif what == 4:
                do_madvise(mm, private + start, length, mman.MADV_DONTNEED)
            else:
                do_madvise(mm, shared + start, length, rng.choice(advice))

    def switch(site: str) -> None:
        if rng.random() < 0.3:
            sched.preempt()

    sched.hook = switch
    threads = [sched.spawn(body, "thread", mm=mm) for body in (faults, faults, changes, changes)]
    for thread in threads:
        sched.run(thread)
    sched.hook = None
    machine.check()
    assert all(index << 12 < mapped.inode.size for index in mapped.mapping.folios)
    process.exit()
    machine.kernel.check_no_leak()
    machine.close()


@pytest.mark.parametrize("seed", range(12))
def test_nobody_sleeps_for_a_folio_lock_that_is_free(seed: int) -> None:
    with Machine("64M", cpus=4, seed=seed, lockdep=True) as machine:
        sched, ctx = machine.kernel.sched, machine.kernel.mm_ctx
        rng = Random(seed)
        inside: list[int] = []
        folio = ctx.page_alloc.alloc_pages(GFP_HIGHUSER_MOVABLE)

        def user(number: int) -> None:
            for _ in range(60):
                if rng.random() < 0.3:
                    assert ctx.folio_locks.wait_locked_killable(folio)
                    continue
                ctx.folio_locks.lock(folio)
                inside.append(number)
                sched.preempt()
                assert inside == [number]
                inside.clear()
                ctx.folio_locks.unlock(folio)

        def switch(site: str) -> None:
            if rng.random() < 0.4:
                sched.preempt()

        tasks = [sched.spawn(partial(user, i), f"user {i}") for i in range(4)]
        sched.hook = switch
        for task in tasks:
            sched.run(task)
        sched.hook = None
        assert not ctx.pages.flags[folio] & PG_LOCKED
        ctx.page_alloc.put_page(folio)


# -- guards ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2, 5, 12])
@pytest.mark.parametrize("advice", [mman.MADV_NOHUGEPAGE, mman.MADV_HUGEPAGE])
def test_guards_are_everywhere_however_often_a_fault_is_faster(times: int, advice: int) -> None:
    """Between emptying the range and putting guards there another thread fills a page again. After three times the
    call begins anew, without mmap_lock in between.
    """
    machine, process = machine_with_area("host", HUGE, advice)
    with machine:
        sched, mm = machine.kernel.sched, process.mm
        process.write(BASE, b"x")
        sites: list[str] = []
        left = times

        def access() -> None:
            nonlocal left
            while left:
                left -= 1
                fault(process, BASE + 3 * PAGE)
                sched.preempt()

        def switch(site: str) -> None:
            if sched.current is installer:
                sites.append(site)
                if site == UNLOCK and left and sites.count(UNLOCK) % 2:  # the range was emptied
                    sched.preempt()

        installer = sched.spawn(lambda: do_madvise(mm, BASE, 8 * PAGE, mman.MADV_GUARD_INSTALL), "installer", mm=mm)
        other = sched.spawn(access, "other", mm=mm)
        sched.hook = switch
        sched.run(installer)
        sched.hook = None
        assert sites.count("down_read:mmap_lock") == times // 3 + 1
        q, base = machine.kernel.mm_ctx.ram.q, mm.pte_tables[BASE >> 21]
        assert all(q[base + i] == GUARD_ENTRY for i in range(8))
        left = 0
        sched.run(other)
        machine.check()
        over(machine)


# -- what can not be finished ------------------------------------------------------------------------------------------

SWAPPED = SWAP_ENTRY | 5 << SWAP_TYPE_SHIFT | 9 << SWAP_OFFSET_SHIFT


@pytest.mark.parametrize("how", ["user", "mmap_lock", "kernel", "process_vm", "mem", "unlocked"])
def test_what_is_not_modelled_leaves_no_lock_behind(how: str) -> None:
    with Machine("64M", lockdep=True) as machine:
        process, other = machine.spawn(), machine.spawn()
        process.mmap(BASE, 4 * PAGE, RW, ANON)
        process.touch(BASE, how != "mmap_lock")  # without an anon_vma, 6.7 takes mmap_lock at once
        index = machine.kernel.mm_ctx.pt.lookup(process.mm, BASE + PAGE)[0]
        q, private = machine.kernel.mm_ctx.ram.q, machine.kernel.mm_ctx.pages.private
        q[index] = SWAPPED
        private[index >> 9] += 1
        free = machine.kernel.page_alloc.nr_free_pages()
        with pytest.raises(NotModelled, match="a swap or migration entry"):
            if how in ("user", "mmap_lock"):
                process.touch(BASE + PAGE, True)
            elif how == "kernel":
                machine.kernel.sched.run_as(process.task, copy_to_user, process.task, BASE + PAGE, b"x")
            elif how == "process_vm":
                other.process_vm_readv(process, BASE, 2 * PAGE)
            elif how == "unlocked":
                task = process.task
                machine.kernel.sched.run_as(task, get_user_pages_unlocked, process.mm, BASE + PAGE, 1, 0, [])
            else:
                other.write_file_at(f"/proc/{process.pid}/mem", BASE + PAGE, b"x")
        assert machine.kernel.page_alloc.nr_free_pages() == free
        q[index] = 0
        private[index >> 9] -= 1
        vma = process.mm.mm_mt.load(BASE)
        assert not process.mm.mmap_lock.is_locked() and not (vma.vm_lock is not None and vma.vm_lock.is_locked())
        process.munmap(BASE, 4 * PAGE)
        machine.check()
        over(machine)


def test_paging_out_what_is_not_modelled_leaves_no_lock_behind() -> None:
    machine, process = _huge("host")
    with machine:
        process.madvise(BASE, HUGE, mman.MADV_FREE)
        process.mmap(BASE - 4 * PAGE, 4 * PAGE, RW, ANON)
        process.write(BASE - PAGE, b"x")
        process.madvise(BASE - PAGE, PAGE, mman.MADV_FREE)
        with pytest.raises(NotModelled, match="MADV_PAGEOUT"):
            process.madvise(BASE - 4 * PAGE, HUGE + 4 * PAGE, mman.MADV_PAGEOUT)
        assert not process.mm.page_table_lock.is_locked()
        machine.check()
        assert process.read(BASE - PAGE, 1) == b"\0"  # it was given up before
        over(machine)


class Lacking(FileVmOps):
    """A file whose pages, or whose consent, are not modelled."""

    has_page_mkwrite = True

    def __init__(self, what: str) -> None:
        self.what = what

    def fault(self, vmf: VmFault) -> int:
        if self.what == "fault":
            raise NotModelled("its pages")
        return super().fault(vmf)

    def page_mkwrite(self, vmf: VmFault) -> int:
        raise NotModelled("its consent")


@pytest.mark.parametrize(
    ("what", "flags", "touched"),
    [("fault", MAP_PRIVATE, False), ("page_mkwrite", MAP_SHARED, False), ("page_mkwrite", MAP_SHARED, True)],
    ids=["private copy", "shared write", "write to a read-only entry"],
)
def test_what_is_not_modelled_leaves_no_page_behind(what: str, flags: int, touched: bool) -> None:
    with Machine("64M", lockdep=True) as machine:
        process = machine.spawn()
        _map(process, DeviceFile(Lacking(what)), flags)
        if touched:
            process.touch(BASE, False)
        for _ in range(3):
            with pytest.raises(NotModelled, match="its"):
                process.touch(BASE, True)
        machine.check()
        over(machine)


@pytest.mark.parametrize("access", ["touch", "write"])
def test_without_memory_the_access_is_made_again_and_again(access: str) -> None:
    """Thousands of times, if need be: nothing grows meanwhile."""
    with Machine("64M") as machine:
        process = machine.spawn()
        process.mmap(BASE, PAGE, RW, ANON)
        refused = 0

        def charge(pfn: int, mm: object, gfp: int) -> bool:
            nonlocal refused
            refused += 1
            return refused > 3000

        machine.kernel.mm_ctx.mem_cgroup_charge = charge
        if access == "touch":
            process.touch(BASE, True)
        else:
            process.write(BASE, b"x")
        assert refused == 3001 and machine.kernel.mm_ctx.fault_stats.oom == 3000
        assert process.mm.rss == 1
        assert sum("VM_FAULT_OOM leaked out" in line for line in machine.kernel.log) == 10


def test_a_read_that_finds_no_memory_stays_a_major_fault() -> None:
    """The lock was given up for the read, so the answer is RETRY, and MAJOR with it."""
    with Machine("64M", lockdep=True) as machine:
        process = machine.spawn()
        _map(process, DeviceFile(DISK, cold=True), MAP_PRIVATE)
        process.touch(BASE, False)
        mm, sched = process.mm, machine.kernel.sched
        vma = mm.mm_mt.load(BASE)
        index = machine.kernel.mm_ctx.pt.lookup(mm, BASE + 20 * PAGE)[0]

        def read(flags: int) -> int:
            mm.mmap_lock.down_read()
            result = FILE_VM_OPS.fault(VmFault(mm, vma, BASE + 20 * PAGE, flags, index))
            if not result & VM_FAULT_RETRY:
                mm.mmap_lock.up_read()
            return result

        machine.kernel.page_alloc.fault = FaultInjection(probability=100)
        assert sched.run_as(process.task, read, FAULT_FLAG_DEFAULT) == VM_FAULT_MAJOR | VM_FAULT_RETRY
        assert sched.run_as(process.task, read, 0) == VM_FAULT_OOM
        machine.kernel.page_alloc.fault = None
        assert not mm.mmap_lock.is_locked()
        machine.check()
        over(machine)
