# SPDX-License-Identifier: GPL-2.0-or-later
"""userfaultfd constants (uapi linux/userfaultfd.h)."""

from __future__ import annotations

from typing import Final

UFFD_USER_MODE_ONLY: Final = 1
UFFD_API: Final = 0xAA

UFFD_FEATURE_EVENT_FORK: Final = 1 << 1
UFFD_FEATURE_EVENT_REMAP: Final = 1 << 2
UFFD_FEATURE_SIGBUS: Final = 1 << 7
UFFD_FEATURE_WP_HUGETLBFS_SHMEM: Final = 1 << 12
UFFD_FEATURE_WP_UNPOPULATED: Final = 1 << 13
UFFD_FEATURE_WP_ASYNC: Final = 1 << 15
UFFD_FEATURE_MOVE: Final = 1 << 16

UFFDIO_REGISTER_MODE_MISSING: Final = 1
UFFDIO_REGISTER_MODE_WP: Final = 2
UFFDIO_REGISTER_MODE_MINOR: Final = 4

# Bit numbers in the ioctls masks that API and REGISTER answer with.
UFFDIO_NR_REGISTER: Final = 0
UFFDIO_NR_UNREGISTER: Final = 1
UFFDIO_NR_WAKE: Final = 2
UFFDIO_NR_COPY: Final = 3
UFFDIO_NR_ZEROPAGE: Final = 4
UFFDIO_NR_MOVE: Final = 5
UFFDIO_NR_WRITEPROTECT: Final = 6
UFFDIO_NR_CONTINUE: Final = 7
UFFDIO_NR_POISON: Final = 8
UFFDIO_NR_API: Final = 0x3F
