# SPDX-License-Identifier: GPL-2.0-or-later
"""Areas with huge pages, for tests in several files."""

from __future__ import annotations

import struct

from memtwin.abi.mman import MADV_HUGEPAGE, MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE

RW = PROT_READ | PROT_WRITE
MIB2 = 2 << 20
AT = 0x1000200000


def area(process, length=MIB2, at=AT):
    """An anonymous area that is advised to have huge pages."""
    process.mmap(at, length, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
    process.madvise(at, length, MADV_HUGEPAGE)
    return at


def pfn_of(process, addr):
    """The frame that ``process`` maps at ``addr``, as pagemap tells."""
    return struct.unpack("<Q", process.read_file_at("/proc/self/pagemap", addr >> 9, 8))[0] & (1 << 55) - 1
