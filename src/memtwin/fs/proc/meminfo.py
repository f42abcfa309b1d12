# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/meminfo (fs/proc/meminfo.c, mm/show_mem.c): the lines of 6.7 in its order.

Lines about what the twin does not have yet (swap, zswap, LRU lists, huge pages, percpu, vmalloc) are there and 0. Not
there, because a kernel configured without them lacks them too: CmaTotal, CmaFree, Unaccepted, and KernelStack's shadow
stacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from memtwin.mm.zone import WMARK_HIGH, WMARK_LOW

if TYPE_CHECKING:
    from memtwin.mm.page_alloc import PageAllocator

__all__ = ["mem_available", "meminfo"]

#: 32 TiB less 1 KiB of rounding, with 4-level paging (measured on 6.18).
VMALLOC_TOTAL_KB: Final = (1 << 45) // 1024 - 1


def mem_available(alloc: PageAllocator) -> int:
    """MemAvailable in pages: free, less what the zones hold back, plus the page cache and reclaimable slabs that need
    not stay (half of each, or the low watermarks if that is less). Source: Documentation/filesystems/proc.rst."""
    low = sum(zone.wmark(WMARK_LOW) for zone in alloc.zones)
    held_back = sum(min(max(zone.lowmem_reserve) + zone.wmark(WMARK_HIGH), zone.managed) for zone in alloc.zones)
    cache = sum(stat.nr_file_pages - stat.nr_shmem for stat in alloc.node_stats)
    slab = sum(stat.nr_slab_reclaimable for stat in alloc.node_stats)
    available = alloc.nr_free_pages() - held_back
    available += cache - min(cache // 2, low) + slab - min(slab // 2, low)
    return max(available, 0)


def meminfo(alloc: PageAllocator, committed: int = 0, commit_limit: int = 0) -> str:
    """The text of /proc/meminfo. ``committed``: pages promised to address spaces; ``commit_limit``: how many may be, in
    overcommit mode 2.
    """
    stats = alloc.node_stats
    anon = sum(stat.nr_anon_pages for stat in stats)
    file_pages = sum(stat.nr_file_pages for stat in stats)
    reclaimable = sum(stat.nr_slab_reclaimable for stat in stats)
    unreclaimable = sum(stat.nr_slab_unreclaimable for stat in stats)
    lines = [
        _pages("MemTotal", alloc.managed_pages),
        _pages("MemFree", alloc.nr_free_pages()),
        _pages("MemAvailable", mem_available(alloc)),
        _pages("Buffers", 0),
        _pages("Cached", file_pages),
        *(_pages(name, 0) for name in ("SwapCached", "Active", "Inactive", "Active(anon)", "Inactive(anon)")),
        *(_pages(name, 0) for name in ("Active(file)", "Inactive(file)", "Unevictable", "Mlocked")),
        *(_pages(name, 0) for name in ("SwapTotal", "SwapFree", "Zswap", "Zswapped", "Dirty", "Writeback")),
        _pages("AnonPages", anon),
        _pages("Mapped", sum(stat.nr_mapped for stat in stats)),
        _pages("Shmem", sum(stat.nr_shmem for stat in stats)),
        _pages("KReclaimable", reclaimable),
        _pages("Slab", reclaimable + unreclaimable),
        _pages("SReclaimable", reclaimable),
        _pages("SUnreclaim", unreclaimable),
        _kb("KernelStack", sum(stat.nr_kernel_stack for stat in stats)),
        _pages("PageTables", sum(stat.nr_page_table_pages for stat in stats)),
        *(_pages(name, 0) for name in ("SecPageTables", "NFS_Unstable", "Bounce", "WritebackTmp")),
        _pages("CommitLimit", commit_limit),
        _pages("Committed_AS", committed),
        _kb("VmallocTotal", VMALLOC_TOTAL_KB),
        *(_pages(name, 0) for name in ("VmallocUsed", "VmallocChunk", "Percpu")),
        f"HardwareCorrupted: {alloc.hw_poisoned * 4:5} kB\n",
        _kb("AnonHugePages", sum(stat.nr_anon_transparent_hugepages for stat in stats) * 2048),
        *(_pages(name, 0) for name in ("ShmemHugePages", "ShmemPmdMapped")),
        *(_pages(name, 0) for name in ("FileHugePages", "FilePmdMapped")),
        *(f"HugePages_{name + ':':8}{0:6}\n" for name in ("Total", "Free", "Rsvd", "Surp")),
        _kb("Hugepagesize", 2048),
        _kb("Hugetlb", 0),
        *_direct_map(alloc.pages.nr_pages),
    ]
    return "".join(lines)


def _direct_map(nr_pages: int) -> list[str]:
    """How the kernel's direct map covers memory: as much as possible with 1 GiB pages, then 2 MiB, then 4 KiB."""
    kb = nr_pages * 4
    giant, rest = kb >> 20 << 20, kb & ((1 << 20) - 1)
    huge = rest >> 11 << 11
    return [_kb("DirectMap4k", rest - huge), _kb("DirectMap2M", huge), _kb("DirectMap1G", giant)]


def _pages(name: str, pages: int) -> str:
    return _kb(name, pages * 4)


def _kb(name: str, kb: int) -> str:
    return f"{name + ':':16}{kb:8} kB\n"
