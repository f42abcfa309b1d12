# SPDX-License-Identifier: GPL-2.0-or-later
"""Changing several areas in one call, where the first merge swallows areas that are still to come."""

from __future__ import annotations

import pytest

from memtwin import Machine
from memtwin.abi.mempolicy import MPOL_BIND
from memtwin.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE
from memtwin.abi.userfaultfd import UFFDIO_REGISTER_MODE_WP

BASE = 0x10000000
PART = 4 * 4096
PARTS = 5


@pytest.fixture
def process():
    with Machine(memory="64M", nodes=2) as machine:
        process = machine.spawn()
        process.mmap(BASE, PARTS * PART, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
        yield process
        machine.check()
        process.exit()
        machine.kernel.check_no_leak()


def parts(process) -> list[int]:
    """Lengths of the areas, in parts."""
    return [(vma.end - vma.start) // PART for vma in process.vmas() if vma.start < BASE + PARTS * PART]


#   AABBAABBAA -> AAAAAAAAAA: changing the first B makes one area of A, B and the A behind it, which comes next


def test_mbind(process) -> None:
    for part in (0, 2, 4):
        process.mbind(BASE + part * PART, PART, MPOL_BIND, 1)
    assert parts(process) == [1] * PARTS
    process.mbind(BASE, PARTS * PART, MPOL_BIND, 1)
    assert parts(process) == [PARTS]


def test_userfaultfd_unregister(process) -> None:
    fd = process.userfaultfd()
    process.uffd_api(fd, 0)
    for part in (1, 3):
        process.uffd_register(fd, BASE + part * PART, PART, UFFDIO_REGISTER_MODE_WP)
    assert parts(process) == [1] * PARTS
    process.uffd_unregister(fd, BASE, PARTS * PART)
    assert parts(process) == [PARTS]


def test_userfaultfd_register(process) -> None:
    fd = process.userfaultfd()
    process.uffd_api(fd, 0)
    for part in (0, 2, 4):
        process.uffd_register(fd, BASE + part * PART, PART, UFFDIO_REGISTER_MODE_WP)
    assert parts(process) == [1] * PARTS
    process.uffd_register(fd, BASE, PARTS * PART, UFFDIO_REGISTER_MODE_WP)
    assert parts(process) == [PARTS]
