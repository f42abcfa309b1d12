# SPDX-License-Identifier: GPL-2.0-or-later
"""Transparent huge pages: what a page of 2 MiB costs, from its first fault to its end."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Bench, Case, Side, Unavailable, rate
from benchmarks.settings import held_settings
from benchmarks.tables.populate import roomy
from memtwin.abi import mman
from memtwin.machine import Machine
from memtwin.process import Process

TITLE = "Huge pages"
NOTE = (
    "Pages of 2 MiB in an area with MADV_HUGEPAGE; figures count huge pages. One p.touch() a huge page: the first "
    "write, the first read (the huge zero page), the first write after a fork (one small page of it is copied). Then "
    "1 GiB at once: fork (until it returns), munmap, MADV_DONTNEED, mprotect to read-only and back (each counts half); "
    "munmap of the first 4 KiB of each (a split); MADV_COLLAPSE of small pages. The twin's frames were used before."
)

HUGE = 2 << 20
_BASE = 0x1000000000


def cases(bench: Bench) -> Iterator[Case]:
    """One line an operation, on 1 GiB; MADV_COLLAPSE on less."""
    count = bench.size(512, 32)
    twin = _Twin(count)
    collapse = bench.size(64, 8)
    try:
        bench.stack.enter_context(held_settings())
        refused = ""
    except Unavailable as why:
        refused = str(why)

    def peer(command: str, pages: int = count) -> Side:
        side = roomy(bench, command, pages * 512, pages)

        def checked() -> float:
            if refused:
                raise Unavailable(refused)
            return side()

        return checked

    def case(name: str, work: Side, live: Side, call: str) -> Case:
        return Case(name, "huge pages/s", work, live, call)

    yield case("THP write fault", twin.write, peer("hwrite"), "write fault")
    yield case("huge zero page, read fault", twin.read, peer("hread"), "read fault")
    yield case("COW of a huge page", twin.cow, peer("hcow"), "write fault")
    yield case("fork", twin.fork, peer("hfork"), "fork")
    yield case("zap", twin.zap, peer("hzap"), "munmap")
    yield case("MADV_DONTNEED", twin.dontneed, peer("hdontneed"), "madvise")
    yield case("mprotect", twin.rights, peer("hrights"), "mprotect")
    yield case("split by a partial munmap", twin.split, peer("hsplit"), "munmap")
    yield case("MADV_COLLAPSE", lambda: twin.collapse(collapse), peer("hcollapse", collapse), "madvise")


class _Twin:
    """The twin's side: a process with room for ``count`` huge pages and as many small ones."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._made: Process | None = None

    @property
    def _process(self) -> Process:
        if self._made is None:
            self._made = Machine(f"{self._count * 4 + 4096}M").spawn("huge")
            # Once written, so that the first round is like the others.
            self._filled()
            self._made.munmap(_BASE, self._count * HUGE)
        return self._made

    def _fresh(self, count: int = 0) -> Process:
        """The process, with an empty area."""
        process = self._process
        length = (count or self._count) * HUGE
        process.mmap(_BASE, length, flags=mman.MAP_PRIVATE | mman.MAP_ANONYMOUS | mman.MAP_FIXED)
        process.madvise(_BASE, length, mman.MADV_HUGEPAGE)
        return process

    def _touch(self, at: int, write: bool) -> None:
        touch = self._process.touch
        for addr in range(_BASE + at, _BASE + self._count * HUGE, HUGE):
            touch(addr, write)

    def _filled(self, count: int = 0) -> Process:
        process = self._fresh(count)
        self._touch(0, True)
        return process

    def _done(self, figure: float) -> float:
        self._process.munmap(_BASE, self._count * HUGE)
        return figure

    def write(self) -> float:
        """First write."""
        self._fresh()
        return self._done(rate(self._count, lambda: self._touch(0, True)))

    def read(self) -> float:
        """First read."""
        self._fresh()
        return self._done(rate(self._count, lambda: self._touch(0, False)))

    def _child(self, copying: bool) -> float:
        process = self._filled()
        children: list[Process] = []
        figure = rate(self._count, lambda: children.append(process.fork()))
        if copying:
            figure = rate(self._count, lambda: self._touch(7 << 12, True))
        children.pop().exit()
        return self._done(figure)

    def cow(self) -> float:
        """First write to one page of each, after a fork."""
        return self._child(True)

    def fork(self) -> float:
        """A fork."""
        return self._child(False)

    def zap(self) -> float:
        """munmap."""
        self._filled()
        return rate(self._count, lambda: self._done(0.0))

    def dontneed(self) -> float:
        """MADV_DONTNEED."""
        process = self._filled()
        return self._done(rate(self._count, lambda: process.madvise(_BASE, self._count * HUGE, mman.MADV_DONTNEED)))

    def rights(self) -> float:
        """mprotect to read-only and back."""
        process = self._filled()

        def work() -> None:
            process.mprotect(_BASE, self._count * HUGE, mman.PROT_READ)
            process.mprotect(_BASE, self._count * HUGE, mman.PROT_READ | mman.PROT_WRITE)

        return self._done(rate(2 * self._count, work))

    def split(self) -> float:
        """munmap of the first small page of each."""
        process = self._filled()

        def work() -> None:
            for addr in range(_BASE, _BASE + self._count * HUGE, HUGE):
                process.munmap(addr, 4096)

        return self._done(rate(self._count, work))

    def collapse(self, count: int) -> float:
        """MADV_COLLAPSE of ``count`` blocks of small pages."""
        process = self._fresh(count)
        process.madvise(_BASE, count * HUGE, mman.MADV_NOHUGEPAGE)
        process.populate(_BASE, count * HUGE)
        process.madvise(_BASE, count * HUGE, mman.MADV_HUGEPAGE)
        return self._done(rate(count, lambda: process.madvise(_BASE, count * HUGE, mman.MADV_COLLAPSE)))
