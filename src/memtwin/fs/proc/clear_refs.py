# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/PID/clear_refs (fs/proc/task_mmu.c; Documentation/filesystems/proc.rst; spec R14): forget accesses.

1, 2 and 3 clear the accessed bits of the entries and the referenced flag of the pages of all areas, of those without
and of those with a file; 4 is about soft-dirty bits, which are not configured: taken, and nothing happens; 5 sets the
peak of the resident set to what it is. How the number is read was observed on 6.18.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from memtwin.abi.stat import S_IFREG
from memtwin.fs.file import File
from memtwin.fs.inode import linux_error
from memtwin.fs.libfs import PseudoFs, PseudoInode
from memtwin.hw.paging import ACCESSED, MAPPED, PFN_MASK, SPECIAL
from memtwin.mm.mm_types import VM_PFNMAP, MmStruct
from memtwin.mm.page import PG_REFERENCED

if TYPE_CHECKING:
    from memtwin.fs.namei import Dentry
    from memtwin.mm.page_table import LeafRows

__all__ = ["ClearRefsInode", "clear_refs", "parse"]

CLEAR_REFS_ALL: Final = 1
CLEAR_REFS_ANON: Final = 2
CLEAR_REFS_MAPPED: Final = 3
CLEAR_REFS_SOFT_DIRTY: Final = 4
CLEAR_REFS_MM_HIWATER_RSS: Final = 5

#: Bytes of one write that are looked at, and taken.
_MAX_WRITE: Final = 12
_SPACES: Final = b" \t\n\v\f\r\xa0"
_NUMBER: Final = re.compile(rb"[+-]?[0-9]+")
_INT: Final = range(-(1 << 31), 1 << 31)


def parse(data: bytes) -> tuple[int, int]:
    """What ``data`` asks for, and how many of its bytes are taken. EINVAL, ERANGE."""
    data = data[:_MAX_WRITE]
    text = data.partition(b"\0")[0].strip(_SPACES)
    if not _NUMBER.fullmatch(text):
        raise linux_error(errno.EINVAL)
    number = int(text)
    if number not in _INT:
        raise linux_error(errno.ERANGE)
    if not CLEAR_REFS_ALL <= number <= CLEAR_REFS_MM_HIWATER_RSS:
        raise linux_error(errno.EINVAL)
    return number, len(data)


def clear_refs(mm: MmStruct, number: int) -> None:
    """Do what ``number`` (1 to 5) asks for."""
    if number == CLEAR_REFS_MM_HIWATER_RSS:
        mm.mmap_lock.down_write()
        mm.hiwater_rss = mm.rss
        mm.mmap_lock.up_write()
        return
    if number == CLEAR_REFS_SOFT_DIRTY:
        return
    op = _ClearYoung(mm)
    mm.mmap_lock.down_write()
    for vma in mm.areas():
        if vma.flags & VM_PFNMAP:
            continue
        if number == CLEAR_REFS_ALL or (number == CLEAR_REFS_MAPPED) == (vma.file is not None):
            mm.page_table_lock.lock()
            mm.ctx.pt.walk_range(mm, vma.start, vma.end, op)
            mm.page_table_lock.unlock()
    if op.cleared:
        mm.tlb.flush(op.cleared)
        mm.ctx.work.ptes += op.cleared
    mm.mmap_lock.up_write()


class _ClearYoung:
    """Makes entries and their pages old (a :class:`~memtwin.mm.page_table.RangeOp`). ``cleared`` counts entries."""

    __slots__ = ("_ctx", "cleared")

    def __init__(self, mm: MmStruct) -> None:
        self._ctx = mm.ctx
        self.cleared = 0

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        q, pages = self._ctx.ram.q, self._ctx.pages
        for i in range(index, index + count):
            entry = q[i]
            if not entry & MAPPED or entry & SPECIAL:
                continue
            if entry & ACCESSED:
                q[i] = entry & ~ACCESSED
                self.cleared += 1
            pages.flags[pages.head((entry & PFN_MASK) >> 12)] &= ~PG_REFERENCED

    def rows(self, batch: LeafRows) -> None:
        """Whole tables."""
        entries = batch.gather()
        vec = self._ctx.pages.vec
        page = ((entries & np.uint64(MAPPED)) != 0) & ((entries & np.uint64(SPECIAL)) == 0)
        pfns = ((entries[page] & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
        order = vec.comp_order[pfns]
        vec.flags[(pfns >> order) << order] &= np.uint32(~PG_REFERENCED & 0xFFFFFFFF)
        young = page & ((entries & np.uint64(ACCESSED)) != 0)
        count = int(np.count_nonzero(young))
        if count:
            entries[young] &= np.uint64(~ACCESSED & (1 << 64) - 1)
            batch.scatter(entries)
            self.cleared += count

    def huge(self, index: int, order: int, addr: int) -> None:
        """A huge leaf has one bit, its folio one flag."""
        q, pages = self._ctx.ram.q, self._ctx.pages
        entry = q[index]
        if entry & SPECIAL:
            return
        if entry & ACCESSED:
            q[index] = entry & ~ACCESSED
            self.cleared += 1
        pages.flags[pages.head((entry & PFN_MASK) >> 12)] &= ~PG_REFERENCED


class ClearRefsInode(PseudoInode):
    """The file of one process. ``mm()`` is asked at each write: None once the process has none, ESRCH if it is gone."""

    __slots__ = ("mm",)

    def __init__(self, fs: PseudoFs, mm: Callable[[], MmStruct | None]) -> None:
        super().__init__(fs, S_IFREG | 0o200)
        self.mm: Final = mm

    def open(self, dentry: Dentry, flags: int) -> File:
        return _ClearRefsFile(dentry, self, flags)


class _ClearRefsFile(File):
    """An open ``ClearRefsInode``: it can only be written, at any position."""

    __slots__ = ()

    reads_fill = True

    def pwrite(self, data: bytes, offset: int) -> int:
        assert isinstance(self.inode, ClearRefsInode)
        number, taken = parse(data)
        mm = self.inode.mm()
        if mm is not None:
            clear_refs(mm, number)
        return taken

    def llseek(self, offset: int, whence: int) -> int:
        return self.pos  # noop_llseek
