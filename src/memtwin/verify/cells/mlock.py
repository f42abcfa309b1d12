# SPDX-License-Identifier: GPL-2.0-or-later
"""Cells that 5,000 programs of mlock reached often enough on Linux 6.18: operation | result | situations."""

from __future__ import annotations

__all__ = ["CELLS"]

CELLS = """\
brk | ok | -
dropcap | ok | -
fork | ok | -
ftruncate | ok | -
getrlimit | ok | -
madvise dodump | ENOMEM | hole, over hole, from hole
madvise dodump | ok | whole, head, across
madvise dofork | ENOMEM | hole, over hole, from hole
madvise dofork | ok | whole, tail, across
madvise dontdump | ENOMEM | hole, over hole, from hole
madvise dontdump | ok | whole, head, tail, middle, across
madvise dontfork | ENOMEM | hole, over hole, from hole
madvise dontfork | ok | whole, head, tail, middle, across
madvise dontneed | EINVAL | whole, head, tail, middle, across, over hole, from hole, unaligned
madvise dontneed | ENOMEM | hole, over hole, from hole
madvise dontneed | ok | whole, head, tail, middle, across, zero
madvise dontneed_locked | ENOMEM | hole, over hole, from hole
madvise dontneed_locked | ok | whole, head, tail, middle, across
madvise free | ENOMEM | hole
madvise hugepage | ENOMEM | hole
madvise hugepage | ok | whole
madvise keeponfork | ENOMEM | hole, over hole, from hole
madvise keeponfork | ok | whole, head, tail, across
madvise mergeable | ENOMEM | hole, over hole
madvise mergeable | ok | whole, head, tail, middle
madvise nohugepage | ENOMEM | hole
madvise nohugepage | ok | whole
madvise normal | ENOMEM | hole, over hole, from hole
madvise normal | ok | whole, head, tail, across
madvise random | ENOMEM | hole, over hole, from hole
madvise random | ok | whole, head, tail, middle, across
madvise sequential | ENOMEM | hole, over hole
madvise sequential | ok | whole, across
madvise unmergeable | ENOMEM | hole, over hole
madvise unmergeable | ok | whole
madvise wipeonfork | ENOMEM | hole, over hole, from hole
madvise wipeonfork | ok | whole, head, tail, middle, across
map_room | ok | -
mbind | EFAULT | hole, over hole
mbind | ok | whole, head, tail, middle, across, over hole
memfd | ok | -
mlock | EINVAL | outside
mlock | ENOMEM | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
mlock | EPERM | hole, whole, head, tail, middle, over hole, from hole
mlock | ok | whole, head, tail, middle, across, zero, unaligned, outside
mlock2 0 | ENOMEM | hole, whole, head, tail, middle, across, over hole, from hole, unaligned
mlock2 0 | EPERM | hole
mlock2 0 | ok | whole, head, tail, middle, across
mlock2 2 | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole
mlock2 onfault | ENOMEM | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
mlock2 onfault | EPERM | hole, whole, middle, over hole
mlock2 onfault | ok | whole, head, tail, middle, across, zero, unaligned
mlockall 0 | EINVAL | -
mlockall 8 | EINVAL | -
mlockall current | ENOMEM | -
mlockall current | EPERM | -
mlockall current | ok | -
mlockall current|future | ENOMEM | -
mlockall current|future | EPERM | -
mlockall current|future | ok | -
mlockall current|future|onfault | ENOMEM | -
mlockall current|future|onfault | ok | -
mlockall current|onfault | ENOMEM | -
mlockall current|onfault | ok | -
mlockall future | EPERM | -
mlockall future | ok | -
mlockall future|onfault | EPERM | -
mlockall future|onfault | ok | -
mlockall onfault | EINVAL | -
mmap anywhere | EAGAIN | -
mmap anywhere | ENOMEM | -
mmap anywhere | ok | -
mmap fixed | EAGAIN | hole, whole, head, tail, middle, across, over hole, from hole
mmap fixed | EEXIST | over hole, from hole
mmap fixed | EINVAL | hole, zero, unaligned
mmap fixed | ENOMEM | hole, whole, head, tail, middle, across, over hole, from hole
mmap fixed | EPERM | hole, over hole
mmap fixed | ok | hole, whole, head, tail, middle, across, over hole, from hole
mmap hint | EAGAIN | hole
mmap hint | ENOMEM | hole, over hole, unaligned
mmap hint | ok | hole, whole, head, across, over hole, from hole, unaligned, outside
mmap noreplace | EAGAIN | hole
mmap noreplace | EEXIST | whole, head, tail, middle, across, over hole, from hole
mmap noreplace | EINVAL | zero, unaligned
mmap noreplace | ENOMEM | hole
mmap noreplace | ok | hole
mprotect | EINVAL | hole, whole, head, across, over hole, from hole, unaligned
mprotect | ENOMEM | hole, whole, over hole, from hole, outside
mprotect | ok | whole, head, tail, middle, across, zero
mremap dontunmap | EFAULT | hole, over hole, from hole
mremap dontunmap | EINVAL | hole, whole, tail, across, over hole, from hole, zero, unaligned
mremap dontunmap | ok | whole, head, tail, middle, across
mremap fixed | EFAULT | hole, across, over hole, from hole
mremap fixed | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, zero, unaligned
mremap fixed | ok | whole, head, tail, middle, across, over hole
mremap in place | EFAULT | hole, across, over hole, from hole
mremap in place | EINVAL | hole, whole, zero
mremap in place | ENOMEM | whole, head, middle
mremap in place | ok | whole, head, tail, middle, across, over hole
mremap maymove | EFAULT | hole, across, over hole, from hole, zero
mremap maymove | EINVAL | hole, whole, head, tail, middle, zero, unaligned
mremap maymove | ok | whole, head, tail, middle, across, over hole
munlock | EINVAL | outside
munlock | ENOMEM | hole, over hole, from hole, unaligned, outside
munlock | ok | whole, head, tail, middle, across, zero, unaligned, outside
munlockall | ok | -
munmap | EINVAL | zero, unaligned, outside
munmap | ok | hole, whole, head, tail, middle, across, over hole, from hole
open | ok | -
read | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole
read | ok | whole, head, tail, middle, across, zero
setrlimit 99 | EINVAL | -
setrlimit as | EINVAL | -
setrlimit as | ok | -
setrlimit data | ok | -
setrlimit memlock | EINVAL | -
setrlimit memlock | ok | -
write | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
write | ok | whole, head, tail, middle, across, zero, unaligned
"""
