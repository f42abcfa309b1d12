# SPDX-License-Identifier: GPL-2.0-or-later
"""Moving data between files and user memory (fs/read_write.c).

A fault in the middle of a buffer ends the call with what was moved before it, as in Linux; EFAULT only if that is
nothing. Invariant: the position of a file moves by exactly what the call returns.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Final

from memtwin.abi.fcntl import IOV_MAX, MAX_RW_COUNT, O_APPEND
from memtwin.fs.inode import linux_error
from memtwin.hw.paging import TASK_SIZE
from memtwin.kernel.signal import SIGPIPE, send_sig
from memtwin.kernel.syscalls import Calls
from memtwin.kernel.uaccess import copy_from_user, copy_to_user, get_user

if TYPE_CHECKING:
    from memtwin.fs.file import File
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct

__all__ = ["CALLS", "access_ok", "copy_in", "copy_out", "import_iovec"]

CALLS: Final = Calls()

#: Bytes moved at once: bounds what a call with a huge count holds in host memory.
_CHUNK: Final = 1 << 20


def access_ok(addr: int, count: int) -> None:
    """Raises OSError EFAULT unless all of a buffer lies in user space."""
    if addr + count > TASK_SIZE:
        raise linux_error(errno.EFAULT)


def _readable(task: TaskStruct, fd: int) -> File:
    file: File = task.files.get(fd)
    if not file.readable:
        raise linux_error(errno.EBADF)
    return file


def _writable(task: TaskStruct, fd: int) -> File:
    file: File = task.files.get(fd)
    if not file.writable:
        raise linux_error(errno.EBADF)
    return file


def copy_out(task: TaskStruct, addr: int, data: bytes) -> int:
    """Copy to user memory; how many bytes arrived before a bad page."""
    try:
        copy_to_user(task, addr, data)
        return len(data)
    except OSError:
        done = 0
        while True:  # page by page, to see how far it went
            size = 4096 - (addr + done & 4095)
            try:
                copy_to_user(task, addr + done, data[done : done + size])
            except OSError:
                return done
            done += size


def copy_in(task: TaskStruct, addr: int, count: int) -> bytes:
    """Copy from user memory, up to a bad page. EFAULT if that is the first."""
    try:
        return copy_from_user(task, addr, count)
    except OSError:
        data = b""
        while len(data) < count:
            here = addr + len(data)
            try:
                data += copy_from_user(task, here, min(count - len(data), 4096 - (here & 4095)))
            except OSError:
                break
        if not data:
            raise
        return data


def _read(task: TaskStruct, file: File, addr: int, count: int, offset: int | None) -> int:
    """read (``offset`` None: at the position, which moves) or pread."""
    access_ok(addr, count)
    count = min(count, MAX_RW_COUNT)
    done = 0
    while True:
        size = min(count - done, _CHUNK)
        data = file.read(size) if offset is None else file.pread(size, offset + done)
        arrived = copy_out(task, addr + done, data)
        done += arrived
        if arrived < len(data):
            if offset is None:
                file.pos -= len(data) - arrived
            if not done:
                raise linux_error(errno.EFAULT)
            return done
        if done == count or len(data) < size or not file.reads_fill:
            return done


def _write(sys: SyscallTable, task: TaskStruct, file: File, addr: int, count: int) -> int:
    access_ok(addr, count)
    count = min(count, MAX_RW_COUNT)
    done = 0
    while True:
        data = copy_in(task, addr + done, min(count - done, _CHUNK))
        try:
            written = file.write(data)
        except BrokenPipeError:
            if done:
                return done
            send_sig(sys, task, SIGPIPE)
            raise
        done += written
        if done == count or written < _CHUNK:
            return done


@CALLS.define("read", "fd", "buf", "size")
def sys_read(sys: SyscallTable, task: TaskStruct, fd: int, addr: int, count: int) -> int:
    return _read(task, _readable(task, fd), addr, count, None)


@CALLS.define("write", "fd", "buf", "size")
def sys_write(sys: SyscallTable, task: TaskStruct, fd: int, addr: int, count: int) -> int:
    return _write(sys, task, _writable(task, fd), addr, count)


@CALLS.define("pread64", "fd", "buf", "size", "offset")
def sys_pread64(sys: SyscallTable, task: TaskStruct, fd: int, addr: int, count: int, offset: int) -> int:
    if offset < 0:
        raise linux_error(errno.EINVAL)
    file = _readable(task, fd)
    return _read(task, file, addr, count, offset)


@CALLS.define("pwrite64", "fd", "buf", "size", "offset", partly="descriptors 0-2 only")
def sys_pwrite64(sys: SyscallTable, task: TaskStruct, fd: int, addr: int, count: int, offset: int) -> int:
    if offset < 0:
        raise linux_error(errno.EINVAL)
    return int(_writable(task, fd).pwrite(copy_in(task, addr, min(count, MAX_RW_COUNT)), offset))


def import_iovec(task: TaskStruct, addr: int, count: int) -> list[tuple[int, int]]:
    """The (address, length) pairs of an array of struct iovec. EINVAL, EFAULT."""
    if count > IOV_MAX:
        raise linux_error(errno.EINVAL)
    pairs = list(struct.iter_unpack("<QQ", copy_from_user(task, addr, 16 * count)))
    if any(length >> 63 for _, length in pairs):
        raise linux_error(errno.EINVAL)
    return pairs


@CALLS.define("readv", "fd", "addr", "ulong")
def sys_readv(sys: SyscallTable, task: TaskStruct, fd: int, iov: int, count: int) -> int:
    file = _readable(task, fd)
    done = 0
    for addr, length in import_iovec(task, iov, count):
        if length:
            try:
                moved = _read(task, file, addr, length, None)
            except OSError:
                if done:
                    return done
                raise
            done += moved
            if moved < length:
                break
    return done


@CALLS.define("writev", "fd", "addr", "ulong")
def sys_writev(sys: SyscallTable, task: TaskStruct, fd: int, iov: int, count: int) -> int:
    file = _writable(task, fd)
    pairs = import_iovec(task, iov, count)
    for addr, length in pairs:
        access_ok(addr, length)
    data = b"".join(copy_in(task, addr, min(length, MAX_RW_COUNT)) for addr, length in pairs if length)
    try:
        return file.write(data)
    except BrokenPipeError:
        send_sig(sys, task, SIGPIPE)
        raise


@CALLS.define("lseek", "fd", "offset", "uint")
def sys_lseek(sys: SyscallTable, task: TaskStruct, fd: int, offset: int, whence: int) -> int:
    return int(task.files.get(fd).llseek(offset, whence))


@CALLS.define("sendfile", "fd", "fd", "addr", "size")
def sys_sendfile(sys: SyscallTable, task: TaskStruct, out_fd: int, in_fd: int, offset: int, count: int) -> int:
    start = get_user(task, offset) if offset else None
    source, sink = _readable(task, in_fd), _writable(task, out_fd)
    if not source.reads_fill or sink.flags & O_APPEND:
        raise linux_error(errno.EINVAL)
    if start is not None and start >> 63:
        raise linux_error(errno.EINVAL)
    position = source.pos if start is None else start
    done = 0
    count = min(count, MAX_RW_COUNT)
    while done < count:
        data = source.pread(min(count - done, _CHUNK), position + done)
        if not data:
            break
        try:
            written = sink.write(data)
        except BrokenPipeError:
            if done:
                break
            send_sig(sys, task, SIGPIPE)
            raise
        done += written
        if written < len(data):
            break
    if start is None:
        source.pos = position + done
    else:
        copy_to_user(task, offset, (position + done).to_bytes(8, "little"))
    return done


@CALLS.define("fsync", "fd")
@CALLS.define("fdatasync", "fd")
def sys_fsync(sys: SyscallTable, task: TaskStruct, fd: int) -> int:
    file = task.files.get(fd)
    if not file.reads_fill:
        raise linux_error(errno.EINVAL)
    return 0  # nothing was ever written


@CALLS.define("getdents64", "fd", "buf", "uint")
def sys_getdents64(sys: SyscallTable, task: TaskStruct, fd: int, addr: int, count: int) -> int:
    file = task.files.get(fd)
    before = file.pos
    data = file.getdents(count)
    try:
        copy_to_user(task, addr, data)
    except OSError:
        file.pos = before
        raise
    return len(data)


@CALLS.define("fadvise64", "fd", "offset", "size", "int")
def sys_fadvise64(sys: SyscallTable, task: TaskStruct, fd: int, offset: int, length: int, advice: int) -> int:
    file = task.files.get(fd)
    if not file.reads_fill and file.inode.mode & 0o170000 == 0o010000:
        raise linux_error(errno.ESPIPE)
    if not 0 <= advice <= 5 or length >> 63:
        raise linux_error(errno.EINVAL)
    return 0  # reading goes straight to the host: there is nothing to prefetch or drop
