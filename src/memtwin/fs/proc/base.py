# SPDX-License-Identifier: GPL-2.0-or-later
"""The directories of /proc (fs/proc/root.c, base.c, fd.c): files whose text is a function, a directory per process.

Files are registered by path (``ProcFs.add``); the kernel half adds the machine-wide ones at boot. What is not
registered is ENOENT. Invariant: a process's directory is found only while the process is in the table of tasks.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from memtwin.abi.capability import CAP_SYS_ADMIN
from memtwin.abi.fcntl import DT_DIR, DT_LNK
from memtwin.abi.stat import S_IFDIR
from memtwin.fs.file import DirFile, File, FilesStruct, FsStruct
from memtwin.fs.inode import Dirent, Inode, linux_error
from memtwin.fs.libfs import LinkInode, PseudoFs, PseudoInode, TableDir, TextInode
from memtwin.fs.proc import array, pagemap, smaps, task_mmu
from memtwin.fs.proc.inode import Reader, ReaderInode

if TYPE_CHECKING:
    from memtwin.fs.namei import Dentry
    from memtwin.mm.mm_types import MmStruct

__all__ = ["ProcFs", "ProcTask"]

_PROC_MAGIC: Final = 0x9FA0


class ProcTask(Protocol):
    """What /proc shows of a process."""

    mm: MmStruct | None
    tgid: int
    files: FilesStruct | None
    fs: FsStruct | None

    def rlimit(self, resource: int) -> int:
        """Soft limit."""

    def rlimit_max(self, resource: int) -> int:
        """Hard limit."""

    def capable(self, capability: int) -> bool:
        """Whether it has a capability (CAP_* number)."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def comm(self) -> str:
        """Its name."""


class ProcFs:
    """The /proc of one machine. ``tasks``: its processes by pid; ``current``: who asks; ``read_memory``: bytes of a
    process.
    """

    def __init__(
        self,
        epoch: int,
        tasks: Callable[[], Mapping[int, ProcTask]],
        current: Callable[[], ProcTask | None],
        read_memory: Callable[[ProcTask, int, int], bytes],
    ) -> None:
        self.fs: Final = PseudoFs(22, _PROC_MAGIC, epoch)
        self.tasks: Final = tasks
        self.current: Final = current
        self.read_memory: Final = read_memory
        self.root: Final = _ProcRoot(self)

    def add(self, path: str, text: Callable[[], str | bytes], mode: int = 0o444) -> None:
        """Register the file ``path`` (relative to /proc, directories are made as needed); ``text()`` is what reading it
        gives.
        """
        self.add_inode(path, TextInode(self.fs, text, mode))

    def add_inode(self, path: str, inode: Inode) -> None:
        """Register any kind of file."""
        *dirs, name = path.encode().split(b"/")
        here: TableDir = self.root
        for part in dirs:
            there = here.entries.get(part)
            if there is None:
                there = here.entries[part] = TableDir(self.fs)
            assert isinstance(there, TableDir)
            here = there
        here.entries[name] = inode

    def capable(self, capability: int) -> bool:
        """Whether the process that asks has a capability; from outside of all processes everything is allowed."""
        task = self.current()
        return task is None or task.capable(capability)


class _ProcRoot(TableDir):
    """/proc itself."""

    __slots__ = ("proc",)

    def __init__(self, proc: ProcFs) -> None:
        super().__init__(proc.fs)
        self.proc: Final = proc
        self.entries[b"self"] = LinkInode(proc.fs, self._self)

    def _self(self) -> bytes:
        task = self.proc.current()
        if task is None:
            raise linux_error(errno.ENOENT)
        return b"%d" % task.tgid

    def lookup(self, name: bytes) -> Inode:
        if name.isdigit():
            task = self.proc.tasks().get(int(name))
            if task is None:
                raise linux_error(errno.ENOENT)
            return _task_dir(self.proc, task)
        return super().lookup(name)

    def iterate(self) -> Iterator[Dirent]:
        yield from super().iterate()
        for pid in sorted(self.proc.tasks()):
            yield Dirent(b"%d" % pid, pid, DT_DIR)


def _task_dir(proc: ProcFs, task: ProcTask) -> TableDir:
    """/proc/PID."""
    fs = proc.fs

    def of_mm(text: Callable[[MmStruct], str]) -> Callable[[], str]:
        return lambda: text(task.mm) if task.mm is not None else ""

    def link(name: str) -> LinkInode:
        """A link to one of the dentries in ``task.fs``: exe, pwd, root."""

        def where() -> Dentry:
            dentry: Dentry | None = getattr(task.fs, name, None)
            if dentry is None:
                raise linux_error(errno.ENOENT)
            return dentry

        return LinkInode(fs, lambda: where().path(), where)

    def memory(start: str, end: str) -> Callable[[], bytes]:
        mm = task.mm
        return lambda: proc.read_memory(task, getattr(mm, start), getattr(mm, end)) if mm is not None else b""

    def make_pagemap() -> Reader:
        return pagemap.pagemap_reader(task.mm, proc.capable(CAP_SYS_ADMIN))

    return TableDir(
        fs,
        {
            b"cmdline": TextInode(fs, memory("arg_start", "arg_end")),
            b"comm": TextInode(fs, lambda: task.comm + "\n"),
            b"cwd": link("pwd"),
            b"environ": TextInode(fs, memory("env_start", "env_end"), 0o400),
            b"exe": link("exe"),
            b"fd": _FdDir(fs, task),
            b"limits": TextInode(fs, lambda: array.limits(task)),
            b"maps": TextInode(fs, of_mm(task_mmu.maps)),
            b"pagemap": ReaderInode(fs, make_pagemap),
            b"root": link("root"),
            b"smaps": TextInode(fs, of_mm(smaps.smaps)),
            b"smaps_rollup": TextInode(fs, of_mm(smaps.smaps_rollup)),
            b"statm": TextInode(fs, of_mm(task_mmu.statm)),
            b"status": TextInode(fs, lambda: array.status(task)),
        },
    )


class _FdDir(PseudoInode):
    """/proc/PID/fd: a link per open descriptor."""

    __slots__ = ("task",)

    def __init__(self, fs: PseudoFs, task: ProcTask) -> None:
        super().__init__(fs, S_IFDIR | 0o500)
        self.task: Final = task

    def lookup(self, name: bytes) -> Inode:
        files = self.task.files
        file = files.fds.get(int(name)) if files is not None and name.isdigit() else None
        if file is None:
            raise linux_error(errno.ENOENT)
        return LinkInode(self.fs, lambda: os.fsencode(file.path), lambda: file.dentry)

    def iterate(self) -> Iterator[Dirent]:
        for fd in sorted(self.task.files.fds if self.task.files is not None else ()):
            yield Dirent(b"%d" % fd, self.ino + 1 + fd, DT_LNK)

    def open(self, dentry: Dentry, flags: int) -> File:
        return DirFile(dentry, self, flags)
