# SPDX-License-Identifier: GPL-2.0-or-later
"""Cells that 400 programs of madvise reached often enough on Linux 6.18: operation | result | situations."""

from __future__ import annotations

__all__ = ["CELLS"]

CELLS = """\
exit | ok | -
fork | ok | -
fstat | ok | -
ftruncate | ok | -
madvise cold | ENOMEM | hole, over hole
madvise cold | ok | whole, head, middle
madvise dontdump | ENOMEM | hole
madvise dontfork | ENOMEM | hole
madvise dontneed | ENOMEM | hole, over hole, from hole
madvise dontneed | ok | whole, head, tail, middle, across
madvise dontneed_locked | ENOMEM | hole
madvise dontneed_locked | ok | whole
madvise free | EINVAL | whole, over hole
madvise free | ENOMEM | hole, over hole, from hole
madvise free | ok | whole, head, tail, middle, across
madvise guard_install | ENOMEM | hole, over hole, from hole
madvise guard_install | ok | whole, head, tail, middle, across
madvise guard_remove | ENOMEM | hole, over hole, from hole
madvise guard_remove | ok | whole, head, tail, middle
madvise normal | ENOMEM | hole
madvise normal | ok | whole
madvise pageout | ENOMEM | hole, over hole, from hole
madvise pageout | ok | whole, head, tail, middle, across
madvise populate_read | ENOMEM | hole
madvise populate_write | EINVAL | whole
madvise populate_write | ENOMEM | hole, from hole
madvise populate_write | ok | whole, middle
madvise random | ENOMEM | hole
madvise random | ok | whole
madvise remove | EACCES | across
madvise remove | EINVAL | whole
madvise remove | ENOMEM | hole
madvise willneed | ENOMEM | hole
madvise willneed | ok | whole
memfd | ok | -
mincore | ENOMEM | hole, over hole
mincore | ok | whole, head, tail, middle, across
mlock | ENOMEM | hole
mlock | ok | whole
mmap fixed | ok | hole, whole, head, tail, middle, across, over hole, from hole
mmap noreplace | EEXIST | over hole
mmap noreplace | ok | hole
mprotect | ENOMEM | hole, over hole, from hole
mprotect | ok | whole, head, tail, middle, across
mremap maymove | EFAULT | hole
mseal | ENOMEM | hole
munlock | ENOMEM | hole
munlock | ok | whole
munmap | ok | hole, whole, head, tail, middle, across, over hole, from hole
open | ok | -
pwrite | ok | -
read | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned
read | ok | whole, head, tail, middle, across, unaligned
write | SIGSEGV | hole, whole, head, tail, middle, across, over hole, from hole, unaligned
write | ok | whole, head, tail, middle, unaligned
"""
