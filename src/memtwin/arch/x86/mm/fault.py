# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a page fault enters the kernel (Linux: arch/x86/mm/fault.c; spec R12).

A fault of user mode tries the lock of its area first and falls back to ``mmap_lock`` (``mm/mmap_lock.py`` has the
reasons); one of kernel mode takes ``mmap_lock`` at once. A handler that gave the lock up asks for another attempt.
Accounting: ``pgfault`` counts each fault that came to an end, well or not, ``min_flt``/``maj_flt`` of the task those
that ended well.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from memtwin.abi.signal import (
    BUS_ADRERR,
    BUS_MCEERR_AR,
    SEGV_ACCERR,
    SEGV_MAPERR,
    SEGV_PKUERR,
    SI_KERNEL,
    SIGBUS,
    SIGKILL,
    SIGSEGV,
)
from memtwin.hw.paging import PF_INSTR, PF_USER, PF_WRITE
from memtwin.mm.fault_lock_stats import FaultLock
from memtwin.mm.memory import denied_by_pkey, fault_is_permitted, handle_mm_fault, mm_account_fault
from memtwin.mm.mm_types import VM_WRITE, MmStruct, VmArea
from memtwin.mm.mmap import find_extend_vma
from memtwin.mm.mmap_lock import lock_vma_under_rcu, note_fallback
from memtwin.mm.vm_fault import (
    FAULT_FLAG_DEFAULT,
    FAULT_FLAG_INSTRUCTION,
    FAULT_FLAG_TRIED,
    FAULT_FLAG_USER,
    FAULT_FLAG_VMA_LOCK,
    FAULT_FLAG_WRITE,
    VM_FAULT_COMPLETED,
    VM_FAULT_ERROR,
    VM_FAULT_HWPOISON,
    VM_FAULT_MAJOR,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGSEGV,
)
from memtwin.sched import Rwsem

__all__ = ["FaultingTask", "SignalInfo", "do_user_addr_fault"]


class SignalInfo(NamedTuple):
    """A signal that a fault raises: number, si_code, si_addr."""

    sig: int
    code: int
    addr: int


class FaultingTask(Protocol):
    """What the fault handler needs of a task."""

    mm: MmStruct | None
    min_flt: int
    maj_flt: int
    signal_pending: bool
    fatal_signal_pending: bool


def _flags_of(error_code: int) -> int:
    flags = FAULT_FLAG_DEFAULT
    if error_code & PF_USER:
        flags |= FAULT_FLAG_USER
    if error_code & PF_WRITE:
        flags |= FAULT_FLAG_WRITE
    if error_code & PF_INSTR:
        flags |= FAULT_FLAG_INSTRUCTION
    return flags


#: FAULT_FLAG_* that follow from the CPU's error code.
_FLAGS: Final = tuple(_flags_of(error_code) for error_code in range(32))


def do_user_addr_fault(task: FaultingTask, addr: int, error_code: int) -> SignalInfo | None:
    """Resolve a fault at ``addr`` with the CPU's ``error_code``. Returns the signal to raise, or None when it may go
    on (also when a signal that is pending already ended the wait, or there was no memory: the access is made again).
    """
    mm = task.mm
    assert mm is not None
    ctx = mm.ctx
    flags = _FLAGS[error_code]
    user = error_code & PF_USER
    probe = ctx.trace.page_fault_user if user else ctx.trace.page_fault_kernel
    if probe is not None:
        probe(addr, 0, error_code)
    if addr >= mm.task_size:
        ctx.fault_stats.sigsegv += 1
        # An address that is not canonical is a general protection fault, which names no address.
        if 1 << 47 <= addr < (1 << 64) - (1 << 47):
            return SignalInfo(SIGSEGV, SI_KERNEL, 0)
        return SignalInfo(SIGSEGV, SEGV_MAPERR, addr)
    if user:
        vma = lock_vma_under_rcu(mm, addr)
        if vma is not None:
            write = error_code & PF_WRITE
            if not (vma.flags & VM_WRITE if write else fault_is_permitted(vma, False, error_code & PF_INSTR != 0)):
                assert vma.vm_lock is not None
                vma.vm_lock.up_read()
                note_fallback(mm, addr, FaultLock.PERMISSION)
            else:
                try:
                    result = handle_mm_fault(mm, vma, addr, flags | FAULT_FLAG_VMA_LOCK)
                except BaseException:
                    _give_back(mm, vma.vm_lock)
                    raise
                if not result & (VM_FAULT_RETRY | VM_FAULT_COMPLETED):
                    assert vma.vm_lock is not None
                    vma.vm_lock.up_read()
                if not result and ctx.trace.memtwin_fault_done is None:  # nearly always; the rest of this is _done
                    ctx.fault_locks.success += 1
                    ctx.events.pgfault += 1
                    task.min_flt += 1
                    return None
                if not result & VM_FAULT_RETRY:
                    ctx.fault_locks.success += 1
                    return _done(task, mm, addr, error_code, flags, result)
                ctx.fault_locks.retry += 1
                if result & VM_FAULT_MAJOR and ctx.majflt_tried:
                    flags |= FAULT_FLAG_TRIED
                if task.fatal_signal_pending or task.signal_pending:
                    return _interrupted(task)
    return _fault_under_mmap_lock(task, mm, addr, error_code, flags)


def _fault_under_mmap_lock(
    task: FaultingTask, mm: MmStruct, addr: int, error_code: int, flags: int
) -> SignalInfo | None:
    """Attempt after attempt under ``mmap_lock``, the second and later ones with FAULT_FLAG_TRIED."""
    ctx = mm.ctx
    lock = mm.mmap_lock
    user = error_code & PF_USER
    instruction = error_code & PF_INSTR != 0
    write = error_code & PF_WRITE
    first = flags & ~FAULT_FLAG_TRIED
    while True:
        if not lock.down_read_trylock() and not lock.down_read_killable():
            return SignalInfo(SIGKILL, SI_KERNEL, 0)
        if user:
            ctx.fault_locks.mmap_lock += 1
        vma: VmArea | None = mm.mm_mt.load(addr)
        if vma is None:
            vma = find_extend_vma(mm, addr)
            if vma is None:
                lock.up_read()
                ctx.fault_stats.sigsegv += 1
                return SignalInfo(SIGSEGV, SEGV_MAPERR, addr)
            ctx.fault_stats.stack_growth += 1
        if not (vma.flags & VM_WRITE if write else fault_is_permitted(vma, False, instruction)):
            lock.up_read()
            ctx.fault_stats.sigsegv += 1
            code = SEGV_PKUERR if denied_by_pkey(vma, instruction) else SEGV_ACCERR
            return SignalInfo(SIGSEGV, code, addr)
        try:
            result = handle_mm_fault(mm, vma, addr, flags)
        except BaseException:
            _give_back(mm, lock)
            raise
        if result & VM_FAULT_RETRY:
            if task.fatal_signal_pending or (user and task.signal_pending):
                return _interrupted(task)
            flags |= FAULT_FLAG_TRIED
            continue
        if not result & VM_FAULT_COMPLETED:
            lock.up_read()
        if not result and flags == first and ctx.trace.memtwin_fault_done is None:
            ctx.events.pgfault += 1
            task.min_flt += 1
            return None
        return _done(task, mm, addr, error_code, flags, result)


def _give_back(mm: MmStruct, lock: Rwsem | None) -> None:
    """A handler ended by an exception (something that is not modelled): the lock of the fault must not stay behind."""
    if lock is not None and lock.held_by(mm.ctx.sched.current):
        lock.up_read()


def _interrupted(task: FaultingTask) -> SignalInfo | None:
    """A signal ended the wait of a handler; what kills is told at once, anything else is delivered on the way out."""
    return SignalInfo(SIGKILL, SI_KERNEL, 0) if task.fatal_signal_pending else None


def _done(task: FaultingTask, mm: MmStruct, addr: int, error_code: int, flags: int, result: int) -> SignalInfo | None:
    """The fault came to an end, no lock is held: count it, and say what signal follows from a failure."""
    ctx = mm.ctx
    mm_account_fault(ctx, task, flags, result)
    probe = ctx.trace.memtwin_fault_done
    if probe is not None:
        probe(mm.id, addr, flags, result)
    if not result & VM_FAULT_ERROR:
        return None
    if result & VM_FAULT_OOM:
        ctx.fault_stats.oom += 1
        if task.fatal_signal_pending:
            return SignalInfo(SIGKILL, SI_KERNEL, 0)
        if not error_code & PF_USER:
            return SignalInfo(SIGSEGV, SEGV_MAPERR, addr)  # the system call says EFAULT
        # Linux has nothing better either: the allocator killed somebody else, or will when the access is made again.
        if ctx.pagefault_oom_rs.allows(ctx.sched.clock.now):
            ctx.printk("Huh VM_FAULT_OOM leaked out to the #PF handler. Retrying PF")
        return None
    if result & VM_FAULT_SIGSEGV:
        ctx.fault_stats.sigsegv += 1
        return SignalInfo(SIGSEGV, SEGV_MAPERR, addr)
    ctx.fault_stats.sigbus += 1
    if result & VM_FAULT_HWPOISON:
        return SignalInfo(SIGBUS, BUS_MCEERR_AR, addr)
    return SignalInfo(SIGBUS, BUS_ADRERR, addr)
