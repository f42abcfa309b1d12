# SPDX-License-Identifier: GPL-2.0-or-later
"""Cells that 20,000 programs of vma reached often enough on Linux 6.18: operation | result | situations."""

from __future__ import annotations

__all__ = ["CELLS"]

CELLS = """\
brk | ok | -
close | ok | -
dropcap | ok | -
exit | ok | -
fork | ok | -
ftruncate | ok | -
get_mempolicy | ok | -
get_merge | ok | -
getrlimit | ok | -
madvise dodump | EINVAL | unaligned
madvise dodump | ENOMEM | hole, over hole, from hole, outside
madvise dodump | ok | whole, head, tail, middle, across, zero
madvise dofork | EINVAL | unaligned, outside
madvise dofork | ENOMEM | hole, over hole, from hole, outside
madvise dofork | ok | whole, head, tail, middle, across, zero
madvise dontdump | EINVAL | unaligned, outside
madvise dontdump | ENOMEM | hole, over hole, from hole, outside
madvise dontdump | ok | whole, head, tail, middle, across, zero
madvise dontfork | EINVAL | unaligned, outside
madvise dontfork | ENOMEM | hole, over hole, from hole, outside
madvise dontfork | ok | whole, head, tail, middle, across, zero
madvise dontneed | EINVAL | whole, across, over hole, unaligned
madvise dontneed | ENOMEM | hole, over hole, from hole
madvise dontneed | ok | whole, head, tail, middle, across, zero
madvise dontneed_locked | ENOMEM | hole, over hole, from hole
madvise dontneed_locked | ok | whole, head, tail, middle, across
madvise free | ENOMEM | hole, over hole, from hole
madvise free | ok | whole, head, tail, middle
madvise guard_install | ENOMEM | hole, over hole, from hole
madvise guard_install | ok | whole, head, tail, middle, across
madvise guard_remove | ENOMEM | hole, over hole
madvise guard_remove | ok | whole
madvise hugepage | EINVAL | unaligned
madvise hugepage | ENOMEM | hole, over hole, from hole
madvise hugepage | ok | whole, head, tail, middle, across
madvise keeponfork | EINVAL | unaligned, outside
madvise keeponfork | ENOMEM | hole, over hole, from hole
madvise keeponfork | ok | whole, head, tail, middle, across, zero
madvise mergeable | EINVAL | unaligned
madvise mergeable | ENOMEM | hole, over hole, from hole
madvise mergeable | ok | whole, head, tail, middle, across, zero
madvise nohugepage | ENOMEM | hole, over hole, from hole
madvise nohugepage | ok | whole, head, tail, middle, across, zero
madvise normal | EINVAL | unaligned, outside
madvise normal | ENOMEM | hole, over hole, from hole, outside
madvise normal | ok | whole, head, tail, middle, across, zero
madvise random | EINVAL | unaligned, outside
madvise random | ENOMEM | hole, over hole, from hole, outside
madvise random | ok | whole, head, tail, middle, across, zero
madvise sequential | EINVAL | unaligned, outside
madvise sequential | ENOMEM | hole, over hole, from hole
madvise sequential | ok | whole, head, tail, middle, across, zero
madvise unknown | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole
madvise unmergeable | EINVAL | unaligned
madvise unmergeable | ENOMEM | hole, over hole, from hole
madvise unmergeable | ok | whole, head, tail, middle, across, zero
madvise wipeonfork | EINVAL | whole, head, tail, middle, across, over hole, from hole, unaligned
madvise wipeonfork | ENOMEM | hole, over hole, from hole, outside
madvise wipeonfork | ok | whole, head, tail, middle, across, zero
map_room | ok | -
mbind | EFAULT | hole, over hole, from hole, outside
mbind | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
mbind | ok | whole, head, tail, middle, across, over hole, from hole, zero, outside
memfd | ok | -
merge | ok | -
mincore | ENOMEM | hole, over hole, from hole
mincore | ok | whole, head, tail, middle, across
mlock | EINVAL | outside
mlock | ENOMEM | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
mlock | ok | whole, head, tail, middle, across, zero, unaligned
mlock2 0 | ENOMEM | hole, whole, over hole, from hole
mlock2 0 | ok | whole, head, tail, middle, across
mlock2 2 | EINVAL | hole, whole
mlock2 onfault | ENOMEM | hole, over hole, from hole, outside
mlock2 onfault | ok | whole, head, tail, middle, across
mmap anywhere | ENOMEM | -
mmap anywhere | ok | -
mmap fixed | EACCES | hole, head, middle, across, over hole
mmap fixed | EBADF | hole, head, middle, across, over hole, from hole
mmap fixed | EEXIST | whole, head, tail, middle, across, over hole, from hole
mmap fixed | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, zero, unaligned
mmap fixed | ENOMEM | hole, whole, head, tail, middle, across, over hole, from hole, outside
mmap fixed | EOPNOTSUPP | hole, whole, across, over hole
mmap fixed | EOVERFLOW | hole, head, across, over hole
mmap fixed | ok | hole, whole, head, tail, middle, across, over hole, from hole
mmap hint | EBADF | hole, head, middle, across, over hole, from hole
mmap hint | ENOMEM | hole, over hole, from hole, unaligned, outside
mmap hint | ok | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
mmap noreplace | EEXIST | whole, head, tail, middle, across, over hole, from hole
mmap noreplace | EINVAL | hole, zero, unaligned
mmap noreplace | ENOMEM | hole
mmap noreplace | EOPNOTSUPP | hole
mmap noreplace | ok | hole
mprotect | EACCES | whole
mprotect | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, unaligned
mprotect | ENOMEM | hole, whole, head, tail, middle, across, over hole, from hole, outside
mprotect | ok | whole, head, tail, middle, across, zero
mremap dontunmap | EFAULT | hole, across, over hole, from hole
mremap dontunmap | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, zero, unaligned, outside
mremap dontunmap | ok | whole, head, tail, middle, across, over hole
mremap fixed | EFAULT | hole, across, over hole, from hole, zero, outside
mremap fixed | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, zero, unaligned, outside
mremap fixed | ok | whole, head, tail, middle, across, over hole
mremap in place | EFAULT | hole, across, over hole, from hole, zero
mremap in place | EINVAL | hole, whole, head, tail, middle, across, zero, unaligned
mremap in place | ENOMEM | whole, head, tail, middle
mremap in place | ok | whole, head, tail, middle, across, over hole
mremap maymove | EFAULT | hole, across, over hole, from hole, zero, outside
mremap maymove | EINVAL | hole, whole, head, tail, middle, across, over hole, zero, unaligned, outside
mremap maymove | ok | whole, head, tail, middle, across, over hole
mseal | ENOMEM | hole, over hole, from hole
mseal | ok | whole, head, tail, middle, across
msync | EINVAL | hole, whole, head, tail, middle, across, over hole, from hole, unaligned
msync | ENOMEM | hole, over hole, from hole, outside
msync | ok | whole, head, tail, middle, across, zero
munlock | EINVAL | outside
munlock | ENOMEM | hole, over hole, from hole, unaligned, outside
munlock | ok | whole, head, tail, middle, across, zero, unaligned
munmap | EINVAL | zero, unaligned, outside
munmap | ENOMEM | middle
munmap | ok | hole, whole, head, tail, middle, across, over hole, from hole
open | ok | -
process_madvise dodump | ENOMEM | hole
process_madvise dodump | ok | whole
process_madvise dofork | ENOMEM | hole, over hole
process_madvise dofork | ok | whole, tail
process_madvise dontdump | ENOMEM | hole
process_madvise dontdump | ok | whole
process_madvise dontfork | ENOMEM | hole
process_madvise dontfork | ok | whole
process_madvise hugepage | ENOMEM | hole
process_madvise keeponfork | ENOMEM | hole
process_madvise keeponfork | ok | whole
process_madvise nohugepage | ENOMEM | hole
process_madvise normal | ENOMEM | hole, over hole
process_madvise normal | ok | whole, head, tail, middle
process_madvise random | ENOMEM | hole, over hole, from hole
process_madvise random | ok | whole, middle
process_madvise sequential | ENOMEM | hole
process_madvise sequential | ok | whole
process_madvise unmergeable | ENOMEM | hole
process_madvise wipeonfork | ENOMEM | hole
process_madvise wipeonfork | ok | whole
read | SIGBUS | whole, tail, across, over hole
read | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
read | ok | whole, head, tail, middle, across, zero, unaligned
set_mempolicy | ok | -
setrlimit 99 | EINVAL | -
setrlimit as | EINVAL | -
setrlimit as | ok | -
setrlimit data | ok | -
setrlimit memlock | EINVAL | -
setrlimit memlock | ok | -
sysctl legacy_va_layout | ok | -
sysctl max_map_count | ok | -
sysctl mmap_min_addr | ok | -
sysctl overcommit_kbytes | ok | -
sysctl overcommit_memory | EINVAL | -
sysctl overcommit_memory | ok | -
thp_disable | ok | -
uffd_api | EINVAL | -
uffd_api | ok | -
uffd_register | EINVAL | hole, whole
uffd_register | ok | whole, head, tail, middle, across, over hole, from hole
uffd_unregister | EINVAL | hole
uffd_unregister | ok | whole, head, tail, middle, across, over hole, from hole
userfaultfd | ok | -
write | SIGBUS | whole, tail, across, over hole
write | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned, outside
write | ok | hole, whole, head, tail, middle, across, zero, unaligned
"""
