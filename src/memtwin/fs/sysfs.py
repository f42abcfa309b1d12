# SPDX-License-Identifier: GPL-2.0-or-later
"""/sys of the twin (fs/sysfs/): attributes, one value a file, and where they hang.

There is /sys/kernel/mm/transparent_hugepage so far (mm/huge_memory.c and mm/khugepaged.c;
Documentation/admin-guide/mm/transhuge.rst). What a write accepts was observed on 6.18: the word or the decimal number,
with or without one newline behind, nothing else.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from memtwin.abi.fcntl import O_ACCMODE, O_RDONLY
from memtwin.abi.stat import S_IFREG
from memtwin.fs.file import File
from memtwin.fs.inode import Inode, linux_error
from memtwin.fs.libfs import PseudoFs, PseudoInode, TableDir
from memtwin.mm.huge_mm import DEFRAG, ENABLED, HPAGE_PMD_NR, HPAGE_PMD_SIZE

if TYPE_CHECKING:
    from memtwin.fs.namei import Dentry
    from memtwin.mm.context import MmContext

__all__ = ["COVERAGE", "AttributeInode", "add_transparent_hugepage"]

#: Files below /sys: how much of each is modelled.
COVERAGE: Final = {
    "kernel/mm/transparent_hugepage/defrag": ("modelled", ""),
    "kernel/mm/transparent_hugepage/enabled": ("modelled", ""),
    "kernel/mm/transparent_hugepage/hpage_pmd_size": ("modelled", ""),
    "kernel/mm/transparent_hugepage/khugepaged": ("partly", "khugepaged scans when asked, not by itself"),
    "kernel/mm/transparent_hugepage/use_zero_page": ("modelled", ""),
}

_UINT_MAX: Final = (1 << 32) - 1
_NUMBER: Final = re.compile(rb"\+?([0-9]+)\n?")

Store = Callable[[bytes], None]


class AttributeInode(PseudoInode):
    """An attribute: ``show`` gives its text, ``store`` (None: read-only) takes what is written, or raises EINVAL."""

    __slots__ = ("show", "store")

    def __init__(self, fs: PseudoFs, show: Callable[[], str], store: Store | None = None) -> None:
        super().__init__(fs, S_IFREG | (0o644 if store is not None else 0o444))
        self.show: Final = show
        self.store: Final = store

    def open(self, dentry: Dentry, flags: int) -> File:
        if self.store is None and flags & O_ACCMODE != O_RDONLY:
            raise linux_error(errno.EACCES)
        return _AttributeFile(dentry, self, flags)


class _AttributeFile(File):
    """An open attribute; each write is a whole value, wherever it goes."""

    __slots__ = ()

    reads_fill = True

    def pread(self, count: int, offset: int) -> bytes:
        assert isinstance(self.inode, AttributeInode)
        return self.inode.show().encode()[offset : offset + count]

    def pwrite(self, data: bytes, offset: int) -> int:
        assert isinstance(self.inode, AttributeInode) and self.inode.store is not None
        if data:
            self.inode.store(data)
        return len(data)


def _choice(fs: PseudoFs, owner: object, name: str, words: tuple[str, ...]) -> AttributeInode:
    """One of ``words``, shown in brackets among the others."""

    def show() -> str:
        chosen = getattr(owner, name)
        return " ".join(f"[{word}]" if word == chosen else word for word in words) + "\n"

    def store(data: bytes) -> None:
        word = data.removesuffix(b"\n").decode(errors="replace")
        if word not in words:
            raise linux_error(errno.EINVAL)
        setattr(owner, name, word)

    return AttributeInode(fs, show, store)


def _number(fs: PseudoFs, owner: object, name: str, lowest: int = 0, highest: int = _UINT_MAX) -> AttributeInode:
    def store(data: bytes) -> None:
        match = _NUMBER.fullmatch(data)
        if match is None or not lowest <= int(match[1]) <= highest:
            raise linux_error(errno.EINVAL)
        setattr(owner, name, type(getattr(owner, name))(int(match[1])))

    return AttributeInode(fs, lambda: f"{int(getattr(owner, name))}\n", store)


def add_transparent_hugepage(root: TableDir, ctx: MmContext) -> None:
    """Hang the files about transparent huge pages into ``root``, which is /sys."""
    fs, thp = root.fs, ctx.thp
    settings = thp.khugepaged
    limits = dict.fromkeys(("max_ptes_none", "max_ptes_shared", "max_ptes_swap"), (0, HPAGE_PMD_NR - 1))
    limits |= {"defrag": (0, 1), "pages_to_scan": (1, _UINT_MAX)}
    limits |= dict.fromkeys(("alloc_sleep_millisecs", "scan_sleep_millisecs"), (0, _UINT_MAX))
    daemon = {name: _number(fs, settings, name, *limits[name]) for name in sorted(limits)}
    daemon |= {
        name: AttributeInode(fs, lambda name=name: f"{getattr(settings, name)}\n")  # type: ignore[misc]
        for name in ("full_scans", "pages_collapsed")
    }
    files = {
        "defrag": _choice(fs, thp, "defrag", DEFRAG),
        "enabled": _choice(fs, thp, "enabled", ENABLED),
        "hpage_pmd_size": AttributeInode(fs, lambda: f"{HPAGE_PMD_SIZE}\n"),
        "use_zero_page": _number(fs, thp, "use_zero_page", 0, 1),
    }
    entries: dict[bytes, Inode] = {name.encode(): inode for name, inode in files.items()}
    entries[b"khugepaged"] = TableDir(fs, {name.encode(): inode for name, inode in daemon.items()})
    directory = TableDir(fs, entries)
    root.entries[b"kernel"] = TableDir(fs, {b"mm": TableDir(fs, {b"transparent_hugepage": directory})})
