# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/PID/status, the lines whose values memtwin knows, and stat (fs/proc/array.c), limits (fs/proc/base.c), in
Linux's order and format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from memtwin.abi.resource import RLIM_INFINITY, RLIMIT_RSS
from memtwin.fs.proc.task_mmu import status_vm

if TYPE_CHECKING:
    from memtwin.fs.proc.base import ProcTask

__all__ = ["limits", "stat", "status"]

_SIG_IGN: Final = 1

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
    ids = "".join(f"{key}:\t{task.pid}\n" for key in ("NStgid", "NSpid", "NSpgid", "NSsid"))
    lines = "".join(f"{key}:\t{value}\n" for key, value in head) + "Groups:\t0 \n" + ids
    mm = task.mm
    if mm is not None:
        lines += status_vm(mm)
        lines += f"CoreDumping:\t0\nTHP_enabled:\t{int(not mm.thp_disabled)}\nuntag_mask:\t0xffffffffffffffff\n"
    pending, blocked, ignored, caught = _signals(task)
    masks = (
        ("SigPnd", pending),
        ("ShdPnd", 0),
        ("SigBlk", blocked),
        ("SigIgn", ignored),
        ("SigCgt", caught),
        ("CapInh", 0),
        ("CapPrm", task.capabilities),
        ("CapEff", task.capabilities),
        ("CapBnd", task.capabilities),
        ("CapAmb", 0),
    )
    return lines + "Threads:\t1\n" + "".join(f"{key}:\t{mask:016x}\n" for key, mask in masks)


def _signals(task: ProcTask) -> tuple[int, int, int, int]:
    """Masks of the signals pending, blocked, ignored and caught; of a process without a program none."""
    hand = task.sighand
    if hand is None:
        return 0, 0, 0, 0
    ignored = caught = 0
    for sig, (handler, *_) in hand.actions.items():
        if handler == _SIG_IGN:
            ignored |= 1 << sig - 1
        elif handler:
            caught |= 1 << sig - 1
    return hand.pending, hand.blocked, ignored, caught


def stat(task: ProcTask, permitted: bool) -> str:
    """/proc/PID/stat: 52 numbers in one line; what is not modelled (times, terminals) is 0. ``permitted``:
    whoever asks might trace the process, and sees addresses.
    """
    mm = task.mm
    pending, blocked, ignored, caught = _signals(task)
    faults = (task.min_flt, 0, task.maj_flt, 0)
    code: tuple[int, ...] = (0, 0, 0)
    data: tuple[int, ...] = (0,) * 7
    if mm is not None:
        code = (mm.start_code, mm.end_code, mm.start_stack) if permitted else (1, 1, 0)
    if mm is not None and permitted:
        data = (mm.start_data, mm.end_data, mm.start_brk, mm.arg_start, mm.arg_end, mm.env_start, mm.env_end)
    vsize, rss = (mm.total_vm << 12, mm.rss) if mm is not None else (0, 0)
    fields = (
        *(0, task.tgid, task.tgid, 0, -1, 0),  # parent, group, session, terminal, its group, flags
        *faults,
        *(0, 0, 0, 0, 20, 0, 1, 0),  # times, priority, nice, threads, itrealvalue
        task.start_time // 10_000_000,
        *(vsize, rss, task.rlimit(RLIMIT_RSS)),
        *code,
        *(0, 0),  # stack pointer and program counter
        *(mask & 0x7FFF_FFFF for mask in (pending, blocked, ignored, caught)),
        *(0, 0, 0, 17, task.cpu, 0, 0, 0, 0, 0),  # wchan, -, -, SIGCHLD, CPU, real-time priority, policy, delays
        *data,
        0,
    )
    return f"{task.pid} ({task.comm}) R " + " ".join(map(str, fields)) + "\n"


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
