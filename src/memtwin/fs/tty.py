# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptors 0, 1 and 2: what memtwin itself was started with, passed through (drivers/tty/ for the few ioctls).

They are the only files of the host that a guest can write to. Attributes, terminal settings and window size are the
real ones, so that a program decides about buffering and colours as it would natively.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat as host_stat
from typing import TYPE_CHECKING, Final

from memtwin.abi.fcntl import O_ACCMODE
from memtwin.abi.stat import Kstat, Kstatfs
from memtwin.fs.file import File
from memtwin.fs.hostfs import kstat_of
from memtwin.fs.inode import Inode, linux_error
from memtwin.mm.filemap import AddressSpace

if TYPE_CHECKING:
    from memtwin.fs.namei import Dentry

__all__ = ["StdioFile", "StdioInode"]

TCGETS: Final = 0x5401
TIOCGWINSZ: Final = 0x5413
FIONREAD: Final = 0x541B

#: Commands that only read the state of a terminal, with the size of the answer in bytes (asm-generic/ioctls.h,
#: termbits.h).
_TTY_READS: Final = {TCGETS: 36, TIOCGWINSZ: 8, FIONREAD: 4}

_PIPEFS_MAGIC: Final = 0x50495045


class StdioInode(Inode):
    """The file behind a descriptor of the host."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        super().__init__(os.fstat(fd).st_mode)
        self.fd: Final = fd

    def stat(self) -> Kstat:
        return kstat_of(os.fstat(self.fd))

    def statfs(self) -> Kstatfs:
        return Kstatfs(_PIPEFS_MAGIC)

    def open(self, dentry: Dentry, flags: int) -> File:
        """Opening /dev/stdin: the same host descriptor once more, with no more rights than it has."""
        return StdioFile(dentry, self, flags)


class StdioFile(File):
    """An open host descriptor; it has the host's file position, and is never closed."""

    __slots__ = ("_mapping", "fd")

    def __init__(self, dentry: Dentry, inode: StdioInode, flags: int | None = None) -> None:
        host_flags = fcntl.fcntl(inode.fd, fcntl.F_GETFL)
        super().__init__(dentry, inode, host_flags if flags is None else flags & ~O_ACCMODE | host_flags & O_ACCMODE)
        self.fd: Final = inode.fd
        self._mapping: AddressSpace | None = None

    @property
    def mapping(self) -> AddressSpace:
        if self._mapping is None:
            if not host_stat.S_ISREG(self.inode.mode) or not self.readable:
                raise linux_error(errno.ENODEV)
            fd = self.fd
            self._mapping = AddressSpace(lambda index: os.pread(fd, 4096, index << 12), lambda: os.fstat(fd).st_size)
        return self._mapping

    def read(self, count: int) -> bytes:
        return os.read(self.fd, count)

    def pread(self, count: int, offset: int) -> bytes:
        return os.pread(self.fd, count, offset)

    def write(self, data: bytes) -> int:
        return os.write(self.fd, data)

    def pwrite(self, data: bytes, offset: int) -> int:
        return os.pwrite(self.fd, data, offset)

    def llseek(self, offset: int, whence: int) -> int:
        return os.lseek(self.fd, offset, whence)

    def poll(self, events: int) -> int:
        ready = select.poll()
        ready.register(self.fd, events)
        return sum(answer for _, answer in ready.poll(0))

    def ioctl(self, cmd: int) -> bytes | None:
        if not os.isatty(self.fd):
            if cmd == FIONREAD and host_stat.S_ISFIFO(self.inode.mode):
                return fcntl.ioctl(self.fd, cmd, bytes(4))
            raise linux_error(errno.ENOTTY)
        size = _TTY_READS.get(cmd)
        return fcntl.ioctl(self.fd, cmd, bytes(size)) if size is not None else None
