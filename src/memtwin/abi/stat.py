# SPDX-License-Identifier: GPL-2.0-or-later
"""File attributes and the layouts in which user space gets them (uapi asm/stat.h, linux/stat.h, asm/statfs.h,
linux/dirent.h).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

__all__ = [
    "S_IFBLK",
    "S_IFCHR",
    "S_IFDIR",
    "S_IFIFO",
    "S_IFLNK",
    "S_IFMT",
    "S_IFREG",
    "S_IFSOCK",
    "Kstat",
    "Kstatfs",
    "huge_decode_dev",
    "huge_encode_dev",
    "pack_dirent64",
    "pack_stat",
    "pack_statfs",
    "pack_statx",
]

S_IFMT: Final = 0o170000
S_IFSOCK: Final = 0o140000
S_IFLNK: Final = 0o120000
S_IFREG: Final = 0o100000
S_IFBLK: Final = 0o060000
S_IFDIR: Final = 0o040000
S_IFCHR: Final = 0o020000
S_IFIFO: Final = 0o010000

_NSEC: Final = 1_000_000_000


class Kstat(NamedTuple):
    """Attributes of one file. Sizes in bytes, ``blocks`` in units of 512 bytes, times in ns since 1970, devices as
    (major, minor).
    """

    mode: int
    ino: int
    dev: tuple[int, int] = (0, 0)
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    rdev: tuple[int, int] = (0, 0)
    size: int = 0
    blksize: int = 4096
    blocks: int = 0
    atime: int = 0
    mtime: int = 0
    ctime: int = 0


class Kstatfs(NamedTuple):
    """Attributes of one file system; ``blocks``, ``bfree`` and ``bavail`` in units of ``bsize`` bytes."""

    type: int
    bsize: int = 4096
    blocks: int = 0
    bfree: int = 0
    bavail: int = 0
    files: int = 0
    ffree: int = 0
    fsid: int = 0
    namelen: int = 255
    frsize: int = 4096
    flags: int = 0


def huge_encode_dev(dev: tuple[int, int]) -> int:
    """(major, minor) -> the 64-bit number in struct stat."""
    major, minor = dev
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12 | (major & ~0xFFF) << 32


def huge_decode_dev(dev: int) -> tuple[int, int]:
    """The 64-bit number in struct stat -> (major, minor)."""
    return (dev >> 8 & 0xFFF) | (dev >> 32 & ~0xFFF), (dev & 0xFF) | (dev >> 12 & 0xFFFFFF00)


_STAT: Final = struct.Struct("<QQQIII4xQqqq6q24x")


def pack_stat(st: Kstat) -> bytes:
    """struct stat: 144 bytes."""
    return _STAT.pack(
        huge_encode_dev(st.dev),
        st.ino,
        st.nlink,
        st.mode,
        st.uid,
        st.gid,
        huge_encode_dev(st.rdev),
        st.size,
        st.blksize,
        st.blocks,
        *divmod(st.atime, _NSEC),
        *divmod(st.mtime, _NSEC),
        *divmod(st.ctime, _NSEC),
    )


STATX_BASIC_STATS: Final = 0x7FF
_STATX: Final = struct.Struct("<IIQIIIH2xQQQQ" + "qi4x" * 4 + "IIII" + "112x")


def pack_statx(st: Kstat) -> bytes:
    """struct statx with the basic fields, no birth time: 256 bytes."""
    return _STATX.pack(
        STATX_BASIC_STATS,
        st.blksize,
        0,  # attributes
        st.nlink,
        st.uid,
        st.gid,
        st.mode,
        st.ino,
        st.size,
        st.blocks,
        0,  # attributes_mask: none of the optional attributes is known
        *divmod(st.atime, _NSEC),
        0,
        0,  # no birth time
        *divmod(st.ctime, _NSEC),
        *divmod(st.mtime, _NSEC),
        *st.rdev,
        *st.dev,
    )


_STATFS: Final = struct.Struct("<qqQQQQQQqqq32x")


def pack_statfs(sf: Kstatfs) -> bytes:
    """struct statfs: 120 bytes."""
    return _STATFS.pack(*sf)


_DIRENT64: Final = struct.Struct("<QqHB")


def pack_dirent64(ino: int, off: int, dtype: int, name: bytes) -> bytes:
    """struct linux_dirent64, padded to 8 bytes; ``off`` is the position after this entry."""
    reclen = (_DIRENT64.size + len(name) + 1 + 7) & ~7
    return (_DIRENT64.pack(ino, off, reclen, dtype) + name).ljust(reclen, b"\0")
