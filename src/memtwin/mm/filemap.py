# SPDX-License-Identifier: GPL-2.0-or-later
"""File pages (Linux: mm/filemap.c), as far as mapped programs need them before the page cache is built.

A mapping keeps its pages while any area maps it and drops them with the last one; there is no writeback, and readahead
reads the one page that is wanted. A file may be *cold*: each page is then read by a disk, which takes ``read_ns`` of
virtual time, while the folio is locked. Invariants: every page in ``folios`` carries the mapping's id and its index,
and one reference for being there; it is uptodate, or locked while it is read.

What faults ask for is in :class:`FileVmOps`: it has the states of filemap_fault (spec ``filemap-fault-notuptodate``)
and gives up whichever lock the fault holds before it waits (``fault-lock-release``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from memtwin.lib.gfp_types import GFP_HIGHUSER_MOVABLE, ZERO
from memtwin.mm.context import MmContext
from memtwin.mm.fault_lock_stats import FaultLock
from memtwin.mm.mm_types import VM_RAND_READ
from memtwin.mm.mmap_lock import release_fault_lock
from memtwin.mm.page import PG_HWPOISON, PG_LOCKED, PG_RECLAIM, PG_SWAPBACKED, PG_UPTODATE
from memtwin.mm.set_pte import pte_lock, set_file_pte
from memtwin.mm.vm_fault import (
    FAULT_FLAG_ALLOW_RETRY,
    FAULT_FLAG_KILLABLE,
    FAULT_FLAG_RETRY_NOWAIT,
    FAULT_FLAG_TRIED,
    VM_FAULT_LOCKED,
    VM_FAULT_MAJOR,
    VM_FAULT_NOPAGE,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
    VM_FAULT_SIGBUS,
    VmFault,
)
from memtwin.mm.vm_ops import VmOperations

__all__ = ["FILE_VM_OPS", "AddressSpace", "FilePin", "FileVmOps"]


class AddressSpace:
    """The pages of one file.

    ``read_folio(index)`` returns up to 4096 bytes of the file's content (less at its end); ``size()`` the length in
    bytes; ``shmem`` says that the pages count as shared memory (an anonymous shared object). ``i_mmap``: number of
    areas that map it; ``committed``: pages that were promised when it was made. ``read_ns``: how long a disk takes to
    read a page, in virtual ns; 0: a page that is wanted counts as cached.
    """

    __slots__ = ("_read_folio", "committed", "folios", "i_mmap", "id", "opens", "read_ns", "shmem", "size")

    def __init__(
        self,
        read_folio: Callable[[int], bytes],
        size: Callable[[], int],
        *,
        shmem: bool = False,
        read_ns: int = 0,
    ) -> None:
        self._read_folio = read_folio
        self.size = size
        self.shmem = shmem
        self.read_ns = read_ns
        self.id = 0
        self.i_mmap = 0
        self.opens = 0
        self.committed = 0
        self.folios: dict[int, int] = {}

    def mapped(self, ctx: MmContext) -> None:
        """One more area maps this file."""
        self._register(ctx)
        self.i_mmap += 1

    def unmapped(self, ctx: MmContext) -> None:
        """One area less; with the last user the pages go."""
        self.i_mmap -= 1
        self._drop_if_unused(ctx)

    def opened(self, ctx: MmContext) -> None:
        """An open file that owns its content keeps the pages too (memory files)."""
        self._register(ctx)
        self.opens += 1

    def closed(self, ctx: MmContext) -> None:
        """The counterpart of :meth:`opened`."""
        self.opens -= 1
        self._drop_if_unused(ctx)

    def _register(self, ctx: MmContext) -> None:
        if not self.id:
            ctx.mapping_ids += 1
            self.id = ctx.mapping_ids
        ctx.mappings[self.id] = self

    def _drop_if_unused(self, ctx: MmContext) -> None:
        if not self.i_mmap and not self.opens:
            self.drop_from(ctx, 0)
            ctx.committed -= self.committed
            del ctx.mappings[self.id]

    def drop_from(self, ctx: MmContext, first: int) -> None:
        """Remove the pages from index ``first`` on; nothing maps them any more."""
        for index in sorted(index for index in self.folios if index >= first):
            self.drop(ctx, index)

    def drop(self, ctx: MmContext, index: int) -> None:
        """Remove the page at ``index``, which nothing maps any more."""
        pfn = self.folios.pop(index)
        stat = ctx.node_stat(pfn)
        stat.nr_file_pages -= 1
        if self.shmem:
            stat.nr_shmem -= 1
        ctx.pages.flags[pfn] &= PG_LOCKED  # a disk may still be filling it
        ctx.pages.mapping[pfn] = 0
        ctx.page_alloc.put_page(pfn)

    def get_folio(self, ctx: MmContext, index: int) -> int:
        """The page at ``index``, read at once if it is not there; its pfn, or 0 without memory. The cache keeps the
        only new reference.
        """
        pfn = self.folios.get(index)
        if pfn is None:
            pfn = self.add_empty(ctx, index)
            if pfn and not ctx.pages.flags[pfn] & PG_UPTODATE:
                self._fill(ctx, index, pfn)
        return pfn

    def add_empty(self, ctx: MmContext, index: int) -> int:
        """A fresh page at ``index``, not uptodate; 0 without memory. If the allocation slept, another may have made one
        meanwhile: then that.
        """
        pfn = ctx.page_alloc.alloc_pages(GFP_HIGHUSER_MOVABLE | ZERO)
        if not pfn:
            return 0
        there = self.folios.get(index)
        if there is not None:
            ctx.page_alloc.free_pages(pfn)
            return there
        pages = ctx.pages
        pages.flags[pfn] = PG_SWAPBACKED if self.shmem else 0
        pages.mapping[pfn] = self.id
        pages.index[pfn] = index
        stat = ctx.node_stat(pfn)
        stat.nr_file_pages += 1
        if self.shmem:
            stat.nr_shmem += 1
        self.folios[index] = pfn
        return pfn

    def _fill(self, ctx: MmContext, index: int, pfn: int) -> None:
        data = self._read_folio(index)
        if data:
            start = pfn << 12
            ctx.ram.mem[start : start + len(data)] = data
            ctx.pages.nonzero[pfn] = 1
        ctx.pages.flags[pfn] |= PG_UPTODATE

    def start_read(self, ctx: MmContext, index: int) -> int:
        """Let the disk read the page at ``index``, which is not cached: its pfn, locked until the content is there; 0
        without memory.
        """
        pfn = self.add_empty(ctx, index)
        if pfn and not ctx.pages.flags[pfn] & (PG_UPTODATE | PG_LOCKED):
            ctx.folio_locks.start_io(pfn)
            self._submit(ctx, index, pfn)
        return pfn

    def _submit(self, ctx: MmContext, index: int, pfn: int) -> None:
        ctx.pages.refcount[pfn] += 1

        def done() -> None:
            self._fill(ctx, index, pfn)
            ctx.folio_locks.end_io(pfn)
            ctx.page_alloc.put_page(pfn)

        ctx.sched.clock.timer_in(self.read_ns, done, "read of a page")

    def read_locked(self, ctx: MmContext, index: int, pfn: int) -> bool:
        """Read the content of the folio ``pfn``, which the caller has locked and loses the lock of, and wait for it;
        false if a fatal signal came first.
        """
        if not self.read_ns:
            self._fill(ctx, index, pfn)
            ctx.folio_locks.unlock(pfn)
            return True
        self._submit(ctx, index, pfn)
        if ctx.sched.lockdep is not None:
            ctx.sched.lockdep.release(pfn, "folio_lock")
        return ctx.folio_locks.wait_locked_killable(pfn)


class FilePin:
    """A file that a fault holds on to while it waits without the lock of the address space (Linux: fpin). ``held``:
    the lock has been given up.
    """

    __slots__ = ("_vmf", "held", "mapping")

    def __init__(self, vmf: VmFault) -> None:
        file = vmf.vma.file
        assert file is not None
        self._vmf = vmf
        self.mapping = file.mapping
        self.held = False

    def maybe_unlock(self, why: FaultLock) -> None:
        """Give up the fault's lock if this is its first attempt and it may wait (maybe_unlock_mmap_for_io)."""
        vmf = self._vmf
        asked = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_TRIED | FAULT_FLAG_RETRY_NOWAIT
        if not self.held and vmf.flags & asked == FAULT_FLAG_ALLOW_RETRY:
            self.mapping.opened(vmf.mm.ctx)
            self.held = True
            release_fault_lock(vmf, why)

    def put(self) -> None:
        """Let go of the file."""
        if self.held:
            self.mapping.closed(self._vmf.mm.ctx)


def lock_folio_maybe_drop_mmap(vmf: VmFault, folio: int, pin: FilePin) -> bool:
    """Lock ``folio``, giving up the fault's lock before sleeping for it. False: not locked, say VM_FAULT_RETRY.

    A wait that a fatal signal ends without a pinned file leaves no lock behind: since ``fault-lock-release`` whichever
    the fault held, before always ``mmap_lock``, also where it was not held.
    """
    locks = vmf.mm.ctx.folio_locks
    if locks.trylock(folio):
        return True
    if vmf.flags & FAULT_FLAG_RETRY_NOWAIT:
        return False
    pin.maybe_unlock(FaultLock.FOLIO_LOCKED)
    if not vmf.flags & FAULT_FLAG_KILLABLE:
        locks.lock(folio)
        return True
    if locks.lock_killable(folio):
        return True
    if not pin.held:
        if vmf.mm.ctx.fault_lock_release:
            release_fault_lock(vmf, FaultLock.FOLIO_LOCKED)
        else:
            vmf.mm.mmap_lock.up_read()
    return False


class FileVmOps(VmOperations):
    """Operations of mapped files whose pages are cached."""

    has_map_pages = True

    def fault(self, vmf: VmFault) -> int:
        """filemap_fault: SIGBUS beyond the end of the file; MAJOR where the page had to be read."""
        file = vmf.vma.file
        assert file is not None
        ctx, mapping, index = vmf.mm.ctx, file.mapping, vmf.pgoff
        probe = ctx.trace.mm_filemap_fault
        if probe is not None:
            probe(file.ino, file.dev, index)
        if index >= (mapping.size() + 4095) >> 12:
            return VM_FAULT_SIGBUS
        pages = ctx.pages
        pin = FilePin(vmf)
        result = 0
        folio = mapping.folios.get(index)
        if folio is not None:
            pages.refcount[folio] += 1
            if not vmf.flags & FAULT_FLAG_TRIED:
                self.async_readahead(vmf, folio, pin)
        elif mapping.read_ns:
            ctx.events.pgmajfault += 1
            result = VM_FAULT_MAJOR
            self.sync_readahead(vmf, pin)
        try:
            while True:
                if folio is None:
                    folio = mapping.folios.get(index)
                    if folio is None:
                        if index >= (mapping.size() + 4095) >> 12:  # truncated meanwhile
                            return result | VM_FAULT_RETRY if pin.held else VM_FAULT_SIGBUS
                        folio = mapping.add_empty(ctx, index) if mapping.read_ns else mapping.get_folio(ctx, index)
                    if not folio:
                        return result | VM_FAULT_RETRY if pin.held else VM_FAULT_OOM
                    pages.refcount[folio] += 1
                if not lock_folio_maybe_drop_mmap(vmf, folio, pin):
                    ctx.page_alloc.put_page(folio)
                    return result | VM_FAULT_RETRY
                if mapping.folios.get(index) != folio:  # truncated meanwhile
                    ctx.folio_locks.unlock(folio)
                    ctx.page_alloc.put_page(folio)
                    folio = None
                    continue
                if not pages.flags[folio] & PG_UPTODATE:
                    pin.maybe_unlock(FaultLock.READ)
                    finished = mapping.read_locked(ctx, index, folio)
                    ctx.page_alloc.put_page(folio)
                    if pin.held:
                        return result | VM_FAULT_RETRY
                    if not finished:
                        return VM_FAULT_SIGBUS
                    folio = None
                    continue
                break
            if pin.held or index >= (mapping.size() + 4095) >> 12:
                ctx.folio_locks.unlock(folio)
                ctx.page_alloc.put_page(folio)
                return result | VM_FAULT_RETRY if pin.held else VM_FAULT_SIGBUS
            vmf.page = folio
            return result | VM_FAULT_LOCKED
        finally:
            pin.put()

    def sync_readahead(self, vmf: VmFault, pin: FilePin) -> None:
        """The page is not cached: have it read, unless accesses are random (filemap_fault then reads it alone)."""
        if not vmf.vma.flags & VM_RAND_READ:
            pin.maybe_unlock(FaultLock.READ)
            pin.mapping.start_read(vmf.mm.ctx, vmf.pgoff)

    def async_readahead(self, vmf: VmFault, folio: int, pin: FilePin) -> None:
        """A page that carries the readahead mark is reached: time to read on behind it."""
        flags = vmf.mm.ctx.pages.flags
        if not vmf.vma.flags & VM_RAND_READ and flags[folio] & PG_RECLAIM:
            flags[folio] &= ~PG_RECLAIM
            pin.maybe_unlock(FaultLock.READAHEAD)

    def map_pages(self, vmf: VmFault, start_pgoff: int, end_pgoff: int) -> int:
        """filemap_map_pages: pages that are cached, uptodate, not locked, not poisoned, without the readahead mark and
        below the end of the file, where no entry is yet.
        """
        vma = vmf.vma
        assert vma.file is not None
        mm, ctx, mapping = vmf.mm, vmf.mm.ctx, vma.file.mapping
        folios, flags, q = mapping.folios, ctx.pages.flags, ctx.ram.q
        refcount = ctx.pages.refcount
        end_pgoff = min(end_pgoff, ((mapping.size() + 4095) >> 12) - 1)
        position = vmf.index - vmf.pgoff
        if not pte_lock(mm, vmf.address, vmf.index):
            return 0
        for index in range(start_pgoff, end_pgoff + 1):
            pfn = folios.get(index)
            if pfn is not None and flags[pfn] & _MAPPABLE == PG_UPTODATE and not q[position + index]:
                refcount[pfn] += 1
                set_file_pte(mm, vma, position + index, pfn, 0)
        mapped = q[vmf.index]
        mm.page_table_lock.unlock()
        return VM_FAULT_NOPAGE if mapped else 0


#: Of these flags a page that is mapped around a fault must have exactly PG_UPTODATE.
_MAPPABLE: Final = PG_UPTODATE | PG_LOCKED | PG_RECLAIM | PG_HWPOISON

#: Operations of ordinary mapped files.
FILE_VM_OPS: Final = FileVmOps()
