# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the kernel puts a mapping (Linux: arch/x86/kernel/sys_x86_64.c, mm/mmap.c, mm/huge_memory.c; spec R7).

Top-down below ``mmap_base``, or bottom-up in the legacy layout; a guard gap is kept below areas that grow down.
Huge-page alignment of anonymous mappings came after 6.7-rc1 and is a knob with three values.
"""

from __future__ import annotations

import errno
from typing import Final

from memtwin.abi import mman
from memtwin.abi.capability import CAP_SYS_RAWIO
from memtwin.abi.resource import RLIM_INFINITY
from memtwin.hw.paging import PMD_SIZE
from memtwin.hw.ram import PAGE_MASK
from memtwin.mm.mm_types import VM_GROWSDOWN, MappedFile, MmStruct, VmArea
from memtwin.mm.vma import find_vma, no_memory

__all__ = ["get_unmapped_area", "legacy_base", "may_map_at", "mmap_base", "round_hint_to_min", "start_gap"]

#: The gap between the top of the address space and mappings: the stack limit, within these bounds.
_MIN_GAP: Final = 128 << 20
_MAP_32BIT_LOW: Final = 1 << 30
_MAP_32BIT_HIGH: Final = 1 << 31


def mmap_base(task_size: int, stack_limit: int, guard_pages: int) -> int:
    """Top of the area for mappings in the top-down layout without randomisation, from RLIMIT_STACK in bytes."""
    gap = stack_limit + (guard_pages << 12) if stack_limit != RLIM_INFINITY else task_size
    gap = min(max(gap, _MIN_GAP), task_size // 6 * 5)
    return (task_size - gap + 4095) & PAGE_MASK


def legacy_base(mm: MmStruct) -> int:
    """Where bottom-up searches begin: a third of the address space."""
    return (mm.task_size // 3 + 4095) & PAGE_MASK


def start_gap(mm: MmStruct, vma: VmArea) -> int:
    """Lowest address that must stay free below ``vma``."""
    if vma.flags & VM_GROWSDOWN:
        return max(vma.start - (mm.ctx.sysctl.stack_guard_gap << 12), 0)
    return vma.start


def get_unmapped_area(
    mm: MmStruct, addr: int, length: int, pgoff: int, flags: int, file: MappedFile | None, prot: int = 0
) -> int:
    """The address for ``length`` bytes (whole pages). Raises OSError EINVAL, ENOMEM, EPERM."""
    found = _unmapped_area(mm, addr, length, flags, file)
    if not may_map_at(mm, found):
        raise OSError(errno.EPERM, "mmap: below vm.mmap_min_addr")
    return found


def may_map_at(mm: MmStruct, addr: int) -> bool:
    """Whether vm.mmap_min_addr allows an area that begins at ``addr``."""
    return addr >= mm.ctx.sysctl.mmap_min_addr or mm.owner is None or mm.owner.capable(CAP_SYS_RAWIO)


def round_hint_to_min(mm: MmStruct, addr: int) -> int:
    """What mmap makes of a hint; mremap takes its own as it is."""
    addr &= PAGE_MASK
    return max(addr, mm.ctx.sysctl.lowest_address) if addr else 0


def _unmapped_area(mm: MmStruct, addr: int, length: int, flags: int, file: MappedFile | None) -> int:
    if flags & (mman.MAP_FIXED | mman.MAP_FIXED_NOREPLACE):
        if addr > mm.task_size - length:
            raise OSError(errno.ENOMEM, "mmap: fixed address beyond the address space")
        if addr & ~PAGE_MASK:
            raise OSError(errno.EINVAL, "mmap: unaligned fixed address")
        return addr
    if length >= PMD_SIZE and _thp_aligned(mm, addr, length, flags, file):
        found = _search_aligned(mm, addr, length, flags)
        if found:
            return found
    return _arch_get_unmapped_area(mm, addr, length, flags)


def _hint_free(mm: MmStruct, addr: int, length: int) -> bool:
    if addr + length > mm.task_size:
        return False
    following = find_vma(mm, addr)
    return following is None or addr + length <= start_gap(mm, following)


def _arch_get_unmapped_area(mm: MmStruct, addr: int, length: int, flags: int) -> int:
    if flags & mman.MAP_32BIT:
        if addr and _hint_free(mm, addr, length) and addr + length <= _MAP_32BIT_HIGH:
            return addr
        return _search(mm, _MAP_32BIT_LOW, _MAP_32BIT_HIGH, length, top_down=False)
    if addr and _hint_free(mm, addr, length):
        return addr
    low = 1 << 32 if flags & mman.MAP_ABOVE4G else mm.ctx.sysctl.lowest_address
    if not mm.topdown:
        return _search(mm, max(legacy_base(mm), low), mm.task_size, length, top_down=False)
    try:
        return _search(mm, low, mm.mmap_base, length, top_down=True)
    except OSError:
        return _search(mm, legacy_base(mm), mm.task_size, length, top_down=False)


def _thp_aligned(mm: MmStruct, addr: int, length: int, flags: int, file: MappedFile | None) -> bool:
    """Whether this mapping is placed at a multiple of 2 MiB (knobs post-mmap-thp-align, post-dev-zero-thp-align)."""
    rule = mm.ctx.mmap_thp_align
    if rule == "off" or length < PMD_SIZE or flags & mman.MAP_TYPE != mman.MAP_PRIVATE:
        return False
    if file is not None and not (file.vm_ops is None and mm.ctx.dev_zero_thp_align):
        return False
    return rule == "all" or (not addr and length % PMD_SIZE == 0)


def _search_aligned(mm: MmStruct, addr: int, length: int, flags: int) -> int:
    """A range that begins at a multiple of 2 MiB, or 0. A hint is kept as it is if the padded length fits there."""
    padded = length + PMD_SIZE
    try:
        found = _arch_get_unmapped_area(mm, addr, padded, flags)
    except OSError:
        return 0
    if found == addr:
        return addr
    offset = -found % PMD_SIZE
    if not offset and mm.ctx.thp_align_topdown and mm.topdown:
        return found + PMD_SIZE
    return found + offset


def _search(mm: MmStruct, low: int, high: int, length: int, *, top_down: bool) -> int:
    """A free range in [low, high) that leaves guard gaps alone. Raises OSError ENOMEM."""
    tree = mm.mm_mt
    following: VmArea | None
    while high - low >= length:
        gap = tree.highest_gap(low, high - 1, length) if top_down else tree.lowest_gap(low, high - 1, length)
        if gap is None:
            break
        addr, following = gap
        if top_down:
            addr += 1 - length
        if following is None or addr + length <= start_gap(mm, following):
            return addr
        if top_down:
            high = start_gap(mm, following)
        else:
            low = following.end
    raise no_memory("mmap: no free range is large enough")
