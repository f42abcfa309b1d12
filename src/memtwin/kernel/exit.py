# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a process (kernel/exit.c).

One thread each so far: exit and exit_group do the same, and the word of set_tid_address is left alone, as Linux does
when nobody shares the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from memtwin.kernel.syscalls import Calls

if TYPE_CHECKING:
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct

__all__ = ["CALLS", "do_exit"]

CALLS: Final = Calls()


def do_exit(sys: SyscallTable, task: TaskStruct, code: int) -> None:
    """End ``task``; ``code`` is what wait(2) reports: status << 8, or the number of the signal that killed it."""
    if task.exit_code >= 0:
        return
    if task.files is not None:
        task.files.close_all()
    sys.kernel.exit_task(task, code)
    sys.slept.pop(task.pid, None)
    sys.rseq.pop(task.pid, None)


@CALLS.define("exit", "int")
def sys_exit(sys: SyscallTable, task: TaskStruct, status: int) -> int:
    do_exit(sys, task, (status & 0xFF) << 8)
    return 0


@CALLS.define("exit_group", "int")
def sys_exit_group(sys: SyscallTable, task: TaskStruct, status: int) -> int:
    do_exit(sys, task, (status & 0xFF) << 8)
    return 0
