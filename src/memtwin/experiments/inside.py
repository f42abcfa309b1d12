# SPDX-License-Identifier: GPL-2.0-or-later
"""What experiments do inside the kernel: look at an entry, and run code as a process that has its ``mmap_lock``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from memtwin.hw.paging import PFN_MASK
from memtwin.process import Process

__all__ = ["entry_index", "frame_of", "with_mmap_lock"]

R = TypeVar("R")


def entry_index(process: Process, addr: int) -> int:
    """Index in ``ram.q`` of the last-level entry for ``addr``. Raises KeyError where no table is."""
    return process.mm.pte_tables[addr >> 21] + (addr >> 12 & 511)


def frame_of(process: Process, addr: int) -> int:
    """The frame that this entry maps."""
    return (process.kernel.ram.q[entry_index(process, addr)] & PFN_MASK) >> 12


def with_mmap_lock(process: Process, function: Callable[[], R]) -> R:
    """``function()`` as kernel code of the process that holds its ``mmap_lock`` for reading."""
    lock = process.mm.mmap_lock

    def call() -> R:
        lock.down_read()
        try:
            return function()
        finally:
            lock.up_read()

    return process.kernel.sched.run_as(process.task, call)
