# SPDX-License-Identifier: GPL-2.0-or-later
"""Work on memory that is there: write faults on present entries, and whole ranges changed, copied, looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.harness import Bench, Case, Side, rate
from benchmarks.tables.areas import map_areas
from benchmarks.tables.populate import roomy
from memtwin.abi import mman
from memtwin.machine import Machine
from memtwin.process import Process

TITLE = "Populated memory"
NOTE = (
    "One p.touch() a fault against the same accesses by a C program; then ranges of present pages: MAP_POPULATE, "
    "MADV_DONTNEED, fork (until it returns), mprotect to read-only and back (each counts half), /proc/self/pagemap; "
    "/proc/self/smaps of many areas. Last what a page costs the twin in a range of 16 GiB against one of 64 MiB (0.25 "
    "or more: at most four times as much); 16 GiB are used as page tables and page records only, no frame is touched."
)

_ANON = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS
#: Bytes of pagemap read at once.
_CHUNK = 1 << 20
Work = Callable[["_Range"], float]


def cases(bench: Bench) -> Iterator[Case]:
    """Faults on present entries, 1 GiB of present pages, smaps, and how costs grow."""
    faults = bench.size(65_536, 8_192)
    live = bench.live.rate
    yield Case("wp fault on the zero page", "pages/s", _wp_zero(faults), live("wp", faults), "write fault", least=0.2)
    yield Case("COW after fork", "pages/s", _cow(faults), live("cow", faults), "write fault", least=0.2)
    for mib in (64,) if bench.quick else (64, 1024, 4096):
        yield from _of_size(bench, mib)
    count = bench.size(10_000, 500)
    yield _smaps(bench, count)
    if not bench.quick:
        small, large = _Range(64), _Range(16 << 10)
        for name, work in _WORKS.items():
            yield Case(
                f"{name} 16 GiB",
                "pages/s",
                lambda work=work: work(large),  # type: ignore[misc]
                lambda work=work: (work(small), work(small))[1],  # type: ignore[misc]
                "the twin with 64 MiB, warm",
                least=0.25,
                rounds=3,
            )


def _touch(process: Process, start: int, pages: int, write: bool) -> None:
    touch = process.touch
    for addr in range(start, start + (pages << 12), 4096):
        touch(addr, write)


def _wp_zero(pages: int) -> Side:
    process = Machine("1G").spawn("wp")

    def side() -> float:
        start = process.mmap(0, pages << 12)
        _touch(process, start, pages, False)
        figure = rate(pages, lambda: _touch(process, start, pages, True))
        process.munmap(start, pages << 12)
        return figure

    return side


def _cow(pages: int) -> Side:
    process = Machine("2G").spawn("cow")

    def side() -> float:
        start = process.mmap(0, pages << 12)
        process.populate(start, pages << 12)
        child = process.fork()
        figure = rate(pages, lambda: _touch(process, start, pages, True))
        child.exit()
        process.munmap(start, pages << 12)
        return figure

    return side


class _Range:
    """A populated range of a process of its own, made when first asked for and again after it was changed."""

    def __init__(self, mib: int) -> None:
        self.pages = mib << 8
        self.size = self.pages << 12
        self._mib = mib
        self._process: Process | None = None
        self.start = 0

    @property
    def process(self) -> Process:
        """Its process, which lives with all its frames in a zone that can hold the range and more."""
        if self._process is None:
            self._process = Machine(f"{self._mib * 2 + 6144}M").spawn("populated")
        return self._process

    def have(self) -> Process:
        """The process with the range populated."""
        process = self.process
        if not self.start:
            self.start = process.mmap(0, self.size)
            process.populate(self.start, self.size)
        return process

    def drop(self) -> None:
        """Unmap the range."""
        start, self.start = self.start, 0
        self.process.munmap(start, self.size)


def _map_populate(area: _Range) -> float:
    if area.start:
        area.drop()
    process = area.process

    def work() -> None:
        area.start = process.mmap(0, area.size, flags=_ANON | mman.MAP_POPULATE)

    return rate(area.pages, work)


def _zap(area: _Range) -> float:
    area.have()
    return rate(area.pages, area.drop)


def _dontneed(area: _Range) -> float:
    process = area.have()
    figure = rate(area.pages, lambda: process.madvise(area.start, area.size, mman.MADV_DONTNEED))
    process.populate(area.start, area.size)
    return figure


def _fork(area: _Range) -> float:
    process = area.have()
    children: list[Process] = []
    figure = rate(area.pages, lambda: children.append(process.fork()))
    children.pop().exit()
    return figure


def _rights(area: _Range) -> float:
    process = area.have()

    def work() -> None:
        process.mprotect(area.start, area.size, mman.PROT_READ)
        process.mprotect(area.start, area.size, mman.PROT_READ | mman.PROT_WRITE)

    return rate(2 * area.pages, work)


def _pagemap(area: _Range) -> float:
    process = area.have()
    first = area.start >> 9

    def work() -> None:
        for at in range(first, first + area.pages * 8, _CHUNK):
            process.read_file_at("/proc/self/pagemap", at, min(_CHUNK, first + area.pages * 8 - at))

    return rate(area.pages, work)


#: What the twin does to a range; the peer's command and call.
_WORKS: dict[str, Work] = {
    "MAP_POPULATE": _map_populate,
    "MADV_DONTNEED": _dontneed,
    "fork of": _fork,
    "mprotect of": _rights,
    "pagemap of": _pagemap,
    "zap of": _zap,
}
_PEERS = {
    "MAP_POPULATE": ("mappop", "mmap(MAP_POPULATE)"),
    "MADV_DONTNEED": ("dontneed", "madvise"),
    "fork of": ("forkpop", "fork"),
    "mprotect of": ("rights", "mprotect"),
    "pagemap of": ("pagemap", "pread"),
    "zap of": ("zap", "munmap"),
}


def _of_size(bench: Bench, mib: int) -> Iterator[Case]:
    area = _Range(mib)
    size = f"{mib} MiB" if mib < 1024 else f"{mib // 1024} GiB"
    for name, work in _WORKS.items():
        command, call = _PEERS[name]
        yield Case(
            f"{name} {size}",
            "pages/s",
            lambda work=work: work(area),  # type: ignore[misc]
            roomy(bench, command, area.pages),
            call,
            least=3.0 if mib == 1024 else None,
            rounds=3 if mib > 1024 else None,
        )


def _smaps(bench: Bench, count: int) -> Case:
    process = Machine("1G").spawn("smaps")
    map_areas(process, count)
    return Case(
        f"/proc/self/smaps of {count:,}",
        "areas/s",
        lambda: rate(count, lambda: process.read_file("/proc/self/smaps")),
        bench.live.rate("smaps", count, first=f"areas {count}"),
        "open, read, close",
    )
