# SPDX-License-Identifier: GPL-2.0-or-later
"""The userspace slab shim of the tree tests (Linux: tools/testing/radix-tree/linux.c).

One shim serves the tests of the maple tree and of the XArray. It counts what it hands out, can be told to fail, and
counts the bytes its requests would have asked malloc for, where the change ``radix-test-bulk-size`` shows: its bulk
allocation used to ask for ``object_size * size`` bytes for each of ``size`` objects, now for ``object_size``.

Invariant: after a test has destroyed its tree and one RCU barrier, ``allocated`` is 0; ``check_leaks`` says so.
"""

from __future__ import annotations

from memtwin.errors import InvariantBroken
from memtwin.lib.gfp_types import gfpflags_allow_blocking

__all__ = ["SlabShim", "bulk_request_bytes"]


class SlabShim:
    """A cache of objects of ``object_size`` bytes at addresses that are multiples of ``align``.

    ``non_kernel``: how many more objects requests that may not sleep are given (None: any number); ``fail_after``: how
    many more objects any request is given (None: any number). ``keep``: how many freed objects are kept for reuse
    instead of going back.
    """

    __slots__ = (
        "_free",
        "_live",
        "_next",
        "align",
        "allocated",
        "bulk_size_fixed",
        "fail_after",
        "handed_out",
        "keep",
        "non_kernel",
        "object_size",
        "requested_bytes",
        "requests",
    )

    def __init__(
        self,
        object_size: int = 256,
        *,
        align: int = 256,
        bulk_size_fixed: bool = True,
        non_kernel: int | None = None,
        keep: int = 10,
    ) -> None:
        self.object_size = object_size
        self.align = align
        self.bulk_size_fixed = bulk_size_fixed
        self.non_kernel = non_kernel
        self.fail_after: int | None = None
        self.keep = keep
        self.allocated = 0  #: objects out now
        self.handed_out = 0  #: objects ever handed out
        self.requests = 0  #: calls to alloc and alloc_bulk
        self.requested_bytes = 0  #: bytes asked of malloc / posix_memalign
        self._free: list[int] = []
        self._live: set[int] = set()  # membership only, never iterated
        self._next = align

    @property
    def cached(self) -> int:
        """Freed objects kept for reuse."""
        return len(self._free)

    def alloc(self, gfp: int) -> int:
        """Address of one object, or 0."""
        self.requests += 1
        if not self._may_give(gfp, 1):
            return 0
        return self._give(self._free.pop() if self._free else self._malloc(self.object_size))

    def at_hand(self, n: int) -> bool:
        """Never: a test wants to see every request."""
        return False

    def alloc_bulk(self, gfp: int, n: int) -> list[int]:
        """Addresses of n objects, or []. Kept objects are used only if there are at least n of them."""
        self.requests += 1
        if not self._may_give(gfp, n):
            return []
        if len(self._free) >= n:
            return [self._give(self._free.pop()) for _ in range(n)]
        size = self.object_size if self.bulk_size_fixed else self.object_size * n
        return [self._give(self._malloc(size)) for _ in range(n)]

    def free(self, addr: int) -> None:
        """Take an object back; freeing what is not out is InvariantBroken."""
        if addr not in self._live:
            raise InvariantBroken(f"slab shim: free of {addr:#x}, which is not allocated")
        self._live.remove(addr)
        self.allocated -= 1
        if len(self._free) < self.keep:
            self._free.append(addr)

    def free_bulk(self, addrs: list[int]) -> None:
        """Take several objects back."""
        for addr in addrs:
            self.free(addr)

    def check_leaks(self) -> None:
        """InvariantBroken unless everything came back."""
        if self.allocated:
            raise InvariantBroken(f"slab shim: {self.allocated} objects leaked")

    def _may_give(self, gfp: int, n: int) -> bool:
        if not gfpflags_allow_blocking(gfp) and self.non_kernel is not None:
            if self.non_kernel < n:
                return False
            self.non_kernel -= n
        if self.fail_after is not None:
            if self.fail_after < n:
                return False
            self.fail_after -= n
        return True

    def _malloc(self, size: int) -> int:
        self.requested_bytes += size
        addr = self._next
        self._next += -(-self.object_size // self.align) * self.align
        return addr

    def _give(self, addr: int) -> int:
        self._live.add(addr)
        self.allocated += 1
        self.handed_out += 1
        return addr


def bulk_request_bytes(size: int, n: int, fixed: bool) -> int:
    """Bytes that one bulk request for n objects of ``size`` bytes asks of malloc, with the change or without."""
    from memtwin.lib.gfp_types import GFP_KERNEL

    shim = SlabShim(size, bulk_size_fixed=fixed, keep=0)
    shim.free_bulk(shim.alloc_bulk(GFP_KERNEL, n))
    shim.check_leaks()
    return shim.requested_bytes
