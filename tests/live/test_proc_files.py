# SPDX-License-Identifier: GPL-2.0-or-later
"""clear_refs, numa_maps, pagemap and kpageflags answer what the live kernel's answer, for the same calls before."""

from __future__ import annotations

import os
import struct

import pytest
from sides import AT, PAGE, RW, Side, sides

from memtwin.abi import mempolicy as mp
from memtwin.abi.mman import (
    MADV_COLD,
    MADV_FREE,
    MADV_POPULATE_WRITE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_SHARED,
    PROT_NONE,
    PROT_READ,
)

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
__all__ = ["sides"]

TEXTS = [
    b"0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
    b"-1",
    b" 1",
    b"1 ",
    b"1\n\n",
    b"1x",
    b"",
    b"\n",
    b"01",
    b"0x1",
    b"+1",
]
TEXTS += [b"4\0004", b"1\0", b"5 5", b"000000000005", b"0000000000005", b"   5", b"5            x", b"5" + b" " * 20]
TEXTS += [b"+1", b"5" + b"x" * 20, b"1.0", b"99999999999", b"-99999999999", b"2147483648", b"--1", b"\xa01", b"\v1\f"]


@pytest.mark.parametrize("text", TEXTS)
def test_clear_refs_takes_and_refuses(sides, text):
    live, twin = (side.put("self/clear_refs", text) for side in sides)
    assert live == twin


def test_clear_refs_is_written_anywhere_and_never_read(sides):
    live, twin = ((s.put("self/clear_refs", b"1", 5), s.file_at("self/clear_refs", 0, 1)) for s in sides)
    assert live == twin == (1, "EINVAL")


def _referenced(side: Side) -> list[object]:
    """What smaps shows as areas of all kinds are accessed and forgotten."""
    anon, shared, private = AT, AT + (1 << 24), AT + (1 << 25)
    seen: list[object] = []

    def look() -> None:
        seen.append([side.smaps(at) for at in (anon, shared, private)])

    def clear(number: int) -> None:
        assert side.put("self/clear_refs", b"%d" % number) == 1
        look()

    side.mmap(anon, 8)
    side.mmap(shared, 8, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED)
    side.mmap(private, 8, PROT_READ)
    for page in range(4):
        side.write(anon + page * PAGE, b"x")
    side.read(anon + 5 * PAGE)
    side.write(shared, b"x")
    side.read(shared + PAGE)
    side.read(private)
    look()
    for number in (1, 4, 5):
        clear(number)
    side.read(anon)
    side.read(shared)
    look()
    for number in (3, 2):
        clear(number)
    side.write(anon + PAGE, b"x")
    side.write(shared + PAGE, b"x")
    look()
    for number in (2, 3):
        clear(number)
    side.read(anon, 4 * PAGE)
    side.mprotect(anon, 8, PROT_NONE)
    look()
    clear(1)
    side.mprotect(anon, 8, RW)
    look()
    side.mlock(anon, 8)
    look()
    clear(1)
    side.madvise(anon, 8, MADV_POPULATE_WRITE)
    side.munlock(anon, 8)
    clear(2)
    side.madvise(anon, 8, MADV_COLD)
    look()
    return seen


def test_clear_refs_forgets(sides):
    live, twin = (_referenced(side) for side in sides)
    assert live == twin


def test_clear_refs_in_bulk(sides):
    """Whole tables."""

    def run(side):
        side.mmap(AT, 1500)
        side.madvise(AT, 1500, MADV_POPULATE_WRITE)
        before = side.smaps(AT)
        side.put("self/clear_refs", b"1")
        after = side.smaps(AT)
        side.read(AT + 700 * PAGE)
        return before, after, side.smaps(AT)

    live, twin = (run(side) for side in sides)
    assert live == twin
    assert twin[1].get("Referenced") is None and twin[2]["Referenced"] == 4


def test_clear_refs_resets_the_peak(sides):
    def run(side):
        side.mmap(AT, 4096)
        side.madvise(AT, 4096, MADV_POPULATE_WRITE)
        side.call(11, AT, 4096 * PAGE)
        peak = [line.split()[1] for line in side.file("status").splitlines() if line.startswith(("VmHWM", "VmRSS"))]
        side.put("self/clear_refs", b"5")
        status = dict(line.split(":") for line in side.file("status").splitlines() if line.startswith("Vm"))
        high, now = (int(status[key].split()[0]) for key in ("VmHWM", "VmRSS"))
        return int(peak[0]) - int(peak[1]) >= 4096 * 4 - 400, high - now < 400

    assert [run(side) for side in sides] == [(True, True)] * 2


MODES = range(mp.MPOL_DEFAULT, mp.MPOL_WEIGHTED_INTERLEAVE + 1)


@pytest.mark.parametrize("flag", [0, mp.MPOL_F_STATIC_NODES, mp.MPOL_F_RELATIVE_NODES, mp.MPOL_F_NUMA_BALANCING])
@pytest.mark.parametrize("mode", MODES)
def test_numa_maps_tells_the_policy(sides, mode, flag):
    def run(side):
        side.mmap(AT, 4)
        side.mmap(AT + (1 << 24), 1)
        side.write(AT + (1 << 24), struct.pack("<Q", 1))
        mask = 0 if mode in (mp.MPOL_DEFAULT, mp.MPOL_LOCAL) else AT + (1 << 24)
        return side.call(237, AT, 4 * PAGE, mode | flag, mask, 64 if mask else 0, 0), side.numa(AT)

    live, twin = (run(side) for side in sides)
    assert live == twin


def test_numa_maps_counts(sides):
    def run(side):
        seen = []
        side.mmap(AT, 8)
        seen.append(side.numa(AT))
        for page in range(3):
            side.write(AT + page * PAGE, b"x")
        side.read(AT + 5 * PAGE)
        seen.append(side.numa(AT))
        side.madvise(AT, 1, MADV_FREE)
        seen.append(side.numa(AT))
        side.mprotect(AT, 8, PROT_NONE)
        seen.append(side.numa(AT))
        side.mprotect(AT, 8, RW)
        side.write(AT, b"x")
        side.mlock(AT, 3)
        seen += [side.numa(AT), side.numa(AT + 3 * PAGE)]
        side.munlock(AT, 3)
        seen.append(side.numa(AT))
        shared = AT + (1 << 24)
        side.mmap(shared, 8, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED)
        side.write(shared, b"x")
        side.read(shared + PAGE)
        seen.append(side.numa(shared))
        return [line.replace("(memtwin)", "") for line in seen]

    live, twin = (run(side) for side in sides)
    assert live == twin


#: Bits of kpageflags that depend on batches of the page lists of each CPU (LRU, ACTIVE) or on nobody (IDLE).
UNSURE = 1 << 5 | 1 << 6 | 1 << 25


def test_page_records(sides):
    """kpageflags and kpagecount of pages in all conditions, found through pagemap."""

    def look(side, addr):
        (entry,) = struct.unpack("<Q", side.file_at("self/pagemap", addr // PAGE * 8, 8))
        pfn = entry & (1 << 55) - 1
        if not entry >> 63:
            return entry
        flags, count = (struct.unpack("<Q", side.file_at(f"kpage{what}", pfn * 8, 8))[0] for what in ("flags", "count"))
        # All processes share the zero page: whether it was ever looked at is not this one's doing.
        return entry >> 55, flags & ~(UNSURE | (1 << 2 if flags >> 24 & 1 else 0)), count

    def run(side):
        seen = []
        side.mmap(AT, 8)
        side.write(AT, b"x")
        side.read(AT + PAGE)
        seen += [look(side, AT + i * PAGE) for i in range(3)]
        side.mlock(AT, 1)
        side.munlock(AT, 1)
        seen.append(look(side, AT))
        side.mprotect(AT, 8, PROT_NONE)
        seen += [look(side, AT + i * PAGE) for i in range(3)]
        shared = AT + (1 << 24)
        side.mmap(shared, 8, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED)
        side.write(shared, b"x")
        side.read(shared + PAGE)
        seen += [look(side, shared + i * PAGE) for i in range(3)]
        return seen

    live, twin = (run(side) for side in sides)
    assert live == twin


@pytest.mark.parametrize("name", ["kpageflags", "kpagecount"])
def test_page_arrays_refuse_alike(sides, name):
    for offset in (0, 1, 4, 8, 1 << 40, 1 << 62):
        for size in (0, 4, 7, 8, 12, 16):
            live, twin = (side.file_at(name, offset, size) for side in sides)
            assert (live if isinstance(live, str) else len(live)) == (twin if isinstance(twin, str) else len(twin))


def test_stat_has_as_many_fields(sides):
    live, twin = (side.file("stat") for side in sides)
    assert len(live.rpartition(")")[2].split()) == len(twin.rpartition(")")[2].split()) == 50
    for side in sides:
        side.mmap(AT, 64)
        before = side.file("stat").rpartition(")")[2].split()
        side.madvise(AT, 64, MADV_POPULATE_WRITE)
        after = side.file("stat").rpartition(")")[2].split()
        assert 64 <= int(after[7]) - int(before[7]) <= 96  # minflt
        assert 32 <= int(after[21]) - int(before[21]) <= 96  # rss in pages: not exact on a live kernel, unlike status
        status = dict(line.split(":", 1) for line in side.file("status").splitlines())
        assert abs((int(after[20]) >> 10) - int(status["VmSize"].split()[0])) < 4096  # vsize in bytes


def test_status_lines_come_in_the_live_order(sides):
    live, twin = ([line.split(":")[0] for line in side.file("status").splitlines()] for side in sides)
    places = [live.index(key) for key in twin]
    assert places == sorted(places)
