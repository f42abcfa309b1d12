# SPDX-License-Identifier: GPL-2.0-or-later
"""The fifteen kinds of fault whose locks the specification tells ("Faults under the per-VMA lock"), each in a process
and on a file of its own.

The files: one on a disk, whose operations have ``map_pages`` and ``page_mkwrite`` (any journalling file system); one
that tracks its dirty pages without ``page_mkwrite``; one of a driver, without ``map_pages``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE
from memtwin.events.tracepoint import MemorySink
from memtwin.machine import Machine
from memtwin.mm.filemap import AddressSpace, FileVmOps
from memtwin.mm.mmap import do_mmap
from memtwin.mm.page import PG_RECLAIM
from memtwin.mm.vm_ops import VmOperations
from memtwin.process import Process
from memtwin.sched import USEC

__all__ = ["BASE", "KINDS", "DeviceFile", "Setup", "Taken", "all_kinds", "file_fault", "map_file", "take"]

PAGE: Final = 4096
BASE: Final = 0x10000000
PAGES: Final = 32
RW: Final = PROT_READ | PROT_WRITE
READ_NS: Final = 100 * USEC  #: how long the disk takes for a page


class DiskOps(FileVmOps):
    """A file system on a disk."""

    has_page_mkwrite = True


class TrackedOps(FileVmOps):
    """Dirty pages are tracked, and nobody wants to be asked before a page becomes writable."""

    wants_writenotify = True


class DriverOps(FileVmOps):
    """A driver that hands out pages and offers nothing to map around a fault."""

    has_map_pages = False


class DeviceFile:
    """An open file of ``pages`` pages, each filled with the low byte of its index; on a disk if ``cold``."""

    dev = (8, 1)
    ino = 1
    path = "/file"
    readable = writable = True
    seals = 0

    def __init__(self, ops: VmOperations, *, pages: int = PAGES, cold: bool = False) -> None:
        self.vm_ops: VmOperations | None = ops
        self.mapping = AddressSpace(
            lambda index: bytes([index & 255]) * PAGE, lambda: pages * PAGE, read_ns=READ_NS if cold else 0
        )


def map_file(process: Process, file: DeviceFile, flags: int, prot: int = RW) -> None:
    """Map all of ``file`` at BASE."""
    length = PAGES * PAGE
    process.kernel.sched.run_as(process.task, do_mmap, process.mm, BASE, length, prot, flags | MAP_FIXED, file, 0)


@dataclass(frozen=True, slots=True)
class Taken:
    """What one fault took. ``attempt`` under the lock of the area: S success, R retry, A abort, ``-`` none; ``times``
    it took ``mmap_lock``; ``why``; ``ns`` of virtual time; what it added to the counters.
    """

    attempt: str
    times: int
    why: tuple[str, ...]
    ns: int
    pgmajfault: int
    maj_flt: int
    min_flt: int

    def __str__(self) -> str:
        text = f"{self.attempt}, {self.times}"
        return f"{text}  {', '.join(self.why)}" if self.why else text


def take(process: Process, addr: int, write: bool) -> Taken:
    """Make one access and tell what its fault took."""
    kernel, task = process.kernel, process.task
    stats, events = kernel.mm_ctx.fault_locks, kernel.events
    sink = MemorySink()
    kernel.trace.enable("memtwin_fault_fallback", sink)

    def now() -> tuple[int, ...]:
        return (
            stats.success,
            stats.retry,
            stats.abort,
            stats.mmap_lock,
            kernel.clock.now,
            events.pgmajfault,
            task.maj_flt,
            task.min_flt,
        )

    before = now()
    process.touch(addr, write)
    success, retry, abort, times, ns, pgmajfault, major, minor = (b - a for a, b in zip(before, now(), strict=True))
    kernel.trace.disable("memtwin_fault_fallback", sink)
    attempt = "S" * success + "R" * retry + "A" * abort or "-"
    why = tuple(event.fields["reason"] for event in sink.events)
    return Taken(attempt, times, why, ns, pgmajfault, major, minor)


Kind = Callable[[Process], Taken]


def _anon(touched: bool) -> Kind:
    def fault(process: Process) -> Taken:
        process.mmap(BASE, PAGES * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
        if touched:
            process.touch(BASE, True)
        return take(process, BASE + PAGE, True)

    return fault


#: Prepares a fault in a process: its address, and whether it writes.
Setup = Callable[[Process], tuple[int, bool]]


def file_fault(
    ops: VmOperations,
    flags: int,
    *,
    write: bool,
    cold: bool = False,
    anon_vma: bool = False,
    marked: bool = False,
    mapped: bool = False,
) -> Setup:
    """Prepares a fault on page 8. ``anon_vma``: a page of the area was copied before; ``marked``: it carries the
    readahead mark; ``mapped``: read-only, by a read before; not ``cold``: it is cached.
    """

    def prepare(process: Process) -> tuple[int, bool]:
        file = DeviceFile(ops, cold=cold)
        map_file(process, file, flags)
        ctx = process.kernel.mm_ctx
        addr = BASE + 8 * PAGE
        if anon_vma:
            process.touch(BASE, True)
        if not cold:
            pfn = file.mapping.get_folio(ctx, 8)
            if marked:
                ctx.pages.flags[pfn] |= PG_RECLAIM
        if mapped:
            process.touch(addr, False)
        return addr, write

    return prepare


def _file(ops: VmOperations, flags: int, *, write: bool, **state: bool) -> Kind:
    prepare = file_fault(ops, flags, write=write, **state)
    return lambda process: take(process, *prepare(process))


DISK: Final = DiskOps()
TRACKED: Final = TrackedOps()
DRIVER: Final = DriverOps()

#: The rows of the specification's table, in its order.
KINDS: Final[dict[str, Kind]] = {
    "anon first touch, no anon_vma": _anon(False),
    "anon touch, anon_vma set": _anon(True),
    "read, cold": _file(DISK, MAP_SHARED, write=False, cold=True),
    "read, warm": _file(DISK, MAP_SHARED, write=False),
    "read, warm, page carries the readahead mark": _file(DISK, MAP_SHARED, write=False, marked=True),
    "private write, cold, no anon_vma": _file(DISK, MAP_PRIVATE, write=True, cold=True),
    "private write, cold, anon_vma set": _file(DISK, MAP_PRIVATE, write=True, cold=True, anon_vma=True),
    "private write, warm, anon_vma set": _file(DISK, MAP_PRIVATE, write=True, anon_vma=True),
    "private write to a read-only entry, no anon_vma": _file(DISK, MAP_PRIVATE, write=True, mapped=True),
    "private write to a read-only entry, anon_vma set": _file(
        DISK, MAP_PRIVATE, write=True, mapped=True, anon_vma=True
    ),
    "shared write, cold": _file(DISK, MAP_SHARED, write=True, cold=True),
    "shared write, warm": _file(DISK, MAP_SHARED, write=True),
    "shared write to a read-only entry, page_mkwrite": _file(DISK, MAP_SHARED, write=True, mapped=True),
    "shared write to a read-only entry, no page_mkwrite": _file(TRACKED, MAP_SHARED, write=True, mapped=True),
    "read of a driver's area without map_pages": _file(DRIVER, MAP_SHARED, write=False),
}


def all_kinds(**machine: object) -> dict[str, Taken]:
    """Every kind on one machine, each in a process of its own."""
    taken: dict[str, Taken] = {}
    with Machine(memory="64M", **machine) as m:  # type: ignore[arg-type]
        for name, fault in KINDS.items():
            process = m.spawn()
            taken[name] = fault(process)
            m.check()
            process.exit()
        m.kernel.check_no_leak()
    return taken
