# SPDX-License-Identifier: GPL-2.0-or-later
"""Cells that 5,000 programs of fork reached often enough on Linux 6.18: operation | result | situations."""

from __future__ import annotations

__all__ = ["CELLS"]

CELLS = """\
brk | ok | -
exit | ok | -
fork | ok | -
ftruncate | ok | -
madvise dodump | EINVAL | unaligned
madvise dodump | ENOMEM | hole, over hole, from hole
madvise dodump | ok | whole, head, tail, middle, across
madvise dofork | EINVAL | unaligned
madvise dofork | ENOMEM | hole, over hole, from hole
madvise dofork | ok | whole, head, tail, middle, across
madvise dontdump | ENOMEM | hole, over hole, from hole
madvise dontdump | ok | whole, head, tail, middle, across
madvise dontfork | ENOMEM | hole, over hole, from hole
madvise dontfork | ok | whole, head, tail, middle, across
madvise dontneed | EINVAL | whole, unaligned
madvise dontneed | ENOMEM | hole, over hole, from hole
madvise dontneed | ok | whole, head, tail, middle, across, zero
madvise dontneed_locked | ENOMEM | hole, over hole, from hole
madvise dontneed_locked | ok | whole, head, tail, middle, across
madvise free | ENOMEM | hole, over hole
madvise free | ok | whole, head, tail, middle
madvise hugepage | ENOMEM | hole, over hole, from hole
madvise hugepage | ok | whole, head, tail, middle, across
madvise keeponfork | ENOMEM | hole, over hole, from hole
madvise keeponfork | ok | whole, head, tail, middle, across
madvise mergeable | ENOMEM | hole, over hole, from hole
madvise mergeable | ok | whole, head, tail, middle, across
madvise nohugepage | ENOMEM | hole, over hole, from hole
madvise nohugepage | ok | whole, head, tail, middle, across
madvise normal | EINVAL | unaligned
madvise normal | ENOMEM | hole, over hole, from hole
madvise normal | ok | whole, head, tail, middle, across, zero
madvise random | EINVAL | unaligned
madvise random | ENOMEM | hole, over hole, from hole
madvise random | ok | whole, head, tail, middle, across
madvise sequential | ENOMEM | hole, over hole, from hole
madvise sequential | ok | whole, head, tail, middle, across
madvise unknown | EINVAL | hole, whole, over hole
madvise unmergeable | ENOMEM | hole, over hole, from hole
madvise unmergeable | ok | whole, head, tail, middle, across
madvise wipeonfork | EINVAL | whole
madvise wipeonfork | ENOMEM | hole, over hole, from hole
madvise wipeonfork | ok | whole, head, tail, middle, across
mbind | EFAULT | hole, over hole, from hole
mbind | EINVAL | unaligned
mbind | ok | whole, head, tail, middle, across, over hole, from hole
memfd | ok | -
mlock | ENOMEM | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
mlock | ok | whole, head, tail, middle, across, zero
mlock2 0 | ENOMEM | hole, over hole, from hole
mlock2 0 | ok | whole, head, tail
mlock2 2 | EINVAL | hole
mlock2 onfault | ENOMEM | hole, over hole, from hole
mlock2 onfault | ok | whole, head, tail, middle, across
mmap fixed | EBADF | hole
mmap fixed | EEXIST | middle, over hole, from hole
mmap fixed | EINVAL | hole, zero, unaligned
mmap fixed | ok | hole, whole, head, tail, middle, across, over hole, from hole
mmap noreplace | EEXIST | whole, head, tail, middle, across, over hole, from hole
mmap noreplace | EINVAL | zero, unaligned
mmap noreplace | ok | hole
mprotect | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, unaligned
mprotect | ENOMEM | hole, over hole, from hole, outside
mprotect | ok | whole, head, tail, middle, across, zero
mremap dontunmap | EFAULT | hole, over hole, from hole
mremap dontunmap | EINVAL | hole, whole, head, tail, over hole, from hole, zero
mremap dontunmap | ok | whole, head, tail, middle
mremap fixed | EFAULT | hole, over hole, from hole, zero
mremap fixed | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, zero, unaligned
mremap fixed | ok | whole, head, tail, middle, over hole
mremap in place | EFAULT | hole, over hole, from hole
mremap in place | EINVAL | hole, whole, zero
mremap in place | ENOMEM | whole, head, middle
mremap in place | ok | whole, head, tail, middle, across, over hole
mremap maymove | EFAULT | hole, across, over hole, from hole, zero
mremap maymove | EINVAL | hole, whole, head, tail, middle, zero, unaligned
mremap maymove | ok | whole, head, tail, middle, across, over hole
munlock | ENOMEM | hole, over hole, from hole
munlock | ok | whole, head, tail, middle, across, zero
munmap | EINVAL | zero, unaligned, outside
munmap | ok | hole, whole, head, tail, middle, across, over hole, from hole
open | ok | -
process_madvise normal | ENOMEM | hole
process_madvise random | ok | whole
read | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
read | ok | whole, head, tail, middle, across, zero, unaligned
write | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
write | ok | whole, head, tail, middle, across, zero, unaligned
"""
