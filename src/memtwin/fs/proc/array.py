# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/PID/status (fs/proc/array.c), the lines whose values memtwin knows, and limits (fs/proc/base.c), in Linux's
order and format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from memtwin.abi.resource import RLIM_INFINITY
from memtwin.fs.proc.task_mmu import status_vm

if TYPE_CHECKING:
    from memtwin.fs.proc.base import ProcTask

__all__ = ["limits", "status"]

#: Name and unit of each limit, by number.
_LIMITS: Final = (
    ("cpu time", "seconds"),
    ("file size", "bytes"),
    ("data size", "bytes"),
    ("stack size", "bytes"),
    ("core file size", "bytes"),
    ("resident set", "bytes"),
    ("processes", "processes"),
    ("open files", "files"),
    ("locked memory", "bytes"),
    ("address space", "bytes"),
    ("file locks", "locks"),
    ("pending signals", "signals"),
    ("msgqueue size", "bytes"),
    ("nice priority", ""),
    ("realtime priority", ""),
    ("realtime timeout", "us"),
)


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


def limits(task: ProcTask) -> str:
    """/proc/PID/limits."""
    lines = [f"{'Limit':25} {'Soft Limit':20} {'Hard Limit':20} {'Units':10}\n"]
    for resource, (name, unit) in enumerate(_LIMITS):
        soft, hard = (
            "unlimited" if value == RLIM_INFINITY else str(value)
            for value in (task.rlimit(resource), task.rlimit_max(resource))
        )
        lines.append(f"{'Max ' + name:25} {soft:20} {hard:20} {f'{unit:10}' if unit else ''}\n")
    return "".join(lines)
