# SPDX-License-Identifier: GPL-2.0-or-later
"""/dev of the twin: null, zero, full, random, urandom, tty, and the links to descriptors (drivers/char/mem.c,
random.c).

There is no controlling terminal: opening /dev/tty is ENXIO, as in a session without one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from memtwin.abi.stat import S_IFCHR, Kstat
from memtwin.fs.file import File
from memtwin.fs.inode import linux_error
from memtwin.fs.libfs import LinkInode, PseudoFs, PseudoInode, TableDir
from memtwin.mm.filemap import AddressSpace

if TYPE_CHECKING:
    from memtwin.fs.inode import Inode
    from memtwin.fs.namei import Dentry

__all__ = ["make_dev"]

_TMPFS_MAGIC: Final = 0x01021994


class MemDevice(PseudoInode):
    """A character device whose reads are ``source(count)``; ``sink`` says what a write does."""

    __slots__ = ("rdev", "sink", "source")

    def __init__(
        self,
        fs: PseudoFs,
        rdev: tuple[int, int],
        source: Callable[[int], bytes] | None,
        sink: Callable[[bytes], int] = len,
    ) -> None:
        super().__init__(fs, S_IFCHR | 0o666)
        self.rdev: Final = rdev
        self.source: Final = source
        self.sink: Final = sink

    def stat(self) -> Kstat:
        return super().stat()._replace(rdev=self.rdev)

    def open(self, dentry: Dentry, flags: int) -> File:
        if self.source is None:
            raise linux_error(errno.ENXIO)
        return MemFile(dentry, self, flags)


class MemFile(File):
    """An open memory device. Positions mean nothing: lseek answers, reads ignore it."""

    __slots__ = ()

    reads_fill = True

    def read(self, count: int) -> bytes:
        return self.pread(count, 0)

    def pread(self, count: int, offset: int) -> bytes:
        assert isinstance(self.inode, MemDevice) and self.inode.source is not None
        return self.inode.source(count)

    def write(self, data: bytes) -> int:
        assert isinstance(self.inode, MemDevice)
        return self.inode.sink(data)

    def llseek(self, offset: int, whence: int) -> int:
        return 0  # null_lseek, noop_llseek

    @property
    def mapping(self) -> AddressSpace:
        assert isinstance(self.inode, MemDevice)
        if self.inode.rdev != (1, 5):
            raise linux_error(errno.ENODEV)
        return AddressSpace(lambda index: b"", lambda: 1 << 62)  # /dev/zero


def _full(data: bytes) -> int:
    raise linux_error(errno.ENOSPC)


def make_dev(epoch: int, random_bytes: Callable[[int], bytes]) -> Inode:
    """The root of /dev. ``random_bytes``: the seeded stream; ``epoch``: time of boot, ns since 1970."""
    fs = PseudoFs(5, _TMPFS_MAGIC, epoch)
    root = TableDir(fs)
    root.entries.update(
        {
            b"null": MemDevice(fs, (1, 3), lambda count: b""),
            b"zero": MemDevice(fs, (1, 5), bytes),
            b"full": MemDevice(fs, (1, 7), bytes, _full),
            b"random": MemDevice(fs, (1, 8), random_bytes),
            b"urandom": MemDevice(fs, (1, 9), random_bytes),
            b"tty": MemDevice(fs, (5, 0), None),
            b"fd": LinkInode(fs, lambda: b"/proc/self/fd"),
            b"stdin": LinkInode(fs, lambda: b"/proc/self/fd/0"),
            b"stdout": LinkInode(fs, lambda: b"/proc/self/fd/1"),
            b"stderr": LinkInode(fs, lambda: b"/proc/self/fd/2"),
        }
    )
    return root
