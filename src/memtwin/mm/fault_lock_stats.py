# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lock faults take, and why: the reasons and their counts (what CONFIG_PER_VMA_LOCK_STATS counts, and more)."""

from __future__ import annotations

from enum import auto

from memtwin.events.reason import Reason

__all__ = ["FaultLock", "FaultLockStats"]


class FaultLock(Reason):
    """Why a fault of user mode needed ``mmap_lock``."""

    # The lock of the area was not got (ABORT), or is of no use.
    NO_VMA = auto()  #: nothing is mapped there: the stack may have to grow
    NO_ANON_VMA = auto()  #: first page of an anonymous area: the neighbours have to be looked at
    WRITE_LOCKED = auto()  #: somebody is changing the area
    MOVED = auto()  #: the area no longer covers the address
    DETACHED = auto()  #: it left the tree meanwhile (MISS: looked up again, no need for ``mmap_lock`` yet)
    PERMISSION = auto()  #: the access is not permitted: decided under ``mmap_lock``
    # A handler gave it up (RETRY).
    ANON_VMA = auto()  #: the copy would be the area's first anonymous page
    NO_MAP_PAGES = auto()  #: the operations of the area may rely on ``mmap_lock``
    ALWAYS = auto()  #: this kind of fault never was handled under the area's lock; detail: the change that allows it
    READ = auto()  #: the page has to be read
    FOLIO_LOCKED = auto()  #: somebody else has the folio locked
    READAHEAD = auto()  #: the next pages have to be read
    MMAP_LOCK_BUSY = auto()  #: an anon_vma needs ``mmap_lock``, and it was taken


class FaultLockStats:
    """Which lock faults took, and why (CONFIG_PER_VMA_LOCK_STATS has the first four in /proc/vmstat).

    ``success``: handled under the area's lock; ``abort``: it was not got; ``retry``: given up by a handler; ``miss``:
    looked up again; ``mmap_lock``: times faults of user mode took ``mmap_lock`` for reading; ``reasons``: how often
    each.
    """

    __slots__ = ("abort", "miss", "mmap_lock", "reasons", "retry", "success")

    def __init__(self) -> None:
        self.success = 0
        self.abort = 0
        self.retry = 0
        self.miss = 0
        self.mmap_lock = 0
        self.reasons: dict[str, int] = {reason.value: 0 for reason in FaultLock}

    def as_dict(self) -> dict[str, object]:
        """Everything that occurred, for a summary."""
        counts = {name: getattr(self, name) for name in ("success", "abort", "retry", "miss", "mmap_lock")}
        return {**counts, "reasons": {name: count for name, count in sorted(self.reasons.items()) if count}}
