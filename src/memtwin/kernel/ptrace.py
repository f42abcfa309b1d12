# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may look into or change the memory of another process (Linux: kernel/ptrace.c, mm_access in kernel/fork.c).

All processes are root's; what is left to compare are capabilities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memtwin.abi.capability import CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_PTRACE

if TYPE_CHECKING:
    from memtwin.kernel.kernel import Kernel
    from memtwin.kernel.task import TaskStruct

__all__ = ["may_access_mm", "ptrace_may_access"]


def ptrace_may_access(caller: TaskStruct, target: TaskStruct) -> bool:
    """Whether ``caller`` might trace ``target``: itself, who has no capability that it lacks, or anybody with
    CAP_SYS_PTRACE.
    """
    if caller is target or not target.capabilities & ~caller.capabilities:
        return True
    return caller.capable(CAP_SYS_PTRACE)


def may_access_mm(kernel: Kernel, caller: TaskStruct, target: TaskStruct, *, attach: bool) -> bool:
    """Whether ``caller`` may read (``attach``: change) the address space of ``target``.

    Newer kernels let CAP_PERFMON (or CAP_SYS_ADMIN) read whatever ptrace would refuse (observed on 6.18).
    """
    if caller.mm is target.mm or ptrace_may_access(caller, target):
        return True
    if attach or kernel.features.kernel != "host":
        return False
    return caller.capable(CAP_PERFMON) or caller.capable(CAP_SYS_ADMIN)
