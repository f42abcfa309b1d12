# SPDX-License-Identifier: GPL-2.0-or-later
"""madvise and process_madvise (Linux: mm/madvise.c; spec R8).

Advices that change flags of areas go through ``ctx.modify`` with ``mmap_lock`` for writing; the others act on pages
with it for reading. A hole is passed over and answered with ENOMEM at the end; any other error stops.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from memtwin.abi import mman
from memtwin.errors import NotModelled
from memtwin.hw.ram import PAGE_MASK
from memtwin.mm.gup import faultin_page_range
from memtwin.mm.khugepaged import madvise_collapse
from memtwin.mm.ksm import NEVER_MERGEABLE
from memtwin.mm.madvise_pages import advise_pages, check_seal
from memtwin.mm.mm_types import (
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_HUGEPAGE,
    VM_HUGETLB,
    VM_IO,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_SPECIAL,
    VM_WIPEONFORK,
    MmStruct,
    VmArea,
)
from memtwin.mm.vma import areas_in

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
    if not known and not (advice in _GUARDS and mm.ctx.madv_guard):
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
    if advice in _NOT_MODELLED:
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
        _act_on_pages(mm, start, end, advice)


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
        check_seal(vma, advice)
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
    """Go over the areas of the range under ``mmap_lock`` for reading: again from the start, with the lock given up in
    between, for as long as an advice asks for that. Raises OSError; EINTR if a fatal signal comes first.
    """
    lock = mm.mmap_lock
    done = False
    while not done:
        lock.down_read()
        try:
            done = _advise_areas(mm, start, end, advice)
        finally:
            lock.up_read()
        if not done and mm.ctx.sched.current.fatal_signal_pending:
            raise OSError(errno.EINTR, "madvise: killed")


def _advise_areas(mm: MmStruct, start: int, end: int, advice: int) -> bool:
    hole = False
    position = start
    for vma in areas_in(mm, start, end):
        hole |= vma.start > position
        position = min(vma.end, end)
        if not advise_pages(mm, vma, max(vma.start, start), position, advice):
            return False
    if hole or position < end:
        raise OSError(errno.ENOMEM, "madvise: part of the range is not mapped")
    return True
