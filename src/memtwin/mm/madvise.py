# SPDX-License-Identifier: GPL-2.0-or-later
"""madvise and process_madvise (Linux: mm/madvise.c; spec R8).

Advices that change flags of areas go through ``ctx.modify`` with ``mmap_lock`` for writing; the others act on pages
with it for reading. A hole is passed over and answered with ENOMEM at the end; any other error stops.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

import numpy as np

from memtwin.abi import mman
from memtwin.errors import NotModelled
from memtwin.hw.paging import ACCESSED, DIRTY, PFN_MASK, PRESENT, SPECIAL
from memtwin.hw.ram import PAGE_MASK
from memtwin.mm.gup import faultin_page_range
from memtwin.mm.huge_mm import HPAGE_PMD_NR, HPAGE_PMD_SIZE
from memtwin.mm.huge_range import split_folios_for_advice
from memtwin.mm.huge_split import maybe_shared
from memtwin.mm.khugepaged import madvise_collapse
from memtwin.mm.ksm import NEVER_MERGEABLE
from memtwin.mm.mm_types import (
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_LOCKED,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WIPEONFORK,
    VM_WRITE,
    MmStruct,
    VmArea,
)
from memtwin.mm.page import PG_DIRTY, PG_REFERENCED
from memtwin.mm.page_table import LeafRows
from memtwin.mm.vma import areas_in
from memtwin.mm.zap import zap_page_range

__all__ = ["do_madvise", "do_process_madvise", "madvise_set_anon_name"]

#: Advice -> flags cleared, flags set.
_FLAG_ADVICE: Final = {
    mman.MADV_NORMAL: (VM_RAND_READ | VM_SEQ_READ, 0),
    mman.MADV_SEQUENTIAL: (VM_RAND_READ, VM_SEQ_READ),
    mman.MADV_RANDOM: (VM_SEQ_READ, VM_RAND_READ),
    mman.MADV_DONTFORK: (0, VM_DONTCOPY),
    mman.MADV_DOFORK: (VM_DONTCOPY, 0),
    mman.MADV_WIPEONFORK: (0, VM_WIPEONFORK),
    mman.MADV_KEEPONFORK: (VM_WIPEONFORK, 0),
    mman.MADV_DONTDUMP: (0, VM_DONTDUMP),
    mman.MADV_DODUMP: (VM_DONTDUMP, 0),
    mman.MADV_MERGEABLE: (0, VM_MERGEABLE),
    mman.MADV_UNMERGEABLE: (VM_MERGEABLE, 0),
    mman.MADV_HUGEPAGE: (VM_NOHUGEPAGE, VM_HUGEPAGE),
    mman.MADV_NOHUGEPAGE: (VM_HUGEPAGE, VM_NOHUGEPAGE),
}
_PAGE_ADVICE: Final = frozenset(
    {
        mman.MADV_WILLNEED,
        mman.MADV_DONTNEED,
        mman.MADV_DONTNEED_LOCKED,
        mman.MADV_FREE,
        mman.MADV_REMOVE,
        mman.MADV_COLD,
        mman.MADV_PAGEOUT,
        mman.MADV_POPULATE_READ,
        mman.MADV_POPULATE_WRITE,
        mman.MADV_COLLAPSE,
    }
)
#: What process_madvise accepts before post-process-madvise-self.
_PROCESS_ADVICE: Final = frozenset({mman.MADV_COLD, mman.MADV_PAGEOUT, mman.MADV_WILLNEED, mman.MADV_COLLAPSE})
#: Longest range that one element of an I/O vector names, and where user memory ends.
_MAX_RW_COUNT: Final = 0x7FFFF000
USER_LIMIT: Final = 0x7FFFFFFFF000
_NOT_MODELLED: Final = frozenset({mman.MADV_HWPOISON, mman.MADV_SOFT_OFFLINE})
_GUARDS: Final = frozenset({mman.MADV_GUARD_INSTALL, mman.MADV_GUARD_REMOVE})


def _invalid(why: str) -> OSError:
    return OSError(errno.EINVAL, f"madvise: {why}")


def do_madvise(mm: MmStruct, start: int, length: int, advice: int) -> None:
    """madvise(2). Raises OSError EINVAL, ENOMEM, EAGAIN, EACCES, EFAULT; NotModelled."""
    known = advice in _FLAG_ADVICE or advice in _PAGE_ADVICE or advice in _NOT_MODELLED
    if not known and not (advice in _GUARDS and mm.ctx.features.has("post-madv-guard")):
        raise _invalid("unknown advice")
    if start & ~PAGE_MASK:
        raise _invalid("unaligned address")
    rounded = (length + 4095) & PAGE_MASK & (1 << 64) - 1
    if length and not rounded:
        raise _invalid("the length overflows")
    end = start + rounded
    if end >= 1 << 64:
        raise _invalid("the range wraps")
    if end == start:
        return
    if advice in _NOT_MODELLED or advice in _GUARDS:
        raise NotModelled(f"madvise advice {advice} is not modelled yet")
    if advice in _FLAG_ADVICE:
        _with_lock(mm.mmap_lock.down_write, mm.mmap_lock.up_write, lambda: _change_flags(mm, start, end, advice))
    elif advice in (mman.MADV_POPULATE_READ, mman.MADV_POPULATE_WRITE):
        write = advice == mman.MADV_POPULATE_WRITE
        _with_lock(
            mm.mmap_lock.down_read, mm.mmap_lock.up_read, lambda: faultin_page_range(mm, start, end, write=write)
        )
    elif advice == mman.MADV_COLLAPSE:
        _with_lock(mm.mmap_lock.down_write, mm.mmap_lock.up_write, lambda: madvise_collapse(mm, start, end))
    else:
        _with_lock(mm.mmap_lock.down_read, mm.mmap_lock.up_read, lambda: _act_on_pages(mm, start, end, advice))


def _with_lock(down: Callable[[], None], up: Callable[[], None], body: Callable[[], None]) -> None:
    down()
    try:
        body()
    finally:
        up()


def do_process_madvise(mm: MmStruct, start: int, length: int, advice: int) -> int:
    """process_madvise(2) on oneself with one range; the number of bytes advised. Raises OSError."""
    if length >= 1 << 63:
        raise _invalid("process_madvise: a negative length")
    length = min(length, _MAX_RW_COUNT)
    if start + length > USER_LIMIT:
        raise OSError(errno.EFAULT, "process_madvise: the range is no user memory")
    if advice not in _PROCESS_ADVICE and not mm.ctx.process_madvise_self:
        raise _invalid("process_madvise does not take this advice")
    if not length:
        return 0  # no range is left to look at, nor its advice
    do_madvise(mm, start, length, advice)
    return length


def _change_flags(mm: MmStruct, start: int, end: int, advice: int) -> None:
    clear, add = _FLAG_ADVICE[advice]

    def visit(prev: VmArea | None, vma: VmArea, low: int, high: int) -> VmArea:
        refused = _refusal(vma, advice)
        if refused:
            raise _invalid(refused)
        if advice == mman.MADV_MERGEABLE and vma.flags & NEVER_MERGEABLE:
            return vma
        return _update(mm, prev, vma, low, high, vma.flags & ~clear | add, vma.anon_name)

    _walk_changing(mm, start, end, visit)


def _refusal(vma: VmArea, advice: int) -> str:
    """Why the area does not take a flag advice, or nothing."""
    if advice == mman.MADV_DOFORK and vma.flags & VM_IO:
        return "MADV_DOFORK on an I/O area"
    if advice == mman.MADV_WIPEONFORK and (vma.file is not None or vma.flags & VM_SHARED):
        return "MADV_WIPEONFORK on a file or shared area"
    if advice == mman.MADV_DODUMP and not vma.flags & VM_HUGETLB and vma.flags & VM_SPECIAL:
        return "MADV_DODUMP on a special area"
    return ""


def _update(
    mm: MmStruct, prev: VmArea | None, vma: VmArea, start: int, end: int, flags: int, anon_name: str | None
) -> VmArea:
    """Give [start, end) new flags and a name; the area it is in afterwards. Raises OSError EAGAIN, as madvise does."""
    if flags == vma.flags and anon_name == vma.anon_name:
        return vma
    try:
        vma = mm.ctx.modify.madvise(mm, prev, vma, start, end, flags, anon_name)
    except OSError as error:
        number = errno.EAGAIN if error.errno == errno.ENOMEM else error.errno
        raise OSError(number, f"madvise: {error.strerror}") from None
    vma.set_flags(flags)
    if vma.file is None:
        vma.anon_name = anon_name
    return vma


def _walk_changing(
    mm: MmStruct, start: int, end: int, visit: Callable[[VmArea | None, VmArea, int, int], VmArea]
) -> None:
    """Call ``visit`` for each area of the range, which may change under it. Raises OSError ENOMEM at the end for a
    hole.
    """
    hole = False
    prev: VmArea | None = None
    position = start
    while position < end:
        vma: VmArea | None = mm.mm_mt.find(position)
        if vma is None or vma.start >= end:
            hole = True
            break
        if vma.start > position:
            hole = True
            position = vma.start
        if prev is None or prev.end < position:
            prev = vma if position > vma.start else (mm.mm_mt.load(position - 1) if position else None)
        stop = min(vma.end, end)
        prev = visit(prev, vma, position, stop)
        position = stop
    if hole:
        raise OSError(errno.ENOMEM, "madvise: part of the range is not mapped")


def madvise_set_anon_name(mm: MmStruct, start: int, length: int, name: str | None) -> None:
    """PR_SET_VMA_ANON_NAME (CONFIG_ANON_VMA_NAME). Raises OSError EINVAL, ENOMEM, EBADF (a file)."""
    if start & ~PAGE_MASK:
        raise _invalid("unaligned address")
    end = start + ((length + 4095) & PAGE_MASK)
    if end > 1 << 64:
        raise _invalid("the range wraps")
    if end == start:
        return

    def visit(prev: VmArea | None, vma: VmArea, low: int, high: int) -> VmArea:
        if vma.file is not None and not vma.file.mapping.shmem:
            raise OSError(errno.EBADF, "prctl: only anonymous memory can be named")
        return _update(mm, prev, vma, low, high, vma.flags, name)

    _with_lock(mm.mmap_lock.down_write, mm.mmap_lock.up_write, lambda: _walk_changing(mm, start, end, visit))


def _act_on_pages(mm: MmStruct, start: int, end: int, advice: int) -> None:
    hole = False
    position = start
    for vma in areas_in(mm, start, end):
        hole |= vma.start > position
        position = min(vma.end, end)
        _advise_area(mm, vma, max(vma.start, start), position, advice)
    if hole or position < end:
        raise OSError(errno.ENOMEM, "madvise: part of the range is not mapped")


def _advise_area(mm: MmStruct, vma: VmArea, start: int, end: int, advice: int) -> None:
    if advice == mman.MADV_WILLNEED:
        return  # there is neither swap nor I/O to start
    if advice == mman.MADV_REMOVE:
        _remove(vma, start, end)
        return
    forbidden = VM_PFNMAP if advice == mman.MADV_DONTNEED_LOCKED else VM_PFNMAP | VM_LOCKED
    if advice in (mman.MADV_COLD, mman.MADV_PAGEOUT):
        forbidden |= VM_HUGETLB
    if vma.flags & forbidden:
        raise _invalid("locked or device memory")
    if advice == mman.MADV_FREE:
        if not vma.is_anonymous:
            raise _invalid("MADV_FREE on a file")
        _age(mm, start, end, ACCESSED | DIRTY)
    elif advice == mman.MADV_COLD:
        _age(mm, start, end, ACCESSED)
    elif advice == mman.MADV_PAGEOUT:
        if not mm.ctx.features.has("post-pageout-keeps-young"):
            _age(mm, start, end, ACCESSED)
    else:
        zap_page_range(mm, start, end)
        if mm.ctx.pt_reclaim:
            mm.ctx.pt.free_empty_tables(mm, start, end)


def _remove(vma: VmArea, start: int, end: int) -> None:
    """MADV_REMOVE: punch a hole into the object behind a shared writable mapping."""
    if vma.flags & VM_LOCKED:
        raise _invalid("MADV_REMOVE on a locked area")
    if vma.file is None or not vma.file.mapping.shmem:
        raise _invalid("MADV_REMOVE without an object in memory behind it")
    if vma.flags & (VM_SHARED | VM_WRITE) != VM_SHARED | VM_WRITE:
        raise OSError(errno.EACCES, "madvise: MADV_REMOVE needs a shared writable mapping")
    raise NotModelled("MADV_REMOVE: holes in tmpfs files come with tmpfs")


def _age(mm: MmStruct, start: int, end: int, bits: int) -> None:
    clear = _ClearBits(mm, bits, start, end)
    clear.left_alone = split_folios_for_advice(mm, start, end, free=bool(bits & DIRTY))
    mm.ctx.pt.walk_range(mm, start, end, clear)
    if clear.changed:
        mm.tlb.flush(clear.changed)


class _ClearBits:
    """Clears A or A and D of ordinary pages (a :class:`~memtwin.mm.page_table.RangeOp`).

    A cleared D bit is remembered in ``nonzero``: the frame holds what was written until somebody zeroes it. A page that
    is dirty by itself (written from outside) is passed over if others map it. Without D (MADV_COLD) the page loses
    PG_referenced too.
    """

    __slots__ = ("_bits", "_ctx", "_end", "_start", "changed", "left_alone")

    def __init__(self, mm: MmStruct, bits: int, start: int, end: int) -> None:
        self._ctx = mm.ctx
        self._start = start
        self._end = end
        #: Heads of huge pages whose small entries stay as they are.
        self.left_alone: list[int] = []
        self._bits = bits
        self.changed = 0

    def few(self, index: int, count: int, addr: int) -> None:
        """A handful of entries of one table."""
        q, pages = self._ctx.ram.q, self._ctx.pages
        for i in range(index, index + count):
            entry = q[i]
            if entry & (PRESENT | SPECIAL) != PRESENT:
                continue
            pfn = (entry & PFN_MASK) >> 12
            if pages.comp_order[pfn] and pages.head(pfn) in self.left_alone:
                continue
            if not self._bits & DIRTY:
                pages.flags[pfn] &= ~PG_REFERENCED
            else:
                if pages.flags[pfn] & PG_DIRTY:
                    if pages.mapcount[pfn] != 1:
                        continue
                    pages.flags[pfn] &= ~PG_DIRTY
                if entry & DIRTY:
                    pages.nonzero[pfn] = 1
            if entry & self._bits:
                q[i] = entry & ~self._bits
                self.changed += 1

    def rows(self, batch: LeafRows) -> None:
        """Whole tables."""
        entries = batch.gather()
        vec = self._ctx.pages.vec
        page = (entries & np.uint64(PRESENT | SPECIAL)) == np.uint64(PRESENT)
        if self.left_alone:
            heads = ((entries & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64) >> 9 << 9
            page &= ~np.isin(heads, self.left_alone)
        if self._bits & DIRTY:
            pfns = ((entries[page] & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
            page_dirty = (vec.flags[pfns] & np.uint32(PG_DIRTY)) != 0
            if page_dirty.any():
                kept = page_dirty & (vec.mapcount[pfns] != 1)
                page[page] = ~kept
                vec.flags[pfns[page_dirty & ~kept]] &= np.uint32(~PG_DIRTY & 0xFFFFFFFF)
            dirty = entries[page & ((entries & np.uint64(DIRTY)) != 0)]
            vec.nonzero[((dirty & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)] = 1
        else:
            pfns = ((entries[page] & np.uint64(PFN_MASK)) >> np.uint64(12)).astype(np.int64)
            vec.flags[pfns] &= np.uint32(~PG_REFERENCED & 0xFFFFFFFF)
        hit = page & ((entries & np.uint64(self._bits)) != 0)
        entries[hit] &= np.uint64(~self._bits & (1 << 64) - 1)
        batch.scatter(entries)
        self.changed += int(np.count_nonzero(hit))

    def huge(self, index: int, order: int, addr: int) -> None:
        """A huge leaf; one that the range covers in part could not be split, and MADV_FREE passes over shared ones."""
        q, pages = self._ctx.ram.q, self._ctx.pages
        entry = q[index]
        if entry & (PRESENT | SPECIAL) != PRESENT or addr < self._start or addr + HPAGE_PMD_SIZE > self._end:
            return
        head = (entry & PFN_MASK) >> 12
        if not self._bits & DIRTY:
            pages.flags[head] &= ~PG_REFERENCED
        elif maybe_shared(self._ctx, head):
            return
        elif entry & DIRTY:
            pages.vec.nonzero[head : head + HPAGE_PMD_NR] = 1
        if entry & self._bits:
            q[index] = entry & ~self._bits
            self.changed += HPAGE_PMD_NR
