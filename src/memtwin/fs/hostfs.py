# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's files, read-only.

Nothing here can write: files are opened O_RDONLY | O_NOFOLLOW, one component at a time (``fs/namei.py`` follows links),
and only regular files and directories can be opened at all. Devices, sockets and fifos of the host are refused, and so
is everything that lies on a kernel file system of the host (proc, sysfs, devtmpfs, cgroup ...), wherever it is mounted.

Attributes are the host's own, so a listing prints what it prints natively. Reading goes straight to the host; mapped
pages go through one ``AddressSpace`` per inode. Invariant: at most one ``AddressSpace`` is alive for a (dev, ino).
"""

from __future__ import annotations

import errno
import os
import stat as host_stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from memtwin.abi.fcntl import DT_DIR, DT_LNK, DT_REG, DT_UNKNOWN, SEEK_CUR, SEEK_SET
from memtwin.abi.stat import S_IFDIR, S_IFMT, S_IFREG, Kstat, Kstatfs
from memtwin.fs.file import DirFile, File
from memtwin.fs.inode import Dirent, Inode, linux_error
from memtwin.mm.filemap import AddressSpace

if TYPE_CHECKING:
    from memtwin.fs.namei import Dentry

__all__ = ["HostFile", "HostFs", "HostInode", "kstat_of"]

_KERNEL_FS_NAMES: Final = """
autofs binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl mqueue nsfs proc pstore
rpc_pipefs securityfs selinuxfs sysfs tracefs
"""
#: File systems that show or steer the host's kernel instead of holding data.
_KERNEL_FS: Final = frozenset(_KERNEL_FS_NAMES.split())
#: Magic numbers that statfs(2) shows (uapi linux/magic.h and the file systems' own headers).
_MAGIC: Final = {
    "9p": 0x01021997,
    "btrfs": 0x9123683E,
    "ext2": 0xEF53,
    "ext3": 0xEF53,
    "ext4": 0xEF53,
    "fuse": 0x65735546,
    "nfs": 0x6969,
    "nfs4": 0x6969,
    "overlay": 0x794C7630,
    "squashfs": 0x73717368,
    "tmpfs": 0x01021994,
    "vfat": 0x4D44,
    "virtiofs": 0x6A656A63,
    "xfs": 0x58465342,
    "zfs": 0x2FC12FC1,
}
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


def kstat_of(st: os.stat_result) -> Kstat:
    """The host's answer in the twin's form."""
    return Kstat(
        mode=st.st_mode,
        ino=st.st_ino,
        dev=(os.major(st.st_dev), os.minor(st.st_dev)),
        nlink=st.st_nlink,
        uid=st.st_uid,
        gid=st.st_gid,
        rdev=(os.major(st.st_rdev), os.minor(st.st_rdev)),
        size=st.st_size,
        blksize=st.st_blksize,
        blocks=st.st_blocks,
        atime=st.st_atime_ns,
        mtime=st.st_mtime_ns,
        ctime=st.st_ctime_ns,
    )


class HostFs:
    """The host's tree as one file system of the twin."""

    def __init__(self) -> None:
        types = _mounted()
        self.magic: Final = {dev: _MAGIC[kind] for dev, kind in types.items() if kind in _MAGIC}
        self.hidden: Final = frozenset(dev for dev, kind in types.items() if kind in _KERNEL_FS)
        self.mappings: WeakValueDictionary[tuple[int, int], HostMapping] = WeakValueDictionary()

    def root(self) -> HostInode:
        """The inode of ``/``."""
        return HostInode(self, b"/", os.lstat(b"/"))


def _mounted() -> dict[int, str]:
    """Device number -> type of the host's mounted file systems; empty where the host does not tell."""
    types = {}
    try:
        with open("/proc/self/mountinfo", "rb") as mounts:
            for line in mounts:
                fields, _, tail = line.partition(b" - ")
                major, minor = fields.split()[2].split(b":")
                types[os.makedev(int(major), int(minor))] = tail.split(b" ", 1)[0].decode(errors="replace")
    except OSError:
        pass
    return types


class HostInode(Inode):
    """One file of the host, named by its path, which holds no link."""

    __slots__ = ("fs", "host_path", "st")

    def __init__(self, fs: HostFs, host_path: bytes, st: os.stat_result) -> None:
        super().__init__(st.st_mode)
        self.fs: Final = fs
        self.host_path: Final = host_path
        self.st = st  #: as of the last look

    def stat(self) -> Kstat:
        return kstat_of(self.st)

    def statfs(self) -> Kstatfs:
        sv = os.statvfs(self.host_path)
        return Kstatfs(
            self.fs.magic.get(self.st.st_dev, 0),
            sv.f_bsize,
            sv.f_blocks,
            sv.f_bfree,
            sv.f_bavail,
            sv.f_files,
            sv.f_ffree,
            sv.f_fsid,
            sv.f_namemax,
            sv.f_frsize,
            sv.f_flag | 0x21,  # ST_RDONLY | ST_VALID
        )

    def lookup(self, name: bytes) -> HostInode:
        if not self.is_dir:
            raise linux_error(errno.ENOTDIR)
        path = self.host_path.rstrip(b"/") + b"/" + name
        st = os.lstat(path)
        if st.st_dev in self.fs.hidden:
            raise linux_error(errno.ENOENT)
        return HostInode(self.fs, path, st)

    def readlink(self) -> bytes:
        if not self.is_symlink:
            raise linux_error(errno.EINVAL)
        return os.readlink(self.host_path)

    def iterate(self) -> Iterator[Dirent]:
        if not self.is_dir:
            raise linux_error(errno.ENOTDIR)
        with os.scandir(self.host_path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    dtype = DT_LNK
                elif entry.is_dir(follow_symlinks=False):
                    dtype = DT_DIR
                else:
                    dtype = DT_REG if entry.is_file(follow_symlinks=False) else DT_UNKNOWN
                yield Dirent(entry.name, entry.inode(), dtype)

    def open(self, dentry: Dentry, flags: int) -> File:
        kind = self.mode & S_IFMT
        if kind == S_IFDIR:
            os.close(os.open(self.host_path, _OPEN_FLAGS | os.O_DIRECTORY))  # EACCES where the host says so
            return DirFile(dentry, self, flags)
        if kind != S_IFREG:
            raise linux_error(errno.ENXIO)
        return HostFile(dentry, self, flags)

    def permission(self, mask: int) -> None:
        super().permission(mask)
        if not os.access(self.host_path, mask & 5, follow_symlinks=False):  # W_OK: open and access answer EROFS before
            raise linux_error(errno.EACCES)


class HostHandle:
    """An open descriptor of the host, closed when the last file or mapping that needs it is gone."""

    __slots__ = ("fd",)

    def __init__(self, path: bytes, hidden: frozenset[int]) -> None:
        self.fd = -1
        self.fd = os.open(path, _OPEN_FLAGS)
        st = os.fstat(self.fd)
        if not host_stat.S_ISREG(st.st_mode) or st.st_dev in hidden:  # somebody swapped the file since the look-up
            raise linux_error(errno.ENXIO)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class HostMapping(AddressSpace):
    """The mapped pages of one host file."""

    __slots__ = ("__weakref__", "handle")

    def __init__(self, handle: HostHandle) -> None:
        fd = handle.fd
        super().__init__(lambda index: os.pread(fd, 4096, index << 12), lambda: os.fstat(fd).st_size)
        self.handle: Final = handle


class HostFile(File):
    """A regular file of the host, open for reading."""

    __slots__ = ("_handle", "_mapping")

    reads_fill = True

    def __init__(self, dentry: Dentry, inode: HostInode, flags: int) -> None:
        super().__init__(dentry, inode, flags)
        self._handle = HostHandle(inode.host_path, inode.fs.hidden)
        self._mapping: HostMapping | None = None

    @property
    def mapping(self) -> AddressSpace:
        if self._mapping is None:
            st = os.fstat(self._handle.fd)
            assert isinstance(self.inode, HostInode)
            mappings = self.inode.fs.mappings
            mapping = mappings.get((st.st_dev, st.st_ino))
            if mapping is None:
                mapping = mappings[st.st_dev, st.st_ino] = HostMapping(self._handle)
            self._mapping = mapping
        return self._mapping

    def stat(self) -> Kstat:
        return kstat_of(os.fstat(self._handle.fd))

    def pread(self, count: int, offset: int) -> bytes:
        return os.pread(self._handle.fd, count, offset)

    def llseek(self, offset: int, whence: int) -> int:
        if whence == SEEK_CUR:
            offset, whence = self.pos + offset, SEEK_SET
        if not -(1 << 63) <= offset < 1 << 63:
            raise linux_error(errno.EINVAL)
        self.pos = os.lseek(self._handle.fd, offset, whence)  # the host knows its limits, holes and errors
        return self.pos
