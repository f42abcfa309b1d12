# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of /proc that are read at any place without being made as a whole first (arrays of numbers), and texts that
not everybody may open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from memtwin.abi.stat import S_IFREG
from memtwin.fs.file import File
from memtwin.fs.libfs import PseudoFs, PseudoInode, TextInode

if TYPE_CHECKING:
    from memtwin.fs.namei import Dentry

__all__ = ["GuardedText", "Reader", "ReaderInode"]

#: ``reader(count, offset)``: at most ``count`` bytes from ``offset`` on, empty at the end. Raises OSError.
Reader = Callable[[int, int], bytes]


class ReaderInode(PseudoInode):
    """``make()`` is called when the file is opened (that is when rights are looked at) and gives its reader."""

    __slots__ = ("make",)

    def __init__(self, fs: PseudoFs, make: Callable[[], Reader], mode: int = 0o400) -> None:
        super().__init__(fs, S_IFREG | mode)
        self.make: Final = make

    def open(self, dentry: Dentry, flags: int) -> File:
        return _ReaderFile(dentry, self, flags)


class _ReaderFile(File):
    """An open ``ReaderInode``."""

    __slots__ = ("_reader",)

    reads_fill = True

    def __init__(self, dentry: Dentry, inode: ReaderInode, flags: int) -> None:
        super().__init__(dentry, inode, flags)
        self._reader: Final = inode.make()

    def pread(self, count: int, offset: int) -> bytes:
        return self._reader(count, offset)


class GuardedText(TextInode):
    """A text. ``allow()`` is called when the file is opened, and raises what opening is refused with."""

    __slots__ = ("allow",)

    def __init__(
        self, fs: PseudoFs, text: Callable[[], str | bytes], allow: Callable[[], object], mode: int = 0o444
    ) -> None:
        super().__init__(fs, text, mode)
        self.allow: Final = allow

    def open(self, dentry: Dentry, flags: int) -> File:
        self.allow()
        return super().open(dentry, flags)
