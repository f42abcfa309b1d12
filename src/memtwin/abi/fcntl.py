# SPDX-License-Identifier: GPL-2.0-or-later
"""Open flags, fcntl commands, *at flags and access modes of x86-64 Linux (uapi asm-generic/fcntl.h, linux/fcntl.h).

Not taken from Python's ``os``: the machine that memtwin runs on may be another architecture, with other values.
"""

from __future__ import annotations

from typing import Final

O_RDONLY: Final = 0o0
O_WRONLY: Final = 0o1
O_RDWR: Final = 0o2
O_ACCMODE: Final = 0o3
O_CREAT: Final = 0o100
O_EXCL: Final = 0o200
O_NOCTTY: Final = 0o400
O_TRUNC: Final = 0o1000
O_APPEND: Final = 0o2000
O_NONBLOCK: Final = 0o4000
O_DSYNC: Final = 0o10000
O_ASYNC: Final = 0o20000
O_DIRECT: Final = 0o40000
O_LARGEFILE: Final = 0o100000
O_DIRECTORY: Final = 0o200000
O_NOFOLLOW: Final = 0o400000
O_NOATIME: Final = 0o1000000
O_CLOEXEC: Final = 0o2000000
O_PATH: Final = 0o10000000
O_TMPFILE: Final = 0o20000000 | O_DIRECTORY

#: What F_SETFL may change.
SETFL_MASK: Final = O_APPEND | O_ASYNC | O_DIRECT | O_NOATIME | O_NONBLOCK

F_DUPFD: Final = 0
F_GETFD: Final = 1
F_SETFD: Final = 2
F_GETFL: Final = 3
F_SETFL: Final = 4
F_DUPFD_CLOEXEC: Final = 1030
FD_CLOEXEC: Final = 1

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_EACCESS: Final = 0x200
AT_SYMLINK_FOLLOW: Final = 0x400
AT_NO_AUTOMOUNT: Final = 0x800
AT_EMPTY_PATH: Final = 0x1000
AT_STATX_SYNC_TYPE: Final = 0x6000

F_OK: Final = 0
X_OK: Final = 1
W_OK: Final = 2
R_OK: Final = 4

SEEK_SET: Final = 0
SEEK_CUR: Final = 1
SEEK_END: Final = 2
SEEK_DATA: Final = 3
SEEK_HOLE: Final = 4

PATH_MAX: Final = 4096  #: bytes, terminating NUL included
NAME_MAX: Final = 255  #: bytes of one component
IOV_MAX: Final = 1024

#: Most bytes that one read or write moves (include/linux/fs.h: INT_MAX rounded down to a page).
MAX_RW_COUNT: Final = 0x7FFFF000

DT_UNKNOWN: Final = 0
DT_DIR: Final = 4
DT_CHR: Final = 2
DT_REG: Final = 8
DT_LNK: Final = 10

# Seals of a memfd (fcntl F_ADD_SEALS, F_GET_SEALS).
F_ADD_SEALS: Final = 1033
F_GET_SEALS: Final = 1034
F_SEAL_SEAL: Final = 0x1
F_SEAL_SHRINK: Final = 0x2
F_SEAL_GROW: Final = 0x4
F_SEAL_WRITE: Final = 0x8
F_SEAL_FUTURE_WRITE: Final = 0x10
F_SEAL_EXEC: Final = 0x20
