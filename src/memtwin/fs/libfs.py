# SPDX-License-Identifier: GPL-2.0-or-later
"""File systems that exist only in memory: directories as tables, files whose text is a function (fs/libfs.c,
fs/seq_file.c).

Invariant: the text of a file is made when it is first read after opening or after a seek to 0, and stays as it is until
then, so that a reader with a small buffer sees one consistent text.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from memtwin.abi.fcntl import DT_DIR, DT_LNK, DT_REG
from memtwin.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, Kstat, Kstatfs
from memtwin.fs.file import DirFile, File
from memtwin.fs.inode import Dirent, Inode, linux_error

if TYPE_CHECKING:
    from memtwin.fs.namei import Dentry

__all__ = ["LinkInode", "PseudoFs", "PseudoInode", "TableDir", "TextFile", "TextInode"]

_DTYPES: Final = {S_IFDIR: DT_DIR, S_IFLNK: DT_LNK, S_IFREG: DT_REG}


class PseudoFs:
    """What the files of one such file system share: device number, magic number, inode numbers, time of boot (ns since
    1970).
    """

    __slots__ = ("dev", "epoch", "magic", "next_ino")

    def __init__(self, minor: int, magic: int, epoch: int) -> None:
        self.dev: Final = (0, minor)
        self.magic: Final = magic
        self.epoch: Final = epoch
        self.next_ino = 1

    def new_ino(self) -> int:
        """The next free inode number."""
        self.next_ino += 1
        return self.next_ino - 1


class PseudoInode(Inode):
    """Common part: attributes that never change."""

    __slots__ = ("fs", "ino")

    def __init__(self, fs: PseudoFs, mode: int) -> None:
        super().__init__(mode)
        self.fs: Final = fs
        self.ino: Final = fs.new_ino()

    def statfs(self) -> Kstatfs:
        return Kstatfs(self.fs.magic)  # no blocks: nothing is stored

    def stat(self) -> Kstat:
        now = self.fs.epoch
        nlink = 2 if self.is_dir else 1
        return Kstat(self.mode, self.ino, self.fs.dev, nlink, blksize=4096, atime=now, mtime=now, ctime=now)


class TableDir(PseudoInode):
    """A directory whose entries are a table: made once, or looked up through ``find`` for names that come and go."""

    __slots__ = ("entries",)

    def __init__(self, fs: PseudoFs, entries: dict[bytes, Inode] | None = None) -> None:
        super().__init__(fs, S_IFDIR | 0o555)
        self.entries: dict[bytes, Inode] = entries if entries is not None else {}

    def lookup(self, name: bytes) -> Inode:
        inode = self.entries.get(name)
        if inode is None:
            raise linux_error(errno.ENOENT)
        return inode

    def iterate(self) -> Iterator[Dirent]:
        for name, inode in self.entries.items():
            yield Dirent(name, inode.stat().ino, _DTYPES.get(inode.mode & S_IFMT, 0))

    def open(self, dentry: Dentry, flags: int) -> File:
        return DirFile(dentry, self, flags)


class LinkInode(PseudoInode):
    """A symbolic link; the target may depend on when it is asked for (/proc/self/exe)."""

    __slots__ = ("target", "where")

    def __init__(
        self, fs: PseudoFs, target: Callable[[], bytes], where: Callable[[], Dentry | None] | None = None
    ) -> None:
        super().__init__(fs, S_IFLNK | 0o777)
        self.target: Final = target
        self.where: Final = where

    def readlink(self) -> bytes:
        return self.target()

    def follow(self) -> Dentry | None:
        return self.where() if self.where is not None else None


class TextInode(PseudoInode):
    """A file whose content is what ``text()`` returns at the time of reading."""

    __slots__ = ("text",)

    def __init__(self, fs: PseudoFs, text: Callable[[], str | bytes], mode: int = 0o444) -> None:
        super().__init__(fs, S_IFREG | mode)
        self.text: Final = text

    def open(self, dentry: Dentry, flags: int) -> File:
        return TextFile(dentry, self, flags)


class TextFile(File):
    """An open ``TextInode``."""

    __slots__ = ("_text",)

    reads_fill = True

    def __init__(self, dentry: Dentry, inode: TextInode, flags: int) -> None:
        super().__init__(dentry, inode, flags)
        self._text: bytes | None = None

    def pread(self, count: int, offset: int) -> bytes:
        if self._text is None or offset == 0:
            assert isinstance(self.inode, TextInode)
            text = self.inode.text()
            self._text = text if isinstance(text, bytes) else text.encode(errors="surrogateescape")
        return self._text[offset : offset + count]
