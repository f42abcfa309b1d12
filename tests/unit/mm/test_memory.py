# SPDX-License-Identifier: GPL-2.0-or-later
"""First life: first touch, the zero page, A and D bits, zap, populate, counters; checked after every operation."""

import errno
import random

import pytest

from memtwin import Machine
from memtwin.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE
from memtwin.abi.resource import RLIMIT_STACK
from memtwin.abi.signal import SEGV_ACCERR, SEGV_MAPERR, SIGSEGV
from memtwin.errors import FatalSignal, MemtwinError, ProcessKilled
from memtwin.hw.paging import ACCESSED, DIRTY, NX, RW, SPECIAL
from memtwin.mm.page import PG_REFERENCED

PAGE = 4096
RW_PROT = PROT_READ | PROT_WRITE


@pytest.fixture
def machine():
    with Machine("64M", lockdep=True) as machine:
        yield machine
        machine.check()


@pytest.fixture
def p(machine):
    process = machine.spawn()
    yield process
    process.exit()
    machine.check()
    machine.kernel.check_no_leak()


def entry(p, addr):
    index, _ = p.kernel.pt.lookup(p.mm, addr)
    return p.kernel.ram.q[index] if index else 0


def test_read_maps_the_zero_page_and_counts_nothing(p):
    a = p.mmap(0, 3 * PAGE)
    assert p.read(a, 3 * PAGE) == bytes(3 * PAGE)
    assert p.mm.rss == 0
    assert entry(p, a) & (SPECIAL | RW | DIRTY) == SPECIAL
    assert p.task.min_flt == 3 and p.kernel.mm_ctx.fault_stats.anon_zero == 3
    p.kernel.check()


def test_write_takes_one_page_each_and_keeps_the_data(p):
    a = p.mmap(0, 4 * PAGE)
    p.write(a + PAGE - 3, b"abcdef")
    assert p.read(a + PAGE - 4, 8) == b"\0abcdef\0"
    assert p.mm.rss_anon == 2 and p.task.min_flt == 2
    p.kernel.check()


def test_write_over_the_zero_page_takes_a_second_fault(p):
    a = p.mmap(0, PAGE)
    p.touch(a, False)
    p.touch(a, True)
    assert (p.task.min_flt, p.mm.rss_anon) == (2, 1)
    assert p.kernel.mm_ctx.fault_stats.wp_copy == 1
    assert p.mm.tlb.gen == 1, "the read-only translation must be flushed"


def test_accessed_and_dirty_bits_equal_what_was_done(p):
    """Expectation drawn up independently: pages and what was done to them."""
    rng = random.Random(7)
    a = p.mmap(0, 300 * PAGE)
    done = {}
    for _ in range(600):
        page, write = rng.randrange(300), rng.random() < 0.4
        p.touch(a + page * PAGE + rng.randrange(PAGE), write)
        done[page] = done.get(page, False) or write
    for page in range(300):
        bits = entry(p, a + page * PAGE) & (ACCESSED | DIRTY)
        assert bits == (0 if page not in done else ACCESSED | DIRTY if done[page] else ACCESSED)
    p.kernel.check()


def test_dirty_pages_are_zeroed_before_somebody_else_gets_them(machine):
    a_process = machine.spawn()
    size = 20 << 20
    a = a_process.mmap(0, size)
    for offset in range(0, size, PAGE):
        a_process.write(a + offset + 1000, b"secret")
    a_process.exit()
    b_process = machine.spawn()
    b = b_process.mmap(0, size)
    for offset in range(0, size, PAGE):
        b_process.touch(b + offset, True)
    assert b_process.read(b, size) == bytes(size)
    b_process.munmap(b, size)
    c = b_process.mmap(0, size)
    b_process.populate(c, size)
    assert b_process.read(c, size) == bytes(size)


def test_a_copy_of_zeroes_is_zero_whatever_the_frame_held(p):
    """Pages that were only touched are copied, onto frames that others wrote, and onto frames that nobody did."""
    kernel, n = p.kernel, 40
    used = p.mmap(0, n * PAGE)
    p.write(used, b"x" * n * PAGE)
    a = p.mmap(0, 3 * n * PAGE)
    for addr in range(a, a + 3 * n * PAGE, PAGE):
        p.touch(addr, True)
    p.write(a + 5 * PAGE, b"five")
    p.munmap(used, n * PAGE)
    child = p.fork()
    copied = kernel.work.pages_copied
    frames = set()
    for addr in range(a, a + 3 * n * PAGE, PAGE):
        child.touch(addr, True)
        index, _ = kernel.pt.lookup(child.mm, addr)
        frames.add(kernel.ram.q[index] >> 12 & (1 << 40) - 1)
        kernel.check()
    assert kernel.work.pages_copied - copied == len(frames) == 3 * n
    assert {kernel.pages.nonzero[pfn] for pfn in frames} == {0, 1}
    assert child.read(a, 3 * n * PAGE) == bytes(5 * PAGE) + b"five" + bytes((3 * n - 5) * PAGE - 4)
    child.write(a + PAGE, b"child")
    assert p.read(a, 3 * n * PAGE) == bytes(5 * PAGE) + b"five" + bytes((3 * n - 5) * PAGE - 4)
    child.exit()
    again = p.mmap(0, 4 * n * PAGE)
    p.populate(again, 4 * n * PAGE)
    assert p.read(again, 4 * n * PAGE) == bytes(4 * n * PAGE)


def test_never_written_frames_are_not_zeroed_twice(machine):
    """The known-zero bit: untouched frames carry no mark, written ones do once they are unmapped."""
    p = machine.spawn()
    a = p.mmap(0, 8 * PAGE)
    p.touch(a, True)
    p.touch(a + PAGE, False)
    p.munmap(a, 8 * PAGE)
    assert int(machine.kernel.pages.vec.nonzero.sum()) == 1


@pytest.mark.parametrize(
    ("prot", "write", "code"),
    [(PROT_NONE, False, SEGV_ACCERR), (PROT_NONE, True, SEGV_ACCERR), (PROT_READ, True, SEGV_ACCERR)],
)
def test_forbidden_access_is_accerr_at_the_exact_byte(p, prot, write, code):
    a = p.mmap(0, 2 * PAGE, prot)
    with pytest.raises(FatalSignal) as caught:
        p.touch(a + 4097, write)
    assert (caught.value.sig, caught.value.code, caught.value.addr) == (SIGSEGV, code, a + 4097)


def test_a_hole_is_maperr_and_tells_how_far_it_got(p):
    a = p.mmap(0, PAGE)
    hole = a + PAGE
    p.munmap(hole, PAGE) if any(v.start <= hole < v.end for v in p.vmas()) else None
    with pytest.raises(FatalSignal) as caught:
        p.write(a + 4090, b"0123456789")
    assert (caught.value.code, caught.value.addr, caught.value.done) == (SEGV_MAPERR, hole, 6)
    assert p.read(a + 4090, 6) == b"012345"


def test_write_only_and_exec_only_memory_is_readable(p):
    for prot in (PROT_WRITE, PROT_EXEC):
        a = p.mmap(0, PAGE, prot)
        assert p.read(a, 4) == bytes(4)
    assert not entry(p, a) & NX


def test_stack_grows_down_but_not_past_its_limit(p):
    stack = p.vmas()[-1]
    top = stack.end
    p.setrlimit(RLIMIT_STACK, 16 << 20)
    p.touch(stack.start - 5 * PAGE, True)
    assert p.vmas()[-1].start == top - (8 << 20) - 5 * PAGE
    with pytest.raises(FatalSignal):
        p.touch(top - (16 << 20) - PAGE, True)
    p.kernel.check()


def test_stack_does_not_grow_into_an_accessible_neighbour(p):
    """R7, live 6.18: accessible mapping 16 pages below: SIGSEGV; the same mapping PROT_NONE: grows."""
    p.setrlimit(RLIMIT_STACK, 64 << 20)
    stack = p.vmas()[-1]
    below = stack.start - 17 * PAGE
    p.mmap(below, PAGE, RW_PROT, MAP_PRIVATE | MAP_ANONYMOUS | 0x10)
    with pytest.raises(FatalSignal):
        p.touch(stack.start - 1, True)
    p.mprotect(below, PAGE, PROT_NONE)
    p.touch(stack.start - 1, True)


def test_shared_anonymous_memory_counts_as_shmem(p):
    a = p.mmap(0, 4 * PAGE, RW_PROT, MAP_SHARED | MAP_ANONYMOUS)
    p.write(a, b"x")
    p.touch(a + PAGE, False)
    assert (p.mm.rss_anon, p.mm.rss_shmem) == (0, 2)
    p.touch(a + PAGE, True)
    assert p.mm.rss_shmem == 2
    p.kernel.check()
    p.munmap(a, 4 * PAGE)
    assert p.mm.rss == 0


@pytest.mark.parametrize("pages", [1, 17, 40, 41, 511, 513, 1500])
@pytest.mark.parametrize("write", [False, True])
def test_populate_equals_touching_every_page(pages, write):
    """Two machines: one touches, one populates; the page tables, counters and page records are the same."""
    results = []
    for how in ("touch", "populate"):
        with Machine("64M") as machine:
            p = machine.spawn()
            a = p.mmap(0, 2000 * PAGE)
            p.touch(a + 3 * PAGE, False)
            p.touch(a + 5 * PAGE, True)
            start = a + PAGE
            if how == "populate":
                p.populate(start, pages * PAGE, write=write)
            else:
                for addr in range(start, start + pages * PAGE, PAGE):
                    p.touch(addr, write)
            machine.check()
            bits = [entry(p, a + i * PAGE) & ~0x000F_FFFF_FFFF_F000 for i in range(2000)]
            records = []
            for i in range(2000):
                pfn = entry(p, a + i * PAGE) >> 12 & 0xFF_FFFF_FFFF
                pages_ = machine.kernel.pages
                if pfn and pfn != machine.kernel.mm_ctx.zero_pfn:
                    fields = (pages_.refcount, pages_.mapcount, pages_.mapping, pages_.index)
                    # Populating marks pages accessed besides.
                    records.append((i, pages_.flags[pfn] & ~PG_REFERENCED, *(field[pfn] for field in fields)))
            results.append((bits, records, p.mm.rss_anon, p.task.min_flt, machine.kernel.events.pgfault))
    assert results[0] == results[1]


def test_populate_errors(p):
    a = p.mmap(0, 4 * PAGE, PROT_READ)
    with pytest.raises(OSError) as caught:
        p.populate(a, 4 * PAGE, write=True)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(OSError) as caught:
        p.populate(a - PAGE, 2 * PAGE, write=False)
    assert caught.value.errno == errno.ENOMEM


def test_out_of_memory_kills_the_process_and_gives_everything_back():
    with Machine("16M") as machine:
        p = machine.spawn()
        a = p.mmap(0, 12 << 20)
        b = p.mmap(0, 12 << 20)
        with pytest.raises(ProcessKilled):
            for addr in [*range(a, a + (12 << 20), PAGE), *range(b, b + (12 << 20), PAGE)]:
                p.touch(addr, True)
        assert machine.kernel.events.oom_kill == 1
        assert any("Killed process" in line for line in machine.kernel.log)
        with pytest.raises(ProcessKilled):
            p.read(a, 1)
        machine.check()
        machine.kernel.check_no_leak()


def test_populate_out_of_memory_kills_too():
    with Machine("16M") as machine:
        p = machine.spawn()
        a = p.mmap(0, 14 << 20)
        b = p.mmap(0, 14 << 20)
        with pytest.raises(ProcessKilled):
            p.populate(a, 14 << 20)
            p.populate(b, 14 << 20)
        assert machine.kernel.events.oom_kill == 1
        machine.check()
        machine.kernel.check_no_leak()


def test_the_largest_process_is_killed_and_the_other_goes_on():
    with Machine("16M") as machine:
        big, small, exempt = machine.spawn("big"), machine.spawn("small"), machine.spawn("exempt")
        exempt.task.oom_score_adj = -1000
        for process, size in ((exempt, 6 << 20), (big, 4 << 20)):
            process.populate(process.mmap(0, size), size)
        a = small.mmap(0, 3 << 20)
        for addr in range(a, a + (3 << 20), PAGE):
            small.write(addr, b"s")
        assert big.task.exit_code == 9 and "(big)" in machine.kernel.log[-1]
        assert small.mm.rss_anon == 768 and small.read(a, 1) == b"s"
        with pytest.raises(ProcessKilled):
            big.mmap(0, PAGE)
        machine.check()


def test_nobody_to_kill_is_a_panic():
    with Machine("16M") as machine:
        p = machine.spawn()
        p.task.oom_score_adj = -1000
        a, b = p.mmap(0, 10 << 20), p.mmap(0, 10 << 20)
        with pytest.raises(MemtwinError, match="Kernel panic"):
            p.populate(a, 10 << 20)
            p.populate(b, 10 << 20)


def test_two_nodes_keep_separate_gauges():
    with Machine("64M", nodes=2, cpus=2) as machine:
        p = machine.spawn()
        a = p.mmap(0, 40 << 20)
        p.populate(a, 40 << 20)
        anon = [stat.nr_anon_pages for stat in machine.kernel.node_stats]
        assert sum(anon) == 10240 and min(anon) > 0
        machine.check()
        p.munmap(a, 40 << 20)
        assert [stat.nr_anon_pages for stat in machine.kernel.node_stats] == [0, 0]
