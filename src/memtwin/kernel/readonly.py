# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls that would change the tree of files, and what a read-only file system answers (fs/namei.c, open.c,
attr.c).

The order of the refusals was observed on a read-only mount of 6.18: the flags, the walk to the parent directory (to the
file itself for attributes), the kind of the last component, then EROFS whether or not the name exists.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from memtwin.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW
from memtwin.abi.stat import S_IFMT, S_IFREG
from memtwin.fs.inode import linux_error
from memtwin.fs.namei import Dentry, lookup_parent
from memtwin.kernel.namei import lookup_at, start_at
from memtwin.kernel.syscalls import Calls
from memtwin.kernel.uaccess import strncpy_from_user

if TYPE_CHECKING:
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct

__all__ = ["CALLS"]

CALLS: Final = Calls()

AT_REMOVEDIR: Final = 0x200
_REFUSED: Final = "the host's files are read-only: always refused"


def _parent(task: TaskStruct, dirfd: int, name: int) -> tuple[Dentry, bytes]:
    """The directory of a name, and its last component: "/" for the root itself. ENOENT, ENOTDIR."""
    path = strncpy_from_user(task, name)
    parent, last = lookup_parent(task.fs.root, start_at(task, dirfd, path), path)
    if not parent.inode.is_dir:
        raise linux_error(errno.ENOTDIR)
    return parent, b"/" if path and not path.strip(b"/") else last


def _create(task: TaskStruct, dirfd: int, name: int) -> int:
    """A new name: EEXIST if there is one already, else EROFS."""
    parent, last = _parent(task, dirfd, name)
    if last in (b".", b"..", b"/"):
        raise linux_error(errno.EEXIST)
    try:
        parent.child(last)
    except FileNotFoundError:
        raise linux_error(errno.EROFS) from None
    raise linux_error(errno.EEXIST)


def _remove(task: TaskStruct, dirfd: int, name: int, *, directory: bool) -> int:
    _, last = _parent(task, dirfd, name)
    if directory and last in (b".", b"..", b"/"):
        raise linux_error({b".": errno.EINVAL, b"..": errno.ENOTEMPTY, b"/": errno.EBUSY}[last])
    if last in (b".", b"..", b"/"):
        raise linux_error(errno.EISDIR)
    raise linux_error(errno.EROFS)


def _rename(task: TaskStruct, olddir: int, old: int, newdir: int, new: int) -> int:
    for dirfd, name in ((olddir, old), (newdir, new)):
        _, last = _parent(task, dirfd, name)
        if last in (b".", b"..", b"/"):
            raise linux_error(errno.EBUSY)
    raise linux_error(errno.EROFS)


def _change(task: TaskStruct, dirfd: int, name: int, flags: int = 0) -> int:
    """Attributes of an existing file."""
    path = strncpy_from_user(task, name)
    follow = not flags & AT_SYMLINK_NOFOLLOW
    lookup_at(task, dirfd, path, follow=follow, empty_ok=bool(flags & AT_EMPTY_PATH))
    raise linux_error(errno.EROFS)


def _change_open(task: TaskStruct, fd: int) -> int:
    task.files.get(fd)
    raise linux_error(errno.EROFS)


@CALLS.define("mkdir", "path", "mode", partly=_REFUSED)
@CALLS.define("mknod", "path", "mode", "uint", partly=_REFUSED)
def sys_mkdir(sys: SyscallTable, task: TaskStruct, name: int, mode: int, dev: int = 0) -> int:
    return _create(task, AT_FDCWD, name)


@CALLS.define("mkdirat", "dirfd", "path", "mode", partly=_REFUSED)
@CALLS.define("mknodat", "dirfd", "path", "mode", "uint", partly=_REFUSED)
def sys_mkdirat(sys: SyscallTable, task: TaskStruct, dirfd: int, name: int, mode: int, dev: int = 0) -> int:
    return _create(task, dirfd, name)


@CALLS.define("symlink", "path", "path", partly=_REFUSED)
def sys_symlink(sys: SyscallTable, task: TaskStruct, target: int, name: int) -> int:
    return sys_symlinkat(sys, task, target, AT_FDCWD, name)


@CALLS.define("symlinkat", "path", "dirfd", "path", partly=_REFUSED)
def sys_symlinkat(sys: SyscallTable, task: TaskStruct, target: int, dirfd: int, name: int) -> int:
    if not strncpy_from_user(task, target):
        raise linux_error(errno.ENOENT)
    return _create(task, dirfd, name)


@CALLS.define("link", "path", "path", partly=_REFUSED)
def sys_link(sys: SyscallTable, task: TaskStruct, old: int, new: int) -> int:
    return sys_linkat(sys, task, AT_FDCWD, old, AT_FDCWD, new, 0)


@CALLS.define("linkat", "dirfd", "path", "dirfd", "path", "flags", partly=_REFUSED)
def sys_linkat(sys: SyscallTable, task: TaskStruct, olddir: int, old: int, newdir: int, new: int, flags: int) -> int:
    if flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH):
        raise linux_error(errno.EINVAL)
    follow, empty_ok = bool(flags & AT_SYMLINK_FOLLOW), bool(flags & AT_EMPTY_PATH)
    lookup_at(task, olddir, strncpy_from_user(task, old), follow=follow, empty_ok=empty_ok)
    return _create(task, newdir, new)


@CALLS.define("rmdir", "path", partly=_REFUSED)
def sys_rmdir(sys: SyscallTable, task: TaskStruct, name: int) -> int:
    return _remove(task, AT_FDCWD, name, directory=True)


@CALLS.define("unlink", "path", partly=_REFUSED)
def sys_unlink(sys: SyscallTable, task: TaskStruct, name: int) -> int:
    return _remove(task, AT_FDCWD, name, directory=False)


@CALLS.define("unlinkat", "dirfd", "path", "flags", partly=_REFUSED)
def sys_unlinkat(sys: SyscallTable, task: TaskStruct, dirfd: int, name: int, flags: int) -> int:
    if flags & ~AT_REMOVEDIR:
        raise linux_error(errno.EINVAL)
    return _remove(task, dirfd, name, directory=bool(flags))


@CALLS.define("rename", "path", "path", partly=_REFUSED)
def sys_rename(sys: SyscallTable, task: TaskStruct, old: int, new: int) -> int:
    return _rename(task, AT_FDCWD, old, AT_FDCWD, new)


@CALLS.define("renameat", "dirfd", "path", "dirfd", "path", partly=_REFUSED)
@CALLS.define("renameat2", "dirfd", "path", "dirfd", "path", "flags", partly=_REFUSED)
def sys_renameat(
    sys: SyscallTable, task: TaskStruct, olddir: int, old: int, newdir: int, new: int, flags: int = 0
) -> int:
    if flags & ~7:
        raise linux_error(errno.EINVAL)
    return _rename(task, olddir, old, newdir, new)


@CALLS.define("truncate", "path", "offset", partly=_REFUSED)
def sys_truncate(sys: SyscallTable, task: TaskStruct, name: int, length: int) -> int:
    if length < 0:
        raise linux_error(errno.EINVAL)
    inode = lookup_at(task, AT_FDCWD, strncpy_from_user(task, name), follow=True).inode
    if inode.is_dir:
        raise linux_error(errno.EISDIR)
    raise linux_error(errno.EROFS if inode.mode & S_IFMT == S_IFREG else errno.EINVAL)


@CALLS.define("ftruncate", "fd", "offset", partly=_REFUSED)
def sys_ftruncate(sys: SyscallTable, task: TaskStruct, fd: int, length: int) -> int:
    if length >= 0:
        task.files.get(fd)
    raise linux_error(errno.EINVAL)  # no regular file is open for writing


@CALLS.define("fallocate", "fd", "int", "offset", "offset", partly=_REFUSED)
def sys_fallocate(sys: SyscallTable, task: TaskStruct, fd: int, mode: int, offset: int, length: int) -> int:
    file = task.files.get(fd)
    if offset < 0 or length <= 0:
        raise linux_error(errno.EINVAL)
    raise linux_error(errno.ENODEV if file.writable else errno.EBADF)


@CALLS.define("chmod", "path", "mode", partly=_REFUSED)
@CALLS.define("chown", "path", "uint", "uint", partly=_REFUSED)
@CALLS.define("utime", "path", "addr", partly=_REFUSED)
@CALLS.define("utimes", "path", "addr", partly=_REFUSED)
def sys_chmod(sys: SyscallTable, task: TaskStruct, name: int, *values: int) -> int:
    return _change(task, AT_FDCWD, name)


@CALLS.define("lchown", "path", "uint", "uint", partly=_REFUSED)
def sys_lchown(sys: SyscallTable, task: TaskStruct, name: int, uid: int, gid: int) -> int:
    return _change(task, AT_FDCWD, name, AT_SYMLINK_NOFOLLOW)


@CALLS.define("fchmodat", "dirfd", "path", "mode", partly=_REFUSED)
def sys_fchmodat(sys: SyscallTable, task: TaskStruct, dirfd: int, name: int, mode: int) -> int:
    return _change(task, dirfd, name)


@CALLS.define("fchownat", "dirfd", "path", "uint", "uint", "flags", partly=_REFUSED)
def sys_fchownat(sys: SyscallTable, task: TaskStruct, dirfd: int, name: int, uid: int, gid: int, flags: int) -> int:
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise linux_error(errno.EINVAL)
    return _change(task, dirfd, name, flags)


@CALLS.define("utimensat", "dirfd", "path", "addr", "flags", partly=_REFUSED)
def sys_utimensat(sys: SyscallTable, task: TaskStruct, dirfd: int, name: int, times: int, flags: int) -> int:
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise linux_error(errno.EINVAL)
    return _change(task, dirfd, name, flags) if name else _change_open(task, dirfd)


@CALLS.define("fchmod", "fd", "mode", partly=_REFUSED)
@CALLS.define("fchown", "fd", "uint", "uint", partly=_REFUSED)
def sys_fchmod(sys: SyscallTable, task: TaskStruct, fd: int, *values: int) -> int:
    return _change_open(task, fd)
