# SPDX-License-Identifier: GPL-2.0-or-later
"""Path walk (fs/namei.c): component by component, following symbolic links ourselves.

The host never resolves a path for us, so no link can lead into the host's /proc, /sys or /dev: a component is looked up
in the inode reached so far, and those three names in the root directory are the twin's own. Invariants: a ``Dentry``'s
parents never change, so its path holds no link and no ".."; the root is its own parent.
"""

from __future__ import annotations

import errno
from typing import Final

from memtwin.abi.fcntl import NAME_MAX, PATH_MAX
from memtwin.fs.inode import Inode, linux_error

__all__ = ["Dentry", "lookup_parent", "path_lookup"]

MAXSYMLINKS: Final = 40


class Dentry:
    """A name in a directory and what it names; ``mounts``: file systems that cover its entries, by name."""

    __slots__ = ("inode", "mounts", "name", "parent")

    def __init__(self, inode: Inode, name: bytes = b"/", parent: Dentry | None = None) -> None:
        self.inode: Final = inode
        self.name: Final = name
        self.parent: Final = parent if parent is not None else self
        self.mounts: dict[bytes, Inode] = {}

    def path(self) -> bytes:
        """The absolute path (d_path)."""
        parts = []
        here = self
        while here.parent is not here:
            parts.append(here.name)
            here = here.parent
        return b"/" + b"/".join(reversed(parts))

    def child(self, name: bytes) -> Dentry:
        """One step down, without following links. ENOENT, ENOTDIR, ENAMETOOLONG."""
        if name == b".":
            return self
        if name == b"..":
            return self.parent
        if len(name) > NAME_MAX:
            raise linux_error(errno.ENAMETOOLONG)
        inode = self.mounts.get(name)
        return Dentry(inode if inode is not None else self.inode.lookup(name), name, self)


def path_lookup(root: Dentry, start: Dentry, path: bytes, *, follow: bool = True) -> Dentry:
    """The dentry ``path`` names, seen from ``start`` in a tree with ``root``.

    ``follow``: also follow a link that is the last component (a trailing slash does so anyway).
    Raises ENOENT (also for an empty path), ENOTDIR, ELOOP, ENAMETOOLONG.
    """
    return _walk(root, start, path, follow, keep_last=False)[0]


def lookup_parent(root: Dentry, start: Dentry, path: bytes) -> tuple[Dentry, bytes]:
    """The directory that would hold the last component, and that component, for calls that create or remove a name."""
    return _walk(root, start, path, False, keep_last=True)


def _components(path: bytes, *, keep_last: bool = False) -> list[bytes]:
    """The names in ``path``, last first. A trailing slash is a last component "." unless ``keep_last``."""
    names = [name for name in reversed(path.split(b"/")) if name]
    if path.endswith(b"/") and not keep_last:
        names.insert(0, b".")
    return names


def _walk(root: Dentry, start: Dentry, path: bytes, follow: bool, *, keep_last: bool) -> tuple[Dentry, bytes]:
    """Where the walk ends, and with ``keep_last`` the component that it did not take any more."""
    if not path:
        raise linux_error(errno.ENOENT)
    if len(path) >= PATH_MAX:
        raise linux_error(errno.ENAMETOOLONG)
    here = root if path.startswith(b"/") else start
    todo = _components(path, keep_last=keep_last)
    links = 0
    while todo:
        name = todo.pop()
        if not here.inode.is_dir:
            raise linux_error(errno.ENOTDIR)
        if keep_last and not todo:
            return here, name
        entry = here.child(name)
        if not entry.inode.is_symlink or not (todo or follow):
            here = entry
            continue
        links += 1
        if links > MAXSYMLINKS:
            raise linux_error(errno.ELOOP)
        target = entry.inode.follow()
        if target is not None:
            here = target
            continue
        text = entry.inode.readlink()
        if not text:
            raise linux_error(errno.ENOENT)
        if text.startswith(b"/"):
            here = root
        todo += _components(text)
    return here, b"."
