# SPDX-License-Identifier: GPL-2.0-or-later
"""mmap, munmap, brk, mprotect as far as first programs need them: places, errnos, splits, accounting."""

import errno
import random

import pytest

from memtwin import Machine
from memtwin.abi.mempolicy import MPOL_BIND, MPOL_MF_STRICT, MPOL_PREFERRED
from memtwin.abi.mman import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from memtwin.errors import FatalSignal

PAGE = 4096
ANON = MAP_PRIVATE | MAP_ANONYMOUS
RW = PROT_READ | PROT_WRITE
TOP = 0x7FFFF7FFF000
BASE = 0x1000000000


@pytest.fixture
def p():
    with Machine("64M", lockdep=True) as machine:
        process = machine.spawn()
        yield process
        machine.check()
        process.exit()
        machine.check()
        machine.kernel.check_no_leak()


def shape(p):
    return [((v.start - BASE) // PAGE, (v.end - BASE) // PAGE) for v in p.vmas() if v.start < TOP - (1 << 40)]


def test_spawned_address_space(p):
    (stack,) = p.vmas()
    assert (stack.start, stack.end) == (0x7FFFFFFFF000 - (8 << 20), 0x7FFFFFFFF000)
    assert p.brk(0) == 0x800000000


def test_kernel_chosen_addresses_go_down_from_the_top(p):
    """R7, live 6.18: three 4-page maps are contiguous downwards; 2 pages into a 4-page hole land in its upper half."""
    a = [p.mmap(0, 4 * PAGE) for _ in range(3)]
    assert a == [TOP - 4 * PAGE, TOP - 8 * PAGE, TOP - 12 * PAGE]
    p.munmap(a[1], 4 * PAGE)
    assert p.mmap(0, 2 * PAGE) == a[1] + 2 * PAGE


def test_hints(p):
    assert p.mmap(BASE + 5, PAGE) == BASE
    assert p.mmap(BASE, PAGE) == TOP - PAGE, "a hint in use is ignored"
    assert p.mmap(0x2000, PAGE) == 0x10000, "raised to mmap_min_addr"


def test_guard_gap_below_a_growing_area(p):
    """R7, live 6.18: a hint 23 pages below a growsdown area is placed elsewhere, MAP_FIXED there is honoured."""
    p.mmap(BASE + 1000 * PAGE, PAGE, RW, ANON | MAP_FIXED | MAP_GROWSDOWN)
    assert p.mmap(BASE + 977 * PAGE, PAGE) == TOP - PAGE
    assert p.mmap(BASE + 977 * PAGE, PAGE, RW, ANON | MAP_FIXED) == BASE + 977 * PAGE


@pytest.mark.parametrize(
    ("addr", "length", "flags", "number"),
    [
        (0, 0, ANON, errno.EINVAL),
        (0, 1 << 63, ANON, errno.ENOMEM),
        (BASE + 1, PAGE, ANON | MAP_FIXED, errno.EINVAL),
        (1 << 47, PAGE, ANON | MAP_FIXED, errno.ENOMEM),
        (0, PAGE, MAP_ANONYMOUS, errno.EINVAL),
        (0, PAGE, MAP_ANONYMOUS | 3, errno.EINVAL),
        (0, PAGE, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN, errno.EINVAL),
        (0, 65 << 20, ANON, errno.ENOMEM),
    ],
)
def test_mmap_errors(p, addr, length, flags, number):
    before = [(v.start, v.end) for v in p.vmas()]
    with pytest.raises(OSError) as caught:
        p.mmap(addr, length, RW, flags)
    assert caught.value.errno == number
    assert [(v.start, v.end) for v in p.vmas()] == before


def test_noreserve_is_not_charged(p):
    before = p.kernel.mm_ctx.committed
    p.mmap(0, 1 << 40, RW, ANON | MAP_NORESERVE)
    p.mmap(0, 1 << 40, PROT_READ)
    assert p.kernel.mm_ctx.committed == before
    p.mmap(0, 10 * PAGE)
    assert p.kernel.mm_ctx.committed == before + 10


def test_fixed_replaces_and_noreplace_refuses(p):
    p.mmap(BASE, 10 * PAGE, RW, ANON | MAP_FIXED)
    p.write(BASE + 4 * PAGE, b"old")
    with pytest.raises(OSError) as caught:
        p.mmap(BASE + 4 * PAGE, 2 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE)
    assert caught.value.errno == errno.EEXIST
    p.mmap(BASE + 4 * PAGE, 2 * PAGE, RW, ANON | MAP_FIXED)
    assert p.read(BASE + 4 * PAGE, 3) == bytes(3)
    assert shape(p) == [(0, 10)], "the new piece fits to both sides"


@pytest.mark.parametrize(
    ("start", "end", "left"),
    [
        (0, 10, []),
        (0, 3, [(3, 10)]),
        (7, 10, [(0, 7)]),
        (4, 6, [(0, 4), (6, 10)]),
        (20, 30, [(0, 10)]),
    ],
)
def test_munmap_shapes(p, start, end, left):
    p.mmap(BASE, 10 * PAGE, RW, ANON | MAP_FIXED)
    for page in range(10):
        p.write(BASE + page * PAGE, bytes([page]))
    p.munmap(BASE + start * PAGE, (end - start) * PAGE)
    assert shape(p) == left
    for page in range(10):
        if start <= page < end:
            with pytest.raises(FatalSignal):
                p.read(BASE + page * PAGE, 1)
        else:
            assert p.read(BASE + page * PAGE, 1) == bytes([page])
    p.kernel.check()


@pytest.mark.parametrize(("addr", "length"), [(BASE + 1, PAGE), (BASE, 0), (1 << 48, PAGE), (BASE, (1 << 64) - PAGE)])
def test_munmap_errors(p, addr, length):
    with pytest.raises(OSError) as caught:
        p.munmap(addr, length)
    assert caught.value.errno == errno.EINVAL


def test_limit_of_areas(p):
    """R5: mmap refuses if the count exceeds the maximum (one more is reachable), munmap of a middle at it."""
    ctx = p.kernel.mm_ctx
    ctx.sysctl.max_map_count = 5
    for i in range(4):
        p.mmap(BASE + i * 100 * PAGE, 10 * PAGE, RW, ANON | MAP_FIXED)
    assert p.mm.map_count == 5
    with pytest.raises(OSError) as caught:
        p.munmap(BASE + 4 * PAGE, PAGE)
    assert caught.value.errno == errno.ENOMEM
    p.munmap(BASE, PAGE)
    with pytest.raises(OSError) as caught:
        p.mprotect(BASE + 4 * PAGE, PAGE, PROT_READ)
    assert caught.value.errno == errno.ENOMEM
    p.mmap(BASE + 500 * PAGE, PAGE, RW, ANON | MAP_FIXED)
    assert p.mm.map_count == 6
    with pytest.raises(OSError):
        p.mmap(BASE + 600 * PAGE, PAGE, RW, ANON | MAP_FIXED)


def test_brk(p):
    start = p.brk(0)
    assert p.brk(start + 3 * PAGE + 5) == start + 3 * PAGE + 5
    p.write(start, b"heap")
    assert p.brk(start - PAGE) == start + 3 * PAGE + 5, "below the start: refused, the old break comes back"
    assert p.brk(start + 10 * PAGE) == start + 10 * PAGE
    assert len(p.vmas()) == 2, "the heap is one area"
    p.mmap(start + 14 * PAGE, PAGE, RW, ANON | MAP_FIXED)
    assert p.brk(start + 13 * PAGE) == start + 13 * PAGE, "R8, live 6.18: up to one page below the next area"
    assert p.brk(start + 14 * PAGE) == start + 13 * PAGE
    assert p.brk(start + PAGE) == start + PAGE
    assert p.read(start, 4) == b"heap"
    with pytest.raises(FatalSignal):
        p.read(start + PAGE, 1)


def test_mprotect_splits_and_changes_entries(p):
    p.mmap(BASE, 10 * PAGE, RW, ANON | MAP_FIXED)
    p.write(BASE, bytes(range(10)) * PAGE)
    p.mprotect(BASE + 3 * PAGE, 4 * PAGE, PROT_READ)
    assert shape(p) == [(0, 3), (3, 7), (7, 10)]
    assert p.read(BASE + 3 * PAGE, 10) == p.read(BASE + 3 * PAGE, 10)
    with pytest.raises(FatalSignal):
        p.write(BASE + 4 * PAGE, b"x")
    p.mprotect(BASE + 3 * PAGE, 4 * PAGE, PROT_NONE)
    with pytest.raises(FatalSignal):
        p.read(BASE + 4 * PAGE, 1)
    faults = p.task.min_flt
    p.mprotect(BASE + 3 * PAGE, 4 * PAGE, RW)
    p.write(BASE + 4 * PAGE, b"x")
    assert p.task.min_flt == faults, "a dirty page that nobody shares is writable at once"
    assert p.mm.rss_anon == 10


def test_mprotect_hole_changes_what_precedes_it(p):
    """R8, live 6.18: range 4 pages + hole + 4 pages: ENOMEM, the first 4 pages changed."""
    p.mmap(BASE, 4 * PAGE, RW, ANON | MAP_FIXED)
    p.mmap(BASE + 6 * PAGE, 4 * PAGE, RW, ANON | MAP_FIXED)
    with pytest.raises(OSError) as caught:
        p.mprotect(BASE, 10 * PAGE, PROT_READ)
    assert caught.value.errno == errno.ENOMEM
    assert [v.flags & 7 for v in p.vmas()[:2]] == [PROT_READ, RW]


@pytest.mark.parametrize(
    ("addr", "length", "prot", "number"),
    [
        (BASE + 1, PAGE, RW, errno.EINVAL),
        (BASE, PAGE, 0x40, errno.EINVAL),
        (BASE, 1 << 63, RW, errno.ENOMEM),
        (BASE + (1 << 30), PAGE, RW, errno.ENOMEM),
    ],
)
def test_mprotect_errors(p, addr, length, prot, number):
    p.mmap(BASE, PAGE, RW, ANON | MAP_FIXED)
    with pytest.raises(OSError) as caught:
        p.mprotect(addr, length, prot)
    assert caught.value.errno == number


def test_mprotect_to_writable_is_charged(p):
    before = p.kernel.mm_ctx.committed
    p.mmap(BASE, 10 * PAGE, PROT_READ, ANON | MAP_FIXED)
    p.mprotect(BASE, 4 * PAGE, RW)
    assert p.kernel.mm_ctx.committed == before + 4


@pytest.mark.parametrize("seed", range(6))
def test_random_calls_against_a_page_map(p, seed):
    """A dictionary page -> (protection, byte) is the whole model; every invariant holds after every call."""
    rng = random.Random(seed)
    model = {}
    pages = 1200 if seed % 2 else 60
    for _ in range(120):
        start = rng.randrange(pages)
        count = (
            rng.randrange(1, pages - start + 1) if rng.random() < 0.3 else rng.randrange(1, min(8, pages - start) + 1)
        )
        span = range(start, start + count)
        addr, length = BASE + start * PAGE, count * PAGE
        what = rng.choice(["mmap", "munmap", "mprotect", "write", "read", "populate"])
        if what == "mmap":
            prot = rng.choice([RW, PROT_READ, PROT_NONE, RW | PROT_EXEC])
            p.mmap(addr, length, prot, ANON | MAP_FIXED)
            model.update(dict.fromkeys(span, (prot, 0)))
        elif what == "munmap":
            p.munmap(addr, length)
            for page in span:
                model.pop(page, None)
        elif what == "mprotect":
            prot = rng.choice([RW, PROT_READ, PROT_NONE])
            hole = next((page for page in span if page not in model), None)
            try:
                p.mprotect(addr, length, prot)
                assert hole is None
            except OSError as error:
                assert error.errno == errno.ENOMEM and hole is not None
            for page in span:
                if page == hole:
                    break
                model[page] = (prot, model[page][1])
        elif what == "populate":
            write = rng.random() < 0.5
            fine = all(page in model and model[page][0] & (PROT_WRITE if write else RW) for page in span)
            try:
                p.populate(addr, length, write=write)
                assert fine
            except OSError as error:
                assert error.errno in (errno.ENOMEM, errno.EINVAL) and not fine
        else:
            page, value = rng.choice(span), rng.randrange(1, 256)
            prot, byte = model.get(page, (None, 0))
            allowed = prot is not None and (prot & PROT_WRITE if what == "write" else prot)
            try:
                if what == "write":
                    p.write(BASE + page * PAGE + 99, bytes([value]))
                    model[page] = (prot, value)
                else:
                    assert p.read(BASE + page * PAGE + 99, 1)[0] == byte
                assert allowed
            except FatalSignal:
                assert not allowed
        p.kernel.check()


def test_growth_of_a_read_only_area_leaks_commit_charge_as_in_linux(p):
    """live 6.18: a read-only growing-down area grown by 100 pages leaves 400 kB in Committed_AS for good."""
    ctx = p.kernel.mm_ctx
    before = ctx.committed
    p.mmap(BASE + 1000 * PAGE, PAGE, PROT_READ, ANON | MAP_FIXED | MAP_GROWSDOWN)
    p.read(BASE + 900 * PAGE, 1)
    p.munmap(BASE + 900 * PAGE, 101 * PAGE)
    assert ctx.committed - before == ctx.commit_leaked == 100
    p.kernel.check()


def test_mbind_strict_minds_pages_on_other_nodes(p):
    """live 6.18: with an empty set of nodes every present page is on another one."""
    p.mmap(BASE, 3 * PAGE, RW, ANON | MAP_FIXED)
    p.mbind(BASE, 3 * PAGE, MPOL_PREFERRED, 0, MPOL_MF_STRICT)
    p.touch(BASE, False)
    p.mbind(BASE, 3 * PAGE, MPOL_BIND, 1, MPOL_MF_STRICT)
    p.touch(BASE + PAGE, True)
    with pytest.raises(OSError) as caught:
        p.mbind(BASE, 3 * PAGE, MPOL_PREFERRED, 0, MPOL_MF_STRICT)
    assert caught.value.errno == errno.EIO
    p.mbind(BASE, 3 * PAGE, MPOL_BIND, 1, MPOL_MF_STRICT)
