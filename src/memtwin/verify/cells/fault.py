# SPDX-License-Identifier: GPL-2.0-or-later
"""Cells that 5,000 programs of fault reached often enough on Linux 6.18: operation | result | situations."""

from __future__ import annotations

__all__ = ["CELLS"]

CELLS = """\
brk | ok | -
exit | ok | -
fork | ok | -
fstat | ok | -
ftruncate | EINVAL | -
ftruncate | ok | -
madvise cold | ENOMEM | over hole
madvise cold | ok | whole, head, tail, middle
madvise dontneed | EINVAL | whole, head, tail, middle, across, over hole, from hole, unaligned, outside
madvise dontneed | ENOMEM | hole, over hole, from hole
madvise dontneed | ok | whole, head, tail, middle, across, zero
madvise dontneed_locked | ENOMEM | hole, over hole, from hole
madvise dontneed_locked | ok | whole, head, tail, middle, across
madvise free | EINVAL | whole, head, tail, middle, across, over hole
madvise free | ENOMEM | hole, over hole, from hole
madvise free | ok | whole, head, tail, middle
madvise guard_install | ENOMEM | over hole
madvise guard_install | ok | head, middle
madvise guard_remove | ENOMEM | over hole
madvise guard_remove | ok | head, middle
madvise populate_read | EFAULT | whole, head, tail, middle, over hole
madvise populate_read | EINVAL | whole, head, tail, middle, across, over hole, unaligned, outside
madvise populate_read | ENOMEM | hole, over hole, from hole
madvise populate_read | ok | whole, head, tail, middle, across, zero
madvise populate_write | EFAULT | whole, tail, middle, over hole
madvise populate_write | EINVAL | whole, head, tail, middle, across, over hole, unaligned
madvise populate_write | ENOMEM | hole, over hole, from hole
madvise populate_write | ok | whole, head, tail, middle, across, zero
memfd | ok | -
mincore | EINVAL | unaligned
mincore | ENOMEM | hole, over hole, from hole, outside
mincore | ok | whole, head, tail, middle, across, zero
mlock | ENOMEM | hole, whole, head, middle, across, over hole, from hole
mlock | ok | whole, head, tail, middle, across
mlock2 0 | ENOMEM | hole, over hole
mlock2 0 | ok | whole, head, tail
mlock2 onfault | ENOMEM | hole, over hole, from hole
mlock2 onfault | ok | whole, head, tail, middle, across
mmap fixed | EACCES | hole
mmap fixed | EEXIST | over hole
mmap fixed | EINVAL | hole, zero, unaligned
mmap fixed | EOPNOTSUPP | hole
mmap fixed | EOVERFLOW | hole
mmap fixed | ok | hole, whole, head, tail, middle, across, over hole, from hole
mmap hint | ok | hole, whole, middle, over hole, from hole
mmap noreplace | EEXIST | whole, head, tail, middle, across, over hole, from hole
mmap noreplace | EINVAL | zero
mmap noreplace | EOPNOTSUPP | hole
mmap noreplace | ok | hole
mprotect | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, unaligned
mprotect | ENOMEM | hole, over hole, from hole, outside
mprotect | ok | whole, head, tail, middle, across, zero
mremap dontunmap | EFAULT | hole, over hole, from hole
mremap dontunmap | EINVAL | hole, whole, head, tail, over hole, from hole, zero
mremap dontunmap | ok | whole, head, tail, middle
mremap fixed | EFAULT | hole, over hole, from hole
mremap fixed | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, zero, unaligned
mremap fixed | ok | whole, head, tail, middle, across, over hole
mremap in place | EFAULT | hole, over hole, from hole, zero
mremap in place | EINVAL | hole, whole, zero
mremap in place | ENOMEM | whole, head, middle
mremap in place | ok | whole, head, tail, middle, over hole
mremap maymove | EFAULT | hole, across, over hole, from hole, zero
mremap maymove | EINVAL | hole, whole, head, tail, middle, zero, unaligned
mremap maymove | ok | whole, head, tail, middle, across, over hole
munlock | ENOMEM | hole, over hole, from hole
munlock | ok | whole, head, tail, middle, across
munmap | EINVAL | zero, unaligned, outside
munmap | ok | hole, whole, head, tail, middle, across, over hole, from hole
open | ok | -
pread | ok | -
process_madvise populate_read | ENOMEM | hole
process_madvise populate_read | ok | whole
process_madvise populate_write | ENOMEM | hole
pwrite | EBADF | -
pwrite | ok | -
read | SIGBUS | whole, head, tail, middle, across, over hole, unaligned
read | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
read | ok | hole, whole, head, tail, middle, across, over hole, zero, unaligned
write | SIGBUS | whole, head, tail, middle, across, over hole, unaligned
write | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
write | ok | hole, whole, head, tail, middle, across, over hole, zero, unaligned
"""
