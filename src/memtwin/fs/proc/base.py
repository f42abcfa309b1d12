# SPDX-License-Identifier: GPL-2.0-or-later
"""The directories of /proc (fs/proc/root.c, base.c, fd.c): files whose text is a function, a directory per process.

Files are registered by path (``ProcFs.add``); the kernel half adds the machine-wide ones at boot. What is not
registered is ENOENT. Invariant: a process's directory is found only while the process is in the table of tasks.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from memtwin.abi.capability import CAP_SYS_ADMIN
from memtwin.abi.fcntl import DT_DIR, DT_LNK
from memtwin.abi.stat import S_IFDIR
from memtwin.fs.file import DirFile, File, FilesStruct, FsStruct
from memtwin.fs.inode import Dirent, Inode, linux_error
from memtwin.fs.libfs import LinkInode, PseudoFs, PseudoInode, TableDir, TextInode
from memtwin.fs.proc import array, numa_maps, pagemap, smaps, task_mmu
from memtwin.fs.proc.clear_refs import ClearRefsInode
from memtwin.fs.proc.inode import GuardedText, Reader, ReaderInode
from memtwin.fs.proc.mem import MemInode

if TYPE_CHECKING:
    from memtwin.fs.namei import Dentry
    from memtwin.mm.mempolicy import MemPolicy
    from memtwin.mm.mm_types import MmStruct

__all__ = ["ProcFs", "ProcTask"]

_PROC_MAGIC: Final = 0x9FA0


class ProcTask(Protocol):
    """What /proc shows of a process."""

    capabilities: int
    cpu: int
    files: FilesStruct | None
    fs: FsStruct | None
    maj_flt: int
    mempolicy: MemPolicy | None
    min_flt: int
    mm: MmStruct | None
    sighand: Any
    start_time: int
    tgid: int

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
    process; ``may_access``: whether who asks may read (or, with True, change) the memory of a process.
    """

    def __init__(
        self,
        epoch: int,
        tasks: Callable[[], Mapping[int, ProcTask]],
        current: Callable[[], ProcTask | None],
        read_memory: Callable[[ProcTask, int, int], bytes],
        may_access: Callable[[ProcTask, bool], bool],
    ) -> None:
        self.fs: Final = PseudoFs(22, _PROC_MAGIC, epoch)
        self.tasks: Final = tasks
        self.current: Final = current
        self.read_memory: Final = read_memory
        self.may_access: Final = may_access
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

    def mm() -> MmStruct | None:
        """The address space of a process that is still there. ESRCH."""
        if proc.tasks().get(task.pid) is not task:
            raise linux_error(errno.ESRCH)
        return task.mm

    def live_mm() -> MmStruct:
        found = mm()
        if found is None:
            raise linux_error(errno.ESRCH)
        return found

    def allow(attach: bool = False) -> None:
        if not proc.may_access(task, attach):
            raise linux_error(errno.EACCES)

    def of_mm(text: Callable[[MmStruct], str]) -> Callable[[], str]:
        def made() -> str:
            found = mm()
            return text(found) if found is not None else ""

        return made

    def guarded(text: Callable[[MmStruct], str]) -> GuardedText:
        return GuardedText(fs, of_mm(text), allow)

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
        allow()
        return pagemap.pagemap_reader(live_mm(), proc.capable(CAP_SYS_ADMIN))

    def rollup() -> None:
        allow()
        live_mm()

    def attached() -> MmStruct:
        allow(attach=True)
        return live_mm()

    return TableDir(
        fs,
        {
            b"clear_refs": ClearRefsInode(fs, mm),
            b"cmdline": TextInode(fs, memory("arg_start", "arg_end")),
            b"comm": TextInode(fs, lambda: task.comm + "\n"),
            b"cwd": link("pwd"),
            b"environ": GuardedText(fs, memory("env_start", "env_end"), allow, 0o400),
            b"exe": link("exe"),
            b"fd": _FdDir(fs, task),
            b"limits": TextInode(fs, lambda: array.limits(task)),
            b"maps": guarded(task_mmu.maps),
            b"mem": MemInode(fs, attached),
            b"numa_maps": guarded(lambda found: numa_maps.numa_maps(found, task.mempolicy)),
            b"pagemap": ReaderInode(fs, make_pagemap),
            b"root": link("root"),
            b"smaps": guarded(smaps.smaps),
            b"smaps_rollup": GuardedText(fs, lambda: smaps.smaps_rollup(live_mm()), rollup),
            b"stat": TextInode(fs, lambda: array.stat(task, proc.may_access(task, False))),
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
