# SPDX-License-Identifier: GPL-2.0-or-later
"""x86-64 4-level paging: every bit position and non-present encoding, and the index arithmetic (Linux:
asm/pgtable_types.h).

Source: Intel SDM volume 3, chapter 4 (hardware bits); Linux's software bits as documented in
Documentation/admin-guide/mm (soft-dirty, userfaultfd write protection). This is the only place that knows the layout
of an entry: the emulated CPU's own MMU, the kernel half and the direct CPU all read the same words.
"""

from __future__ import annotations

from typing import Final

# Hardware bits of an entry.
PRESENT: Final = 1 << 0
RW: Final = 1 << 1
USER: Final = 1 << 2
ACCESSED: Final = 1 << 5
DIRTY: Final = 1 << 6
PSE: Final = 1 << 7  #: a leaf at the PMD or PUD level
NX: Final = 1 << 63

#: Protection key of a user page (bits 59-62), and the one Linux gives to memory that may only be executed.
PKEY_MASK: Final = 0xF << 59
PKEY_EXECUTE_ONLY: Final = 1 << 59

# Software bits of a present entry (ignored by the MMU).
SPECIAL: Final = 1 << 9  #: no reference-counted page behind it (zero page, device memory)
UFFD_WP: Final = 1 << 10
SOFT_DIRTY: Final = 1 << 11

# Non-present entries that are not none: bit 0 clear, bit 1 set marks "swap-like", type in bits 2-6, payload from bit
# 12.
SWAP_ENTRY: Final = 1 << 1
SWAP_TYPE_SHIFT: Final = 2
SWAP_TYPE_MASK: Final = 31
SWAP_OFFSET_SHIFT: Final = 12
PTE_MARKER_TYPE: Final = 31  #: the type of a PTE marker (userfaultfd write protection of an empty entry, poison)
#: What the offset of a marker says.
PTE_MARKER_UFFD_WP: Final = 1
PTE_MARKER_POISONED: Final = 2
PTE_MARKER_GUARD: Final = 4
#: The entry of a guard page (MADV_GUARD_INSTALL).
GUARD_ENTRY: Final = SWAP_ENTRY | PTE_MARKER_TYPE << SWAP_TYPE_SHIFT | PTE_MARKER_GUARD << SWAP_OFFSET_SHIFT
PROT_NONE: Final = 1 << 8  #: a page is there but no access is allowed: PRESENT is clear, the frame bits are valid
MAPPED: Final = PRESENT | PROT_NONE  #: an entry with one of these has a valid frame

#: Frame bits of an entry (52-bit physical addresses).
PFN_MASK: Final = 0x000F_FFFF_FFFF_F000

TABLE_FLAGS: Final = PRESENT | RW | USER | ACCESSED | DIRTY  #: of an entry that points to a lower table

ENTRIES: Final = 512
PMD_SHIFT: Final = 21
PUD_SHIFT: Final = 30
PGD_SHIFT: Final = 39
PMD_SIZE: Final = 1 << PMD_SHIFT
PUD_SIZE: Final = 1 << PUD_SHIFT
PGD_SIZE: Final = 1 << PGD_SHIFT
TASK_SIZE: Final = (1 << 47) - 4096  #: first address user space can not map with 4-level paging

# Page-fault error code (what the CPU pushes).
PF_PROT: Final = 1 << 0  #: 0 no page found, 1 a permission was missing
PF_WRITE: Final = 1 << 1
PF_USER: Final = 1 << 2
PF_RSVD: Final = 1 << 3
PF_INSTR: Final = 1 << 4


def pte_pfn(entry: int) -> int:
    """Frame number of an entry whose frame bits are valid."""
    return (entry & PFN_MASK) >> 12


def make(pfn: int, flags: int) -> int:
    """An entry for frame ``pfn`` with the given bits."""
    return (pfn << 12) | flags
