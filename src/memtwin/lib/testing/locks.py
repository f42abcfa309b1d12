# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks for the tree tests, and the check that a spinlock is not slept under (Linux: tools/testing/radix-tree,
tools/include).

The change ``test-maple-rwsem``: fork's preallocation may sleep now, so the tests that imitate fork can not hold the
tree's spinlock over it any more. They register an external read-write semaphore (a shim over a pthread rwlock in the
kernel's userspace tests) and hold that.
"""

from __future__ import annotations

from memtwin.errors import InvariantBroken
from memtwin.lib.gfp_types import gfp_names, gfpflags_allow_blocking
from memtwin.lib.maple_tree import NodeAllocator

__all__ = ["CheckedAllocator", "LockChecker", "RwsemShim", "SpinLockShim"]


class LockChecker:
    """Knows the spinlocks that are held; ``violations`` holds one line for each allocation that might have slept under
    one.
    """

    __slots__ = ("spinlocks", "violations")

    def __init__(self) -> None:
        self.spinlocks: list[str] = []
        self.violations: list[str] = []

    def might_sleep(self, gfp: int) -> None:
        """Called by the allocator before it allocates with ``gfp``."""
        if self.spinlocks and gfpflags_allow_blocking(gfp):
            self.violations.append(f"sleeping allocation ({gfp_names(gfp)}) with {self.spinlocks[-1]} held")


class CheckedAllocator:
    """A node allocator that asks a checker before every request."""

    __slots__ = ("_allocator", "_checker")

    def __init__(self, allocator: NodeAllocator, checker: LockChecker) -> None:
        self._allocator = allocator
        self._checker = checker

    def alloc(self, gfp: int) -> int:
        """As the allocator below."""
        self._checker.might_sleep(gfp)
        return self._allocator.alloc(gfp)

    def at_hand(self, n: int) -> bool:
        """As the allocator below."""
        return self._allocator.at_hand(n)

    def alloc_bulk(self, gfp: int, n: int) -> list[int]:
        """As the allocator below."""
        self._checker.might_sleep(gfp)
        return self._allocator.alloc_bulk(gfp, n)

    def free(self, addr: int) -> None:
        """As the allocator below."""
        self._allocator.free(addr)

    def free_bulk(self, addrs: list[int]) -> None:
        """As the allocator below."""
        self._allocator.free_bulk(addrs)


class SpinLockShim:
    """The tree's own spinlock, for one thread of tests."""

    __slots__ = ("_checker", "_held", "_name", "taken")

    def __init__(self, checker: LockChecker, name: str = "ma_lock") -> None:
        self._checker = checker
        self._name = name
        self._held = False
        self.taken = 0  #: times it was taken

    def lock(self) -> None:
        """Take it; taking it twice would spin forever (InvariantBroken)."""
        if self._held:
            raise InvariantBroken(f"{self._name} taken twice")
        self._held = True
        self.taken += 1
        self._checker.spinlocks.append(self._name)

    def unlock(self) -> None:
        """Release it."""
        self.assert_held()
        self._held = False
        self._checker.spinlocks.remove(self._name)

    def assert_held(self) -> None:
        """InvariantBroken unless it is held."""
        if not self._held:
            raise InvariantBroken(f"suspicious RCU usage: {self._name} is not held")


class RwsemShim:
    """A read-write semaphore with the shim's functions: the constructor is its init; sleeping under it is allowed."""

    __slots__ = ("_name", "readers", "writer")

    def __init__(self, name: str = "external lock") -> None:
        self._name = name
        self.readers = 0
        self.writer = False

    def down_read(self) -> None:
        """Take it for reading; InvariantBroken where a single thread would wait for itself."""
        if self.writer:
            raise InvariantBroken(f"{self._name}: down_read waits for its own writer")
        self.readers += 1

    def up_read(self) -> None:
        """Release it."""
        if not self.readers:
            raise InvariantBroken(f"{self._name}: up_read without down_read")
        self.readers -= 1

    def down_write(self) -> None:
        """Take it for writing; InvariantBroken where a single thread would wait for itself."""
        if self.writer or self.readers:
            raise InvariantBroken(f"{self._name}: down_write waits for itself")
        self.writer = True

    def up_write(self) -> None:
        """Release it."""
        if not self.writer:
            raise InvariantBroken(f"{self._name}: up_write without down_write")
        self.writer = False

    def assert_held(self) -> None:
        """InvariantBroken unless it is held, for reading or writing: that is all lockdep asks."""
        if not (self.writer or self.readers):
            raise InvariantBroken(f"suspicious RCU usage: {self._name} is not held")

    def exit(self) -> None:
        """Destroy it; InvariantBroken when it is still held."""
        if self.writer or self.readers:
            raise InvariantBroken(f"{self._name}: destroyed while held")
