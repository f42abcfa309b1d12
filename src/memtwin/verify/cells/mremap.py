# SPDX-License-Identifier: GPL-2.0-or-later
"""Cells that 5,000 programs of mremap reached often enough on Linux 6.18: operation | result | situations."""

from __future__ import annotations

__all__ = ["CELLS"]

CELLS = """\
brk | ok | -
dropcap | ok | -
fork | ok | -
ftruncate | ok | -
get_mempolicy | ok | -
getrlimit | ok | -
madvise dodump | ENOMEM | hole, over hole, from hole
madvise dodump | ok | whole, head, tail, middle
madvise dofork | ENOMEM | hole, over hole, from hole
madvise dofork | ok | whole, head, tail, middle
madvise dontdump | ENOMEM | hole, over hole, from hole
madvise dontdump | ok | whole, head, tail, middle
madvise dontfork | ENOMEM | hole, over hole, from hole
madvise dontfork | ok | whole, head, tail, middle
madvise hugepage | ENOMEM | hole
madvise hugepage | ok | whole, head
madvise keeponfork | ENOMEM | hole, from hole
madvise keeponfork | ok | whole, head, middle
madvise mergeable | ENOMEM | hole
madvise mergeable | ok | whole
madvise nohugepage | ENOMEM | hole
madvise nohugepage | ok | whole
madvise normal | ENOMEM | hole, over hole, from hole
madvise normal | ok | whole, head, tail, middle, across
madvise random | ENOMEM | hole, over hole, from hole
madvise random | ok | whole, head, tail, middle
madvise sequential | ENOMEM | hole, over hole, from hole
madvise sequential | ok | whole, head, tail, middle
madvise unmergeable | ENOMEM | hole
madvise unmergeable | ok | whole
madvise wipeonfork | ENOMEM | hole, over hole
madvise wipeonfork | ok | whole, head
map_room | ok | -
mbind | EFAULT | hole, over hole, from hole
mbind | EINVAL | hole, whole
mbind | ok | whole, head, tail, middle, across, over hole
memfd | ok | -
mlock | ENOMEM | hole, whole, head, tail, middle, across, over hole, from hole
mlock | ok | whole, head, tail, middle, across
mlock2 0 | ENOMEM | hole, over hole, from hole
mlock2 0 | ok | whole, head, middle
mlock2 2 | EINVAL | hole
mlock2 onfault | ENOMEM | hole, over hole, from hole
mlock2 onfault | ok | whole, head, tail, middle, across
mmap anywhere | ENOMEM | -
mmap anywhere | ok | -
mmap fixed | EACCES | hole
mmap fixed | EEXIST | head, over hole
mmap fixed | EINVAL | hole, zero, unaligned
mmap fixed | ENOMEM | hole, across, over hole, from hole
mmap fixed | EOPNOTSUPP | hole
mmap fixed | EOVERFLOW | hole
mmap fixed | ok | hole, whole, head, tail, middle, across, over hole, from hole
mmap hint | ENOMEM | hole, over hole
mmap hint | ok | hole, head, middle, across, over hole, from hole, unaligned, outside
mmap noreplace | EEXIST | whole, head, tail, middle, across, over hole, from hole
mmap noreplace | EINVAL | zero, unaligned
mmap noreplace | ENOMEM | hole
mmap noreplace | ok | hole
mprotect | EINVAL | hole, whole, head, tail, over hole, unaligned
mprotect | ENOMEM | hole, over hole, from hole, outside
mprotect | ok | whole, head, tail, middle, across, zero
mremap dontunmap | EFAULT | hole, across, over hole, from hole, outside
mremap dontunmap | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, zero, unaligned, outside
mremap dontunmap | ENOMEM | whole
mremap dontunmap | ok | whole, head, tail, middle, across, over hole
mremap fixed | EFAULT | hole, across, over hole, from hole, zero, outside
mremap fixed | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, zero, unaligned, outside
mremap fixed | ENOMEM | hole, whole, head, tail, middle, over hole
mremap fixed | ok | whole, head, tail, middle, across, over hole, zero
mremap in place | EFAULT | hole, across, over hole, from hole, zero, outside
mremap in place | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, zero, unaligned, outside
mremap in place | ENOMEM | whole, head, tail, middle, zero
mremap in place | ok | whole, head, tail, middle, across, over hole
mremap maymove | EFAULT | hole, across, over hole, from hole, zero, outside
mremap maymove | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, zero, unaligned, outside
mremap maymove | ENOMEM | whole, head, middle
mremap maymove | ok | whole, head, tail, middle, across, over hole, zero
munlock | ENOMEM | hole, over hole, from hole, unaligned
munlock | ok | whole, head, tail, middle, across
munmap | EINVAL | zero, unaligned, outside
munmap | ok | hole, whole, head, tail, middle, across, over hole, from hole
open | ok | -
read | SIGBUS | whole
read | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
read | ok | whole, head, tail, middle, across, zero, unaligned
set_mempolicy | ok | -
setrlimit as | ok | -
setrlimit data | ok | -
setrlimit memlock | EINVAL | -
setrlimit memlock | ok | -
uffd_api | ok | -
uffd_register | EINVAL | hole
uffd_register | ok | whole, head, middle
userfaultfd | ok | -
write | SIGBUS | whole, over hole
write | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
write | ok | whole, head, tail, middle, across, zero, unaligned
"""
