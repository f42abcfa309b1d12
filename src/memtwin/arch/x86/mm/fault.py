# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a page fault enters the kernel (Linux: arch/x86/mm/fault.c; spec R12).

So far every fault takes ``mmap_lock`` for reading; the per-VMA lock comes with its issue. Accounting: ``pgfault``
counts each fault handled, ``min_flt``/``maj_flt`` of the task those that succeeded.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from memtwin.abi.signal import (
    BUS_ADRERR,
    SEGV_ACCERR,
    SEGV_MAPERR,
    SEGV_PKUERR,
    SI_KERNEL,
    SIGBUS,
    SIGKILL,
    SIGSEGV,
)
from memtwin.hw.paging import PF_INSTR, PF_WRITE
from memtwin.mm.memory import denied_by_pkey, fault_is_permitted, handle_mm_fault
from memtwin.mm.mm_types import VM_GROWSDOWN, VM_WRITE, MmStruct, VmArea
from memtwin.mm.mmap import expand_stack
from memtwin.mm.vm_fault import FAULT_FLAG_WRITE, VM_FAULT_MAJOR, VM_FAULT_OOM, VM_FAULT_SIGSEGV
from memtwin.mm.vma import find_vma

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
    fatal_signal_pending: bool


def do_user_addr_fault(task: FaultingTask, addr: int, error_code: int) -> SignalInfo | None:
    """Resolve a fault at ``addr`` with the CPU's ``error_code``. Returns the signal to raise, or None when it may go
    on.
    """
    mm = task.mm
    assert mm is not None
    ctx = mm.ctx
    write = error_code & PF_WRITE != 0
    probe = ctx.trace.page_fault_user
    if probe is not None:
        probe(addr, 0, error_code)
    if addr >= mm.task_size:
        ctx.fault_stats.sigsegv += 1
        # An address that is not canonical is a general protection fault, which names no address.
        if 1 << 47 <= addr < (1 << 64) - (1 << 47):
            return SignalInfo(SIGSEGV, SI_KERNEL, 0)
        return SignalInfo(SIGSEGV, SEGV_MAPERR, addr)
    lock = mm.mmap_lock
    lock.down_read()
    vma: VmArea | None = mm.mm_mt.load(addr)
    if vma is None:
        vma = _grow(mm, addr)
        if vma is None:
            lock.up_read()
            ctx.fault_stats.sigsegv += 1
            return SignalInfo(SIGSEGV, SEGV_MAPERR, addr)
    if (not vma.flags & VM_WRITE) if write else not fault_is_permitted(vma, False, error_code & PF_INSTR != 0):
        lock.up_read()
        ctx.fault_stats.sigsegv += 1
        code = SEGV_PKUERR if denied_by_pkey(vma, error_code & PF_INSTR != 0) else SEGV_ACCERR
        return SignalInfo(SIGSEGV, code, addr)
    result = handle_mm_fault(mm, vma, addr, FAULT_FLAG_WRITE if write else 0)
    lock.up_read()
    ctx.events.pgfault += 1
    if not result:
        task.min_flt += 1
        return None
    if result == VM_FAULT_MAJOR:
        task.maj_flt += 1
        return None
    if result & VM_FAULT_OOM:
        ctx.fault_stats.oom += 1
        if task.fatal_signal_pending:
            return SignalInfo(SIGKILL, SI_KERNEL, 0)
        # Linux has nothing better either: the allocator killed somebody else, or will next time.
        ctx.printk("Huh VM_FAULT_OOM leaked out to the #PF handler. Retrying PF")
        return do_user_addr_fault(task, addr, error_code)
    if result & VM_FAULT_SIGSEGV:
        ctx.fault_stats.sigsegv += 1
        return SignalInfo(SIGSEGV, SEGV_MAPERR, addr)
    ctx.fault_stats.sigbus += 1
    return SignalInfo(SIGBUS, BUS_ADRERR, addr)


def _grow(mm: MmStruct, addr: int) -> VmArea | None:
    """``addr`` lies in a hole: the area above it if that one may grow down to it. Keeps ``mmap_lock`` held for
    reading.
    """
    vma = find_vma(mm, addr)
    if vma is None or not vma.flags & VM_GROWSDOWN:
        return None
    lock = mm.mmap_lock
    lock.up_read()
    lock.down_write()
    vma = find_vma(mm, addr)
    grown = vma is not None and vma.flags & VM_GROWSDOWN and (vma.start <= addr or expand_stack(mm, vma, addr))
    lock.downgrade_write()
    if not grown:
        return None
    mm.ctx.fault_stats.stack_growth += 1
    return vma
