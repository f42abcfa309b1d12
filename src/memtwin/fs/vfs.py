# SPDX-License-Identifier: GPL-2.0-or-later
"""The mount table of one machine: the host at /, with the twin's own /proc, /dev and a /sys of little on top
(fs/namespace.c).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from typing import Final

from memtwin.fs.devtmpfs import make_dev
from memtwin.fs.file import FilesStruct, FsStruct
from memtwin.fs.hostfs import HostFs
from memtwin.fs.inode import linux_error
from memtwin.fs.libfs import PseudoFs, TableDir, TextInode
from memtwin.fs.namei import Dentry, path_lookup
from memtwin.fs.proc.base import ProcFs, ProcTask
from memtwin.fs.tty import StdioFile, StdioInode

__all__ = ["Vfs"]

_SYSFS_MAGIC: Final = 0x62656572


class Vfs:
    """All files of one machine. ``root``: the dentry of /; ``proc``, ``sys``: to register files with."""

    def __init__(
        self,
        *,
        epoch: int,
        random_bytes: Callable[[int], bytes],
        tasks: Callable[[], Mapping[int, ProcTask]],
        current: Callable[[], ProcTask | None],
        read_memory: Callable[[ProcTask, int, int], bytes],
        may_access: Callable[[ProcTask, bool], bool],
    ) -> None:
        self.proc: Final = ProcFs(epoch, tasks, current, read_memory, may_access)
        self.dev: Final = make_dev(epoch, random_bytes)
        self.sys: Final = TableDir(PseudoFs(21, _SYSFS_MAGIC, epoch))
        self.root: Final = Dentry(HostFs().root())
        self.root.mounts = {
            b"proc": self.proc.root,
            b"dev": self.dev,
            b"sys": self.sys,
        }

    def text(self, path: str) -> str:
        """What a read of the twin's own file ``path`` gives now. ENOENT and the like; EINVAL if it is no such file."""
        inode = path_lookup(self.root, self.root, os.fsencode(path)).inode
        if not isinstance(inode, TextInode):
            raise linux_error(errno.EISDIR if inode.is_dir else errno.EINVAL)
        text = inode.text()
        return text.decode(errors="surrogateescape") if isinstance(text, bytes) else text

    def new_fs(self, cwd: bytes) -> FsStruct:
        """Root and working directory of a first process. ENOENT, ENOTDIR if ``cwd`` (absolute) is no directory."""
        pwd = path_lookup(self.root, self.root, cwd)
        if not pwd.inode.is_dir:
            raise linux_error(errno.ENOTDIR)
        return FsStruct(self.root, pwd)

    def new_files(self, stdio: tuple[int, int, int], limit: int) -> FilesStruct:
        """A descriptor table with the host's descriptors ``stdio`` as 0, 1 and 2; one that is closed there stays
        closed.
        """
        files = FilesStruct()
        dev = Dentry(self.dev, b"dev", self.root)
        for fd, (host_fd, name) in enumerate(zip(stdio, (b"stdin", b"stdout", b"stderr"), strict=True)):
            try:
                inode = StdioInode(host_fd)
            except OSError:
                continue
            files.replace(fd, StdioFile(Dentry(inode, name, dev), inode), limit)
        return files
