# SPDX-License-Identifier: GPL-2.0-or-later
"""The smallest thing that can drive a CPU: page tables built by hand in simulated memory, code given as bytes.

For the self-test and the unit tests; the real kernel half is ``memtwin.kernel``. Frames are handed out in order and
never freed.
"""

from __future__ import annotations

from collections.abc import Callable

from memtwin.cpu.uc import UcCpu
from memtwin.cpu.uccontext import UcContext
from memtwin.hw.paging import ACCESSED, DIRTY, NX, PFN_MASK, PRESENT, RW, TABLE_FLAGS, USER
from memtwin.hw.ram import PAGE_SHIFT, PAGE_SIZE, Ram
from memtwin.hw.tlb import MmTlb, Tlb
from memtwin.hw.work import Work

__all__ = ["CODE", "DATA", "STACK", "WX", "R", "Space", "W", "World", "X"]

# Rights of a page: read, write (both never executable), execute, write and execute.
R = PRESENT | USER | NX
W = PRESENT | USER | RW | NX
X = PRESENT | USER
WX = PRESENT | USER | RW

CODE = 0x40_0000
DATA = 0x5555_0000_0000
STACK = 0x7FFF_0000_0000


class World:
    """Memory of ``size`` bytes, one CPU, frames handed out in order, and a clock that ticks 1000 at each look."""

    def __init__(
        self,
        size: int = 16 << 20,
        *,
        cure: str | None = None,
        native: bool | None = None,
        preempt: bool = False,
        tsc: Callable[[], int] | None = None,
    ) -> None:
        self.ram = Ram(size)
        self.tlb = Tlb(Work())
        self.next = 1
        self.time = 0
        self.cpu = UcCpu(self.ram, self.tlb, tsc=tsc or self.tsc, preempt=preempt, cure=cure, native=native)

    def tsc(self) -> int:
        self.time += 1000
        return self.time

    def close(self) -> None:
        self.cpu.close()

    def frame(self) -> int:
        """A zeroed frame."""
        self.next += 1
        self.ram.zero(self.next)
        return self.next

    def space(self, code: bytes = b"", flags: int = X) -> Space:
        """A new address space with ``code`` at ``CODE``."""
        space = Space(self)
        if code:
            space.load(CODE, code, flags)
        return space


class Space:
    """An address space; every change of an entry that takes something away asks for a flush, as the kernel does."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pgd = world.frame()
        self.tlb = MmTlb(world.tlb)

    def entry(self, address: int) -> int:
        """Index into ``ram.q`` of the leaf entry of ``address``; makes the tables."""
        ram, table = self.world.ram, self.pgd
        for shift in (39, 30, 21):
            at = (table << 9) + (address >> shift & 511)
            if not ram.q[at]:
                ram.q[at] = self.world.frame() << PAGE_SHIFT | TABLE_FLAGS & ~(ACCESSED | DIRTY)
            table = (ram.q[at] & PFN_MASK) >> PAGE_SHIFT
        return (table << 9) + (address >> PAGE_SHIFT & 511)

    def map(self, address: int, flags: int, pfn: int | None = None) -> int:
        """Map one page to ``pfn`` (default: a new frame); returns the frame."""
        pfn = self.world.frame() if pfn is None else pfn
        self.world.ram.q[self.entry(address)] = pfn << PAGE_SHIFT | flags
        if not flags & NX:
            self.world.tlb.note_executable(pfn)
        return pfn

    def unmap(self, address: int) -> None:
        self.world.ram.q[self.entry(address)] = 0
        self.tlb.flush(1)

    def protect(self, address: int, flags: int) -> None:
        at = self.entry(address)
        self.world.ram.q[at] = self.world.ram.q[at] & PFN_MASK | flags
        self.tlb.flush(1)

    def flags(self, address: int) -> int:
        """The bits of the leaf entry of ``address``."""
        return self.world.ram.q[self.entry(address)] & ~PFN_MASK

    def load(self, address: int, data: bytes, flags: int = X) -> None:
        """Map and fill pages from ``address`` on."""
        for page in range(address & -PAGE_SIZE, address + len(data), PAGE_SIZE):
            self.map(page, flags)
        self.poke(address, data)

    def poke(self, address: int, data: bytes) -> None:
        """Write to mapped memory as the kernel half would, but tell nobody."""
        for n, byte in enumerate(data):
            at = self.world.ram.q[self.entry(address + n)] & PFN_MASK
            self.world.ram.mem[at + (address + n) % PAGE_SIZE] = byte

    def peek(self, address: int, size: int) -> bytes:
        """Read mapped memory within one page."""
        at = (self.world.ram.q[self.entry(address)] & PFN_MASK) + address % PAGE_SIZE
        return bytes(self.world.ram.mem[at : at + size])

    def context(self, rip: int = CODE, **registers: int) -> UcContext:
        """A context with RIP and the named registers set."""
        ctx = self.world.cpu.new_context()
        ctx.rip = rip
        for name, value in registers.items():
            setattr(ctx, name, value)
        return ctx

    def run(self, ctx: UcContext, budget: int = 0) -> int:
        """Run ``ctx`` here until a trap."""
        return self.world.cpu.run(ctx, self.pgd, self.tlb, budget)
