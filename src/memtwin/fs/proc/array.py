# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/PID/status (fs/proc/array.c): the lines whose values memtwin knows, in Linux's order and format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memtwin.fs.proc.task_mmu import status_vm

if TYPE_CHECKING:
    from memtwin.fs.proc.base import ProcTask

__all__ = ["status"]


def status(task: ProcTask) -> str:
    """The text; a process is always running while somebody can look."""
    fs, files = task.fs, task.files
    head = (
        ("Name", task.comm),
        *((("Umask", f"{fs.umask:04o}"),) if fs is not None else ()),
        ("State", "R (running)"),
        ("Tgid", task.tgid),
        ("Ngid", 0),
        ("Pid", task.pid),
        ("PPid", 0),
        ("TracerPid", 0),
        ("Uid", "0\t0\t0\t0"),
        ("Gid", "0\t0\t0\t0"),
        ("FDSize", max(64, 1 << max(files.fds, default=0).bit_length()) if files is not None else 0),
    )
    lines = "".join(f"{key}:\t{value}\n" for key, value in head) + "Groups:\t0 \n"
    return lines + (status_vm(task.mm) if task.mm is not None else "") + "Threads:\t1\n"
