# SPDX-License-Identifier: GPL-2.0-or-later
"""The Unicorn back end: real x86-64 programs in ring 3, on Unicorn's own MMU over the page tables in simulated memory.

One engine per machine, never re-entered. Three things need care, and each has one place here:

* *The trap.* Machine-code callbacks note why and stop the emulator (``hostcode``); no Python runs inside it but for
  CPUID and RDTSC.
* *The cure* of unicorn issue #1883 (``old_exception`` is never cleared, so the second page fault becomes a double
  fault): "live" keeps views of the live state; "blob" saves the state after each trap and restores it before each
  run, with public calls only. Both then read and write the same words at the same measured offsets (``ucstate``), so
  the rest of the file does not know which.
* *What the emulator caches.* Translations are dropped on entry when the address space or its ``gen`` changed;
  translated code of frames in ``tlb.changed_code`` is dropped through a private identity map, as Unicorn wants a
  virtual address for that.

Invariants: at most one context is live; its ``q`` views the live state then, its own saved copy otherwise. CR3
belongs to the run, not to the context. The private identity map and the code that enters ring 3 once are at the top
of the 40-bit physical address space (Unicorn's limit), outside of simulated memory: no frame and no page-table entry
of the machine is used up.

Known limits of Unicorn, not cured here: SSE exceptions are never raised and misaligned MOVAPS does not fault; IN, OUT
and SYSENTER are skipped instead of refused; AVX executed without asking CPUID is mis-decoded instead of #UD; INT1
(F1) is #UD; frames from ``REACHABLE`` on can not be used; a block that runs into the next page may set A there
although its last instructions are never reached.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections.abc import Callable
from typing import Final

from memtwin.cpu import uclib
from memtwin.cpu.base import (
    R11,
    RAX,
    RBX,
    RCX,
    RDX,
    RIP,
    TRAP_BUDGET,
    TRAP_EXCEPTION,
    TRAP_INTERRUPTED,
    TRAP_PAGE_FAULT,
    TRAP_SYSCALL,
    X86_TRAP_BP,
    X86_TRAP_DB,
    X86_TRAP_GP,
    X86_TRAP_OF,
    X86_TRAP_PF,
    X86_TRAP_UD,
    ThreadContext,
)
from memtwin.cpu.cpuid import cpuid
from memtwin.cpu.hostcode import (
    CELL_BUDGET,
    CELL_FLAGS,
    CELL_TRAP,
    TRAPPED_BUDGET,
    TRAPPED_NONE,
    TRAPPED_SYSCALL,
    Callbacks,
)
from memtwin.cpu.insn import code_at, is_read_modify_write
from memtwin.cpu.uccontext import RESET_FXSAVE, UcContext
from memtwin.cpu.uclib import UcLib
from memtwin.cpu.ucstate import FETCH_FAULT, Uncalibrated, find_live, measure, view
from memtwin.errors import BadInput, InvariantBroken
from memtwin.hw.paging import (
    ACCESSED,
    DIRTY,
    ENTRIES,
    PF_INSTR,
    PF_RSVD,
    PF_WRITE,
    PRESENT,
    PSE,
    PUD_SHIFT,
    RW,
    TABLE_FLAGS,
    USER,
    make,
)
from memtwin.hw.ram import PAGE_SHIFT, PAGE_SIZE, Ram
from memtwin.hw.tlb import MmTlb, Tlb

__all__ = ["REACHABLE", "UcCpu"]

# Boot frames: a top-level table, two tables of 1 GiB leaves that map all 40 bits onto themselves, and one page of code.
_BOOT_FRAMES: Final = 4
#: Bytes of physical memory that Unicorn can address: 40 bits, less the boot frames.
REACHABLE: Final = (1 << 40) - _BOOT_FRAMES * PAGE_SIZE
_BOOT_CODE: Final = REACHABLE + 3 * PAGE_SIZE
_SYSRETQ: Final = b"\x48\x0f\x07"
#: Where the first ring-3 fetch faults: canonical, and not in the identity map.
_NOWHERE: Final = 0x7FFF_1234_5000

_CR0: Final = 0x8001_0033  # PG WP NE ET MP PE
_CR4: Final = 0x620  # PAE OSFXSR OSXMMEXCPT
_EFER: Final = 0xC000_0080, 0x801  # SCE NXE
_STAR: Final = 0xC000_0081, 0x23 << 48 | 0x10 << 32
_RFLAGS: Final = 0x202  # IF, and bit 1 that is always set

_TF: Final = 1 << 8  # single step
_INT_LENGTH: Final = 2  # CD ib
_FOREVER: Final = 1 << 62
_MASK32: Final = (1 << 32) - 1
#: Above this many changed frames, dropping all translated code is cheaper than dropping it frame by frame (measured:
#: 1.3 us each).
_FLUSH_ALL: Final = 512


class UcCpu:
    """One simulated CPU on Unicorn; see ``base.Cpu`` for the protocol.

    ``cure`` is "live" or "blob"; ``native`` tells whether traps are taken by machine code; ``blocks`` counts basic
    blocks (with ``preempt`` only); ``runs``, ``flushes``, ``switches`` count entries, TLB flushes and context
    switches.
    """

    def __init__(
        self,
        ram: Ram,
        tlb: Tlb,
        *,
        tsc: Callable[[], int],
        preempt: bool = False,
        cure: str | None = None,
        native: bool | None = None,
    ) -> None:
        """``tsc`` gives the value of RDTSC; ``preempt`` allows ``run(budget=...)`` and counts blocks.

        ``cure``, ``native``: None takes the fastest that works. Raises BadInput where Unicorn is missing or not as
        expected.
        """
        if cure not in (None, "live", "blob"):
            raise BadInput(f"unknown cure {cure!r}: live or blob")
        self._lib = UcLib()
        self._ram = ram
        self._tlb = tlb
        self._tsc = tsc
        self._preempt = preempt
        self._pending: BaseException | None = None
        self.trap_addr = 0
        self.trap_error = 0
        self.trap_vector = 0
        self.blocks = 0
        self.runs = 0
        self.flushes = 0
        self.switches = 0
        self._live: UcContext | None = None
        self._loaded: MmTlb | None = None
        self._gen = 0
        self._pgd = -1
        self._code_gen = tlb.code_gen
        self._uc = self._lib.open_x86(uclib.CPU_X86_NEHALEM)
        self._free = weakref.finalize(self, self._lib.close, self._uc)
        try:
            self._callbacks = Callbacks(self._lib, native)
            self._cells = self._callbacks.cells
            self.native = self._callbacks.native
            self._add_hooks()
            self._map_memory()
            self._boot(cure)
        except BaseException:
            self.close()
            raise

    # Set-up -----------------------------------------------------------------------------------------------------------

    def _add_hooks(self) -> None:
        """Hooks are baked into translated code: all of them before the first instruction."""
        lib, uc, calls = self._lib, self._uc, self._callbacks
        lib.add_hook(uc, uclib.HOOK_TYPE_INTR, calls.intr, calls.data)
        lib.add_hook(uc, uclib.HOOK_TYPE_INSN, calls.syscall, calls.data, uclib.INS_SYSCALL)
        if self._preempt:
            lib.add_hook(uc, uclib.HOOK_TYPE_BLOCK, calls.block, calls.data)
        self._thunks = uclib.HOOK_BOOL(self._on_cpuid), uclib.HOOK_BOOL(self._on_rdtsc)
        for thunk, instruction in zip(self._thunks, (uclib.INS_CPUID, uclib.INS_RDTSC), strict=True):
            lib.add_hook(uc, uclib.HOOK_TYPE_INSN, ctypes.cast(thunk, ctypes.c_void_p).value or 0, 0, instruction)

    def _map_memory(self) -> None:
        lib, uc, ram = self._lib, self._uc, self._ram
        lib.check(lib.mem_map_ptr(uc, 0, min(ram.size, REACHABLE), uclib.PROT_ALL, ram.address))
        boot = self._boot_area = mmap.mmap(-1, _BOOT_FRAMES * PAGE_SIZE)
        words = memoryview(boot).cast("Q")
        base = REACHABLE >> PAGE_SHIFT
        words[0] = make(base + 1, TABLE_FLAGS)
        words[1] = make(base + 2, TABLE_FLAGS)
        leaf = PRESENT | RW | USER | ACCESSED | DIRTY | PSE
        for gigabyte in range(2 * ENTRIES):
            words[ENTRIES + gigabyte] = make(gigabyte << PUD_SHIFT - PAGE_SHIFT, leaf)
        words.release()
        boot[3 * PAGE_SIZE : 3 * PAGE_SIZE + len(_SYSRETQ)] = _SYSRETQ
        self._boot_pin = ctypes.c_char.from_buffer(boot)
        address = ctypes.addressof(self._boot_pin)
        lib.check(lib.mem_map_ptr(uc, REACHABLE, _BOOT_FRAMES * PAGE_SIZE, uclib.PROT_ALL, address))

    def _boot(self, cure: str | None) -> None:
        """Enter ring 3 once, measure the layout of the state on the way, and choose the cure."""
        lib, uc = self._lib, self._uc
        self._write(uclib.REG_CR3, REACHABLE)
        self._write(uclib.REG_CR4, self._read(uclib.REG_CR4) | _CR4)
        for number, bits in (_EFER, _STAR):
            cell = uclib.MsrCell(number, 0)
            lib.check(lib.reg_read(uc, uclib.REG_MSR, ctypes.byref(cell)))
            cell.value |= bits
            lib.check(lib.reg_write(uc, uclib.REG_MSR, ctypes.byref(cell)))
        self._write(uclib.REG_CR0, _CR0)
        # Values that occur nowhere else; RCX and R11 are what SYSRETQ takes RIP and RFLAGS from.
        marks = [0x5AA5_0000_1111_0000 + 0x0101 * n for n in range(18)]
        marks[RCX], marks[R11] = _NOWHERE, _RFLAGS
        for register, mark in zip((*uclib.REG_GPR, uclib.REG_FS_BASE, uclib.REG_GS_BASE), marks, strict=True):
            self._write(register, mark)
        before = self._blob()
        self._cells[CELL_BUDGET] = _FOREVER
        error = lib.emu_start(uc, _BOOT_CODE, 0, 0, 0)
        if error or self._cells[CELL_TRAP] != X86_TRAP_PF:
            raise Uncalibrated(f"unicorn: ring 3 was not reached ({lib.strerror(error).decode()})")
        after = self._blob()
        registers = b"".join(mark.to_bytes(8, "little") for mark in marks[:16])
        self._layout = layout = measure(before, after, registers, marks[16], marks[17], REACHABLE, _NOWHERE)
        self._live_words = None if cure == "blob" else self._find_live(registers)
        if cure == "live" and self._live_words is None:
            raise BadInput("the live state of Unicorn was not found")
        self.cure = "blob" if self._live_words is None else "live"
        self._template = UcContext(lib, uc, layout)
        for index in (*range(RIP + 1), layout.q_fs_base, layout.q_gs_base, layout.q_cr2):
            self._template.q[index] = 0
        self._template.i[layout.i_old_exception] = -1
        # Unicorn starts with a zero control word (all exceptions unmasked), not with what FNINIT leaves.
        self._template.fxrstor(RESET_FXSAVE)

    def _find_live(self, registers: bytes) -> tuple[memoryview[int], memoryview[int]] | None:
        """Views of the live state, or None. A candidate counts if a register that a public call writes moves in it."""
        for address in find_live(self._uc, registers):
            q, i = view(address, self._layout.size)
            old = q[RAX]
            self._write(uclib.REG_GPR[RAX], old ^ 0xFFFF)
            moved = q[RAX] == old ^ 0xFFFF
            self._write(uclib.REG_GPR[RAX], old)
            if moved and i[self._layout.i_error] == FETCH_FAULT and i[self._layout.i_old_exception] == X86_TRAP_PF:
                return q, i
        return None

    def _blob(self) -> bytes:
        """A saved context, header included."""
        handle = ctypes.c_void_p()
        lib, uc = self._lib, self._uc
        lib.check(lib.context_alloc(uc, ctypes.byref(handle)))
        address = handle.value or 0
        lib.check(lib.context_save(uc, address))
        size = lib.context_size(uc)
        blob = ctypes.string_at(address, size)
        # Not to be found by ``find_live``.
        ctypes.memset(address + 64, 0, size - 64)
        lib.check(lib.context_free(address))
        return blob

    def _read(self, register: int) -> int:
        cell = ctypes.c_uint64()
        self._lib.check(self._lib.reg_read(self._uc, register, ctypes.byref(cell)))
        return cell.value

    def _write(self, register: int, value: int) -> None:
        self._lib.check(self._lib.reg_write(self._uc, register, ctypes.byref(ctypes.c_uint64(value))))

    # Contexts ---------------------------------------------------------------------------------------------------------

    def new_context(self, like: ThreadContext | None = None) -> UcContext:
        """A fresh context, or a copy of ``like`` (which must belong to this CPU)."""
        self._must_be_open()
        ctx = UcContext(self._lib, self._uc, self._layout, self._template)
        if like is not None:
            assert isinstance(like, UcContext)
            ctx.copy_from(like)
        return ctx

    # Running ----------------------------------------------------------------------------------------------------------

    def run(self, ctx: ThreadContext, pgd_pfn: int, mm_tlb: MmTlb, budget: int = 0) -> int:
        """Run ``ctx`` until a trap; see ``base.Cpu.run``.

        Whatever a callback raised (``tsc`` can) is raised here. Raises InvariantBroken where the page tables lead out
        of physical memory.
        """
        assert isinstance(ctx, UcContext)
        if ctx is not self._live:
            self._switch(ctx)
        if mm_tlb is not self._loaded or mm_tlb.gen != self._gen or pgd_pfn != self._pgd:
            self._loaded, self._gen, self._pgd = mm_tlb, mm_tlb.gen, pgd_pfn
            self._enter(ctx, pgd_pfn << PAGE_SHIFT)
        if self._tlb.code_gen != self._code_gen:
            self._forget_code()
        cells = self._cells
        cells[CELL_TRAP] = TRAPPED_NONE
        self.runs += 1
        if self._preempt:
            cells[CELL_BUDGET] = allowed = budget or _FOREVER
            error = self._lib.emu_start(self._uc, ctx.q[RIP], 0, 0, 0)
            self.blocks += allowed - max(cells[CELL_BUDGET], 0)
        else:
            error = self._lib.emu_start(self._uc, ctx.q[RIP], 0, 0, 0)
        if self.cure == "blob":
            ctx.detach()
            self._live = None
        layout = self._layout
        i = ctx.i
        # The cure of issue #1883.
        i[layout.i_old_exception] = -1
        if self._pending is not None:
            pending, self._pending = self._pending, None
            raise pending
        trapped = cells[CELL_TRAP]
        if trapped == X86_TRAP_PF and not i[layout.i_error + 1]:
            self.trap_addr = ctx.q[layout.q_cr2]
            self.trap_error = code = i[layout.i_error]
            if code & (PF_WRITE | PF_INSTR | PF_RSVD) != PF_WRITE:
                return self._read_fault(ctx, pgd_pfn, mm_tlb)
            return TRAP_PAGE_FAULT
        if trapped == TRAPPED_SYSCALL:
            q = ctx.q
            q[RCX] = q[RIP]
            q[R11] = cells[CELL_FLAGS]
            return TRAP_SYSCALL
        return self._rare(ctx, trapped, error)

    def _read_fault(self, ctx: UcContext, pgd_pfn: int, mm_tlb: MmTlb) -> int:
        """A page fault that Unicorn reports as a read or an instruction fetch, made exact.

        An instruction that reads and writes its operand faults as a write on a CPU (see ``insn``). And a block is
        translated as a whole: if it runs into a page that is not there, Unicorn faults *before* its first
        instruction. Then the instructions that come first are stepped over, one by one, to the trap that a CPU would
        take.
        """
        if self.trap_error & PF_RSVD:
            raise InvariantBroken(f"the entry of {self.trap_addr:#x} has reserved bits, or a frame beyond 1 TiB")
        if not self.trap_error & PF_INSTR:
            if is_read_modify_write(code_at(self._ram, pgd_pfn, ctx.q[RIP])):
                self.trap_error |= PF_WRITE
            return TRAP_PAGE_FAULT
        if (self.trap_addr ^ ctx.q[RIP]) < PAGE_SIZE or ctx.rflags & _TF:
            return TRAP_PAGE_FAULT
        blocks = self.blocks
        ctx.rflags |= _TF
        try:
            trap = self.run(ctx, pgd_pfn, mm_tlb)
            while trap == TRAP_EXCEPTION and self.trap_vector == X86_TRAP_DB:
                trap = self.run(ctx, pgd_pfn, mm_tlb)
        finally:
            ctx.rflags &= ~_TF
            self.blocks = blocks + 1
        return trap

    def _rare(self, ctx: UcContext, trapped: int, error: int) -> int:
        """Traps that are neither a page fault nor a system call."""
        if error and error != uclib.ERR_INSN_INVALID:
            reason = self._lib.strerror(error).decode()
            raise InvariantBroken(
                f"unicorn stopped at {ctx.q[RIP]:#x}: {reason}; do the page tables lead out of memory?"
            )
        if trapped == TRAPPED_BUDGET:
            return TRAP_BUDGET
        if trapped == TRAPPED_NONE and not error:
            return TRAP_INTERRUPTED
        self.trap_error = 0
        if error:
            self.trap_vector = X86_TRAP_UD
            return TRAP_EXCEPTION
        self.trap_vector = trapped
        by_int = ctx.i[self._layout.i_error + 1]
        if not by_int:
            self.trap_error = ctx.i[self._layout.i_error]
        elif trapped not in (X86_TRAP_BP, X86_TRAP_OF):
            # INT n through a gate that user space may not use: a fault with the gate's selector as its error code.
            self.trap_vector = X86_TRAP_GP
            self.trap_error = trapped * 8 + 2
            ctx.q[RIP] -= _INT_LENGTH
        return TRAP_EXCEPTION

    def _switch(self, ctx: UcContext) -> None:
        """Make ``ctx`` the live context."""
        self._must_be_open()
        self.switches += 1
        if self._live is not None:
            self._live.detach()
        # CR3 belongs to the run; the translations still cached are those of the space loaded last.
        ctx.q[self._layout.q_cr3] = max(self._pgd, 0) << PAGE_SHIFT
        ctx.attach(self._live_words)
        self._live = ctx

    def _enter(self, ctx: UcContext, cr3: int) -> None:
        """Load CR3 and forget translations."""
        self.flushes += 1
        if ctx.live:
            ctx.q[self._layout.q_cr3] = cr3
            self._lib.flush_tlb(self._uc)
        else:
            self._write(uclib.REG_CR3, cr3)

    def _forget_code(self) -> None:
        """Drop translated code of the frames that the kernel half changed."""
        self._code_gen = self._tlb.code_gen
        changed = self._tlb.changed_code
        if len(changed) > _FLUSH_ALL:
            self._lib.flush_blocks(self._uc)
        elif changed:
            cr3 = self._read(uclib.REG_CR3)
            self._write(uclib.REG_CR3, REACHABLE)
            for pfn in changed:
                start = pfn << PAGE_SHIFT
                self._lib.remove_blocks(self._uc, start, start + PAGE_SIZE)
            self._write(uclib.REG_CR3, cr3)
            self.flushes += 2
        changed.clear()

    def interrupt(self) -> None:
        """Make a ``run`` in progress return TRAP_INTERRUPTED at the next basic block; no effect outside of ``run``.

        May be called from another host thread. The block at which it takes effect is not deterministic.
        """
        if self._free.alive:
            self._lib.emu_stop(self._uc)

    def _must_be_open(self) -> None:
        if not self._free.alive:
            raise InvariantBroken("the CPU is closed")

    def close(self) -> None:
        """Free the engine; may be called twice. Contexts that are still open only lose their meaning."""
        if self._live is not None and self._free.alive:
            self._live.detach()
        self._live = self._live_words = None
        self._loaded = None
        self._free()

    # Instructions answered by Python. An exception must not leave a callback: the C code would go on.
    # ------------------

    def _on_cpuid(self, _uc: int, _data: int) -> int:
        try:
            leaf, subleaf = (self._peek(index) & _MASK32 for index in (RAX, RCX))
            answer = cpuid(leaf, subleaf)
            for index, value in zip((RAX, RBX, RCX, RDX), answer, strict=True):
                self._poke(index, value)
        except BaseException as error:
            self._stop_with(error)
        return 1

    def _on_rdtsc(self, _uc: int, _data: int) -> int:
        try:
            value = self._tsc()
            self._poke(RAX, value & _MASK32)
            self._poke(RDX, value >> 32 & _MASK32)
        except BaseException as error:
            self._stop_with(error)
        return 1

    def _peek(self, index: int) -> int:
        return self._live_words[0][index] if self._live_words is not None else self._read(uclib.REG_GPR[index])

    def _poke(self, index: int, value: int) -> None:
        if self._live_words is not None:
            self._live_words[0][index] = value
        else:
            self._write(uclib.REG_GPR[index], value)

    def _stop_with(self, error: BaseException) -> None:
        self._pending = error
        self._lib.emu_stop(self._uc)
