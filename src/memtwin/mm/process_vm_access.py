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

from memtwin.hw.paging import NX
from memtwin.hw.ram import PAGE_MASK
from memtwin.mm.context import MmContext
from memtwin.mm.get_user_pages import (
    FOLL_FORCE,
    FOLL_WRITE,
    Locked,
    get_user_page_vma_remote,
    pin_user_pages_remote,
    put_user_page,
    unpin_user_pages,
)
from memtwin.mm.mm_types import MmStruct, VmArea
from memtwin.mm.mmap import find_extend_vma
from memtwin.mm.page import PG_DIRTY

__all__ = ["access_remote_vm", "process_vm_rw", "read_remote_vm", "write_remote_vm"]

#: Pages that process_vm_* pins at once: as many pointers as fit in two pages.
PINNED_AT_ONCE: Final = 1024


def _written(ctx: MmContext, vma: VmArea | None, pfn: int) -> None:
    """The kernel wrote to a page: it is dirty, no longer known to be zero, and code in it has changed."""
    ctx.pages.flags[ctx.pages.head(pfn)] |= PG_DIRTY
    ctx.pages.nonzero[pfn] = 1
    if vma is None or not vma.page_prot & NX:
        ctx.tlb.note_frame_changed(pfn)


# -- /proc/PID/mem, ptrace --------------------------------------------------------------------------------------------


def access_remote_vm(
    mm: MmStruct, addr: int, buffer: bytearray | memoryview, *, write: bool, force: bool = True
) -> int:
    """Copy between ``buffer`` and ``addr`` on, page by page (``write``: to the address space). The number of bytes
    copied: short where something is in the way, never an error. Areas that grow down do.
    """
    return _access_remote_vm(mm, addr, memoryview(buffer), (FOLL_WRITE if write else 0) | (FOLL_FORCE if force else 0))


def _access_remote_vm(mm: MmStruct, addr: int, view: memoryview, flags: int) -> int:
    """What :func:`access_remote_vm` does, ``flags`` as FOLL_*. Private since ``access-remote-vm-static``."""
    ctx, mem = mm.ctx, mm.ctx.ram.mem
    done, size = 0, len(view)
    if not mm.mmap_lock.down_read_killable():
        return 0
    try:
        while done < size:
            at = addr + done
            if at >= mm.task_size or find_extend_vma(mm, at) is None:
                break
            count = min(size - done, 4096 - (at & 4095))
            got = get_user_page_vma_remote(mm, at, flags)
            if got is None or isinstance(got, int):
                count = _access_device(mm, at, view[done : done + count], flags)
                if count <= 0:
                    break
            else:
                pfn, vma = got
                physical = pfn << 12 | at & 4095
                if flags & FOLL_WRITE:
                    mem[physical : physical + count] = view[done : done + count]
                    _written(ctx, vma, pfn)
                else:
                    view[done : done + count] = mem[physical : physical + count]
                put_user_page(ctx, pfn)
            done += count
    finally:
        mm.mmap_lock.up_read()
    return done


def _access_device(mm: MmStruct, addr: int, view: memoryview, flags: int) -> int:
    """No page is to be had: the owner of the area may have a way of its own (memory of a device). Bytes done, or 0."""
    vma: VmArea | None = mm.mm_mt.load(addr)
    if vma is None or vma.vm_ops is None or not vma.vm_ops.has_access:
        return 0
    data = bytearray(view)
    done = vma.vm_ops.access(vma, addr, data, bool(flags & FOLL_WRITE))
    if done > 0 and not flags & FOLL_WRITE:
        view[:done] = data[:done]
    return done


# -- process_vm_readv, process_vm_writev ------------------------------------------------------------------------------


class LocalVec(Protocol):
    """The caller's side of a transfer, which knows how much it still takes or has."""

    @property
    def left(self) -> int:
        """Bytes that it still takes or has."""

    def copy(self, page: memoryview, write: bool) -> int:
        """Move to (``write``: from) ``page``; the number of bytes, fewer than it has where its memory is bad."""


def process_vm_rw(mm: MmStruct, local: LocalVec, remote: Sequence[tuple[int, int]], *, write: bool) -> int:
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
            bad = not _single_vec(mm, local, addr, length, write)
    done = total - local.left
    if bad and not done:
        raise OSError(errno.EFAULT, "process_vm: a bad address on one of the sides")
    return done


def _single_vec(mm: MmStruct, local: LocalVec, addr: int, length: int, write: bool) -> bool:
    """One remote range; False where a page of either side was in the way."""
    ctx, mem = mm.ctx, mm.ctx.ram.mem
    offset = addr & 4095
    page = addr & PAGE_MASK
    pages_left = (addr + length - 1 >> 12) - (page >> 12) + 1
    flags = FOLL_WRITE if write else 0
    while pages_left and local.left:
        pfns: list[int] = []
        locked = Locked()
        mm.mmap_lock.down_read()
        try:
            got = pin_user_pages_remote(mm, page, min(pages_left, PINNED_AT_ONCE), flags, pfns, locked)
        except BaseException:
            unpin_user_pages(ctx, pfns, dirty=False)
            raise
        finally:
            if locked.held:
                mm.mmap_lock.up_read()
        if got <= 0:
            return False
        try:
            for pfn in pfns:
                size = min(4096 - offset, length)
                wanted = min(size, local.left)
                if not wanted:
                    break
                start = (pfn << 12) + offset
                copied = local.copy(mem[start : start + size], write)
                if write:
                    _written(ctx, None, pfn)
                if copied < wanted:
                    return False
                length -= size
                offset = 0
        finally:
            unpin_user_pages(ctx, pfns, dirty=write)
        pages_left -= len(pfns)
        page += len(pfns) << 12
    return True


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


def read_remote_vm(mm: MmStruct, addr: int, length: int) -> bytes:
    """process_vm_readv of one range into a buffer of the host. Raises OSError EFAULT."""
    data = bytearray(length)
    done = process_vm_rw(mm, _Buffer(memoryview(data)), [(addr, length)], write=False)
    return bytes(data[:done])


def write_remote_vm(mm: MmStruct, addr: int, data: bytes) -> int:
    """process_vm_writev of one range from bytes of the host; how many arrived. Raises OSError EFAULT."""
    return process_vm_rw(mm, _Buffer(memoryview(data)), [(addr, len(data))], write=True)
