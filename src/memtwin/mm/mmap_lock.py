# SPDX-License-Identifier: GPL-2.0-or-later
"""The lock a fault holds: that of its area, or ``mmap_lock`` (Linux: include/linux/mm.h, lock_vma_under_rcu; spec R12).

A fault of user mode looks its area up without any lock and tries to get the area's lock for reading. Where that does
not work, or a handler finds that it can not finish under it, ``mmap_lock`` is taken instead. ``FaultLock`` names every
reason; ``ctx.fault_locks`` counts them, and tracepoint ``memtwin_fault_fallback`` tells them one by one.

Order: ``mmap_lock``, then the lock of an area. A writer takes an area's lock only for a moment, to see its readers off;
what keeps later faults away until it is done is ``lock_seq`` (``VmArea.start_write``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from memtwin.events.reason import Because
from memtwin.mm.fault_lock_stats import FaultLock
from memtwin.mm.rmap import anon_vma_prepare
from memtwin.mm.vm_fault import FAULT_FLAG_VMA_LOCK, VM_FAULT_OOM, VM_FAULT_RETRY, VmFault
from memtwin.sched import Rwsem

if TYPE_CHECKING:
    from memtwin.mm.mm_types import MmStruct, VmArea

__all__ = [
    "lock_vma_under_rcu",
    "note_fallback",
    "release_fault_lock",
    "vmf_anon_prepare",
    "vmf_can_call_fault",
    "vmf_retry",
]


def note_fallback(mm: MmStruct, addr: int, why: FaultLock | Because) -> None:
    """Count and tell why the fault at ``addr`` can not do with the lock of its area."""
    mm.ctx.fault_locks.reasons[why.reason.value] += 1
    probe = mm.ctx.trace.memtwin_fault_fallback
    if probe is not None:
        probe(mm.id, addr, str(why))


_NO_ANON_VMA: Final = FaultLock.NO_ANON_VMA.value


def lock_vma_under_rcu(mm: MmStruct, addr: int) -> VmArea | None:
    """The area at ``addr`` with its lock held for reading; None if that can not be had without ``mmap_lock``."""
    ctx = mm.ctx
    while True:
        vma: VmArea | None = mm.mm_mt.load(addr)
        if vma is None:
            why = FaultLock.NO_VMA
            break
        if vma.anon_vma is None and vma.vm_ops is None and not ctx.anon_prepare_vma_lock:
            if ctx.trace.memtwin_fault_fallback is None:  # every read of memory that nobody ever wrote comes here
                stats = ctx.fault_locks
                stats.abort += 1
                stats.reasons[_NO_ANON_VMA] += 1
                return None
            why = FaultLock.NO_ANON_VMA
            break
        lock = vma.vm_lock
        if lock is None:
            lock = vma.vm_lock = Rwsem(ctx.sched, "vma_lock")
        if vma.lock_seq == mm.mmap_lock.write_seq or not lock.down_read_trylock():
            why = FaultLock.WRITE_LOCKED
            break
        if vma.lock_seq == mm.mmap_lock.write_seq:
            why = FaultLock.WRITE_LOCKED
        elif not vma.start <= addr < vma.end:
            why = FaultLock.MOVED
        elif not vma.detached:
            return vma
        else:
            lock.up_read()
            ctx.fault_locks.miss += 1
            note_fallback(mm, addr, FaultLock.DETACHED)
            continue
        lock.up_read()
        break
    ctx.fault_locks.abort += 1
    note_fallback(mm, addr, why)
    return None


def release_fault_lock(vmf: VmFault, why: FaultLock | Because | None) -> None:
    """Give up the lock that the fault holds, whichever it is. ``why`` the caller will answer VM_FAULT_RETRY; None: it
    is done, and answers VM_FAULT_COMPLETED.
    """
    if vmf.flags & FAULT_FLAG_VMA_LOCK:
        if why is not None:
            note_fallback(vmf.mm, vmf.address, why)
        lock = vmf.vma.vm_lock
        assert lock is not None
        lock.up_read()
    else:
        vmf.mm.mmap_lock.up_read()


def vmf_retry(vmf: VmFault, why: FaultLock | Because) -> int:
    """VM_FAULT_RETRY: this can only be done under ``mmap_lock``. Precondition: the lock of the area is held."""
    release_fault_lock(vmf, why)
    return VM_FAULT_RETRY


def vmf_can_call_fault(vmf: VmFault) -> int:
    """0 if the operations of the area may be called now, else VM_FAULT_RETRY.

    Operations with ``map_pages`` are those of the page cache or of tmpfs, which do without ``mmap_lock``; a driver's
    may rely on it.
    """
    ops = vmf.vma.vm_ops
    assert ops is not None
    if ops.has_map_pages or not vmf.flags & FAULT_FLAG_VMA_LOCK:
        return 0
    return vmf_retry(vmf, FaultLock.NO_MAP_PAGES)


def vmf_anon_prepare(mm: MmStruct, vma: VmArea, addr: int, flags: int) -> int:
    """Give the area an anon_vma: 0, VM_FAULT_OOM, or VM_FAULT_RETRY.

    A neighbour's may be shared, and neighbours can be looked at under ``mmap_lock`` only: 6.7 asks again with it, later
    kernels take it in addition if it is free (post-anon-prepare-vma-lock).
    """
    if vma.anon_vma is not None:
        return 0
    lock = mm.mmap_lock
    if not flags & FAULT_FLAG_VMA_LOCK:
        return 0 if anon_vma_prepare(mm, vma) else VM_FAULT_OOM
    if not mm.ctx.anon_prepare_vma_lock:
        return vmf_retry(VmFault(mm, vma, addr, flags), FaultLock.ANON_VMA)
    if not lock.down_read_trylock():
        return vmf_retry(VmFault(mm, vma, addr, flags), FaultLock.MMAP_LOCK_BUSY)
    mm.ctx.fault_locks.mmap_lock += 1
    prepared = anon_vma_prepare(mm, vma)
    lock.up_read()
    return 0 if prepared else VM_FAULT_OOM
