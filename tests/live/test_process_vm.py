# SPDX-License-Identifier: GPL-2.0-or-later
"""process_vm_readv and _writev, /proc/PID/mem: what the live kernel answers, page by page."""

from __future__ import annotations

import ctypes
import os
import struct

import pytest
from sides import ANON, AT, PAGE, RW, Side, sides

from memtwin.abi.mman import (
    MADV_FREE,
    MADV_HUGEPAGE,
    MADV_POPULATE_WRITE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_GROWSDOWN,
    MAP_SHARED,
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
__all__ = ["sides"]

READV, WRITEV = 310, 311
KERNEL = 0xFFFF_8000_0000_0000
REMOTE = AT
HOLE = AT + 16 * PAGE  #: behind the 16 pages that are there
LOCAL = AT + (1 << 24)
LOCAL_HOLE = LOCAL + 64 * PAGE
VECTORS = AT + (1 << 26)
READ_ONLY, NONE, WRITE_ONLY, EXEC_ONLY, SHARED, SHARED_RO = (AT + (n << 28) for n in range(2, 8))

Ranges = list[tuple[int, int]]


def prepare(side: Side) -> None:
    """Areas of all kinds; the vectors' own pages are there, so that faults are those of the transfer."""
    side.mmap(REMOTE, 16)
    side.write(REMOTE, bytes(range(1, 255)) * 258)
    side.mmap(LOCAL, 64)
    side.mmap(VECTORS, 4)
    side.madvise(VECTORS, 4, MADV_POPULATE_WRITE)
    side.mmap(READ_ONLY, 4, PROT_READ)
    side.mmap(NONE, 4, PROT_NONE)
    side.mmap(WRITE_ONLY, 4, PROT_WRITE)
    side.mmap(EXEC_ONLY, 4, PROT_EXEC)
    side.mmap(SHARED, 4, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED)
    side.mmap(SHARED_RO, 4, PROT_READ, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED)


def transfer(side: Side, nr: int, local: Ranges, remote: Ranges, **other: int) -> object:
    """One call; ``other``: pid, flags, lcount, rcount, lvec, rvec where they are not what the ranges say."""
    for at, ranges in ((VECTORS, local), (VECTORS + PAGE, remote)):
        for addr, length in ranges:
            side.write(at, struct.pack("<QQ", addr & (1 << 64) - 1, length & (1 << 64) - 1))
            at += 16
    return side.call(
        nr,
        other.get("pid", side.pid) & (1 << 64) - 1,
        other.get("lvec", VECTORS),
        other.get("lcount", len(local)) & (1 << 64) - 1,
        other.get("rvec", VECTORS + PAGE),
        other.get("rcount", len(remote)) & (1 << 64) - 1,
        other.get("flags", 0),
    )


L, R = (LOCAL, 100), (REMOTE, 100)
#: Refused, empty, cut short: (local ranges, remote ranges, other arguments).
CALLS: list[tuple[Ranges, Ranges, dict[str, int]]] = [
    ([L], [R], {}),
    ([L], [R], {"flags": 1}),
    ([L], [R], {"flags": 1, "pid": 999_999}),
    *(([L], [R], {"pid": pid}) for pid in (999_999, -1, 0)),
    ([(LOCAL, 0)], [R], {"pid": 999_999}),
    ([L], [(REMOTE, 0)], {"pid": 999_999}),
    ([], [], {"pid": 999_999}),
    ([], [R], {}),
    ([L], [], {}),
    *(([L], [R], {which: count}) for which in ("lcount", "rcount") for count in (1024, 1025, -1, 1 << 32)),
    ([L], [R], {"lcount": 1025, "pid": 999_999}),
    ([], [R], {"rcount": 1025}),
    ([(LOCAL, 0)], [R], {"rcount": 1025}),
    ([(LOCAL, 0)], [R], {"rvec": 8}),
    ([L], [R], {"lvec": 8}),
    ([L], [R], {"rvec": 8}),
    ([(LOCAL, -1)], [R], {}),
    ([L], [(REMOTE, -1)], {}),
    ([L], [(REMOTE, 5), (REMOTE, -1)], {}),
    ([L, (LOCAL, -5)], [R], {}),
    ([(KERNEL, 10)], [R], {}),
    ([L, (KERNEL, 10)], [R], {}),
    ([L], [(KERNEL, 10)], {}),
    ([(LOCAL, 4 * PAGE)], [(HOLE - 2 * PAGE, 4 * PAGE)], {}),
    ([(LOCAL, 4 * PAGE)], [(HOLE - 2 * PAGE - 5, 4 * PAGE)], {}),
    ([(LOCAL, 4 * PAGE)], [(HOLE, 4 * PAGE)], {}),
    ([(LOCAL, 4 * PAGE)], [R, (HOLE, 100), R], {}),
    ([L], [R, (HOLE, 100), R], {}),
    ([L], [(HOLE, 0), R], {}),
    ([(LOCAL, 3), (LOCAL + 50, 0), (LOCAL + 9, 90)], [(REMOTE + 4090, 40), (REMOTE + 7, 5), (REMOTE, 300)], {}),
    ([(LOCAL_HOLE - 10, 100)], [R], {}),
    ([(LOCAL_HOLE - 5000, 10000)], [(REMOTE + 7, 10000)], {}),
    ([(LOCAL_HOLE, 100)], [R], {}),
    ([(LOCAL, 10), (LOCAL_HOLE, 10), L], [R], {}),
    ([(0, 10)], [R], {}),
    *(([(at, 10)], [R], {}) for at in (READ_ONLY, NONE, WRITE_ONLY, EXEC_ONLY, SHARED, SHARED_RO)),
    *(([L], [(at, 10)], {}) for at in (READ_ONLY, NONE, WRITE_ONLY, EXEC_ONLY, SHARED, SHARED_RO)),
    ([(LOCAL, 1)], [(REMOTE, 1), (HOLE, 1)], {}),
]


@pytest.mark.parametrize("nr", [READV, WRITEV], ids=["readv", "writev"])
def test_errors_and_partial_transfers(sides, nr):
    for side in sides:
        prepare(side)
    for local, remote, other in CALLS:
        live, twin = (transfer(side, nr, local, remote, **other) for side in sides)
        assert live == twin, (local, remote, other)
        for at in (LOCAL, LOCAL_HOLE - 3 * PAGE, REMOTE, REMOTE + 4000):
            assert sides[0].read(at, 3 * PAGE) == sides[1].read(at, 3 * PAGE), (local, remote, other)


def _faults(side: Side) -> list[object]:
    """The faults of transfers from and to untouched pages, and what they leave."""
    prepare(side)
    side.madvise(LOCAL, 64, MADV_POPULATE_WRITE)
    big = AT + (1 << 32)
    side.mmap(big, 4096)
    seen: list[object] = []

    def go(nr: int, local: Ranges, remote: Ranges) -> None:
        seen.append(side.faults(lambda: transfer(side, nr, local, remote)))

    go(READV, [(LOCAL, 1)], [(LOCAL, 1)])  # warms up the interpreter that measures
    seen.clear()
    go(READV, [(LOCAL, 1)], [(big, 2000 * PAGE)])
    go(READV, [(LOCAL, 5 * PAGE)], [(big + 2048 * PAGE, 20 * PAGE)])
    go(WRITEV, [(LOCAL, 5 * PAGE)], [(big + 2048 * PAGE, 20 * PAGE)])
    go(WRITEV, [(LOCAL, 5 * PAGE)], [(big + 3000 * PAGE, 20 * PAGE)])
    seen.append(side.smaps(big))
    return seen


def test_faults_are_counted_and_a_batch_is_pinned_before_it_is_copied(sides):
    live, twin = (_faults(side) for side in sides)
    assert live == twin
    assert twin[0] == (1, 1024)


def _accesses(side: Side) -> list[object]:
    """What counts as an access of the page."""
    prepare(side)
    transfer(side, READV, [(LOCAL, 10)], [(REMOTE, 10)])
    side.put("self/clear_refs", b"1")
    seen: list[object] = [side.smaps(REMOTE)]
    transfer(side, READV, [(LOCAL, 10)], [(REMOTE + 4090, 10)])
    seen.append(side.smaps(REMOTE))
    side.put("self/mem", b"x", REMOTE + 5 * PAGE)
    side.file_at("self/mem", REMOTE + 7 * PAGE, 3)
    seen.append(side.smaps(REMOTE))
    side.madvise(REMOTE, 16, MADV_FREE)
    seen.append(side.smaps(REMOTE))
    transfer(side, WRITEV, [(LOCAL, 10)], [(REMOTE + 4090, 10)])
    side.put("self/mem", b"x", REMOTE + 9 * PAGE)
    seen.append(side.smaps(REMOTE))
    for shared in (SHARED, SHARED_RO):
        transfer(side, WRITEV, [(LOCAL, 10)], [(shared, 10)])
        transfer(side, READV, [(LOCAL, 10)], [(shared + PAGE, 10)])
        seen.append(side.smaps(shared))
    for values in seen:
        values.pop("LazyFree", None)  # per-CPU batches decide
    return seen


def test_transfers_count_as_accesses(sides):
    live, twin = (_accesses(side) for side in sides)
    assert live == twin


# -- /proc/PID/mem ----------------------------------------------------------------------------------------------------

MEM_READS = [
    (HOLE - 2 * PAGE, 8 * PAGE),
    (HOLE - 50, 100),
    (HOLE, 8),
    (HOLE, 0),
    (0, 8),
    *((at + 5, 3) for at in (READ_ONLY, NONE, WRITE_ONLY, EXEC_ONLY, SHARED, SHARED_RO)),
]


def test_mem_reads_what_nobody_else_may(sides):
    for side in sides:
        prepare(side)
    for offset, size in MEM_READS:
        live, twin = (side.file_at("self/mem", offset, size) for side in sides)
        assert live == twin, (hex(offset), size)


@pytest.mark.parametrize("touched", [False, True])
def test_mem_writes_private_memory_against_its_rights(sides, touched):
    def run(side):
        prepare(side)
        if touched:
            for at, prot in ((READ_ONLY, PROT_READ), (NONE, PROT_NONE), (EXEC_ONLY, PROT_EXEC)):
                side.mprotect(at, 4, RW)
                side.write(at, b"before")
                side.mprotect(at, 4, prot)
        seen = []
        for at in (READ_ONLY, NONE, WRITE_ONLY, EXEC_ONLY, SHARED, SHARED_RO, HOLE):
            seen.append(side.faults(lambda at=at: side.put("self/mem", b"abc", at + 3))[0])
            seen.append(side.file_at("self/mem", at, 8))
            if at != HOLE:
                seen.append(side.smaps(at))
        seen.append(side.put("self/mem", bytes(8 * PAGE), HOLE - 2 * PAGE))
        for at in (READ_ONLY, NONE, EXEC_ONLY):
            side.mprotect(at, 4, RW)
            seen.append(side.read(at, 8))
            side.write(at, b"after")
            seen.append(side.smaps(at))
        return seen

    live, twin = (run(side) for side in sides)
    assert live == twin


def test_mem_grows_a_stack_and_process_vm_does_not(sides):
    def run(side):
        prepare(side)
        side.mmap(AT + (1 << 33), 2, RW, ANON | MAP_GROWSDOWN)
        below = AT + (1 << 33) - 3 * PAGE
        seen = [transfer(side, READV, [(LOCAL, 8)], [(below, 8)]), side.file_at("self/mem", below, 8)]
        seen.append([line.split()[0] for line in side.file("maps").splitlines() if line.startswith(f"{below:x}")])
        return seen

    live, twin = (run(side) for side in sides)
    assert live == twin and twin[1] == bytes(8)


# -- sharing after fork -----------------------------------------------------------------------------------------------


def _entry(side, addr):
    (word,) = struct.unpack("<Q", side.file_at("self/pagemap", addr // PAGE * 8, 8))
    return word


def _after_fork(side, fork):
    """Pages of a fork: read by process_vm_readv, by mem, written against the area's rights."""
    prepare(side)
    transfer(side, READV, [(LOCAL, 1)], [(LOCAL, 1)])
    side.mprotect(REMOTE + 8 * PAGE, 8, PROT_READ)
    done = fork()
    pages = [REMOTE + number * PAGE for number in (0, 1, 9)]
    before = [_entry(side, at) for at in pages]
    seen: list[object] = [word >> 55 for word in before]
    seen.append(transfer(side, READV, [(LOCAL, 10)], [(REMOTE, 10)]))
    seen.append(side.file_at("self/mem", REMOTE + PAGE, 4))
    seen.append(side.put("self/mem", b"q", REMOTE + 9 * PAGE))
    for at, was in zip(pages, before, strict=True):
        now = _entry(side, at)
        seen.append((now >> 55, now == was, (now ^ was) & (1 << 55) - 1 == 0))
    seen.append([side.smaps(REMOTE), side.smaps(REMOTE + 8 * PAGE)])
    done()
    seen.append(transfer(side, READV, [(LOCAL, 10)], [(REMOTE + PAGE, 10)]))
    seen.append(_entry(side, REMOTE + PAGE) >> 55)
    seen.append(side.smaps(REMOTE))
    return seen


def test_a_pinned_read_takes_pages_out_of_the_sharing(sides):
    live, twin = sides

    def fork_live():
        out, into = os.pipe()
        pid = os.fork()
        if not pid:
            ctypes.CDLL(None).close(into)
            os.read(out, 1)
            os._exit(0)

        def done():
            os.close(into)
            os.waitpid(pid, 0)
            os.close(out)

        return done

    def fork_twin():
        child = twin.process.fork()
        return child.exit

    assert _after_fork(live, fork_live) == _after_fork(twin, fork_twin)


def _huge(side):
    """A transparent huge page, read, written and forgotten from outside; forks are in ``_after_fork``."""
    prepare(side)
    at = AT + (1 << 34)
    side.mmap(at, 1024)
    side.madvise(at, 1024, MADV_HUGEPAGE)
    seen = [side.faults(lambda: transfer(side, READV, [(LOCAL, 10)], [(at + 5000, 10)]))[0]]
    seen += [side.smaps(at), side.numa(at), _entry(side, at) >> 55, _entry(side, at + PAGE) >> 55]
    seen.append(transfer(side, WRITEV, [(LOCAL, 10)], [(at + 5000, 10)]))
    side.put("self/mem", b"xyz", at + 700 * PAGE)
    for number in (0, 1, 511, 512, 700):
        seen.append(_entry(side, at + number * PAGE) >> 55)
    seen += [side.smaps(at), side.numa(at)]
    side.put("self/clear_refs", b"1")
    seen += [side.smaps(at), transfer(side, READV, [(LOCAL, 10)], [(at + 5000, 10)])]
    seen += [side.smaps(at), side.read(at + 700 * PAGE, 4)]
    seen += [side.smaps(at), side.file_at("self/mem", at + 5000, 4)]
    side.mprotect(at, 1024, PROT_NONE)
    seen += [side.put("self/mem", b"uvw", at + 10 * PAGE), side.file_at("self/mem", at + 10 * PAGE, 4), side.numa(at)]
    return seen


def test_huge_pages(sides):
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="ascii") as file:
            if "[madvise]" not in file.read():
                pytest.skip("transparent huge pages are not on madvise")
    except OSError:
        pytest.skip("no transparent huge pages")
    live, twin = (_huge(side) for side in sides)
    assert live == twin


# -- where pages are --------------------------------------------------------------------------------------------------

MOVE_PAGES = 279


def _where(side, addrs, **other):
    """(answer, states) of one query; 77 is what nobody wrote over."""
    count = len(addrs)
    side.write(VECTORS, struct.pack(f"<{count}Q", *addrs))
    side.write(VECTORS + PAGE, struct.pack(f"<{count}i", *[77] * count))
    result = side.call(
        MOVE_PAGES,
        other.get("pid", 0),
        other.get("count", count),
        other.get("pages", VECTORS),
        0,
        other.get("status", VECTORS + PAGE),
        other.get("flags", 0),
    )
    return result, struct.unpack(f"<{count}i", side.read(VECTORS + PAGE, 4 * count))


def test_where_pages_are(sides):
    def run(side):
        prepare(side)
        side.read(LOCAL)
        side.write(LOCAL + PAGE, b"x")
        addrs = [LOCAL, LOCAL + PAGE, LOCAL + PAGE + 5, LOCAL + 2 * PAGE, HOLE, 0, 0x7FFF_FFFF_FFFF, 1 << 63, SHARED]
        seen = [_where(side, addrs), _where(side, addrs * 5)]
        side.mprotect(LOCAL, 64, PROT_NONE)
        seen.append(_where(side, addrs))
        seen += [_where(side, addrs[:1], flags=flags) for flags in (1, 2, 4, 6, 8)]
        seen += [_where(side, addrs[:1], pid=pid) for pid in (side.pid, 999_999, (1 << 64) - 1)]
        seen += [_where(side, addrs[:1], **{which: 8}) for which in ("pages", "status")]
        seen.append(_where(side, addrs[:1], count=0))
        return seen

    live, twin = (run(side) for side in sides)
    assert live == twin
