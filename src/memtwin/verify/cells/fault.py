# SPDX-License-Identifier: GPL-2.0-or-later
"""Cells that 400 programs of fault reached often enough on Linux 6.18: operation | result | situations."""

from __future__ import annotations

__all__ = ["CELLS"]

CELLS = """\
brk | ok | -
exit | ok | -
fork | ok | -
fstat | ok | -
ftruncate | ok | -
madvise dontneed | ENOMEM | hole, over hole
madvise dontneed | ok | whole, head, tail, middle
madvise dontneed_locked | ENOMEM | hole
madvise free | ENOMEM | hole
madvise populate_read | ENOMEM | hole
madvise populate_read | ok | whole, head, middle
madvise populate_write | EINVAL | whole
madvise populate_write | ENOMEM | hole
madvise populate_write | ok | whole, middle
memfd | ok | -
mincore | ENOMEM | hole, over hole, from hole
mincore | ok | whole, head, tail, middle, across
mmap fixed | EINVAL | zero
mmap fixed | ok | hole, whole, head, tail, middle, across, over hole, from hole
mmap hint | ok | hole
mmap noreplace | EEXIST | over hole
mmap noreplace | ok | hole
mprotect | ENOMEM | hole, over hole, from hole, outside
mprotect | ok | whole, head, tail, middle, across, zero
mremap dontunmap | EFAULT | hole
mremap fixed | EFAULT | hole
mremap fixed | ok | whole
mremap maymove | EFAULT | hole
mremap maymove | ok | whole
munlock | ENOMEM | hole
munmap | ok | hole, whole, head, tail, middle, across, over hole, from hole
open | ok | -
pread | ok | -
pwrite | ok | -
read | SIGBUS | whole, tail, middle, over hole
read | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned
read | ok | whole, head, tail, middle, across, unaligned
write | SIGBUS | tail, middle, over hole
write | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned
write | ok | hole, whole, head, tail, middle, across, unaligned
"""
