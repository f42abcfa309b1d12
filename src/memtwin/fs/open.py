# SPDX-License-Identifier: GPL-2.0-or-later
"""Opening files and asking about access (fs/open.c) on file systems of which only /proc/sys and the standard
descriptors can be written to.

Order of the refusals, as observed on a read-only mount: the path, O_CREAT | O_EXCL on what exists (EEXIST), directories
opened for writing (EISDIR), read-only (EROFS); creating what does not exist is EROFS.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from memtwin.abi.fcntl import (
    O_ACCMODE,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_NOFOLLOW,
    O_PATH,
    O_RDONLY,
    O_TMPFILE,
    O_TRUNC,
    R_OK,
    W_OK,
    X_OK,
)
from memtwin.abi.stat import S_IFCHR, S_IFMT, S_IFREG
from memtwin.fs.file import File, PathFile
from memtwin.fs.inode import linux_error
from memtwin.fs.namei import Dentry, lookup_parent, path_lookup
from memtwin.fs.proc.clear_refs import ClearRefsInode
from memtwin.fs.proc.mem import MemInode
from memtwin.fs.proc.proc_sysctl import SysctlInode
from memtwin.fs.sysfs import AttributeInode
from memtwin.fs.tty import StdioInode

if TYPE_CHECKING:
    from memtwin.fs.file import FsStruct

__all__ = ["do_faccessat", "do_open"]

#: Regular files that can be opened for writing.
_WRITABLE: Final = (AttributeInode, StdioInode, SysctlInode, ClearRefsInode, MemInode)
_PATH_FLAGS: Final = O_PATH | O_DIRECTORY | O_NOFOLLOW


def do_open(fs: FsStruct, start: Dentry, path: bytes, flags: int) -> File:
    """Open ``path`` as seen from ``start``. Everything open(2) refuses, with its errno."""
    if flags & O_PATH:
        flags &= _PATH_FLAGS
    if flags & O_CREAT and flags & O_DIRECTORY:
        raise linux_error(errno.EINVAL)  # since 6.4
    if flags & O_TMPFILE == O_TMPFILE:
        if flags & O_ACCMODE == O_RDONLY:
            raise linux_error(errno.EINVAL)
        directory = path_lookup(fs.root, start, path)
        raise linux_error(errno.EROFS if directory.inode.is_dir else errno.ENOTDIR)
    follow = not flags & O_NOFOLLOW and flags & (O_CREAT | O_EXCL) != O_CREAT | O_EXCL
    try:
        dentry = path_lookup(fs.root, start, path, follow=follow)
    except FileNotFoundError:
        if flags & O_CREAT:
            _refuse_creation(fs, start, path)
        raise
    inode = dentry.inode
    if flags & O_CREAT:
        if flags & O_EXCL:
            raise linux_error(errno.EEXIST)
        if inode.is_dir:
            raise linux_error(errno.EISDIR)
    if flags & O_PATH and (inode.is_dir or not flags & O_DIRECTORY):
        return PathFile(dentry, inode, flags)
    if inode.is_symlink and not flags & O_DIRECTORY:
        raise linux_error(errno.ELOOP)
    if flags & O_DIRECTORY and not inode.is_dir:
        raise linux_error(errno.ENOTDIR)
    if flags & O_ACCMODE != O_RDONLY or flags & O_TRUNC:
        if inode.is_dir:
            raise linux_error(errno.EISDIR)
        if inode.mode & S_IFMT == S_IFREG and not isinstance(inode, _WRITABLE):
            raise linux_error(errno.EROFS)
    return inode.open(dentry, flags & ~(O_CREAT | O_EXCL | O_TRUNC))


def _refuse_creation(fs: FsStruct, start: Dentry, path: bytes) -> None:
    """Creating ``path``, which does not exist: EROFS if only the last component is missing."""
    parent, name = lookup_parent(fs.root, start, path)
    if path.endswith(b"/"):
        raise linux_error(errno.EISDIR)
    if not parent.inode.is_dir:
        raise linux_error(errno.ENOTDIR)
    del name
    raise linux_error(errno.EROFS)


def do_faccessat(dentry: Dentry, mode: int) -> None:
    """access(2) on what a path walk found. EROFS, EACCES, EINVAL for unknown bits of ``mode``."""
    if mode & ~(R_OK | W_OK | X_OK):
        raise linux_error(errno.EINVAL)
    inode = dentry.inode
    if mode & W_OK and inode.mode & S_IFMT != S_IFCHR and not isinstance(inode, _WRITABLE):
        raise linux_error(errno.EROFS)
    inode.permission(mode)
