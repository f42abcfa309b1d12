# SPDX-License-Identifier: GPL-2.0-or-later
"""Copying an address space (Linux: kernel/fork.c of 6.7; spec R11).

The parent is locked for writing throughout. The child's tree asks for its nodes in advance: since
``fork-maple-gfp-kernel`` that allocation may reclaim, before it gave up at the min watermark. Failure leaves the
parent untouched and the child discarded.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from memtwin.abi import userfaultfd as uf
from memtwin.lib.gfp_types import GFP_KERNEL, GFP_NOWAIT
from memtwin.lib.maple_tree import MaState
from memtwin.mm.copy import copy_page_range
from memtwin.mm.mm_types import (
    VM_ACCOUNT,
    VM_DONTCOPY,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAYBE_GUARD,
    VM_MIXEDMAP,
    VM_NOHUGEPAGE,
    VM_PFNMAP,
    VM_UFFD_FLAGS,
    VM_WIPEONFORK,
    MmStruct,
    VmArea,
)
from memtwin.mm.rmap import anon_vma_fork, unlink_anon_vmas
from memtwin.mm.util import security_vm_enough_memory
from memtwin.mm.vma import no_memory

if TYPE_CHECKING:
    from memtwin.kernel.kernel import Kernel

__all__ = ["dup_mm"]

_LOCKS = VM_LOCKED | VM_LOCKONFAULT
_COPIED_FIELDS = (
    "mmap_base",
    "topdown",
    "task_size",
    "start_brk",
    "brk",
    "start_stack",
    "start_code",
    "end_code",
    "start_data",
    "end_data",
    "arg_start",
    "arg_end",
    "env_start",
    "env_end",
    "total_vm",
    "data_vm",
    "exec_vm",
    "stack_vm",
    "thp_disabled",
    "merge_any",
)


def dup_mm(kernel: Kernel, old: MmStruct) -> MmStruct:
    """A copy of ``old`` as fork makes it. Raises OSError ENOMEM; nothing is left behind then."""
    new = kernel.mm_alloc()
    new.owner = old.owner
    try:
        old.mmap_lock.down_write()
        new.mmap_lock.down_write(subclass=1)
        try:
            _dup_mmap(kernel, old, new)
        finally:
            new.mmap_lock.up_write()
            old.mmap_lock.up_write()
    except OSError:
        kernel.mm_put(new)
        raise
    return new


def _dup_mmap(kernel: Kernel, old: MmStruct, new: MmStruct) -> None:
    for name in _COPIED_FIELDS:
        setattr(new, name, getattr(old, name))
    new.def_flags = old.def_flags & VM_NOHUGEPAGE
    tree = new.mm_mt
    tree.clear_in_rcu()
    mas = MaState(tree, 0, 0)
    gfp = GFP_KERNEL if kernel.has("fork-maple-gfp-kernel") else GFP_NOWAIT
    areas = old.areas()
    copied = 0
    try:
        mas.expected_entries(old.map_count, gfp)
        for vma in areas:
            _dup_vma(kernel, mas, old, new, vma)
            copied += 1
    except OSError:
        # What was not copied was counted above.
        for vma in areas[copied:]:
            new.vm_stat_account(vma.flags, -vma.pages)
        raise
    finally:
        mas.destroy()
        tree.set_in_rcu()
    new.hiwater_rss = new.rss
    new.hiwater_vm = new.total_vm
    if old.pgtables_bytes:
        old.tlb.flush(old.rss)


def _dup_vma(kernel: Kernel, mas: MaState, old: MmStruct, new: MmStruct, vma: VmArea) -> None:
    """Copy one area. Raises OSError ENOMEM; the area is not counted in ``new`` then."""
    ctx = old.ctx
    vma.start_write()
    if vma.flags & VM_DONTCOPY:
        new.vm_stat_account(vma.flags, -vma.pages)
        return
    charge = vma.pages if vma.flags & VM_ACCOUNT else 0
    if charge:
        security_vm_enough_memory(old, charge)
    try:
        copy = _new_area(new, vma)
    except OSError:
        ctx.committed -= charge
        raise
    mas.set_range(copy.start, copy.end - 1)
    try:
        mas.store(copy)
    except OSError:
        _discard(new, copy)
        ctx.committed -= charge
        raise
    new.map_count += 1
    if copy.file is not None:
        copy.file.mapping.mapped(ctx)
    if copy.vm_ops is not None:
        copy.vm_ops.open(copy)
    # Entries that no fault of the child would make again.
    needed = vma.anon_vma is not None or vma.flags & (VM_PFNMAP | VM_MIXEDMAP | VM_MAYBE_GUARD)
    if needed and not copy.flags & VM_WIPEONFORK:
        copy_page_range(old, new, vma)


def _new_area(new: MmStruct, vma: VmArea) -> VmArea:
    ctx = new.ctx
    slab = ctx.vma_cache.alloc(GFP_KERNEL)
    if not slab:
        raise no_memory()
    copy = VmArea.duplicate(vma, slab, vma.start, vma.end, new)
    flags = copy.flags & ~_LOCKS
    uffd = copy.uffd_ctx
    if uffd is not None and not (uffd.features or 0) & uf.UFFD_FEATURE_EVENT_FORK:
        copy.uffd_ctx = None
        flags &= ~VM_UFFD_FLAGS
    if flags != copy.flags:
        copy.set_flags(flags)
    if not flags & VM_WIPEONFORK and not anon_vma_fork(ctx, copy, vma):
        ctx.vma_cache.free(slab)
        raise OSError(errno.ENOMEM, "fork: no memory for an anon_vma")
    return copy


def _discard(new: MmStruct, copy: VmArea) -> None:
    unlink_anon_vmas(new.ctx, copy)
    new.ctx.vma_cache.free(copy.addr)
