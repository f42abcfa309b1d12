# SPDX-License-Identifier: GPL-2.0-or-later
"""The tmpfs of a script: a flat directory of memory files that only its processes see.

A name holds its file; a file without a name lives as long as somebody has it open or mapped. Files are shown in /proc
as they are when the directory is mounted at ``ROOT``.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from memtwin.abi.fcntl import NAME_MAX, O_ACCMODE, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY
from memtwin.mm.shmem import DevZero, ShmemInode

if TYPE_CHECKING:
    from memtwin.process import Process

__all__ = ["ROOT", "Tmpfs"]

#: Where the directory is mounted.
ROOT: Final = "/script"


class Tmpfs:
    """The names of one script."""

    __slots__ = ("_inodes",)

    def __init__(self) -> None:
        self._inodes: dict[str, ShmemInode] = {}

    def open(self, process: Process, name: str, flags: int) -> int:
        """open(2) of a name in the directory; a descriptor. /dev/zero is the device. Raises OSError."""
        if name == "/dev/zero":
            mode = flags & O_ACCMODE
            device = DevZero(process.mm.ctx)
            return process.open_memory_file(device, readable=mode != O_WRONLY, writable=mode != O_RDONLY)
        name = self._check(name)
        inode = self._inodes.get(name)
        if inode is not None and flags & O_CREAT and flags & O_EXCL:
            raise OSError(errno.EEXIST, "open: the file exists")
        if inode is None:
            if not flags & O_CREAT:
                raise OSError(errno.ENOENT, "open: no such file, and not O_CREAT")
            inode = self._inodes[name] = self._create(process, name)
        elif flags & O_TRUNC:
            inode.truncate(0)
        mode = flags & O_ACCMODE
        return process.open_memory_file(inode, readable=mode in (O_RDONLY, O_RDWR), writable=mode in (O_WRONLY, O_RDWR))

    def unlink(self, name: str) -> None:
        """unlink(2). Raises OSError."""
        inode = self._inodes.pop(self._check(name), None)
        if inode is None:
            raise OSError(errno.ENOENT, "unlink: no such file")
        inode.name += " (deleted)"
        inode.mapping.closed(inode.ctx)

    def _create(self, process: Process, name: str) -> ShmemInode:
        ctx = process.mm.ctx
        inode = ShmemInode(ctx, f"{ROOT}/{name}", sealable=False)
        inode.mapping.opened(ctx)  # the name's own reference
        return inode

    def _check(self, name: str) -> str:
        """The name without the slashes that change nothing."""
        name = name.lstrip("/")
        if not name.strip("."):
            raise OSError(errno.EISDIR, "a directory")
        if "/" in name:
            raise OSError(errno.ENOENT, "the directory has no directories in it")
        if len(name) > NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, "the name is too long")
        return name
