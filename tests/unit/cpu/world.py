# SPDX-License-Identifier: GPL-2.0-or-later
"""A tiny kernel half for CPU tests: page tables built by hand in simulated memory, code given as bytes."""

from __future__ import annotations

from memtwin.cpu.uc import UcCpu
from memtwin.cpu.uccontext import UcContext
from memtwin.hw.paging import ACCESSED, DIRTY, NX, PFN_MASK, PRESENT, RW, TABLE_FLAGS, USER
from memtwin.hw.ram import PAGE_SHIFT, PAGE_SIZE, Ram
from memtwin.hw.tlb import MmTlb, Tlb
from memtwin.hw.work import Work

R = PRESENT | USER | NX
W = PRESENT | USER | RW | NX
X = PRESENT | USER
WX = PRESENT | USER | RW

CODE = 0x40_0000
DATA = 0x10_0000_0000
STACK = 0x7FFF_0000_0000


class World:
    """Memory, one CPU, frames handed out in order."""

    def __init__(self, size: int = 16 << 20, **options: object) -> None:
        self.ram = Ram(size)
        self.tlb = Tlb(Work())
        self.next = 1
        self.time = 0
        self.cpu = UcCpu(self.ram, self.tlb, **{"tsc": self.tsc, **options})

    def tsc(self) -> int:
        self.time += 1000
        return self.time

    def frame(self) -> int:
        self.next += 1
        self.ram.zero(self.next)
        return self.next

    def space(self, code: bytes = b"", flags: int = X) -> Space:
        space = Space(self)
        if code:
            space.load(CODE, code, flags)
        return space


class Space:
    """An address space."""

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
        return self.world.ram.q[self.entry(address)] & ~PFN_MASK

    def load(self, address: int, data: bytes, flags: int = X) -> None:
        """Map and fill pages from ``address`` on."""
        for page in range(address & -PAGE_SIZE, address + len(data), PAGE_SIZE):
            self.map(page, flags)
        self.poke(address, data)

    def poke(self, address: int, data: bytes) -> None:
        for n, byte in enumerate(data):
            at = self.world.ram.q[self.entry(address + n)] & PFN_MASK
            self.world.ram.mem[at + (address + n) % PAGE_SIZE] = byte

    def peek(self, address: int, size: int) -> bytes:
        at = (self.world.ram.q[self.entry(address)] & PFN_MASK) + address % PAGE_SIZE
        return bytes(self.world.ram.mem[at : at + size])

    def context(self, rip: int = CODE, **registers: int) -> UcContext:
        ctx = self.world.cpu.new_context()
        ctx.rip = rip
        for name, value in registers.items():
            setattr(ctx, name, value)
        return ctx

    def run(self, ctx: UcContext, budget: int = 0) -> int:
        return self.world.cpu.run(ctx, self.pgd, self.tlb, budget)
