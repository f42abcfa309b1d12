# SPDX-License-Identifier: GPL-2.0-or-later
"""Path walk: the answers of the host's kernel, and nothing of its /proc, /sys and /dev."""

from __future__ import annotations

import errno
import os
import random

import pytest

from memtwin.fs.hostfs import HostFs
from memtwin.fs.libfs import PseudoFs, TableDir, TextInode
from memtwin.fs.namei import Dentry, lookup_parent, path_lookup


def _errno(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except OSError as error:
        return errno.errorcode[error.errno]


@pytest.fixture
def root():
    return Dentry(HostFs().root())


@pytest.fixture
def tree(tmp_path):
    for name in ("a", "a/b", "a/b/c", "d"):
        (tmp_path / name).mkdir()
    for name in ("f", "a/f", "a/b/f"):
        (tmp_path / name).write_text(name)
    links = {
        "l1": "a/b", "l2": "l1/../f", "l3": "..", "a/up": "../d", "d/abs": str(tmp_path / "a"), "loop": "loop",
        "ping": "pong", "pong": "ping", "dangling": "nothing", "a/b/deep": "../../l1/c", "slash": "a/", "fslash": "f/",
    }  # fmt: skip
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    return tmp_path


def test_random_paths_lead_where_the_host_leads(root, tree):
    start = path_lookup(root, root, os.fsencode(tree))
    rng = random.Random(1)
    names = [
        "a",
        "b",
        "c",
        "d",
        "f",
        "up",
        "l1",
        "l2",
        "l3",
        "abs",
        "loop",
        "ping",
        "dangling",
        "deep",
        "slash",
        "fslash",
    ]
    names += [".", "..", "", "x"]
    reached = set()
    for _ in range(4000):
        path = "/".join(rng.choice(names) for _ in range(rng.randint(1, 5))) + rng.choice(["", "", "/"])
        path = path.lstrip("/")
        full = f"{tree}/{path}" if path else ""
        for follow in (True, False):
            ours = _errno(lambda: path_lookup(root, start, path.encode(), follow=follow).inode.stat().ino)  # noqa: B023
            theirs = _errno(lambda: (os.stat if follow else os.lstat)(full).st_ino)  # noqa: B023
            assert ours == theirs, (path, follow)
            reached.add(ours if isinstance(ours, str) else "found")
    assert reached == {"found", "ENOENT", "ENOTDIR", "ELOOP"}


def test_forty_links_are_followed_and_no_more(root, tmp_path):
    (tmp_path / "n0").write_text("")
    for i in range(42):
        (tmp_path / f"n{i + 1}").symlink_to(f"n{i}")
    start = path_lookup(root, root, os.fsencode(tmp_path))
    assert path_lookup(root, start, b"n40").path() == os.fsencode(tmp_path / "n0")
    with pytest.raises(OSError, match="Too many levels"):
        path_lookup(root, start, b"n41")
    os.stat(tmp_path / "n40")
    with pytest.raises(OSError, match="Too many levels"):
        os.stat(tmp_path / "n41")


@pytest.mark.parametrize(
    ("path", "code"), [("n" * 256, errno.ENAMETOOLONG), ("n" * 255, errno.ENOENT), ("", errno.ENOENT)]
)
def test_lengths(root, path, code):
    with pytest.raises(OSError) as caught:
        path_lookup(root, root, path.encode())
    assert caught.value.errno == code
    with pytest.raises(OSError) as caught:
        path_lookup(root, root, b"/" * 4096)
    assert caught.value.errno == errno.ENAMETOOLONG


def test_paths_are_without_links(root, tree):
    start = path_lookup(root, root, os.fsencode(tree))
    assert path_lookup(root, start, b"l2").path() == os.fsencode(tree / "a" / "f")
    assert path_lookup(root, start, b"a/b/../up/abs/b").path() == os.fsencode(tree / "a" / "b")
    assert root.path() == b"/"
    assert path_lookup(root, root, b"/../../..") is root


def test_the_parent_is_found_even_if_the_last_component_is_missing(root, tree):
    start = path_lookup(root, root, os.fsencode(tree))
    parent, name = lookup_parent(root, start, b"l1/new")
    assert (parent.path(), name) == (os.fsencode(tree / "a" / "b"), b"new")


def test_mounts_cover_and_kernel_file_systems_are_hidden(root, tmp_path):
    (tmp_path / "link").symlink_to("/proc/version")
    assert _errno(path_lookup, root, root, b"/proc/version") == "ENOENT"  # nothing is mounted there yet
    assert _errno(path_lookup, root, root, b"/sys/kernel") == "ENOENT"
    fs = PseudoFs(9, 0x9FA0, 0)
    root.mounts[b"proc"] = TableDir(fs, {b"version": TextInode(fs, lambda: "twin\n")})
    start = path_lookup(root, root, os.fsencode(tmp_path))
    for path in (b"/proc/version", b"link", b"/proc/../proc/./version", b"/../proc/version"):
        inode = path_lookup(root, start, path).inode
        assert isinstance(inode, TextInode) and inode.text() == "twin\n"
