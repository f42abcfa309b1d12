# SPDX-License-Identifier: GPL-2.0-or-later
"""A thread of a user program (Linux: include/linux/sched.h): the scheduler's task plus what the kernel knows about
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from memtwin.abi.capability import CAP_LAST_CAP
from memtwin.abi.resource import RLIM_INFINITY
from memtwin.sched import Task

if TYPE_CHECKING:
    from memtwin.kernel.memory_file import MemoryFile
    from memtwin.mm.mempolicy import MemPolicy
    from memtwin.mm.mm_types import MmStruct

__all__ = ["COMM_LEN", "TaskStruct"]

COMM_LEN: Final = 15  #: longest name of a task, in bytes


class TaskStruct(Task):
    """``pid`` of a single-threaded process is its ``tid``. ``mm`` is None after exit.

    ``regs``: the emulated CPU's context of the thread, None for a process driven by API calls. ``exit_code``: as
    wait(2) reports it (status << 8, or the signal), -1 while alive. ``files``, ``fs``: open files and working
    directory, owned by the fs layer.
    """

    __slots__ = (
        "capabilities",
        "clear_child_tid",
        "exit_code",
        "files",
        "fs",
        "memory_files",
        "mempolicy",
        "oom_score_adj",
        "regs",
        "rlimits",
        "robust_list",
        "sighand",
        "start_time",
        "tgid",
    )

    mm: MmStruct | None

    def __init__(self, tid: int, name: str, cpu: int) -> None:
        super().__init__(tid, name, cpu)
        self.tgid = tid
        self.exit_code = -1
        self.oom_score_adj = 0
        self.mempolicy: MemPolicy | None = None
        self.regs: Any = None
        self.files: Any = None
        self.fs: Any = None
        self.sighand: Any = None
        self.rlimits: dict[int, tuple[int, int]] = {}
        #: One bit a CAP_* number; root has all.
        self.capabilities = (1 << CAP_LAST_CAP + 1) - 1
        #: Descriptors of memory files and userfaultfds of a process driven by the API.
        self.memory_files: dict[int, MemoryFile] = {}
        self.clear_child_tid = 0
        self.robust_list = 0
        self.start_time = 0

    def rlimit(self, resource: int) -> int:
        """Soft limit; 2**64 - 1 is unlimited."""
        limits = self.rlimits.get(resource)
        return RLIM_INFINITY if limits is None else limits[0]

    def rlimit_max(self, resource: int) -> int:
        """Hard limit."""
        limits = self.rlimits.get(resource)
        return RLIM_INFINITY if limits is None else limits[1]

    def capable(self, capability: int) -> bool:
        """Whether it has a capability (CAP_* number)."""
        return bool(self.capabilities >> capability & 1)

    @property
    def pid(self) -> int:
        """Linux's name for the thread's number."""
        return self.tid

    @property
    def comm(self) -> str:
        """Name as ps shows it."""
        return self.name[:COMM_LEN]
