# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs on the emulated CPU: starting one, and the loop between the CPU and the kernel (architecture, section 5).

``while: trap = cpu.run(...); kernel handles trap``. The CPU is never on the stack while kernel code runs.
The virtual clock moves by a constant for each trap and, where the CPU counts them, for each basic block: round
figures of the order of what hardware takes; costs are told in work counters, not in time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from memtwin.abi.resource import RLIMIT_NOFILE
from memtwin.arch.x86.mm.fault import SignalInfo, do_user_addr_fault
from memtwin.cpu.base import (
    RAX,
    TRAP_BUDGET,
    TRAP_EXCEPTION,
    TRAP_INTERRUPTED,
    TRAP_PAGE_FAULT,
    TRAP_SYSCALL,
    X86_TRAP_AC,
    X86_TRAP_BP,
    X86_TRAP_DB,
    X86_TRAP_DE,
    X86_TRAP_MF,
    X86_TRAP_SS,
    X86_TRAP_UD,
    X86_TRAP_XF,
)
from memtwin.cpu.cpuid import cpuid
from memtwin.errors import BadInput
from memtwin.kernel.exec import do_execve, find_program
from memtwin.kernel.exit import do_exit
from memtwin.kernel.resource import default_rlimits
from memtwin.kernel.signal import SIGKILL, SigHand, force_sig
from memtwin.kernel.syscalls import EPOCH, SyscallTable

if TYPE_CHECKING:
    from memtwin.cpu.base import Cpu
    from memtwin.kernel.kernel import Kernel
    from memtwin.kernel.task import TaskStruct

__all__ = ["DEFAULT_ENV", "CannotRun", "Program"]

#: The environment of a first program, unless told otherwise.
DEFAULT_ENV: Final[Mapping[str, str]] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/",
    "LANG": "C",
    "TERM": "dumb",
}

# Virtual ns.
NS_PER_SYSCALL: Final = 200
NS_PER_FAULT: Final = 500
NS_PER_BLOCK: Final = 2
#: RDTSC counts virtual ns, and takes some itself, so that a loop that only reads it ends.
NS_PER_RDTSC: Final = 20
#: Blocks between two looks at the clock where virtual time is limited.
_BUDGET: Final = 1_000_000

# Signals of CPU exceptions: number, si_code, whether si_addr is the instruction (arch/x86/kernel/traps.c).
_SIGNALS: Final[Mapping[int, tuple[int, int, bool]]] = {
    X86_TRAP_DE: (8, 1, True),  # SIGFPE, FPE_INTDIV
    X86_TRAP_DB: (5, 2, True),  # SIGTRAP, TRAP_TRACE
    X86_TRAP_BP: (5, 0x80, False),  # SIGTRAP, SI_KERNEL
    X86_TRAP_UD: (4, 2, True),  # SIGILL, ILL_ILLOPN
    X86_TRAP_SS: (7, 0x80, False),  # SIGBUS
    X86_TRAP_MF: (8, 7, True),  # SIGFPE, FPE_FLTINV
    X86_TRAP_AC: (7, 1, False),  # SIGBUS, BUS_ADRALN
    X86_TRAP_XF: (8, 7, True),
}
_GENERAL_PROTECTION: Final = (11, 0x80, False)  # SIGSEGV, SI_KERNEL


class CannotRun(BadInput):
    """The program can not be started; ``exit_status`` is 127 if there is none, 126 otherwise, as env(1) says it."""

    def __init__(self, name: str, error: OSError) -> None:
        super().__init__(f"cannot run '{name}': {error.strerror}")
        self.exit_status = 127 if isinstance(error, FileNotFoundError) else 126


class Program:
    """One program with its process, started and not yet run.

    ``argv``: the program, searched along PATH of ``env``, and its arguments; ``cwd``: absolute path; ``stdio``:
    descriptors of the host for 0, 1 and 2; ``epoch``: time of boot, ns since 1970; ``limit_ns``: virtual time after
    which it is killed (SIGKILL), None for never; ``check_every``: check all invariants after so many traps, 0 for
    never; ``count_blocks``: let the clock and the summary see basic blocks, for 1.2-1.8 times the time. Raises
    CannotRun; BadInput for a working directory that is none.
    """

    def __init__(
        self,
        kernel: Kernel,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] = DEFAULT_ENV,
        cwd: str = "/",
        stdio: tuple[int, int, int] = (0, 1, 2),
        epoch: int | None = None,
        limit_ns: int | None = None,
        count_blocks: bool = False,
        check_every: int = 0,
    ) -> None:
        from memtwin.cpu.uc import UcCpu

        self.kernel: Final = kernel
        self.sys: Final = _syscalls(kernel, epoch)
        self._counts_before: Final = dict(self.sys.counts)
        self.argv: Final = tuple(argv)
        self.limit_ns: Final = limit_ns
        self.count_blocks: Final = count_blocks
        self.check_every: Final = check_every
        self.faults = 0  #: page faults trapped
        self.map_count_peak = 0
        self.timed_out = False
        self.virtual_ns = 0  #: from start to end
        self.cpu: Final[Cpu] = UcCpu(kernel.ram, kernel.tlb, tsc=self._tsc, preempt=count_blocks)
        self.task: Final[TaskStruct] = kernel.new_task("memtwin")
        try:
            self._start(argv, env, cwd, stdio)
        except BaseException:
            self._end(SIGKILL)
            raise

    @property
    def name(self) -> str:
        """What the user called it."""
        return self.argv[0]

    @property
    def counts(self) -> dict[int, int]:
        """Its system calls by number."""
        before = self._counts_before
        return {nr: count - before.get(nr, 0) for nr, count in self.sys.counts.items() if count != before.get(nr, 0)}

    @property
    def status(self) -> int:
        """The status as a shell has it: exit status, or 128 + signal; -1 while it lives."""
        code = self.task.exit_code
        if code < 0:
            return -1
        return 128 + (code & 0x7F) if code & 0x7F else code >> 8

    def _tsc(self) -> int:
        self.kernel.clock.advance(NS_PER_RDTSC)
        return self.kernel.clock.now

    def _start(self, argv: Sequence[str], env: Mapping[str, str], cwd: str, stdio: tuple[int, int, int]) -> None:
        task, vfs = self.task, self.sys.vfs
        task.rlimits = default_rlimits(self.kernel.page_alloc.managed_pages)
        task.sighand = SigHand()
        task.regs = self.cpu.new_context()
        task.files = vfs.new_files(stdio, task.rlimits[RLIMIT_NOFILE][0])
        try:
            task.fs = vfs.new_fs(_encode(cwd))
        except OSError as error:
            raise BadInput(f"no working directory '{cwd}': {error.strerror}") from None
        envp = [_encode(f"{key}={value}") for key, value in env.items()]
        arguments = [_encode(argument) for argument in argv]
        previous = self.kernel.sched.enter(task)
        try:
            path = find_program(task, arguments[0], _encode(env.get("PATH", DEFAULT_ENV["PATH"])))
            do_execve(self.sys, task, path, arguments, envp, cpuid(1, 0)[3])
        except OSError as error:
            raise CannotRun(argv[0], error) from None
        finally:
            self.kernel.sched.leave(previous)

    def run(self) -> int:
        """Run it to its end and return ``status``. Afterwards nothing of it is left, whatever happened."""
        kernel = self.kernel
        begin = kernel.clock.now
        previous = kernel.sched.enter(self.task)
        try:
            self._loop()
        finally:
            kernel.sched.leave(previous)
            self._end(SIGKILL)
            self.virtual_ns = kernel.clock.now - begin
        return self.status

    def _loop(self) -> None:
        kernel, task, cpu, sys = self.kernel, self.task, self.cpu, self.sys
        clock, rcu, regs = kernel.clock, kernel.rcu, task.regs
        limit = self.limit_ns
        budget = _BUDGET if limit is not None and self.count_blocks else 0
        blocks, steps = cpu.blocks, 0
        mm = task.mm
        while mm is not None:
            trap = cpu.run(regs, mm.pgd, mm.tlb, budget)
            if cpu.blocks != blocks:
                clock.advance((cpu.blocks - blocks) * NS_PER_BLOCK)
                blocks = cpu.blocks
            if trap == TRAP_PAGE_FAULT:
                clock.advance(NS_PER_FAULT)
                self.faults += 1
                signal = do_user_addr_fault(task, cpu.trap_addr, cpu.trap_error)
                if signal is not None:
                    force_sig(sys, task, signal)
                    mm = task.mm
            elif trap == TRAP_SYSCALL:
                clock.advance(NS_PER_SYSCALL)
                result = sys.dispatch(task, regs.syscall_args())
                if mm.map_count > self.map_count_peak:
                    self.map_count_peak = mm.map_count
                if task.fatal_signal_pending and task.exit_code < 0:
                    do_exit(sys, task, SIGKILL)
                mm = task.mm
                if mm is not None:
                    regs.q[RAX] = result
                if rcu:
                    rcu.rcu_barrier()
            elif trap == TRAP_EXCEPTION:
                clock.advance(NS_PER_FAULT)
                sig, code, at_rip = _SIGNALS.get(cpu.trap_vector, _GENERAL_PROTECTION)
                force_sig(sys, task, SignalInfo(sig, code, regs.rip if at_rip else 0))
                mm = task.mm
            elif trap == TRAP_INTERRUPTED:
                raise KeyboardInterrupt
            else:
                assert trap == TRAP_BUDGET
            if self.check_every:
                steps += 1
                if steps % self.check_every == 0:
                    kernel.check()
            if limit is not None and clock.now >= limit and mm is not None:
                self.timed_out = True
                do_exit(sys, task, SIGKILL)
                mm = None

    def _end(self, sig: int) -> None:
        """Whatever happened: the process is gone, its memory is back, and the CPU is closed."""
        kernel, task = self.kernel, self.task
        if task.exit_code < 0:
            previous = kernel.sched.enter(task)
            try:
                do_exit(self.sys, task, sig)
            finally:
                kernel.sched.leave(previous)
        kernel.rcu.rcu_barrier()
        self.cpu.close()


def _syscalls(kernel: Kernel, epoch: int | None) -> SyscallTable:
    """The machine's table, made with its first program. BadInput for another ``epoch`` than it booted at."""
    table: SyscallTable | None = getattr(kernel, "syscalls", None)
    if table is None:
        return SyscallTable(kernel, epoch=EPOCH if epoch is None else epoch)
    if epoch is not None and epoch != table.epoch:
        raise BadInput("the machine has booted already: its date can not be chosen any more")
    return table


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
