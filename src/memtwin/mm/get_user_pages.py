# SPDX-License-Identifier: GPL-2.0-or-later
"""Getting hold of user pages from the kernel (Linux: mm/gup.c; spec gup-internal-flags, gup-zero-pin-is-error,
gup-vma-remote-never-null). Filling a range ahead of use is in ``mm/gup.py``.

A caller says with FOLL_* what it wants to do. A page is looked up, and faulted in where it is missing or not fit: a pin
that reads must not share an anonymous page with another process, a forced write gets a private copy. As in the kernel's
own interface, counts are returned and errors as negative errno numbers. Faults count as the current task's.

The lock: ``mmap_lock`` is held for reading. A caller that can do without for a while gives a :class:`Locked`; then the
lock may be given up and taken again inside, and ``held`` says how things stand.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from memtwin.hw.paging import ACCESSED, DIRTY, MAPPED, PFN_MASK, RW, SPECIAL
from memtwin.mm.huge_rmap import folio_put
from memtwin.mm.memory import handle_mm_fault, mm_account_fault
from memtwin.mm.memory_failure import EHWPOISON
from memtwin.mm.mm_types import (
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
from memtwin.mm.page import GUP_PIN_COUNTING_BIAS, PG_ANON, PG_ANON_EXCLUSIVE, PG_DIRTY, mark_page_accessed
from memtwin.mm.vm_fault import (
    FAULT_FLAG_ALLOW_RETRY,
    FAULT_FLAG_INTERRUPTIBLE,
    FAULT_FLAG_KILLABLE,
    FAULT_FLAG_REMOTE,
    FAULT_FLAG_RETRY_NOWAIT,
    FAULT_FLAG_TRIED,
    FAULT_FLAG_UNSHARE,
    FAULT_FLAG_WRITE,
    VM_FAULT_COMPLETED,
    VM_FAULT_ERROR,
    VM_FAULT_HWPOISON,
    VM_FAULT_OOM,
    VM_FAULT_RETRY,
)

if TYPE_CHECKING:
    from memtwin.mm.context import MmContext

__all__ = [
    "Locked",
    "get_user_page_vma_remote",
    "get_user_pages",
    "get_user_pages_remote",
    "get_user_pages_unlocked",
    "pin_user_pages",
    "pin_user_pages_remote",
    "unpin_user_pages",
]

# What a caller may ask for.
FOLL_WRITE: Final = 1 << 0  #: the page will be written
FOLL_GET: Final = 1 << 1  #: take a reference
FOLL_DUMP: Final = 1 << 2  #: an error for holes and zero pages, where a core dump needs nothing
FOLL_FORCE: Final = 1 << 3  #: against the area's rights, where only a private copy is concerned
FOLL_NOWAIT: Final = 1 << 4  #: do not wait for I/O
FOLL_NOFAULT: Final = 1 << 5  #: only what is there
FOLL_HWPOISON: Final = 1 << 6  #: say EHWPOISON for a broken page
FOLL_ANON: Final = 1 << 7  #: only anonymous areas
FOLL_LONGTERM: Final = 1 << 8  #: the pin stays for ever
FOLL_SPLIT_PMD: Final = 1 << 9
FOLL_PCI_P2PDMA: Final = 1 << 10
FOLL_INTERRUPTIBLE: Final = 1 << 11  #: any signal ends the wait
FOLL_HONOR_NUMA_FAULT: Final = 1 << 12
# What only this module sets.
FOLL_TOUCH: Final = 1 << 16  #: mark the page accessed
FOLL_TRIED: Final = 1 << 17
FOLL_REMOTE: Final = 1 << 18  #: another task's address space
FOLL_PIN: Final = 1 << 19  #: take a pin
FOLL_FAST_ONLY: Final = 1 << 20
FOLL_UNLOCKABLE: Final = 1 << 21  #: the lock may be given up
INTERNAL_GUP_FLAGS: Final = FOLL_TOUCH | FOLL_TRIED | FOLL_REMOTE | FOLL_PIN | FOLL_FAST_ONLY | FOLL_UNLOCKABLE

_WHERE: Final = "mm/gup.c"


class Locked:
    """Whether the caller's ``mmap_lock`` is held."""

    __slots__ = ("held",)

    def __init__(self, held: bool = True) -> None:
        self.held = held


# -- the interface -----------------------------------------------------------------------------------------------------


def get_user_pages(mm: MmStruct, start: int, nr: int, flags: int, pages: list[int] | None) -> int:
    """Fault in ``nr`` pages from ``start`` on; their frames, referenced, are appended to ``pages``. The number got, or
    a negative errno. ``mmap_lock`` is held and stays so.
    """
    valid = _is_valid_gup_args(mm.ctx, pages, None, flags, FOLL_TOUCH)
    return -errno.EINVAL if valid is None else _get_user_pages_locked(mm, start, nr, pages, Locked(), valid)


def get_user_pages_unlocked(mm: MmStruct, start: int, nr: int, flags: int, pages: list[int] | None) -> int:
    """The same for a caller that does not hold ``mmap_lock``."""
    valid = _is_valid_gup_args(mm.ctx, pages, None, flags, FOLL_TOUCH | FOLL_UNLOCKABLE)
    if valid is None:
        return -errno.EINVAL
    locked = Locked(False)
    try:
        return _get_user_pages_locked(mm, start, nr, pages, locked, valid)
    finally:
        if locked.held:  # something that is not modelled ended it
            mm.mmap_lock.up_read()


def get_user_pages_remote(
    mm: MmStruct, start: int, nr: int, flags: int, pages: list[int] | None, locked: Locked | None = None
) -> int:
    """The same of another task's address space."""
    valid = _is_valid_gup_args(mm.ctx, pages, locked, flags, FOLL_TOUCH | FOLL_REMOTE)
    return -errno.EINVAL if valid is None else _get_user_pages_locked(mm, start, nr, pages, locked or Locked(), valid)


def pin_user_pages(mm: MmStruct, start: int, nr: int, flags: int, pages: list[int] | None) -> int:
    """The same with pins instead of references: for devices that read or write the content."""
    valid = _is_valid_gup_args(mm.ctx, pages, None, flags, FOLL_PIN)
    return -errno.EINVAL if valid is None else _get_user_pages_locked(mm, start, nr, pages, Locked(), valid)


def pin_user_pages_remote(
    mm: MmStruct, start: int, nr: int, flags: int, pages: list[int] | None, locked: Locked | None = None
) -> int:
    """The same of another task's address space."""
    valid = _is_valid_gup_args(mm.ctx, pages, locked, flags, FOLL_PIN | FOLL_TOUCH | FOLL_REMOTE)
    return -errno.EINVAL if valid is None else _get_user_pages_locked(mm, start, nr, pages, locked or Locked(), valid)


def unpin_user_pages(ctx: MmContext, pages: list[int], *, dirty: bool = False) -> None:
    """Give pins back; ``dirty``: the pages were written."""
    for pfn in pages:
        head = ctx.pages.head(pfn)
        if _is_zero(ctx, head):
            continue
        if dirty:
            ctx.pages.flags[head] |= PG_DIRTY
            ctx.pages.nonzero[pfn] = 1
        ctx.pages.refcount[head] -= GUP_PIN_COUNTING_BIAS - 1
        folio_put(ctx, head)


def put_user_page(ctx: MmContext, pfn: int) -> None:
    """Give the reference of one page back."""
    head = ctx.pages.head(pfn)
    if not _is_zero(ctx, head):
        folio_put(ctx, head)


def _is_zero(ctx: MmContext, head: int) -> bool:
    """Whether it is the zero page or the huge one, on which nobody counts references."""
    return head == ctx.zero_pfn or (head == ctx.thp.zero_pfn and head != 0)


def get_user_page_vma_remote(mm: MmStruct, addr: int, flags: int) -> tuple[int, VmArea] | int | None:
    """One page of another task and its area, or a negative errno; ``mmap_lock`` is held and stays so.

    Before ``gup-vma-remote-never-null`` it could be None: nothing was got, and no error told.
    """
    ctx = mm.ctx
    never_null = ctx.gup_vma_never_null
    if never_null and flags & FOLL_NOWAIT:
        ctx.warn_once("include/linux/mm.h", "get_user_page_vma_remote() with FOLL_NOWAIT")
        return -errno.EINVAL
    pages: list[int] = []
    got = get_user_pages_remote(mm, addr, 1, flags, pages)
    if got < 0:
        return got
    if not got:
        return -errno.EINVAL if never_null else None
    vma: VmArea | None = mm.mm_mt.load(addr)
    if vma is None:  # can not happen under the lock
        put_user_page(ctx, pages[0])
        return -errno.EINVAL
    return pages[0], vma


# -- arguments ---------------------------------------------------------------------------------------------------------


def _is_valid_gup_args(
    ctx: MmContext, pages: list[int] | None, locked: Locked | None, flags: int, to_set: int
) -> int | None:
    """The flags with what the interface adds, or None (after a warning) for what no caller may say."""

    internal = INTERNAL_GUP_FLAGS if ctx.gup_internal_flags else INTERNAL_GUP_FLAGS & ~FOLL_TOUCH
    all_flags = flags | to_set
    wrong = ""
    if flags & internal:
        wrong = "an internal flag from outside"
    elif locked is not None and not locked.held:
        wrong = "a lock pointer, and the lock is not held"
    elif all_flags & (FOLL_PIN | FOLL_GET) == FOLL_PIN | FOLL_GET:
        wrong = "FOLL_GET and FOLL_PIN exclude each other"
    elif all_flags & (FOLL_PIN | FOLL_LONGTERM) == FOLL_LONGTERM:
        wrong = "FOLL_LONGTERM without FOLL_PIN"
    elif all_flags & (FOLL_PIN | FOLL_GET) and pages is None:
        wrong = "references, and no place for the pages"
    elif flags & FOLL_LONGTERM and flags & FOLL_PCI_P2PDMA:
        wrong = "FOLL_LONGTERM of a device's memory"
    if wrong:
        ctx.warn_once(f"{_WHERE}: is_valid_gup_args", wrong)
        return None
    return all_flags if locked is None else all_flags | FOLL_UNLOCKABLE


def check_vma_flags(vma: VmArea, flags: int) -> int:
    """0, or the negative errno with which pages of the area are refused."""
    vm_flags = vma.flags
    if vm_flags & (VM_IO | VM_PFNMAP) or (flags & FOLL_ANON and not vma.is_anonymous):
        return -errno.EFAULT
    if flags & FOLL_WRITE:
        if flags & (FOLL_PIN | FOLL_LONGTERM) == FOLL_PIN | FOLL_LONGTERM and _needs_dirty_tracking(vma):
            return -errno.EFAULT
        # Only a private copy may be written against the area's rights.
        may_force = flags & FOLL_FORCE and vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE
        if not vm_flags & VM_WRITE and not may_force:
            return -errno.EFAULT
    elif not vm_flags & VM_READ and not (flags & FOLL_FORCE and vm_flags & VM_MAYREAD):
        return -errno.EFAULT
    return 0


def _needs_dirty_tracking(vma: VmArea) -> bool:
    ops = vma.vm_ops
    return bool(vma.flags & VM_SHARED) and ops is not None and (ops.has_page_mkwrite or ops.wants_writenotify)


# -- the loop ----------------------------------------------------------------------------------------------------------


def _get_user_pages_locked(
    mm: MmStruct, start: int, nr: int, pages: list[int] | None, locked: Locked, flags: int
) -> int:
    """Repeat until all is got, taking the lock again where a handler gave it up; the page that it was given up for is
    then asked for alone, with FOLL_TRIED.
    """
    ctx = mm.ctx
    if ctx.gup_zero_pin_is_error and not nr:
        return 0
    must_unlock = False
    if not locked.held:
        if not mm.mmap_lock.down_read_killable():
            return -errno.EAGAIN
        locked.held = must_unlock = True
    if flags & FOLL_PIN:
        mm.has_pinned = True
    elif pages is not None:
        flags |= FOLL_GET
    done = 0
    while True:
        got = _get_user_pages(mm, start, nr, flags, pages, locked)
        if not flags & FOLL_UNLOCKABLE:
            done = got
            break
        if got > 0:
            done += got
            nr -= got
            start += got << 12
        if not nr:
            break
        if locked.held:
            done = done or got
            break
        must_unlock = True
        got = _retry_one(mm, start, flags, pages, locked)
        if got != 1:
            done = done or got
            break
        done += 1
        nr -= 1
        start += 4096
        if not nr:
            break
    if must_unlock and locked.held:
        mm.mmap_lock.up_read()
        locked.held = False
    if ctx.gup_zero_pin_is_error and not done and not flags & FOLL_NOWAIT:
        ctx.warn_once(f"{_WHERE}: __get_user_pages_locked", "no page was got, and no error told")
        return -errno.EFAULT
    return done


def _retry_one(mm: MmStruct, start: int, flags: int, pages: list[int] | None, locked: Locked) -> int:
    """The lock was given up for the page at ``start``: 1 when it is got, or a negative errno."""
    while True:
        task = mm.ctx.sched.current
        if task.fatal_signal_pending or (flags & FOLL_INTERRUPTIBLE and task.signal_pending):
            return -errno.EINTR
        if not mm.mmap_lock.down_read_killable():
            return -errno.EAGAIN
        locked.held = True
        got = _get_user_pages(mm, start, 1, flags | FOLL_TRIED, pages, locked)
        if locked.held:
            return got


def _get_user_pages(mm: MmStruct, start: int, nr: int, flags: int, pages: list[int] | None, locked: Locked) -> int:
    """The number of pages got before something was in the way, or if it was none the errno, 0 where the lock was given
    up.
    """
    vma: VmArea | None = None
    done = 0
    while done < nr:
        if vma is None or start >= vma.end:
            vma = mm.mm_mt.load(start)
            problem = -errno.EFAULT if vma is None else check_vma_flags(vma, flags)
            if problem or vma is None:
                return done or problem
        if mm.ctx.sched.current.fatal_signal_pending:
            return done or -errno.EINTR
        page = _follow_page(mm, vma, start, flags)
        if page in (0, -errno.EMLINK):
            problem = _faultin_page(mm, vma, start, flags, page == -errno.EMLINK, locked)
            if problem:
                # The lock is gone, or the page could not be waited for: not an error of its own.
                return done or (0 if problem in (-errno.EBUSY, -errno.EAGAIN) else problem)
            continue
        if page < 0:
            return done or page
        if pages is not None:
            pages.append(page)
        done += 1
        start += 4096
    return done


def _follow_page(mm: MmStruct, vma: VmArea, addr: int, flags: int) -> int:
    """The frame that is mapped at ``addr``, held as ``flags`` say: 0 where it has to be faulted in, -EMLINK where it
    has to be taken out of sharing first, or another negative errno.
    """
    ctx = mm.ctx
    pages = ctx.pages
    base = mm.pte_tables.get(addr >> 21)
    index, shift = (base + (addr >> 12 & 511), 12) if base is not None else ctx.pt.lookup(mm, addr)
    entry = ctx.ram.q[index] if index else 0
    if not entry & MAPPED:
        return -errno.EFAULT if flags & FOLL_DUMP and vma.is_anonymous else 0
    pfn = ((entry & PFN_MASK) >> 12) + (addr >> 12 & (1 << shift - 12) - 1)
    head = pages.head(pfn)
    # Of a huge leaf the head says whether the page is exclusive.
    state = pages.flags[pfn if shift == 12 else head]
    exclusive = bool(state & PG_ANON_EXCLUSIVE)
    # A forced write goes to a private page that nobody shares; where the area may be written the fault decides.
    forced = flags & FOLL_FORCE and not vma.flags & VM_WRITE and exclusive
    if flags & FOLL_WRITE and not entry & RW and not forced:
        return 0
    if entry & SPECIAL:
        if flags & FOLL_DUMP or not _is_zero(ctx, head):
            return -errno.EFAULT
        return pfn
    if not entry & RW and _must_unshare(vma, flags, state):
        return -errno.EMLINK
    if flags & FOLL_PIN:
        pages.refcount[head] += GUP_PIN_COUNTING_BIAS
    elif flags & FOLL_GET:
        pages.refcount[head] += 1
    if flags & FOLL_TOUCH and shift != 12:
        # The entry of a huge page remembers a write, on x86 no read, and the folio neither (observed on 6.18).
        if flags & FOLL_WRITE:
            ctx.ram.q[index] = entry | ACCESSED | DIRTY
    elif flags & FOLL_TOUCH:
        if flags & FOLL_WRITE and not entry & DIRTY:
            pages.flags[head] |= PG_DIRTY
        mark_page_accessed(pages, head, locked=bool(vma.flags & VM_LOCKED))
    return pfn


def _must_unshare(vma: VmArea, flags: int, state: int) -> bool:
    """Whether a pin that only reads would see a page from which a later write of the owner departs."""
    if flags & (FOLL_WRITE | FOLL_PIN) != FOLL_PIN:
        return False
    if state & PG_ANON:
        return not state & PG_ANON_EXCLUSIVE
    return bool(flags & FOLL_LONGTERM) and vma.flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE


def _faultin_page(mm: MmStruct, vma: VmArea, addr: int, flags: int, unshare: bool, locked: Locked) -> int:
    """Have the page at ``addr`` fit: 0 to look again, -EBUSY or -EAGAIN where the lock was given up or nothing may be
    waited for, else a negative errno.
    """
    if flags & FOLL_NOFAULT:
        return -errno.EFAULT
    asked = FAULT_FLAG_WRITE if flags & FOLL_WRITE else 0
    if flags & FOLL_REMOTE:
        asked |= FAULT_FLAG_REMOTE
    if flags & FOLL_UNLOCKABLE:
        asked |= FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_KILLABLE
        if flags & FOLL_INTERRUPTIBLE:
            asked |= FAULT_FLAG_INTERRUPTIBLE
    if flags & FOLL_NOWAIT:
        asked |= FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_RETRY_NOWAIT
    if flags & FOLL_TRIED:
        asked |= FAULT_FLAG_TRIED
    if unshare:
        asked |= FAULT_FLAG_UNSHARE
    result = handle_mm_fault(mm, vma, addr, asked)
    mm_account_fault(mm.ctx, mm.ctx.sched.current, asked, result)
    if result & VM_FAULT_COMPLETED:
        locked.held = False
        return -errno.EAGAIN
    if result & VM_FAULT_ERROR:
        if result & VM_FAULT_OOM:
            return -errno.ENOMEM
        return -EHWPOISON if result & VM_FAULT_HWPOISON and flags & FOLL_HWPOISON else -errno.EFAULT
    if result & VM_FAULT_RETRY:
        if flags & FOLL_UNLOCKABLE and not asked & FAULT_FLAG_RETRY_NOWAIT:
            locked.held = False
        return -errno.EBUSY
    return 0
