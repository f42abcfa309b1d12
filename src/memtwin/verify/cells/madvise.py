# SPDX-License-Identifier: GPL-2.0-or-later
"""Cells that 5,000 programs of madvise reached often enough on Linux 6.18: operation | result | situations."""

from __future__ import annotations

__all__ = ["CELLS"]

CELLS = """\
exit | ok | -
fork | ok | -
fstat | EBADF | -
fstat | ok | -
ftruncate | EINVAL | -
ftruncate | ok | -
madvise cold | EINVAL | whole, head, tail, across, over hole, from hole, unaligned, outside
madvise cold | ENOMEM | hole, over hole, from hole
madvise cold | ok | whole, head, tail, middle, across, zero
madvise dodump | ENOMEM | hole, over hole, from hole
madvise dodump | ok | whole, head, tail, middle, across
madvise dofork | ENOMEM | hole, over hole, from hole
madvise dofork | ok | whole, head, tail, middle, across
madvise dontdump | ENOMEM | hole, over hole, from hole
madvise dontdump | ok | whole, head, tail, middle, across
madvise dontfork | ENOMEM | hole, over hole, from hole
madvise dontfork | ok | whole, head, tail, middle, across
madvise dontneed | EINVAL | whole, head, tail, middle, across, over hole, from hole, unaligned, outside
madvise dontneed | ENOMEM | hole, over hole, from hole, outside
madvise dontneed | ok | whole, head, tail, middle, across, zero
madvise dontneed_locked | EINVAL | unaligned
madvise dontneed_locked | ENOMEM | hole, over hole, from hole
madvise dontneed_locked | ok | whole, head, tail, middle, across, zero
madvise free | EINVAL | whole, head, tail, middle, across, over hole, from hole, unaligned, outside
madvise free | ENOMEM | hole, over hole, from hole
madvise free | ok | whole, head, tail, middle, across, zero
madvise guard_install | EINVAL | whole, head, tail, middle, across, over hole, from hole, unaligned, outside
madvise guard_install | ENOMEM | hole, over hole, from hole, outside
madvise guard_install | ok | whole, head, tail, middle, across, zero
madvise guard_remove | EINVAL | unaligned, outside
madvise guard_remove | ENOMEM | hole, over hole, from hole, outside
madvise guard_remove | ok | whole, head, tail, middle, across, zero
madvise hugepage | ENOMEM | hole, over hole
madvise hugepage | ok | whole, head, tail, middle, across
madvise keeponfork | ENOMEM | hole, over hole, from hole
madvise keeponfork | ok | whole, head, tail, middle
madvise mergeable | ENOMEM | hole, over hole
madvise mergeable | ok | whole, head, tail, middle, across
madvise nohugepage | ENOMEM | hole, over hole
madvise nohugepage | ok | whole, head, tail, middle
madvise normal | ENOMEM | hole, over hole, from hole
madvise normal | ok | whole, head, tail, middle, across
madvise pageout | EINVAL | whole, head, tail, middle, across, over hole, from hole, unaligned, outside
madvise pageout | ENOMEM | hole, over hole, from hole
madvise pageout | ok | whole, head, tail, middle, across, zero
madvise populate_read | EFAULT | whole, head, tail, middle, across, over hole
madvise populate_read | EINVAL | whole, head, tail, middle, across, over hole, unaligned, outside
madvise populate_read | ENOMEM | hole, over hole, from hole
madvise populate_read | ok | whole, head, tail, middle, across, zero
madvise populate_write | EFAULT | whole, head, tail, middle, across, over hole
madvise populate_write | EINVAL | whole, head, tail, middle, across, over hole, unaligned
madvise populate_write | ENOMEM | hole, over hole, from hole
madvise populate_write | ok | whole, head, tail, middle, across, zero
madvise random | ENOMEM | hole, over hole, from hole
madvise random | ok | whole, head, tail, middle, across
madvise remove | EACCES | whole, across, from hole
madvise remove | EINVAL | whole, head, tail, middle, across, over hole, from hole, unaligned, outside
madvise remove | ENOMEM | hole, over hole
madvise remove | ok | whole, head, tail, middle, zero
madvise sequential | ENOMEM | hole, over hole, from hole
madvise sequential | ok | whole, head, tail, middle, across
madvise unknown | EINVAL | hole, whole
madvise unmergeable | ENOMEM | hole, over hole
madvise unmergeable | ok | whole, head, tail, middle, across
madvise willneed | ENOMEM | hole, over hole, from hole
madvise willneed | ok | whole, head, tail, middle, across
madvise wipeonfork | EINVAL | whole
madvise wipeonfork | ENOMEM | hole, over hole, from hole
madvise wipeonfork | ok | whole, head, tail, middle
memfd | ok | -
mincore | EINVAL | unaligned
mincore | ENOMEM | hole, over hole, from hole, outside
mincore | ok | whole, head, tail, middle, across, zero
mlock | ENOMEM | hole, whole, head, tail, middle, across, over hole, from hole
mlock | ok | whole, head, tail, middle, across, zero
mlock2 onfault | ENOMEM | hole, over hole, from hole
mlock2 onfault | ok | whole, head, tail, middle, across
mmap fixed | EACCES | hole, over hole, from hole
mmap fixed | EBADF | hole
mmap fixed | EINVAL | hole, zero, unaligned
mmap fixed | EOPNOTSUPP | hole
mmap fixed | EOVERFLOW | hole
mmap fixed | EPERM | head, across, over hole, from hole
mmap fixed | ok | hole, whole, head, tail, middle, across, over hole, from hole
mmap noreplace | EEXIST | whole, head, tail, middle, across, over hole, from hole
mmap noreplace | EINVAL | zero, unaligned
mmap noreplace | ok | hole
mprotect | EINVAL | hole, whole, head, tail, middle, over hole, unaligned
mprotect | ENOMEM | hole, over hole, from hole, outside
mprotect | EPERM | whole, across, over hole
mprotect | ok | whole, head, tail, middle, across, zero
mremap dontunmap | EFAULT | hole
mremap dontunmap | EINVAL | hole, whole, over hole, from hole, zero
mremap dontunmap | ok | whole, head, tail, middle
mremap fixed | EFAULT | hole, from hole
mremap fixed | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, zero
mremap fixed | ok | whole, head, tail, middle, over hole
mremap in place | EFAULT | hole, over hole, from hole
mremap in place | EINVAL | hole, whole
mremap in place | ENOMEM | whole, head
mremap in place | ok | whole, head, tail, over hole
mremap maymove | EFAULT | hole, across, over hole, from hole
mremap maymove | EINVAL | hole, whole, middle, zero
mremap maymove | ok | whole, head, tail, middle, across, over hole
mseal | ENOMEM | hole, over hole, from hole
mseal | ok | whole, head, tail, middle, across
munlock | ENOMEM | hole, over hole, from hole
munlock | ok | whole, across
munmap | EINVAL | zero, unaligned, outside
munmap | EPERM | whole
munmap | ok | hole, whole, head, tail, middle, across, over hole, from hole
open | ok | -
pread | ok | -
process_madvise cold | ENOMEM | hole
process_madvise cold | ok | whole
process_madvise dontneed | ENOMEM | hole, over hole
process_madvise dontneed | ok | whole, head, tail, middle, across
process_madvise dontneed_locked | ENOMEM | hole
process_madvise dontneed_locked | ok | whole
process_madvise free | ENOMEM | hole
process_madvise free | ok | whole
process_madvise guard_install | ENOMEM | hole
process_madvise guard_install | ok | whole, head, tail
process_madvise guard_remove | ENOMEM | hole
process_madvise guard_remove | ok | whole
process_madvise normal | ENOMEM | hole
process_madvise pageout | ENOMEM | hole, over hole
process_madvise pageout | ok | whole
process_madvise populate_read | ENOMEM | hole
process_madvise populate_write | ENOMEM | hole
process_madvise remove | EINVAL | whole
process_madvise remove | ENOMEM | hole
process_madvise willneed | ENOMEM | hole
process_madvise willneed | ok | whole
pwrite | EBADF | -
pwrite | ok | -
read | SIGBUS | whole, tail, across, over hole, unaligned
read | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
read | ok | whole, head, tail, middle, across, over hole, zero, unaligned
write | SIGBUS | whole, across, over hole, unaligned
write | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
write | ok | whole, head, tail, middle, across, over hole, zero, unaligned
"""
