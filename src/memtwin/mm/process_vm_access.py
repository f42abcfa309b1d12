# SPDX-License-Identifier: GPL-2.0-or-later
"""Reaching into an address space from outside (Linux: mm/process_vm_access.c, __access_remote_vm in mm/memory.c; spec
access-remote-vm-static): process_vm_readv and _writev, /proc/PID/mem.

Pages are faulted in for whoever asks, whose faults they count as. Two rules differ: process_vm_* pins its pages, so a
read takes an anonymous page that others share out of the sharing first, and stops at what the area forbids;
/proc/PID/mem may write what is only readable and read what nobody may (FOLL_FORCE), as long as no other process could
see it. Both ways count as an access of the page, and a write dirties it.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final, Protocol

from memtwin.hw.paging import DIRTY, NX, PFN_MASK, PRESENT, PROT_NONE, RW, SPECIAL
from memtwin.hw.ram import PAGE_MASK
from memtwin.mm.gup import mark_page_accessed
from memtwin.mm.memory import handle_mm_fault
from memtwin.mm.mm_types import (
    VM_GROWSDOWN,
    VM_IO,
    VM_LOCKED,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_PFNMAP,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
    MmStruct,
    VmArea,
)
from memtwin.mm.mmap import expand_stack
from memtwin.mm.page import PG_ANON, PG_ANON_EXCLUSIVE, PG_DIRTY
from memtwin.mm.vm_fault import (
    FAULT_FLAG_REMOTE,
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_WRITE,
    VM_FAULT_ERROR,
    VM_FAULT_MAJOR,
)
from memtwin.mm.vma import find_vma

__all__ = ["FaultCounts", "access_remote_vm", "process_vm_rw", "read_remote_vm", "write_remote_vm"]

#: Pages that process_vm_* pins at once: as many pointers as fit in two pages.
PINNED_AT_ONCE: Final = 1024
_MAPPED: Final = PRESENT | PROT_NONE


class FaultCounts(Protocol):
    """Whoever the faults are counted for."""

    min_flt: int
    maj_flt: int


def _check_vma_flags(vma: VmArea, write: bool, force: bool) -> bool:
    """Whether an access from outside may be made at all."""
    flags = vma.flags
    if flags & (VM_IO | VM_PFNMAP):
        return False
    if write:
        # Only a private copy may be written against the area's rights.
        return bool(flags & VM_WRITE or (force and flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE))
    return bool(flags & VM_READ or (force and flags & VM_MAYREAD))


def _get_page(mm: MmStruct, vma: VmArea, addr: int, who: FaultCounts, *, write: bool, pin: bool) -> int:
    """The frame behind ``addr`` after as many faults as it takes; 0 where there is none to be had. ``mmap_lock`` is
    held for reading.
    """
    ctx = mm.ctx
    pages = ctx.pages
    q = ctx.ram.q
    forced = write and not vma.flags & VM_WRITE
    while True:
        base = mm.pte_tables.get(addr >> 21)
        if base is not None:
            index, shift = base + (addr >> 12 & 511), 12
        else:
            index, shift = ctx.pt.lookup(mm, addr)
        entry = q[index] if index else 0
        unshare = False
        if entry & _MAPPED:
            pfn = ((entry & PFN_MASK) >> 12) + (addr >> 12 & (1 << shift - 12) - 1)
            # Of a huge leaf the head says whether the page is exclusive.
            flags = pages.flags[pfn] if shift == 12 else pages.flags[pages.head(pfn)]
            exclusive = flags & PG_ANON_EXCLUSIVE
            unshare = pin and not write and not entry & SPECIAL and bool(flags & PG_ANON) and not exclusive
            if not unshare and (not write or entry & RW or (forced and exclusive)):
                break
        flags = FAULT_FLAG_REMOTE | (FAULT_FLAG_WRITE if write else FAULT_FLAG_UNSHARE if unshare else 0)
        result = handle_mm_fault(mm, vma, addr, flags)
        ctx.events.pgfault += 1
        if result & VM_FAULT_ERROR:
            return 0
        if result & VM_FAULT_MAJOR:
            who.maj_flt += 1
        else:
            who.min_flt += 1
    if not entry & SPECIAL:
        if write and not entry & DIRTY:
            pages.flags[pages.head(pfn)] |= PG_DIRTY
        mark_page_accessed(pages, pages.head(pfn), locked=bool(vma.flags & VM_LOCKED))
    if write:
        pages.flags[pages.head(pfn)] |= PG_DIRTY
        pages.nonzero[pfn] = 1
        if not entry & NX:
            ctx.tlb.note_frame_changed(pfn)
    return pfn


# -- /proc/PID/mem, ptrace --------------------------------------------------------------------------------------------


def _find_or_grow(mm: MmStruct, addr: int) -> VmArea | None:
    """The area at ``addr``, grown down to it if need be. ``mmap_lock`` stays held, for reading."""
    vma = find_vma(mm, addr)
    if vma is None or vma.start <= addr:
        return vma
    if not vma.flags & VM_GROWSDOWN:
        return None
    lock = mm.mmap_lock
    lock.up_read()
    lock.down_write()
    vma = find_vma(mm, addr)
    grown = vma is not None and (vma.start <= addr or (bool(vma.flags & VM_GROWSDOWN) and expand_stack(mm, vma, addr)))
    lock.downgrade_write()
    return vma if grown else None


def access_remote_vm(
    mm: MmStruct, addr: int, buffer: bytearray | memoryview, who: FaultCounts, *, write: bool, force: bool = True
) -> int:
    """Copy between ``buffer`` and ``addr`` on, page by page (``write``: to the address space). The number of bytes
    copied: short where something is in the way, never an error. Areas that grow down do.
    """
    mem = mm.ctx.ram.mem
    view = memoryview(buffer)
    done, size = 0, len(view)
    mm.mmap_lock.down_read()
    try:
        while done < size:
            at = addr + done
            vma = _find_or_grow(mm, at) if at < mm.task_size else None
            if vma is None or not _check_vma_flags(vma, write, force):
                break
            pfn = _get_page(mm, vma, at, who, write=write, pin=False)
            if not pfn:
                break
            count = min(size - done, 4096 - (at & 4095))
            physical = pfn << 12 | at & 4095
            if write:
                mem[physical : physical + count] = view[done : done + count]
            else:
                view[done : done + count] = mem[physical : physical + count]
            done += count
    finally:
        mm.mmap_lock.up_read()
    return done


# -- process_vm_readv, process_vm_writev ------------------------------------------------------------------------------


class LocalVec(Protocol):
    """The caller's side of a transfer, which knows how much it still takes or has."""

    @property
    def left(self) -> int:
        """Bytes that it still takes or has."""

    def copy(self, page: memoryview, write: bool) -> int:
        """Move to (``write``: from) ``page``; the number of bytes, fewer than it has where its memory is bad."""


def process_vm_rw(
    mm: MmStruct, local: LocalVec, remote: Sequence[tuple[int, int]], who: FaultCounts, *, write: bool
) -> int:
    """Copy from (``write``: to) the ranges ``remote``, pairs of address and length, of ``mm``; the number of bytes.

    Raises OSError EFAULT if nothing could be copied. The pages of a batch are pinned before the first is copied,
    whether or not the caller has room for them.
    """
    total = local.left
    bad = False
    for addr, length in remote:
        if bad or not local.left:
            break
        if length:
            bad = not _single_vec(mm, local, addr, length, who, write)
    done = total - local.left
    if bad and not done:
        raise OSError(errno.EFAULT, "process_vm: a bad address on one of the sides")
    return done


def _single_vec(mm: MmStruct, local: LocalVec, addr: int, length: int, who: FaultCounts, write: bool) -> bool:
    """One remote range; False where a page of either side was in the way."""
    mem = mm.ctx.ram.mem
    offset = addr & 4095
    page = addr & PAGE_MASK
    pages_left = (addr + length - 1 >> 12) - (page >> 12) + 1
    while pages_left and local.left:
        pfns = _pin_pages(mm, page, min(pages_left, PINNED_AT_ONCE), who, write)
        if not pfns:
            return False
        for pfn in pfns:
            size = min(4096 - offset, length)
            wanted = min(size, local.left)
            if not wanted:
                break
            start = (pfn << 12) + offset
            if local.copy(mem[start : start + size], write) < wanted:
                return False
            length -= size
            offset = 0
        pages_left -= len(pfns)
        page += len(pfns) << 12
    return True


def _pin_pages(mm: MmStruct, addr: int, count: int, who: FaultCounts, write: bool) -> list[int]:
    """The frames from ``addr`` on, up to the first that can not be had."""
    pfns: list[int] = []
    vma: VmArea | None = None
    mm.mmap_lock.down_read()
    try:
        while len(pfns) < count:
            if vma is None or addr >= vma.end:
                vma = find_vma(mm, addr) if addr < mm.task_size else None
                if vma is None or vma.start > addr or not _check_vma_flags(vma, write, False):
                    break
            pfn = _get_page(mm, vma, addr, who, write=write, pin=True)
            if not pfn:
                break
            pfns.append(pfn)
            addr += 4096
    finally:
        mm.mmap_lock.up_read()
    return pfns


class _Buffer:
    """The caller's side as bytes of the host."""

    __slots__ = ("_view", "done")

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.done = 0

    @property
    def left(self) -> int:
        """Bytes that were not moved yet."""
        return len(self._view) - self.done

    def copy(self, page: memoryview, write: bool) -> int:
        """As many as both have."""
        count = min(len(page), self.left)
        part = self._view[self.done : self.done + count]
        if write:
            page[:count] = part
        else:
            part[:] = page[:count]
        self.done += count
        return count


def read_remote_vm(mm: MmStruct, addr: int, length: int, who: FaultCounts) -> bytes:
    """process_vm_readv of one range into a buffer of the host. Raises OSError EFAULT."""
    data = bytearray(length)
    done = process_vm_rw(mm, _Buffer(memoryview(data)), [(addr, length)], who, write=False)
    return bytes(data[:done])


def write_remote_vm(mm: MmStruct, addr: int, data: bytes, who: FaultCounts) -> int:
    """process_vm_writev of one range from bytes of the host; how many arrived. Raises OSError EFAULT."""
    return process_vm_rw(mm, _Buffer(memoryview(data)), [(addr, len(data))], who, write=True)
