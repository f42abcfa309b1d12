# SPDX-License-Identifier: GPL-2.0-or-later
"""Getting hold of user pages: which accesses are refused, what a pin unshares, and the lock given up on the way."""

from __future__ import annotations

import errno

import pytest

from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_NONE, PROT_READ
from memtwin.experiments.fault_kinds import BASE, DISK, PAGE, RW, DeviceFile, map_file
from memtwin.experiments.inside import entry_index, frame_of, with_mmap_lock
from memtwin.hw.paging import RW as PTE_RW
from memtwin.machine import Machine
from memtwin.mm import get_user_pages as gup
from memtwin.mm.get_user_pages import (
    FOLL_ANON,
    FOLL_DUMP,
    FOLL_FORCE,
    FOLL_GET,
    FOLL_LONGTERM,
    FOLL_NOFAULT,
    FOLL_NOWAIT,
    FOLL_PIN,
    FOLL_WRITE,
    Locked,
)
from memtwin.mm.gup import faultin_page_range, populate_vma_page_range
from memtwin.mm.memory_failure import EHWPOISON
from memtwin.mm.page import PG_ANON_EXCLUSIVE, PG_DIRTY, PG_HWPOISON
from memtwin.process import Process

ANON = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED


@pytest.fixture
def machine():
    with Machine("64M", cpus=2, lockdep=True) as made:
        yield made


def entry(process: Process, addr: int) -> int:
    return process.kernel.ram.q[entry_index(process, addr)]


def ask(process: Process, function, *args, **kwargs) -> int:
    """A call of the interface with ``mmap_lock`` held for reading, as the interface wants it."""
    return with_mmap_lock(process, lambda: function(process.mm, *args, **kwargs))


def done(machine: Machine) -> None:
    machine.check()
    for task in list(machine.kernel.tasks.values()):
        machine.kernel.exit_task(task, 0)
    machine.kernel.check_no_leak()


def test_pages_are_faulted_in_and_counted_for_the_caller(machine: Machine) -> None:
    process = machine.spawn()
    process.mmap(BASE, 4 * PAGE, RW, ANON)
    pages: list[int] = []
    faults = process.task.min_flt
    assert ask(process, gup.get_user_pages, BASE, 4, FOLL_WRITE, pages) == 4
    assert process.task.min_flt - faults == 4
    assert pages == [frame_of(process, BASE + i * PAGE) for i in range(4)]
    assert [machine.kernel.pages.refcount[pfn] for pfn in pages] == [2] * 4
    for pfn in pages:
        gup.put_user_page(machine.kernel.mm_ctx, pfn)
    done(machine)


def test_populating_counts_for_the_task_that_asks(machine: Machine) -> None:
    """What is mapped in bulk, and what takes a fault a page: a file of which half is on the disk."""
    asking, other = machine.spawn(), machine.spawn()
    other.mmap(BASE, 8 * PAGE, RW, ANON)
    file = DeviceFile(DISK, cold=True)
    other.mmap(BASE + 64 * PAGE, PAGE, RW, ANON)

    def counts(process: Process) -> tuple[int, int]:
        return process.task.min_flt, process.task.maj_flt

    before = counts(asking), counts(other)

    def populate(start: int, pages: int) -> None:
        lock = other.mm.mmap_lock
        lock.down_read()
        faultin_page_range(other.mm, start, start + pages * PAGE, write=True)
        lock.up_read()

    asking.kernel.sched.run_as(asking.task, populate, BASE, 8)
    assert counts(asking) == (before[0][0] + 8, before[0][1])
    map_file(other, file, MAP_SHARED)
    asking.kernel.sched.run_as(asking.task, populate, BASE, 2)
    assert counts(asking) == (before[0][0] + 8, before[0][1] + 2)
    assert counts(other) == before[1]
    done(machine)


@pytest.mark.parametrize(("ask_for", "errno_"), [("populate", EHWPOISON), ("lock", errno.EFAULT)])
def test_populating_a_broken_page(machine: Machine, ask_for: str, errno_: int) -> None:
    """MADV_POPULATE_* tells a broken page apart, mlock does not."""
    process = machine.spawn()
    file = DeviceFile(DISK)
    map_file(process, file, MAP_SHARED)
    ctx = machine.kernel.mm_ctx
    ctx.pages.flags[file.mapping.get_folio(ctx, 1)] |= PG_HWPOISON
    vma = process.mm.mm_mt.load(BASE)
    with pytest.raises(OSError) as caught:
        if ask_for == "populate":
            with_mmap_lock(process, lambda: faultin_page_range(process.mm, BASE, BASE + 4 * PAGE, write=False))
        else:
            with_mmap_lock(process, lambda: populate_vma_page_range(process.mm, vma, BASE, BASE + 4 * PAGE))
    assert caught.value.errno == errno_
    ctx.pages.flags[file.mapping.get_folio(ctx, 1)] &= ~PG_HWPOISON
    done(machine)


def test_what_the_areas_refuse(machine: Machine) -> None:
    process = machine.spawn()
    process.mmap(BASE, PAGE, PROT_READ, ANON)
    process.mmap(BASE + PAGE, PAGE, PROT_NONE, ANON)
    efault = -errno.EFAULT

    def get(addr: int, flags: int, count: int = 1) -> int:
        pages: list[int] = []
        got = ask(process, gup.get_user_pages, addr, count, flags, pages)
        for pfn in pages:
            gup.put_user_page(machine.kernel.mm_ctx, pfn)
        return got

    assert get(BASE, 0) == 1
    assert get(BASE, 0, 2) == 1  # stops at what may not be read
    assert get(BASE, FOLL_DUMP) == efault  # the zero page
    assert get(BASE, FOLL_WRITE) == efault
    assert get(BASE, FOLL_WRITE | FOLL_FORCE) == 1
    assert get(BASE + PAGE, 0) == efault
    assert get(BASE + PAGE, FOLL_FORCE) == 1
    assert get(BASE + 2 * PAGE, 0) == efault  # a hole
    file = DeviceFile(DISK)
    process.munmap(BASE, 2 * PAGE)
    map_file(process, file, MAP_SHARED, PROT_READ)
    assert get(BASE, FOLL_WRITE | FOLL_FORCE) == efault  # others would see it
    assert get(BASE, FOLL_ANON) == efault
    assert get(BASE, FOLL_NOFAULT) == efault
    assert get(BASE, 0) == 1
    assert get(BASE, FOLL_NOFAULT) == 1
    done(machine)


def test_a_long_pin_to_write_a_file_that_tracks_dirty_pages_is_refused(machine: Machine) -> None:
    process = machine.spawn()
    map_file(process, DeviceFile(DISK), MAP_SHARED)
    pages: list[int] = []
    assert ask(process, gup.pin_user_pages, BASE, 1, FOLL_WRITE | FOLL_LONGTERM, pages) == -errno.EFAULT
    assert ask(process, gup.pin_user_pages, BASE, 1, FOLL_WRITE, pages) == 1
    assert ask(process, gup.pin_user_pages, BASE + PAGE, 1, FOLL_LONGTERM, pages) == 1
    gup.unpin_user_pages(machine.kernel.mm_ctx, pages)
    done(machine)


@pytest.mark.parametrize("flags", [FOLL_PIN, FOLL_GET | FOLL_LONGTERM, FOLL_LONGTERM, gup.FOLL_TOUCH, gup.FOLL_REMOTE])
def test_arguments_that_no_caller_may_give(machine: Machine, flags: int) -> None:
    process = machine.spawn()
    process.mmap(BASE, PAGE, RW, ANON)
    for _ in range(2):
        assert ask(process, gup.get_user_pages, BASE, 1, flags, []) == -errno.EINVAL
    assert sum("is_valid_gup_args" in line for line in machine.kernel.log) == 1
    assert ask(process, gup.get_user_pages, BASE, 1, FOLL_GET, None) == -errno.EINVAL
    assert ask(process, gup.get_user_pages_remote, BASE, 1, 0, [], Locked(False)) == -errno.EINVAL
    done(machine)


def test_a_forced_write_gets_a_private_copy_and_leaves_the_entry_read_only(machine: Machine) -> None:
    process = machine.spawn()
    file = DeviceFile(DISK)
    map_file(process, file, MAP_PRIVATE, PROT_READ)
    assert process.read(BASE + 3 * PAGE, 1) == b"\x03"
    pages: list[int] = []
    assert ask(process, gup.get_user_pages, BASE + 3 * PAGE, 1, FOLL_WRITE | FOLL_FORCE, pages) == 1
    assert pages[0] != file.mapping.folios[3]
    assert not entry(process, BASE + 3 * PAGE) & PTE_RW
    machine.kernel.ram.mem[pages[0] << 12] = 9
    assert process.read(BASE + 3 * PAGE, 1) == b"\x09"
    gup.put_user_page(machine.kernel.mm_ctx, pages[0])
    done(machine)


def test_a_pin_that_reads_takes_the_page_out_of_sharing(machine: Machine) -> None:
    parent = machine.spawn()
    parent.mmap(BASE, PAGE, RW, ANON)
    parent.write(BASE, b"p")
    child = parent.fork()
    shared = frame_of(parent, BASE)
    pages: list[int] = []
    assert ask(parent, gup.get_user_pages, BASE, 1, 0, pages) == 1  # a mere reference does not
    assert pages == [shared]
    gup.put_user_page(machine.kernel.mm_ctx, pages.pop())
    assert ask(parent, gup.pin_user_pages, BASE, 1, 0, pages) == 1
    assert pages != [shared] and pages == [frame_of(parent, BASE)]
    assert machine.kernel.pages.flags[pages[0]] & PG_ANON_EXCLUSIVE
    assert not entry(parent, BASE) & PTE_RW  # it was not written
    machine.check()
    parent.write(BASE, b"w")  # reused: the holder of the pin sees it, however many references there are
    assert pages == [frame_of(parent, BASE)]
    assert child.read(BASE, 1) == b"p"
    gup.unpin_user_pages(machine.kernel.mm_ctx, pages)
    done(machine)


def test_fork_copies_a_pinned_page_at_once(machine: Machine) -> None:
    parent = machine.spawn()
    parent.mmap(BASE, 64 * PAGE, RW, ANON)
    for i in range(64):
        parent.write(BASE + i * PAGE, bytes([i]))
    pages: list[int] = []
    assert ask(parent, gup.pin_user_pages, BASE + 5 * PAGE, 1, FOLL_WRITE, pages) == 1
    assert parent.mm.has_pinned
    child = parent.fork()
    machine.check()
    assert frame_of(child, BASE + 5 * PAGE) != pages[0] == frame_of(parent, BASE + 5 * PAGE)
    assert frame_of(child, BASE + 6 * PAGE) == frame_of(parent, BASE + 6 * PAGE)
    assert entry(parent, BASE + 5 * PAGE) & PTE_RW and not entry(parent, BASE + 6 * PAGE) & PTE_RW
    parent.write(BASE + 5 * PAGE, b"w")
    assert bytes(machine.kernel.ram.mem[pages[0] << 12 : (pages[0] << 12) + 1]) == b"w"
    assert child.read(BASE + 5 * PAGE, 1) == b"\x05" and child.read(BASE + 63 * PAGE, 1) == b"\x3f"
    gup.unpin_user_pages(machine.kernel.mm_ctx, pages, dirty=True)
    assert machine.kernel.pages.flags[frame_of(parent, BASE + 5 * PAGE)] & PG_DIRTY
    done(machine)


def test_the_lock_is_given_up_for_a_page_that_has_to_be_read(machine: Machine) -> None:
    process = machine.spawn()
    map_file(process, DeviceFile(DISK, cold=True), MAP_SHARED)
    lock = process.mm.mmap_lock
    pages: list[int] = []
    locked = Locked()
    free: list[bool] = []
    machine.kernel.clock.timer_in(50_000, lambda: free.append(not lock.is_locked()))

    def call() -> int:
        lock.down_read()
        return gup.get_user_pages_remote(process.mm, BASE, 3, 0, pages, locked)

    before = process.task.maj_flt
    assert process.kernel.sched.run_as(process.task, call) == 3
    assert free == [True]  # while the disk was at it
    assert not locked.held and not lock.is_locked()
    assert process.task.maj_flt - before == 3
    for pfn in pages:
        gup.put_user_page(machine.kernel.mm_ctx, pfn)
    done(machine)


def test_nowait_gets_nothing_and_that_is_no_error(machine: Machine) -> None:
    process = machine.spawn()
    file = DeviceFile(DISK, cold=True)
    map_file(process, file, MAP_SHARED)
    file.mapping.start_read(machine.kernel.mm_ctx, 0)
    pages: list[int] = []
    assert ask(process, gup.get_user_pages, BASE, 1, FOLL_NOWAIT, pages) == 0
    machine.kernel.sched.run(machine.kernel.clock.now + 1_000_000)
    assert ask(process, gup.get_user_pages, BASE, 1, FOLL_NOWAIT, pages) == 1
    gup.put_user_page(machine.kernel.mm_ctx, pages[0])
    done(machine)


def test_a_signal_that_kills_ends_the_wait(machine: Machine) -> None:
    process = machine.spawn()
    map_file(process, DeviceFile(DISK, cold=True), MAP_SHARED)
    sched = machine.kernel.sched
    machine.kernel.clock.timer_in(10_000, lambda: sched.signal_wake_up(process.task, fatal=True))
    locked = Locked()

    def call() -> int:
        process.mm.mmap_lock.down_read()
        got = gup.get_user_pages_remote(process.mm, BASE, 1, 0, [], locked)
        if locked.held:
            process.mm.mmap_lock.up_read()
        return got

    assert sched.run_as(process.task, call) == -errno.EINTR
    sched.run(machine.kernel.clock.now + 1_000_000)
    done(machine)
