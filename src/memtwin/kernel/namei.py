# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls that take path names: open, stat, access, readlink, chdir, and the refusals of a read-only tree
(fs/namei.c, open.c, stat.c).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from memtwin.abi.fcntl import (
    AT_EACCESS,
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_NO_AUTOMOUNT,
    AT_STATX_SYNC_TYPE,
    AT_SYMLINK_NOFOLLOW,
    O_CLOEXEC,
    O_CREAT,
    O_LARGEFILE,
    O_PATH,
    O_TRUNC,
    O_WRONLY,
)
from memtwin.abi.resource import RLIMIT_NOFILE
from memtwin.abi.stat import Kstat, pack_stat, pack_statfs, pack_statx
from memtwin.fs.inode import linux_error
from memtwin.fs.namei import path_lookup
from memtwin.fs.open import do_faccessat, do_open
from memtwin.kernel.resource import rlimit
from memtwin.kernel.syscalls import Calls
from memtwin.kernel.uaccess import copy_to_user, strncpy_from_user

if TYPE_CHECKING:
    from memtwin.fs.namei import Dentry
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct

__all__ = ["CALLS", "lookup_at", "start_at"]

CALLS: Final = Calls()

#: Flags that open ignores from old binaries: the ones Linux knows (VALID_OPEN_FLAGS).
_OPEN_FLAGS: Final = 0o37777703


def start_at(task: TaskStruct, dirfd: int, path: bytes) -> Dentry:
    """Where a walk begins. EBADF, ENOTDIR for a bad ``dirfd``, which an absolute path does not look at."""
    if path.startswith(b"/") or dirfd == AT_FDCWD:
        pwd: Dentry = task.fs.pwd
        return pwd
    dentry: Dentry = task.files.get_raw(dirfd).dentry
    if path and not dentry.inode.is_dir:
        raise linux_error(errno.ENOTDIR)
    return dentry


def lookup_at(task: TaskStruct, dirfd: int, path: bytes, *, follow: bool, empty_ok: bool = False) -> Dentry:
    start = start_at(task, dirfd, path)
    if not path and empty_ok:
        return start
    return path_lookup(task.fs.root, start, path, follow=follow)


def _open(task: TaskStruct, dirfd: int, name: int, flags: int) -> int:
    path = strncpy_from_user(task, name)
    file = do_open(task.fs, start_at(task, dirfd, path), path, flags & _OPEN_FLAGS & ~O_CLOEXEC)
    file.flags |= 0 if flags & O_PATH else O_LARGEFILE
    return int(task.files.install(file, rlimit(task, RLIMIT_NOFILE), 0, bool(flags & O_CLOEXEC)))


@CALLS.define("openat", "dirfd", "path", "flags", "mode", partly="the host's files are read-only")
def sys_openat(sys: SyscallTable, task: TaskStruct, dirfd: int, name: int, flags: int, mode: int) -> int:
    return _open(task, dirfd, name, flags)


@CALLS.define("open", "path", "flags", "mode", partly="the host's files are read-only")
def sys_open(sys: SyscallTable, task: TaskStruct, name: int, flags: int, mode: int) -> int:
    return _open(task, AT_FDCWD, name, flags)


@CALLS.define("creat", "path", "mode", partly="the host's files are read-only")
def sys_creat(sys: SyscallTable, task: TaskStruct, name: int, mode: int) -> int:
    return _open(task, AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC)


def _stat_at(task: TaskStruct, dirfd: int, name: int, flags: int) -> Kstat:
    path = b"" if not name and flags & AT_EMPTY_PATH else strncpy_from_user(task, name)
    if not path and flags & AT_EMPTY_PATH and dirfd != AT_FDCWD:
        st: Kstat = task.files.get_raw(dirfd).stat()
        return st
    empty_ok = bool(flags & AT_EMPTY_PATH)
    return lookup_at(task, dirfd, path, follow=not flags & AT_SYMLINK_NOFOLLOW, empty_ok=empty_ok).inode.stat()


@CALLS.define("newfstatat", "dirfd", "path", "buf", "flags")
def sys_newfstatat(sys: SyscallTable, task: TaskStruct, dirfd: int, name: int, buf: int, flags: int) -> int:
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE):
        raise linux_error(errno.EINVAL)
    copy_to_user(task, buf, pack_stat(_stat_at(task, dirfd, name, flags)))
    return 0


@CALLS.define("stat", "path", "buf")
def sys_stat(sys: SyscallTable, task: TaskStruct, name: int, buf: int) -> int:
    return sys_newfstatat(sys, task, AT_FDCWD, name, buf, 0)


@CALLS.define("lstat", "path", "buf")
def sys_lstat(sys: SyscallTable, task: TaskStruct, name: int, buf: int) -> int:
    return sys_newfstatat(sys, task, AT_FDCWD, name, buf, AT_SYMLINK_NOFOLLOW)


@CALLS.define("fstat", "fd", "buf")
def sys_fstat(sys: SyscallTable, task: TaskStruct, fd: int, buf: int) -> int:
    copy_to_user(task, buf, pack_stat(task.files.get_raw(fd).stat()))
    return 0


@CALLS.define("statx", "dirfd", "path", "flags", "uint", "buf", partly="the basic fields")
def sys_statx(sys: SyscallTable, task: TaskStruct, dirfd: int, name: int, flags: int, mask: int, buf: int) -> int:
    known = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE
    if mask & 1 << 31 or flags & ~known or flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE:
        raise linux_error(errno.EINVAL)
    copy_to_user(task, buf, pack_statx(_stat_at(task, dirfd, name, flags)))
    return 0


@CALLS.define("statfs", "path", "buf", partly="type 0 for rarer file systems of the host")
def sys_statfs(sys: SyscallTable, task: TaskStruct, name: int, buf: int) -> int:
    dentry = lookup_at(task, AT_FDCWD, strncpy_from_user(task, name), follow=True)
    copy_to_user(task, buf, pack_statfs(dentry.inode.statfs()))
    return 0


@CALLS.define("fstatfs", "fd", "buf", partly="type 0 for rarer file systems of the host")
def sys_fstatfs(sys: SyscallTable, task: TaskStruct, fd: int, buf: int) -> int:
    copy_to_user(task, buf, pack_statfs(task.files.get_raw(fd).inode.statfs()))
    return 0


@CALLS.define("faccessat2", "dirfd", "path", "int", "flags")
def sys_faccessat2(sys: SyscallTable, task: TaskStruct, dirfd: int, name: int, mode: int, flags: int) -> int:
    if mode & ~7 or flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise linux_error(errno.EINVAL)
    path = strncpy_from_user(task, name)
    empty_ok = bool(flags & AT_EMPTY_PATH)
    do_faccessat(lookup_at(task, dirfd, path, follow=not flags & AT_SYMLINK_NOFOLLOW, empty_ok=empty_ok), mode)
    return 0


@CALLS.define("faccessat", "dirfd", "path", "int")
def sys_faccessat(sys: SyscallTable, task: TaskStruct, dirfd: int, name: int, mode: int) -> int:
    return sys_faccessat2(sys, task, dirfd, name, mode, 0)


@CALLS.define("access", "path", "int")
def sys_access(sys: SyscallTable, task: TaskStruct, name: int, mode: int) -> int:
    return sys_faccessat2(sys, task, AT_FDCWD, name, mode, 0)


@CALLS.define("readlinkat", "dirfd", "path", "buf", "int")
def sys_readlinkat(sys: SyscallTable, task: TaskStruct, dirfd: int, name: int, buf: int, size: int) -> int:
    if size <= 0:
        raise linux_error(errno.EINVAL)
    path = strncpy_from_user(task, name)
    inode = lookup_at(task, dirfd, path, follow=False, empty_ok=True).inode
    if not inode.is_symlink and not path:
        raise linux_error(errno.ENOENT)
    target = inode.readlink()[:size]
    copy_to_user(task, buf, target)
    return len(target)


@CALLS.define("readlink", "path", "buf", "int")
def sys_readlink(sys: SyscallTable, task: TaskStruct, name: int, buf: int, size: int) -> int:
    return sys_readlinkat(sys, task, AT_FDCWD, name, buf, size)


@CALLS.define("getcwd", "buf", "size")
def sys_getcwd(sys: SyscallTable, task: TaskStruct, buf: int, size: int) -> int:
    path = task.fs.pwd.path() + b"\0"
    if len(path) > size:
        raise linux_error(errno.ERANGE)
    copy_to_user(task, buf, path)
    return len(path)


def _chdir(task: TaskStruct, dentry: Dentry) -> int:
    if not dentry.inode.is_dir:
        raise linux_error(errno.ENOTDIR)
    dentry.inode.permission(1)
    task.fs.pwd = dentry
    return 0


@CALLS.define("chdir", "path")
def sys_chdir(sys: SyscallTable, task: TaskStruct, name: int) -> int:
    return _chdir(task, lookup_at(task, AT_FDCWD, strncpy_from_user(task, name), follow=True))


@CALLS.define("fchdir", "fd")
def sys_fchdir(sys: SyscallTable, task: TaskStruct, fd: int) -> int:
    return _chdir(task, task.files.get_raw(fd).dentry)
