# SPDX-License-Identifier: GPL-2.0-or-later
"""Areas: which may be one, merging, splitting, changing attributes (Linux: mm/vma.c of later trees, mm/mmap.c of 6.7;
spec R2, R4, R5).

All functions need ``mm.mmap_lock``, for writing where they change something. A change of the tree is one store, and
its nodes are got beforehand, so that a failure leaves everything as it was. A merge that can not be paid for is
simply not made. ``NoMerge`` tells why two ranges are not one area.

In the drawings P is the previous area, C the one that begins where the changed range begins, N the one behind it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from enum import auto
from typing import TYPE_CHECKING

from memtwin.events.reason import Because, Reason
from memtwin.lib.gfp_types import GFP_KERNEL
from memtwin.lib.maple_tree import MaState
from memtwin.mm.huge_split import vma_adjust_trans_huge
from memtwin.mm.mm_types import FLAG_NAMES, VM_MAYBE_GUARD, VM_SPECIAL, VM_STICKY, MappedFile, MmStruct, VmArea
from memtwin.mm.rmap import AnonVma, anon_vma_clone, unlink_anon_vmas

if TYPE_CHECKING:
    from memtwin.mm.mempolicy import MemPolicy
    from memtwin.mm.userfaultfd import UserfaultfdCtx

__all__ = [
    "NoMerge",
    "areas_in",
    "each_area",
    "explain_merge",
    "find_vma",
    "find_vma_prev",
    "insert_vma",
    "remove_vma",
    "split_vma",
    "vm_area_alloc",
    "vma_merge",
    "vma_merge_extend",
    "vma_merge_new_range",
    "vma_modify",
    "vma_resize",
]


class NoMerge(Reason):
    """Why two adjacent ranges are not one area (spec R2)."""

    NOT_ADJACENT = auto()
    FLAGS_DIFFER = auto()  #: detail: the VM_* flags that differ
    SPECIAL = auto()  #: detail: the flags that never merge
    FILE_DIFFERS = auto()
    OFFSET_DIFFERS = auto()  #: the page offsets are not contiguous
    CLOSE_OP = auto()  #: the area that would be removed wants its close operation called
    UFFD_CTX_DIFFERS = auto()
    ANON_NAME_DIFFERS = auto()
    POLICY_DIFFERS = auto()
    ANON_VMA_INCOMPATIBLE = auto()  #: detail: what each side has
    SPLIT_BY_HISTORY = auto()  #: nothing stands against it now; no call has tried since it became possible


def no_memory(why: str = "Cannot allocate memory") -> OSError:
    """ENOMEM, as every allocation failure of this subsystem surfaces."""
    return OSError(errno.ENOMEM, why)


# -- lookup and bookkeeping -----------------------------------------------------------------------------------------


def vm_area_alloc(mm: MmStruct, start: int, end: int, flags: int, pgoff: int, file: MappedFile | None = None) -> VmArea:
    """A new area, not yet in the tree. Raises OSError ENOMEM."""
    addr = mm.ctx.vma_cache.alloc(GFP_KERNEL)
    if not addr:
        raise no_memory()
    return VmArea(mm, addr, start, end, flags, pgoff, file)


def find_vma(mm: MmStruct, addr: int) -> VmArea | None:
    """The first area that ends above ``addr``; it contains ``addr`` or lies above it."""
    vma: VmArea | None = mm.mm_mt.find(addr)
    return vma


def find_vma_prev(mm: MmStruct, addr: int) -> VmArea | None:
    """The last area that begins below ``addr`` (it may contain it)."""
    vma: VmArea | None = MaState(mm.mm_mt, addr, addr).prev(0)
    return vma


def areas_in(mm: MmStruct, start: int, end: int) -> list[VmArea]:
    """The areas that overlap [start, end), ascending."""
    return mm.mm_mt.in_range(start, end - 1) if start < end else []


def each_area(mm: MmStruct, start: int, end: int) -> Iterator[VmArea]:
    """The areas that overlap [start, end), ascending, for a caller that changes them on the way: each is looked up when
    the caller is done with the one before, whose merging may have freed or moved what was there.
    """
    while start < end:
        vma = find_vma(mm, start)
        if vma is None or vma.start >= end:
            return
        start = vma.end
        yield vma


def insert_vma(mm: MmStruct, vma: VmArea) -> None:
    """Put a fresh area into the tree and count it. Raises OSError ENOMEM, after which ``vma`` is freed."""
    try:
        mm.mm_mt.store_prealloc(vma.start, vma.end - 1, vma)
    except OSError:
        unlink_anon_vmas(mm.ctx, vma)
        mm.ctx.vma_cache.free(vma.addr)
        raise
    vma.lock_seq = mm.mmap_lock.write_seq  # no fault before the caller is done with it
    mm.map_count += 1
    mm.vm_stat_account(vma.flags, (vma.end - vma.start) >> 12)
    if vma.file is not None:
        vma.file.mapping.mapped(mm.ctx)


def remove_vma(mm: MmStruct, vma: VmArea) -> None:
    """Free an area that is no longer in the tree and maps nothing any more."""
    if vma.vm_ops is not None:
        vma.vm_ops.close(vma)
    mm.vm_stat_account(vma.flags, (vma.start - vma.end) >> 12)
    _vm_area_free(mm, vma)


def _vm_area_free(mm: MmStruct, vma: VmArea) -> None:
    mm.map_count -= 1
    vma.detached = True
    if vma.anon_vma_chain:
        unlink_anon_vmas(mm.ctx, vma)
    if vma.file is not None:
        vma.file.mapping.unmapped(mm.ctx)
        vma.file = None
    mm.ctx.vma_cache.free(vma.addr)


def vma_resize(mm: MmStruct, vma: VmArea, start: int, end: int) -> None:
    """Let ``vma`` grow to [start, end), the new space being free. Raises OSError ENOMEM, nothing changed."""
    vma.start_write()
    mm.mm_mt.store_prealloc(start, end - 1, vma)
    grown = ((end - start) >> 12) - vma.pages
    vma.pgoff -= (vma.start - start) >> 12
    vma_adjust_trans_huge(mm, start, end)
    vma.start = start
    vma.end = end
    mm.vm_stat_account(vma.flags, grown)


# -- what may be one ------------------------------------------------------------------------------------------------


def _anon_vmas_agree(mm: MmStruct, incoming: AnonVma | None, source: VmArea | None, vma: VmArea) -> bool:
    """R2 (h): ``incoming`` is the range's anon_vma (``source``: the area it is in, if any), ``vma`` the neighbour.

    A side without pages fits to one that never shared an anon_vma with an ancestor. 6.7 looks at the neighbour's
    chain only, so that a faulted range does not fit to an unfaulted neighbour (an empty chain is not "exactly one").
    """
    own = vma.anon_vma
    if incoming is own:
        return True
    if incoming is not None and own is not None:
        return False
    if own is not None:
        return len(vma.anon_vma_chain) == 1
    return mm.ctx.merge_faulted_unfaulted and (source is None or len(source.anon_vma_chain) == 1)


def _attributes_agree(
    vma: VmArea,
    flags: int,
    file: MappedFile | None,
    policy: MemPolicy | None,
    uffd_ctx: UserfaultfdCtx | None,
    anon_name: str | None,
) -> bool:
    return (
        not (vma.flags ^ flags) & ~VM_STICKY
        and vma.file is file
        and vma.uffd_ctx is uffd_ctx
        and vma.anon_name == anon_name
        and vma.policy == policy
    )


def _has_close(vma: VmArea) -> bool:
    return vma.vm_ops is not None and vma.vm_ops.has_close


# -- merging --------------------------------------------------------------------------------------------------------


def _dup_anon_vma(mm: MmStruct, dst: VmArea, src: VmArea | None) -> bool:
    """``dst`` is about to take over pages of ``src``: give it the chain if it has none. False without memory.

    In case 6 this is called for N first and for C only if N has no anon_vma, so that no failure can be hidden by a
    later success (what ``vma-merge-dup-anon-comment`` documents).
    """
    if src is None or src.anon_vma is None or dst.anon_vma is not None:
        return True
    dst.anon_vma = src.anon_vma
    return anon_vma_clone(mm.ctx, dst, src)


def _commit_merge(
    mm: MmStruct, survivor: VmArea, start: int, end: int, pgoff: int, donors: tuple[VmArea | None, ...]
) -> bool:
    """Let ``survivor`` cover [start, end). False without memory, nothing changed."""
    had_anon_vma = survivor.anon_vma is not None
    survivor.start_write()
    for donor in donors:
        if donor is not None:
            donor.start_write()
        if not _dup_anon_vma(mm, survivor, donor):
            return False
    try:
        mm.mm_mt.store_prealloc(start, end - 1, survivor)
    except OSError:
        if not had_anon_vma:
            unlink_anon_vmas(mm.ctx, survivor)
        return False
    vma_adjust_trans_huge(mm, start, end)
    survivor.start = start
    survivor.end = end
    survivor.pgoff = pgoff
    for donor in donors:
        if donor is not None:
            survivor.flags |= donor.flags & VM_MAYBE_GUARD
    return True


def vma_merge(
    mm: MmStruct,
    prev: VmArea | None,
    start: int,
    end: int,
    flags: int,
    anon_vma: AnonVma | None,
    file: MappedFile | None,
    pgoff: int,
    policy: MemPolicy | None,
    uffd_ctx: UserfaultfdCtx | None,
    anon_name: str | None,
    origin: VmArea | None = None,
) -> VmArea | None:
    """Merge [start, end), which is to have these attributes, with its neighbours (spec R4). The survivor, or None.

    ``prev``: the area before ``start``, or the one that contains it if ``start`` is inside. The changed range is either
    unmapped or lies in one area; the attributes of the survivor are its own, the caller sets new ones. ``origin``: the
    area whose pages an unmapped range is about to take over (mremap).
    """
    if flags & VM_SPECIAL:
        return None
    ctx = mm.ctx
    cur: VmArea | None = None
    nxt: VmArea | None = None
    source: VmArea | None
    inside = prev is not None and start < prev.end
    if inside:
        source = prev
    else:
        source = cur = mm.mm_mt.load(start)
    if source is None or end == source.end:
        nxt = mm.mm_mt.load(end)
    if nxt is None and (prev is None or prev.end != start):
        return None
    if source is None:
        source = origin
    merge_prev = (
        prev is not None
        and prev.end == start
        and _attributes_agree(prev, flags, file, policy, uffd_ctx, anon_name)
        and prev.pgoff + prev.pages == pgoff
        and _anon_vmas_agree(mm, anon_vma, source, prev)
    )
    merge_next = (
        nxt is not None
        and _attributes_agree(nxt, flags, file, policy, uffd_ctx, anon_name)
        and nxt.pgoff == pgoff + ((end - start) >> 12)
        and _anon_vmas_agree(mm, anon_vma, source, nxt)
        and (ctx.merge_close_fix or not _has_close(nxt))
    )
    if ctx.merge_close_fix and cur is not None and end == cur.end and _has_close(cur):
        return None
    if merge_prev and merge_next:
        assert prev is not None and nxt is not None
        apart = prev.anon_vma is not None and nxt.anon_vma is not None and prev.anon_vma is not nxt.anon_vma
        if apart or (ctx.merge_close_fix and _has_close(nxt)):
            merge_next = False
    if merge_prev:
        assert prev is not None
        if merge_next:
            assert nxt is not None
            # Case 1  PPP...NNN -> PPPPPPPPP   case 6  PPPCCCNNN -> PPPPPPPPP
            if not _commit_merge(mm, prev, prev.start, nxt.end, prev.pgoff, (nxt, source)):
                return None
            _vm_area_free(mm, nxt)
            if cur is not None:
                _vm_area_free(mm, cur)
            return prev
        # Case 2  PPP... -> PPPPPP   case 5  PPPCCCC -> PPPPPCC   case 7  PPPCCC -> PPPPPP
        if not _commit_merge(mm, prev, prev.start, end, prev.pgoff, (source,)):
            return None
        if cur is not None and end == cur.end:
            _vm_area_free(mm, cur)
        elif cur is not None:
            cur.pgoff += (end - cur.start) >> 12
            cur.start = end
        return prev
    if merge_next:
        assert nxt is not None
        # Case 3  ...NNN -> NNNNNN   case 4  PPPPNNN -> PPNNNNN   case 8  CCCNNN -> NNNNNN
        if not _commit_merge(mm, nxt, start, nxt.end, pgoff, (source,)):
            return None
        if inside:
            assert prev is not None
            prev.end = start
        elif cur is not None:
            _vm_area_free(mm, cur)
        return nxt
    return None


def vma_merge_new_range(
    mm: MmStruct,
    prev: VmArea | None,
    nxt: VmArea | None,
    start: int,
    end: int,
    flags: int,
    file: MappedFile | None,
    pgoff: int,
) -> VmArea | None:
    """Merge a new mapping of the unmapped range [start, end) with its neighbours (spec R3.5): ``prev`` ends where it
    begins, ``nxt`` begins where it ends. The survivor, or None.

    A new mapping has no policy, no userfaultfd and no name. 6.7 looks at the next area first and lets the previous
    one join only if its anon_vma agrees with the next one's; later kernels begin with the previous one
    (post-mmap-merge-prev-first, post-mmap-merge-unfaulted-prev).
    """
    if flags & VM_SPECIAL:
        return None
    ctx = mm.ctx
    pages = (end - start) >> 12
    if prev is not None and not (
        _attributes_agree(prev, flags, file, None, None, None) and prev.pgoff + prev.pages == pgoff
    ):
        prev = None
    if nxt is not None and not (
        _attributes_agree(nxt, flags, file, None, None, None)
        and nxt.pgoff == pgoff + pages
        and _anon_vmas_agree(mm, None, None, nxt)
        and (ctx.merge_close_fix or not _has_close(nxt))
    ):
        nxt = None
    if prev is not None and nxt is not None:
        alone = _anon_vmas_agree(mm, None, None, prev)
        if prev.anon_vma is None and nxt.anon_vma is not None:
            both = ctx.mmap_merge_unfaulted_prev
        else:
            both = alone and (nxt.anon_vma is None or nxt.anon_vma is prev.anon_vma)
        if both and ctx.merge_close_fix and _has_close(nxt):
            both = False
        if both:
            if not _commit_merge(mm, prev, prev.start, nxt.end, prev.pgoff, (nxt,)):
                return None
            mm.vm_stat_account(flags, pages)
            _vm_area_free(mm, nxt)
            return prev
        if ctx.mmap_merge_prev_first and alone:
            nxt = None
        else:
            prev = None
    elif prev is not None and not _anon_vmas_agree(mm, None, None, prev):
        prev = None
    if nxt is not None:
        if not _commit_merge(mm, nxt, start, nxt.end, pgoff, ()):
            return None
        mm.vm_stat_account(flags, pages)
        return nxt
    if prev is not None:
        if not _commit_merge(mm, prev, prev.start, end, prev.pgoff, ()):
            return None
        mm.vm_stat_account(flags, pages)
        return prev
    return None


def vma_merge_extend(mm: MmStruct, vma: VmArea, delta: int) -> VmArea | None:
    """Extend ``vma`` by ``delta`` bytes upwards into free space, joining what is behind if it fits: case 1 or 2 of
    R4.
    """
    pgoff = vma.pgoff + vma.pages
    return vma_merge(
        mm,
        vma,
        vma.end,
        vma.end + delta,
        vma.flags,
        vma.anon_vma,
        vma.file,
        pgoff,
        vma.policy,
        vma.uffd_ctx,
        vma.anon_name,
        vma,
    )


# -- splitting and changing -----------------------------------------------------------------------------------------


def split_vma(mm: MmStruct, vma: VmArea, addr: int, *, new_below: bool, count_limit: bool = True) -> VmArea:
    """Cut ``vma`` at ``addr`` (strictly inside). The new object gets the lower part if ``new_below``, else the upper
    one.

    Returns the new object. Raises OSError: ENOMEM at the limit of areas (unless ``count_limit`` is off, as for
    munmap's own splits) and without memory, or what ``vm_ops.may_split`` says; nothing has changed then.
    """
    ctx = mm.ctx
    if count_limit and mm.map_count >= ctx.sysctl.max_map_count:
        raise no_memory("a split would exceed vm.max_map_count")
    ops = vma.vm_ops
    if ops is not None:
        refused = ops.may_split(vma, addr)
        if refused:
            raise OSError(refused, "the area can not be split there")
    vma.start_write()
    start, end = (vma.start, addr) if new_below else (addr, vma.end)
    slab = ctx.vma_cache.alloc(GFP_KERNEL)
    if not slab:
        raise no_memory()
    new = VmArea.duplicate(vma, slab, start, end)
    new.lock_seq = vma.lock_seq
    if vma.anon_vma_chain:
        new.anon_vma = vma.anon_vma
        if not anon_vma_clone(ctx, new, vma):
            ctx.vma_cache.free(slab)
            raise no_memory()
    try:
        mm.mm_mt.store_prealloc(start, end - 1, new)
    except OSError:
        unlink_anon_vmas(ctx, new)
        ctx.vma_cache.free(slab)
        raise
    vma_adjust_trans_huge(mm, addr)
    if new_below:
        vma.pgoff += (addr - vma.start) >> 12
        vma.start = addr
    else:
        vma.end = addr
    if new.file is not None:
        new.file.mapping.mapped(ctx)
    if ops is not None:
        ops.open(new)
    mm.map_count += 1
    return new


def vma_modify(
    mm: MmStruct,
    prev: VmArea | None,
    vma: VmArea,
    start: int,
    end: int,
    flags: int,
    policy: MemPolicy | None,
    uffd_ctx: UserfaultfdCtx | None,
    anon_name: str | None,
) -> VmArea:
    """Have exactly [start, end) of ``vma`` as one area that may be given the new attributes, merged if it can be.

    The one routine that all seven changers of attributes share since ``vma-modify`` (6.7). ``prev``: as for
    :func:`vma_merge`. It changes no attribute itself. Raises OSError when a split fails; a split already made stays.
    """
    merged = vma_merge(
        mm,
        prev,
        start,
        end,
        flags,
        vma.anon_vma,
        vma.file,
        vma.pgoff + ((start - vma.start) >> 12),
        policy,
        uffd_ctx,
        anon_name,
    )
    if merged is not None:
        return merged
    if vma.start < start:
        split_vma(mm, vma, start, new_below=True)
    if vma.end > end:
        split_vma(mm, vma, end, new_below=False)
    return vma


# -- explaining -----------------------------------------------------------------------------------------------------


def _flag_names(bits: int) -> str:
    return "|".join(name for value, name in FLAG_NAMES.items() if bits & value)


def explain_merge(prev: VmArea, nxt: VmArea) -> list[Because | NoMerge]:
    """Why two areas, the second behind the first, are not one: every reason that holds, in the order of spec R2."""
    reasons: list[Because | NoMerge] = []
    if prev.end != nxt.start:
        reasons.append(NoMerge.NOT_ADJACENT)
    differ = (prev.flags ^ nxt.flags) & ~VM_STICKY
    if differ:
        reasons.append(NoMerge.FLAGS_DIFFER(_flag_names(differ)))
    special = (prev.flags | nxt.flags) & VM_SPECIAL
    if special:
        reasons.append(NoMerge.SPECIAL(_flag_names(special)))
    if prev.file is not nxt.file:
        reasons.append(NoMerge.FILE_DIFFERS)
    if prev.pgoff + prev.pages != nxt.pgoff:
        reasons.append(NoMerge.OFFSET_DIFFERS(f"{prev.pgoff + prev.pages:#x}", f"{nxt.pgoff:#x}"))
    if _has_close(nxt):
        reasons.append(NoMerge.CLOSE_OP)
    if prev.uffd_ctx is not nxt.uffd_ctx:
        reasons.append(NoMerge.UFFD_CTX_DIFFERS)
    if prev.anon_name != nxt.anon_name:
        reasons.append(NoMerge.ANON_NAME_DIFFERS)
    if prev.policy != nxt.policy:
        reasons.append(NoMerge.POLICY_DIFFERS)
    mm = prev.mm
    if not (_anon_vmas_agree(mm, prev.anon_vma, prev, nxt) or _anon_vmas_agree(mm, nxt.anon_vma, nxt, prev)):
        sides = [f"{'un' * (v.anon_vma is None)}faulted, chain {len(v.anon_vma_chain)}" for v in (prev, nxt)]
        reasons.append(NoMerge.ANON_VMA_INCOMPATIBLE(*sides))
    return reasons or [NoMerge.SPLIT_BY_HISTORY]
