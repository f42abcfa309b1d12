# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits and overcommit (Linux: mm/util.c, mm/mmap.c, mm/mlock.c; spec R9, R10).

``ctx.committed`` is the number of pages promised to address spaces (Committed_AS); it is exact here, while Linux's
per-CPU batches let the enforcement read be off.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from memtwin.abi.capability import CAP_IPC_LOCK, CAP_SYS_ADMIN
from memtwin.abi.resource import RLIM_INFINITY, RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK
from memtwin.mm.context import MmContext
from memtwin.mm.mm_types import VM_GROWSDOWN, VM_SHARED, VM_WRITE, MmStruct

__all__ = [
    "can_do_mlock",
    "charged",
    "may_expand_vm",
    "mlock_limit_allows",
    "security_vm_enough_memory",
    "vm_commit_limit",
]

R = TypeVar("R")

OVERCOMMIT_GUESS = 0
OVERCOMMIT_ALWAYS = 1
OVERCOMMIT_NEVER = 2


def vm_commit_limit(ctx: MmContext) -> int:
    """CommitLimit in pages: overcommit_kbytes, or overcommit_ratio percent of RAM (no swap is modelled yet)."""
    if ctx.sysctl.overcommit_kbytes:
        return ctx.sysctl.overcommit_kbytes >> 2
    return ctx.page_alloc.managed_pages * ctx.sysctl.overcommit_ratio // 100


def security_vm_enough_memory(mm: MmStruct, pages: int) -> None:
    """Charge ``pages`` to the commit counter. Raises OSError ENOMEM where the overcommit mode refuses (spec R10)."""
    ctx = mm.ctx
    sysctl = ctx.sysctl
    mode = sysctl.overcommit_memory
    if mode == OVERCOMMIT_NEVER:
        allowed = vm_commit_limit(ctx)
        if mm.owner is None or not mm.owner.capable(CAP_SYS_ADMIN):
            allowed -= sysctl.admin_reserve_kbytes >> 2
        allowed -= min(mm.total_vm // 32, sysctl.user_reserve_kbytes >> 2)
        refused = ctx.committed + pages >= allowed
    else:
        refused = mode == OVERCOMMIT_GUESS and pages > ctx.page_alloc.managed_pages
    if refused:
        size = f" bytes: {pages << 12}" if ctx.overcommit_log_bytes else ""
        ctx.printk(f"__vm_enough_memory: not enough memory for the allocation{size}")
        raise OSError(errno.ENOMEM, f"overcommit mode {mode} refuses {pages} pages")
    ctx.committed += pages


def charged(mm: MmStruct, pages: int, grow: Callable[[], R]) -> R:
    """``grow()`` with ``pages`` charged to the commit counter; its failure takes the charge back. Raises OSError
    ENOMEM.
    """
    security_vm_enough_memory(mm, pages)
    try:
        return grow()
    except OSError:
        mm.ctx.committed -= pages
        raise


def may_expand_vm(mm: MmStruct, flags: int, pages: int) -> bool:
    """Whether RLIMIT_AS and RLIMIT_DATA allow ``pages`` more of an area with ``flags`` (spec R9)."""
    owner = mm.owner
    if owner is None:
        return True
    if mm.total_vm + pages > owner.rlimit(RLIMIT_AS) >> 12:
        return False
    if flags & (VM_WRITE | VM_SHARED | VM_GROWSDOWN) == VM_WRITE:
        limit = owner.rlimit(RLIMIT_DATA)
        if mm.data_vm + pages > limit >> 12:
            # The soft limit 0 only counts what is above the hard limit (valgrind sets it).
            return limit == 0 and mm.data_vm + pages <= owner.rlimit_max(RLIMIT_DATA) >> 12
    return True


def can_do_mlock(mm: MmStruct) -> bool:
    """Whether the owner may lock memory at all."""
    owner = mm.owner
    return owner is None or owner.rlimit(RLIMIT_MEMLOCK) != 0 or owner.capable(CAP_IPC_LOCK)


def mlock_limit_allows(mm: MmStruct, pages: int) -> bool:
    """Whether ``pages`` more may be locked under RLIMIT_MEMLOCK."""
    owner = mm.owner
    if owner is None or owner.capable(CAP_IPC_LOCK):
        return True
    limit = owner.rlimit(RLIMIT_MEMLOCK)
    return limit == RLIM_INFINITY or mm.locked_vm + pages <= limit >> 12
