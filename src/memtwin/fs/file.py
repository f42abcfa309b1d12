# SPDX-License-Identifier: GPL-2.0-or-later
"""Open files and the descriptor table (fs/file.c, fs/file_table.c).

A ``File`` is an open file description: position and status flags, shared by all descriptors that were duplicated from
one. Invariants: ``refs`` counts the descriptors that name it, and the last one calls ``release``; ``FilesStruct`` holds
no closed file. A mapping that outlives the descriptor keeps what it needs through ``File.mapping``, not through
``refs``.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, ClassVar, Final

from memtwin.abi.fcntl import O_ACCMODE, O_PATH, O_RDONLY, O_WRONLY, SEEK_CUR, SEEK_END, SEEK_SET
from memtwin.abi.stat import Kstat, pack_dirent64
from memtwin.fs.inode import Dirent, linux_error
from memtwin.mm.filemap import FILE_VM_OPS, AddressSpace
from memtwin.mm.vm_ops import VmOperations

if TYPE_CHECKING:
    from memtwin.fs.inode import Inode
    from memtwin.fs.namei import Dentry

__all__ = ["DirFile", "File", "FilesStruct", "FsStruct", "PathFile"]

_DEFAULT_POLLMASK: Final = 0x1 | 0x4 | 0x40 | 0x100  #: POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
_MAX_OFFSET: Final = (1 << 63) - 1


class File:
    """An open file description. The defaults are those of a file that can neither be read nor written."""

    __slots__ = ("dentry", "flags", "inode", "pos", "refs")

    #: A read returns all that was asked for unless the end is reached, and never waits for anybody.
    reads_fill: ClassVar[bool] = False

    def __init__(self, dentry: Dentry, inode: Inode, flags: int) -> None:
        self.dentry: Final = dentry
        self.inode: Final = inode
        self.flags = flags  #: O_* as given to open, without the flags that only concern opening
        self.pos = 0
        self.refs = 0

    @property
    def readable(self) -> bool:
        """Opened for reading (FMODE_READ)."""
        return self.flags & O_ACCMODE != O_WRONLY and not self.flags & O_PATH

    @property
    def writable(self) -> bool:
        """Opened for writing (FMODE_WRITE)."""
        return self.flags & O_ACCMODE != O_RDONLY and not self.flags & O_PATH

    @property
    def path(self) -> str:
        """The name shown in /proc/PID/maps; bytes that are not UTF-8 are carried as surrogates."""
        return os.fsdecode(self.dentry.path())

    @property
    def dev(self) -> tuple[int, int]:
        """Device (major, minor)."""
        return self.stat().dev

    @property
    def ino(self) -> int:
        """Inode number."""
        return self.stat().ino

    @property
    def mapping(self) -> AddressSpace:
        """Its pages. ENODEV for what can not be mapped."""
        raise linux_error(errno.ENODEV)

    @property
    def vm_ops(self) -> VmOperations | None:
        """Operations of its mappings."""
        return FILE_VM_OPS

    @property
    def seals(self) -> int:
        """F_SEAL_* bits; only memory files have any."""
        return 0

    def stat(self) -> Kstat:
        """Attributes of the file."""
        return self.inode.stat()

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes at the position, which moves; empty at the end."""
        data = self.pread(count, self.pos)
        self.pos += len(data)
        return data

    def pread(self, count: int, offset: int) -> bytes:
        """Up to ``count`` bytes at ``offset``."""
        raise linux_error(errno.EISDIR if self.inode.is_dir else errno.EINVAL)

    def write(self, data: bytes) -> int:
        """Write at the position, which moves; the number of bytes taken."""
        taken = self.pwrite(data, self.pos)
        self.pos += taken
        return taken

    def pwrite(self, data: bytes, offset: int) -> int:
        """Write at ``offset``; the number of bytes taken."""
        raise linux_error(errno.EINVAL)

    def llseek(self, offset: int, whence: int) -> int:
        """Move the position; the new one. EINVAL for a bad ``whence`` or a negative result."""
        if whence == SEEK_SET:
            pos = offset
        elif whence == SEEK_CUR:
            pos = self.pos + offset
        elif whence == SEEK_END:
            pos = self.stat().size + offset
        else:
            raise linux_error(errno.EINVAL)
        if not 0 <= pos <= _MAX_OFFSET:
            raise linux_error(errno.EINVAL)
        self.pos = pos
        return pos

    def getdents(self, count: int) -> bytes:
        """Directory entries that fit in ``count`` bytes; empty at the end. ENOTDIR for anything but a directory."""
        raise linux_error(errno.ENOTDIR)

    def poll(self, events: int) -> int:
        """Which of the POLL* ``events`` are ready: what has no poll of its own is always ready, even for what it
        refuses.
        """
        return events & _DEFAULT_POLLMASK

    def ioctl(self, cmd: int) -> bytes | None:
        """What a reading ioctl copies to its argument; None if Linux knows ``cmd`` for this file and memtwin does not
        model it.

        ENOTTY for what Linux does not know either.
        """
        raise linux_error(errno.ENOTTY)

    def release(self) -> None:
        """The last descriptor is gone."""


class PathFile(File):
    """Opened with O_PATH: names a file and can do nothing else (fs/open.c: empty_fops)."""

    __slots__ = ()

    def read(self, count: int) -> bytes:
        raise linux_error(errno.EBADF)

    def pread(self, count: int, offset: int) -> bytes:
        raise linux_error(errno.EBADF)

    def llseek(self, offset: int, whence: int) -> int:
        raise linux_error(errno.EBADF)

    def getdents(self, count: int) -> bytes:
        raise linux_error(errno.EBADF)

    def ioctl(self, cmd: int) -> bytes | None:
        raise linux_error(errno.EBADF)


class DirFile(File):
    """An open directory. Entries are read once, when first asked for or after a seek to 0; ``pos`` is the index of the
    next.
    """

    __slots__ = ("_entries",)

    def __init__(self, dentry: Dentry, inode: Inode, flags: int) -> None:
        super().__init__(dentry, inode, flags)
        self._entries: list[Dirent] | None = None

    def _read_all(self) -> list[Dirent]:
        here, parent = self.inode.stat().ino, self.dentry.parent.inode.stat().ino
        return [Dirent(b".", here, 4), Dirent(b"..", parent, 4), *self.inode.iterate()]

    def getdents(self, count: int) -> bytes:
        if self._entries is None or self.pos == 0:
            self._entries = self._read_all()
        out = bytearray()
        while self.pos < len(self._entries):
            entry = self._entries[self.pos]
            record = pack_dirent64(entry.ino, self.pos + 1, entry.dtype, entry.name)
            if len(out) + len(record) > count:
                if not out:
                    raise linux_error(errno.EINVAL)
                break
            out += record
            self.pos += 1
        return bytes(out)

    def llseek(self, offset: int, whence: int) -> int:
        if whence == SEEK_END:
            raise linux_error(errno.EINVAL)
        return super().llseek(offset, whence)


class FilesStruct:
    """A descriptor table. ``limit`` arguments are the soft RLIMIT_NOFILE."""

    __slots__ = ("close_on_exec", "fds")

    def __init__(self) -> None:
        self.fds: dict[int, File] = {}
        self.close_on_exec: dict[int, None] = {}  # an ordered set

    def get(self, fd: int) -> File:
        """The file behind ``fd``. EBADF without one, and for one opened with O_PATH."""
        file = self.fds.get(fd)
        if file is None or file.flags & O_PATH:
            raise linux_error(errno.EBADF)
        return file

    def get_raw(self, fd: int) -> File:
        """The same, O_PATH included (fdget_raw)."""
        file = self.fds.get(fd)
        if file is None:
            raise linux_error(errno.EBADF)
        return file

    def install(self, file: File, limit: int, lowest: int = 0, cloexec: bool = False) -> int:
        """Give ``file`` the lowest free descriptor at or above ``lowest``. EMFILE at the limit, EINVAL if ``lowest`` is
        beyond it.
        """
        if lowest >= limit:
            raise linux_error(errno.EINVAL if lowest else errno.EMFILE)
        fd = lowest
        while fd in self.fds:
            fd += 1
        if fd >= limit:
            raise linux_error(errno.EMFILE)
        self._set(fd, file, cloexec)
        return fd

    def replace(self, fd: int, file: File, limit: int, cloexec: bool = False) -> None:
        """Make ``fd`` name ``file``, closing what it named (dup2, dup3). EBADF at or beyond the limit."""
        if not 0 <= fd < limit:
            raise linux_error(errno.EBADF)
        file.refs += 1  # before the close: both may be the same file
        if fd in self.fds:
            self.close(fd)
        file.refs -= 1
        self._set(fd, file, cloexec)

    def _set(self, fd: int, file: File, cloexec: bool) -> None:
        file.refs += 1
        self.fds[fd] = file
        if cloexec:
            self.close_on_exec[fd] = None

    def close(self, fd: int) -> None:
        """Give the descriptor back. EBADF without one."""
        file = self.fds.pop(fd, None)
        if file is None:
            raise linux_error(errno.EBADF)
        self.close_on_exec.pop(fd, None)
        file.refs -= 1
        if not file.refs:
            file.release()

    def close_all(self) -> None:
        """At exit."""
        for fd in list(self.fds):
            self.close(fd)


class FsStruct:
    """What path names are relative to (include/linux/fs_struct.h), and ``exe``, the program."""

    __slots__ = ("exe", "pwd", "root", "umask")

    def __init__(self, root: Dentry, pwd: Dentry, umask: int = 0o022) -> None:
        self.root = root
        self.pwd = pwd
        self.umask = umask
        self.exe: Dentry | None = None
