# SPDX-License-Identifier: GPL-2.0-or-later
"""Inodes: what a file is, whatever holds it (include/linux/fs.h: struct inode, struct inode_operations).

An inode's methods raise ``OSError`` with the errno Linux gives. Names and link targets are bytes, as in the kernel.
Invariant: the kind of an inode (``S_IFMT`` of its mode) never changes.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from memtwin.abi.stat import S_IFDIR, S_IFLNK, S_IFMT, Kstat, Kstatfs

if TYPE_CHECKING:
    from memtwin.fs.file import File
    from memtwin.fs.namei import Dentry

__all__ = ["Dirent", "Inode", "linux_error"]


def linux_error(code: int) -> OSError:
    """An ``OSError`` with errno ``code`` and the C library's text for it."""
    return OSError(code, os.strerror(code))


class Dirent(NamedTuple):
    """One entry of a directory; ``dtype`` is a DT_* value."""

    name: bytes
    ino: int
    dtype: int


class Inode(ABC):
    """One file of any kind. The defaults refuse, as a file that is no directory, no link and can not be opened does."""

    __slots__ = ("mode",)

    def __init__(self, mode: int) -> None:
        self.mode: Final = mode

    @property
    def is_dir(self) -> bool:
        """Whether names can be looked up in it."""
        return self.mode & S_IFMT == S_IFDIR

    @property
    def is_symlink(self) -> bool:
        """Whether a path walk follows it."""
        return self.mode & S_IFMT == S_IFLNK

    @abstractmethod
    def stat(self) -> Kstat:
        """Its attributes now."""

    @abstractmethod
    def statfs(self) -> Kstatfs:
        """The attributes of the file system it is on."""

    def lookup(self, name: bytes) -> Inode:
        """The entry ``name`` of a directory. ENOENT without one, ENOTDIR if this is no directory."""
        raise linux_error(errno.ENOENT if self.is_dir else errno.ENOTDIR)

    def readlink(self) -> bytes:
        """The target of a symbolic link. EINVAL if this is none."""
        raise linux_error(errno.EINVAL)

    def follow(self) -> Dentry | None:
        """Where a "magic" link leads without a path walk (/proc/self/fd/N); None for an ordinary link."""
        return None

    def iterate(self) -> Iterator[Dirent]:
        """The entries of a directory without "." and "..", in the order of getdents64. ENOTDIR if this is none."""
        raise linux_error(errno.ENOTDIR)

    def open(self, dentry: Dentry, flags: int) -> File:
        """An open file description. Access modes and read-only-ness were checked by ``fs/open.py``."""
        raise linux_error(errno.ENXIO)

    def permission(self, mask: int) -> None:
        """Raise EACCES if root may not do ``mask`` (R_OK, W_OK, X_OK): only execution of what nobody may execute is
        refused.
        """
        if mask & 1 and not self.is_dir and not self.mode & 0o111:
            raise linux_error(errno.EACCES)
