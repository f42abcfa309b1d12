# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptors that the API hands out: memory files and userfaultfds, shared over fork like open file descriptions."""

from __future__ import annotations

from memtwin.mm.shmem import ShmemFile
from memtwin.mm.userfaultfd import UserfaultfdCtx

__all__ = ["MemoryFile"]


class MemoryFile:
    """An open file description; the last descriptor closes what it names."""

    __slots__ = ("refs", "what")

    def __init__(self, what: ShmemFile | UserfaultfdCtx) -> None:
        self.what = what
        self.refs = 1

    def get(self) -> MemoryFile:
        """One more descriptor."""
        self.refs += 1
        return self

    def put(self) -> None:
        """One descriptor less."""
        self.refs -= 1
        if self.refs:
            return
        if isinstance(self.what, ShmemFile):
            self.what.close()
        else:
            self.what.release()
