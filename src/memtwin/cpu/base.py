# SPDX-License-Identifier: GPL-2.0-or-later
"""What the machine sees of a CPU: thread contexts, traps, and the protocol (architecture, section 5).

A CPU runs one thread until it needs the kernel and then *returns* a trap; no kernel code runs while an emulator is on
the stack. A trap is a small int, with its details as attributes of the CPU, since there are hundreds of thousands of
them in a run.

Invariant: between two ``run`` calls every register of every context may be read and written, live or not. RIP of a
trap is what Linux would find in ``pt_regs``: the faulting instruction for a fault, the next one for SYSCALL, INT3 and
a single step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Protocol

from memtwin.hw.tlb import MmTlb

__all__ = [
    "TRAP_BUDGET",
    "TRAP_EXCEPTION",
    "TRAP_INTERRUPTED",
    "TRAP_NAMES",
    "TRAP_PAGE_FAULT",
    "TRAP_SYSCALL",
    "X86_TRAP_AC",
    "X86_TRAP_BP",
    "X86_TRAP_DB",
    "X86_TRAP_DE",
    "X86_TRAP_GP",
    "X86_TRAP_MF",
    "X86_TRAP_OF",
    "X86_TRAP_PF",
    "X86_TRAP_SS",
    "X86_TRAP_UD",
    "X86_TRAP_XF",
    "Cpu",
    "ThreadContext",
]

TRAP_SYSCALL: Final = (
    0  #: RCX = RIP = next instruction, R11 = RFLAGS; number and arguments: ``ThreadContext.syscall_args``
)
TRAP_PAGE_FAULT: Final = 1  #: ``cpu.trap_addr`` is CR2, ``cpu.trap_error`` the error code (``hw.paging.PF_*``)
TRAP_EXCEPTION: Final = (
    2  #: ``cpu.trap_vector`` is one of ``X86_TRAP_*``, ``cpu.trap_error`` its error code (0 without one)
)
TRAP_BUDGET: Final = 3  #: the budget of blocks is used up: preemption
TRAP_INTERRUPTED: Final = 4  #: ``cpu.interrupt()`` was called from another host thread
TRAP_NAMES: Final = ("syscall", "page fault", "exception", "budget", "interrupted")

# Exception vectors, with the kernel's names (asm/trapnr.h).
X86_TRAP_DE: Final = 0
X86_TRAP_DB: Final = 1
X86_TRAP_BP: Final = 3
X86_TRAP_OF: Final = 4
X86_TRAP_UD: Final = 6
X86_TRAP_SS: Final = 12
X86_TRAP_GP: Final = 13
X86_TRAP_PF: Final = 14
X86_TRAP_MF: Final = 16
X86_TRAP_AC: Final = 17
X86_TRAP_XF: Final = 19

# Index of each register in the file of 64-bit words: the numbering of the instruction encoding, then RIP.
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, RIP = range(17)


def _word(index: int) -> property:
    """A 64-bit register at ``index`` of the register file."""

    def get(self: ThreadContext) -> int:
        return self.q[index]

    def put(self: ThreadContext, value: int) -> None:
        self.q[index] = value

    return property(get, put)


class ThreadContext(ABC):
    """The registers of one thread, whether a CPU holds them now or not.

    ``q`` views the register file as 64-bit unsigned words, indexed by ``RAX`` ... ``RIP``; a CPU may replace it at
    every ``run``, so do not keep it. Values written must be in 0 .. 2**64 - 1 (ValueError otherwise). A new context
    is what a new program finds: all registers zero, RFLAGS 0x202, the x87 unit and MXCSR at their reset values.
    """

    __slots__ = ("q",)

    q: memoryview[int]

    rax = _word(RAX)
    rcx = _word(RCX)
    rdx = _word(RDX)
    rbx = _word(RBX)
    rsp = _word(RSP)
    rbp = _word(RBP)
    rsi = _word(RSI)
    rdi = _word(RDI)
    r8 = _word(R8)
    r9 = _word(R9)
    r10 = _word(R10)
    r11 = _word(R11)
    r12 = _word(R12)
    r13 = _word(R13)
    r14 = _word(R14)
    r15 = _word(R15)
    rip = _word(RIP)

    def syscall_args(self) -> tuple[int, int, int, int, int, int, int]:
        """Number and six arguments of a system call: RAX, RDI, RSI, RDX, R10, R8, R9."""
        q = self.q
        return q[RAX], q[RDI], q[RSI], q[RDX], q[R10], q[R8], q[R9]

    @property
    @abstractmethod
    def rflags(self) -> int:
        """RFLAGS; costs a few microseconds (an emulator keeps the arithmetic flags unevaluated)."""

    @rflags.setter
    @abstractmethod
    def rflags(self, value: int) -> None: ...

    @property
    @abstractmethod
    def fs_base(self) -> int:
        """Base address of FS: the thread pointer."""

    @fs_base.setter
    @abstractmethod
    def fs_base(self, value: int) -> None: ...

    @property
    @abstractmethod
    def gs_base(self) -> int:
        """Base address of GS."""

    @gs_base.setter
    @abstractmethod
    def gs_base(self, value: int) -> None: ...

    @abstractmethod
    def fxsave(self) -> bytes:
        """x87 and SSE state as the 512 bytes of FXSAVE64 (Intel SDM volume 1, table 10-2).

        The x87 instruction and data pointers are 0.
        """

    @abstractmethod
    def fxrstor(self, area: bytes) -> None:
        """Load x87 and SSE state from 512 bytes as written by ``fxsave``. Raises ValueError for another length."""

    @abstractmethod
    def reset(self) -> None:
        """Back to the registers of a new program (execve)."""

    @abstractmethod
    def close(self) -> None:
        """The thread is gone; the context must not be used again."""

    def snapshot(self) -> bytes:
        """All that the thread could observe: RAX ... RIP, RFLAGS, FS and GS base (160 bytes), then ``fxsave``."""
        words = [*self.q[: RIP + 1], self.rflags, self.fs_base, self.gs_base]
        return b"".join(word.to_bytes(8, "little") for word in words) + self.fxsave()


class Cpu(Protocol):
    """One simulated CPU. The ``trap_*`` attributes describe the trap that ``run`` returned last."""

    trap_addr: int
    trap_error: int
    trap_vector: int
    #: Basic blocks executed so far, 0 where the CPU does not count them.
    blocks: int

    def new_context(self, like: ThreadContext | None = None) -> ThreadContext:
        """A fresh context, or a copy of ``like`` (fork, clone)."""

    def run(self, ctx: ThreadContext, pgd_pfn: int, mm_tlb: MmTlb, budget: int = 0) -> int:
        """Run ``ctx`` in the address space whose top-level table is frame ``pgd_pfn`` until a trap; returns ``TRAP_*``.

        ``budget``: run at most that many basic blocks (0: no limit).
        """

    def interrupt(self) -> None:
        """Ask a ``run`` in progress to return soon; the only method another host thread may call."""

    def close(self) -> None:
        """Give the host's resources back; contexts of this CPU must not be used any more."""
