# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptor tables, host files, files made of text, devices, and attributes in the layouts user space reads."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

import pytest

from memtwin.abi.fcntl import O_CLOEXEC, O_DIRECTORY, O_PATH, O_RDONLY, O_RDWR, O_WRONLY, SEEK_CUR, SEEK_END
from memtwin.abi.stat import Kstat, huge_decode_dev, huge_encode_dev, pack_dirent64, pack_stat, pack_statx
from memtwin.fs.devtmpfs import make_dev
from memtwin.fs.file import FilesStruct, FsStruct
from memtwin.fs.hostfs import HostFs
from memtwin.fs.libfs import PseudoFs, TableDir, TextInode
from memtwin.fs.namei import Dentry, path_lookup
from memtwin.fs.open import do_open


@pytest.fixture
def fs(tmp_path):
    root = Dentry(HostFs().root())
    root.mounts[b"dev"] = make_dev(0, lambda count: b"r" * count)
    counter = iter(range(100))
    pseudo = PseudoFs(7, 0, 0)
    root.mounts[b"proc"] = TableDir(pseudo, {b"count": TextInode(pseudo, lambda: f"{next(counter):04d}\n" * 3)})
    return FsStruct(root, path_lookup(root, root, os.fsencode(tmp_path)))


def _open(fs, path, flags=O_RDONLY):
    return do_open(fs, fs.pwd, path, flags)


def test_the_lowest_descriptor_is_given_and_the_last_close_releases(fs, tmp_path):
    (tmp_path / "f").write_bytes(b"0123456789")
    files = FilesStruct()
    released = []
    file = _open(fs, b"f")

    class Watched(type(file)):
        __slots__ = ()

        def release(self):
            released.append(True)

    file = Watched(file.dentry, file.inode, 0)
    assert [files.install(file, 10) for _ in range(3)] == [0, 1, 2]
    files.close(1)
    assert files.install(file, 10, cloexec=True) == 1
    assert list(files.close_on_exec) == [1]
    assert files.install(file, 10, 5) == 5
    files.replace(5, file, 10)
    assert file.refs == 4
    for number, code in ((10, errno.EBADF), (-1, errno.EBADF)):
        with pytest.raises(OSError) as caught:
            files.replace(number, file, 10)
        assert caught.value.errno == code
    with pytest.raises(OSError) as caught:
        files.install(file, 3)
    assert caught.value.errno == errno.EMFILE
    files.close_all()
    assert released == [True] and not files.fds and not files.close_on_exec


def test_a_duplicate_shares_the_position(fs, tmp_path):
    (tmp_path / "f").write_bytes(b"0123456789")
    files = FilesStruct()
    fd = files.install(_open(fs, b"f"), 10)
    other = files.install(files.get(fd), 10)
    assert files.get(fd).read(4) == b"0123"
    assert files.get(other).read(100) == b"456789"
    assert files.get(other).llseek(-3, SEEK_END) == 7
    assert files.get(fd).llseek(1, SEEK_CUR) == 8
    assert files.get(fd).pread(5, 2) == b"23456"


def test_mappings_are_shared_by_all_opens_of_an_inode_and_outlive_them(fs, tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 5000)
    os.link(tmp_path / "f", tmp_path / "g")
    first, second = _open(fs, b"f"), _open(fs, b"g")
    mapping = first.mapping
    assert second.mapping is mapping
    assert (first.dev, first.ino) == (second.dev, second.ino)
    descriptors = len(os.listdir("/proc/self/fd"))
    del first, second
    assert mapping.size() == 5000
    del mapping
    assert len(os.listdir("/proc/self/fd")) == descriptors - 2
    assert _open(fs, b"f").mapping.size() == 5000


@pytest.mark.parametrize("flags", [O_WRONLY, O_RDWR])
def test_no_host_file_can_be_opened_for_writing(fs, tmp_path, flags):
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(OSError) as caught:
        _open(fs, b"f", flags)
    assert caught.value.errno == errno.EROFS


def test_path_descriptors_can_do_nothing_else(fs, tmp_path):
    (tmp_path / "l").symlink_to("nowhere")
    file = _open(fs, b"l", O_PATH | 0o400000 | O_CLOEXEC | O_RDWR)
    assert not file.readable and not file.writable
    files = FilesStruct()
    fd = files.install(file, 10)
    assert files.get_raw(fd) is file
    with pytest.raises(OSError, match="Bad file descriptor"):
        files.get(fd)


def test_a_directory_is_listed_in_pieces(fs, tmp_path):
    for i in range(50):
        (tmp_path / f"file{i:02d}").write_bytes(b"")
    directory = _open(fs, b".", O_DIRECTORY)
    names, kinds = [], []
    while piece := directory.getdents(200):
        at = 0
        while at < len(piece):
            _, off, reclen, kind = struct.unpack_from("<QqHB", piece, at)
            names.append(piece[at + 19 : at + reclen].split(b"\0")[0].decode())
            kinds.append(kind)
            at += reclen
        assert off == len(names)
    assert sorted(names) == sorted([".", "..", *os.listdir(tmp_path)])
    assert names[2:] == os.listdir(tmp_path)  # the host's order
    assert kinds[:2] == [4, 4] and set(kinds[2:]) == {8}
    directory.llseek(0, 0)
    assert len(directory.getdents(1 << 20)) == sum(len(pack_dirent64(0, 0, 0, name.encode())) for name in names)


def test_text_is_made_at_the_start_and_consistent_until_the_next(fs):
    file = _open(fs, b"/proc/count")
    assert file.read(7) == b"0000\n00"
    assert file.read(100) == b"00\n0000\n"
    assert file.read(100) == b""
    file.llseek(0, 0)
    assert file.read(100) == b"0001\n" * 3


def test_devices(fs):
    assert _open(fs, b"/dev/null").read(10) == b""
    assert _open(fs, b"/dev/null", O_WRONLY).write(b"abc") == 3
    assert _open(fs, b"/dev/zero").read(3) == bytes(3)
    assert _open(fs, b"/dev/urandom").read(3) == b"rrr"
    with pytest.raises(OSError) as caught:
        _open(fs, b"/dev/full", O_RDWR).write(b"abc")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError) as caught:
        _open(fs, b"/dev/tty")
    assert caught.value.errno == errno.ENXIO
    assert _open(fs, b"/dev/null").stat().rdev == (1, 3)


def test_stat_layout_is_that_of_the_host(fs, tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 1234)
    os.utime(tmp_path / "f", ns=(1_234_567_890_123_456_789, 987_654_321_012_345_678))
    st, theirs = _open(fs, b"f").stat(), os.stat(tmp_path / "f")
    dev, ino, nlink, mode, uid, gid, _, rdev, size, blksize, blocks, *times = struct.unpack(
        "<QQQIIIIQQqq6q24x", pack_stat(st)
    )
    assert (dev, ino, nlink, mode) == (theirs.st_dev, theirs.st_ino, theirs.st_nlink, theirs.st_mode)
    assert (uid, gid, rdev) == (theirs.st_uid, theirs.st_gid, theirs.st_rdev)
    assert (size, blksize, blocks) == (theirs.st_size, theirs.st_blksize, theirs.st_blocks)
    assert times[:4] == [1_234_567_890, 123_456_789, 987_654_321, 12_345_678]


@pytest.mark.live
def test_statx_layout_is_that_of_the_live_kernel(fs, tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 1234)
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "statx"):
        pytest.skip("no statx in this C library")
    buf = ctypes.create_string_buffer(256)
    assert libc.statx(-100, os.fsencode(tmp_path / "f"), 0, 0x7FF, buf) == 0
    ours, theirs = pack_statx(_open(fs, b"f").stat()), bytearray(buf.raw)
    theirs[0:4] = (0x7FF).to_bytes(4, "little")  # the live kernel may tell more: mount id, direct I/O alignment
    theirs[8:16] = bytes(8)  # attributes
    theirs[56:64] = bytes(8)  # attributes it knows
    theirs[80:96] = bytes(16)  # birth time
    assert ours[:144] == bytes(theirs[:144])


@pytest.mark.parametrize("dev", [(0, 0), (8, 1), (253, 300), (4095, 1 << 20), (70000, 5)])
def test_device_numbers_round_trip(dev):
    assert huge_decode_dev(huge_encode_dev(dev)) == dev
    assert huge_encode_dev(dev) == os.makedev(*dev)


def test_times_before_1970():
    st = Kstat(0, 0, mtime=-1)
    assert struct.unpack_from("<qq", pack_stat(st), 88) == (-1, 999_999_999)
