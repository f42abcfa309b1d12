# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/PID/mem (fs/proc/base.c): the bytes of an address space at their addresses.

Whoever may open it may read what no access right permits, and write what is private (FOLL_FORCE). A position is an
address, which is why it can not be told from the end and may be beyond 2**63.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from memtwin.abi.fcntl import SEEK_CUR, SEEK_SET
from memtwin.abi.stat import S_IFREG
from memtwin.fs.file import File
from memtwin.fs.inode import linux_error
from memtwin.fs.libfs import PseudoFs, PseudoInode
from memtwin.mm.process_vm_access import access_remote_vm

if TYPE_CHECKING:
    from memtwin.fs.namei import Dentry
    from memtwin.mm.mm_types import MmStruct

__all__ = ["MemInode"]

_ADDRESSES: Final = 1 << 64
_PIECE: Final = 1 << 16


class MemInode(PseudoInode):
    """``make()`` gives the address space when the file is opened, or refuses."""

    __slots__ = ("make",)

    def __init__(self, fs: PseudoFs, make: Callable[[], MmStruct]) -> None:
        super().__init__(fs, S_IFREG | 0o600)
        self.make: Final = make

    def open(self, dentry: Dentry, flags: int) -> File:
        return _MemFile(dentry, self, flags)


class _MemFile(File):
    """An open ``MemInode``. It keeps no address space alive: after the process's end there is nothing in it."""

    __slots__ = ("_mm",)

    reads_fill = True

    def __init__(self, dentry: Dentry, inode: MemInode, flags: int) -> None:
        super().__init__(dentry, inode, flags)
        self._mm: Final = inode.make()

    def _gone(self) -> bool:
        return self._mm.id not in self._mm.ctx.mms

    def pread(self, count: int, offset: int) -> bytes:
        if not count or self._gone():
            return b""
        data = bytearray()
        while len(data) < count:  # in pieces: far more may be asked for than is there
            piece = bytearray(min(count - len(data), _PIECE))
            done = access_remote_vm(self._mm, offset + len(data), piece, write=False)
            data += piece[:done]
            if done < len(piece):
                break
        if not data:
            raise linux_error(errno.EIO)
        return bytes(data)

    def pwrite(self, data: bytes, offset: int) -> int:
        if not data or self._gone():
            return 0
        done = access_remote_vm(self._mm, offset, bytearray(data), write=True)
        if not done:
            raise linux_error(errno.EIO)
        return done

    def llseek(self, offset: int, whence: int) -> int:
        if whence not in (SEEK_SET, SEEK_CUR):
            raise linux_error(errno.EINVAL)
        self.pos = (offset if whence == SEEK_SET else self.pos + offset) % _ADDRESSES
        return self.pos
