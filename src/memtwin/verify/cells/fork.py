# SPDX-License-Identifier: GPL-2.0-or-later
"""Cells that 5,000 programs of fork reached often enough on Linux 6.18: operation | result | situations."""

from __future__ import annotations

__all__ = ["CELLS"]

CELLS = """\
brk | ok | -
exit | ok | -
fork | ok | -
ftruncate | ok | -
madvise cold | ENOMEM | hole
madvise cold | ok | whole, head, tail, middle, across
madvise dodump | ENOMEM | hole, over hole, from hole
madvise dodump | ok | whole, head, tail, middle, across
madvise dofork | ENOMEM | hole, over hole, from hole
madvise dofork | ok | whole, head, tail, middle, across
madvise dontdump | ENOMEM | hole, over hole, from hole
madvise dontdump | ok | whole, head, tail, middle, across
madvise dontfork | ENOMEM | hole, over hole, from hole
madvise dontfork | ok | whole, head, tail, middle, across
madvise dontneed | EINVAL | whole, unaligned
madvise dontneed | ENOMEM | hole, over hole, from hole
madvise dontneed | ok | whole, head, tail, middle, across
madvise dontneed_locked | ENOMEM | hole, over hole, from hole
madvise dontneed_locked | ok | whole, head, tail, middle
madvise free | ENOMEM | hole
madvise free | ok | whole, head, tail
madvise guard_install | ENOMEM | hole, over hole, from hole
madvise guard_install | ok | whole, head, tail, middle, across
madvise guard_remove | ENOMEM | hole, over hole, from hole
madvise guard_remove | ok | whole, head, tail, middle, across
madvise hugepage | ENOMEM | hole, over hole, from hole
madvise hugepage | ok | whole, head, tail, middle, across
madvise keeponfork | ENOMEM | hole, over hole, from hole
madvise keeponfork | ok | whole, head, tail, middle, across
madvise mergeable | ENOMEM | hole, over hole, from hole
madvise mergeable | ok | whole, head, tail, middle, across
madvise nohugepage | ENOMEM | hole, over hole
madvise nohugepage | ok | whole, head, tail, middle, across
madvise normal | ENOMEM | hole, over hole, from hole
madvise normal | ok | whole, head, tail, middle, across
madvise populate_read | EINVAL | whole
madvise populate_read | ENOMEM | hole, over hole, from hole
madvise populate_read | ok | whole, head, tail, middle, across
madvise populate_write | EINVAL | whole, head, tail, middle, across, over hole
madvise populate_write | ENOMEM | hole, over hole, from hole
madvise populate_write | ok | whole, head, tail, middle, across
madvise random | EINVAL | unaligned
madvise random | ENOMEM | hole, over hole, from hole
madvise random | ok | whole, head, tail, middle, across
madvise sequential | ENOMEM | hole, over hole, from hole
madvise sequential | ok | whole, head, tail, middle, across
madvise unknown | EINVAL | hole, whole, middle
madvise unmergeable | ENOMEM | hole, over hole, from hole
madvise unmergeable | ok | whole, head, tail, middle, across
madvise wipeonfork | ENOMEM | hole, over hole, from hole
madvise wipeonfork | ok | whole, head, tail, middle, across
mbind | EFAULT | hole, over hole, from hole
mbind | ok | whole, head, tail, middle, across, over hole, from hole
memfd | ok | -
mincore | ENOMEM | hole, over hole
mincore | ok | whole, middle
mlock | ENOMEM | hole, whole, head, tail, across, over hole, from hole, unaligned
mlock | ok | whole, head, tail, middle, across, zero
mlock2 0 | ENOMEM | hole, over hole, from hole
mlock2 0 | ok | whole, head, tail
mlock2 2 | EINVAL | hole
mlock2 onfault | ENOMEM | hole, over hole, from hole
mlock2 onfault | ok | whole, head, tail, middle, across
mmap fixed | EBADF | hole
mmap fixed | EEXIST | over hole
mmap fixed | EINVAL | hole, zero, unaligned
mmap fixed | ok | hole, whole, head, tail, middle, across, over hole, from hole
mmap noreplace | EEXIST | whole, head, tail, middle, across, over hole, from hole
mmap noreplace | EINVAL | zero, unaligned
mmap noreplace | ok | hole
mprotect | EINVAL | hole, whole, head, tail, middle, over hole, unaligned
mprotect | ENOMEM | hole, over hole, from hole, outside
mprotect | ok | whole, head, tail, middle, across, zero
mremap dontunmap | EFAULT | hole
mremap dontunmap | EINVAL | hole, whole, head, over hole, zero
mremap dontunmap | ok | whole, head, tail, middle
mremap fixed | EFAULT | hole, over hole, from hole, zero
mremap fixed | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, zero
mremap fixed | ok | whole, head, tail, middle, over hole
mremap in place | EFAULT | hole, over hole, from hole
mremap in place | EINVAL | hole, whole, zero
mremap in place | ENOMEM | head, middle
mremap in place | ok | whole, tail, across, over hole
mremap maymove | EFAULT | hole, across, over hole, from hole, zero
mremap maymove | EINVAL | hole, whole, head, tail, middle, zero, unaligned
mremap maymove | ok | whole, head, tail, middle, across, over hole
munlock | ENOMEM | hole, over hole, from hole
munlock | ok | whole, head, tail, middle, across
munmap | EINVAL | zero, unaligned, outside
munmap | ok | hole, whole, head, tail, middle, across, over hole, from hole
open | ok | -
process_madvise random | ENOMEM | hole
read | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
read | ok | whole, head, tail, middle, across, zero, unaligned
write | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
write | ok | whole, head, tail, middle, across, over hole, zero, unaligned
"""
