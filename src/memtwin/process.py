# SPDX-License-Identifier: GPL-2.0-or-later
"""A process driven from Python: one method a system call, and accesses as its CPU would make them. No rule lives
here.

A kernel error is ``OSError`` with Linux's errno (``brk`` returns the break and never raises); a fatal fault is
``FatalSignal`` and the process lives on; after SIGKILL or exit every call raises ``ProcessKilled``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import TypeVar, TypeVarTuple

from memtwin.abi import mman
from memtwin.abi.capability import CAP_SYS_RESOURCE
from memtwin.abi.fcntl import O_ACCMODE, O_CREAT, O_EXCL, O_PATH, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY
from memtwin.abi.prctl import (
    PR_GET_MEMORY_MERGE,
    PR_GET_THP_DISABLE,
    PR_SET_MEMORY_MERGE,
    PR_SET_THP_DISABLE,
    PR_SET_VMA,
    PR_SET_VMA_ANON_NAME,
)
from memtwin.abi.resource import RLIM_NLIMITS
from memtwin.abi.signal import SIGKILL
from memtwin.cpu.direct import DirectCpu
from memtwin.errors import NotModelled, ProcessKilled
from memtwin.hw.ram import PAGE_MASK
from memtwin.kernel.fork import dup_mm
from memtwin.kernel.kernel import Kernel
from memtwin.kernel.memory_file import MemoryFile
from memtwin.kernel.process_vm_access import process_mm
from memtwin.kernel.procfs import open_file
from memtwin.kernel.task import TaskStruct
from memtwin.mm.ksm import ksm_disable_merge_any, ksm_enable_merge_any
from memtwin.mm.madvise import do_madvise, do_process_madvise, madvise_set_anon_name
from memtwin.mm.mempolicy import describe, do_mbind, mpol_new
from memtwin.mm.migrate import do_pages_stat
from memtwin.mm.mincore import do_mincore, do_msync
from memtwin.mm.mlock import do_mlock, do_mlockall, do_munlock, do_munlockall
from memtwin.mm.mm_types import MappedFile, MmStruct, VmArea
from memtwin.mm.mmap import do_brk, do_mmap, do_munmap, setup_arg_pages
from memtwin.mm.mprotect import do_mprotect
from memtwin.mm.mremap import do_mremap
from memtwin.mm.mseal import do_mseal
from memtwin.mm.process_vm_access import read_remote_vm, write_remote_vm
from memtwin.mm.shmem import DevZero, ShmemFile, ShmemInode
from memtwin.mm.userfaultfd import UserfaultfdCtx, UserfaultfdFile

__all__ = ["Process"]

Ts = TypeVarTuple("Ts")
R = TypeVar("R")

#: The stack of a spawned process: top and size as architecture, section 4 fixes them.
_STACK_TOP = 0x7FFFFFFFF000
_STACK_SIZE = 8 << 20
_RW = mman.PROT_READ | mman.PROT_WRITE
_ANON = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS
_MFD_ALLOW_SEALING = 2


class Process:
    """One single-threaded process of a machine; made by ``Machine.spawn`` and ``fork``."""

    __slots__ = ("_cpu", "_rcu", "_sched", "kernel", "task", "touch")

    #: ``touch(addr, write)``: access one byte; the same as a one-byte load or store. Raises FatalSignal, ProcessKilled.
    touch: Callable[[int, bool], None]

    def __init__(self, kernel: Kernel, task: TaskStruct) -> None:
        self.kernel = kernel
        self.task = task
        self._sched = kernel.sched
        self._rcu = kernel.rcu
        self._cpu = DirectCpu(kernel.sched, task, self._killed)
        self.touch = self._cpu.touch

    @classmethod
    def spawn(cls, kernel: Kernel, name: str) -> Process:
        """A new process in ``kernel``. Raises OSError ENOMEM."""
        task = kernel.new_task(name)
        process = cls(kernel, task)
        try:
            process._call(process._set_up)
        except OSError:
            process.exit()
            raise
        return process

    def _set_up(self) -> None:
        mm = self.kernel.mm_alloc()
        self.kernel.exec_mmap(self.task, mm)
        setup_arg_pages(mm, _STACK_TOP, _STACK_SIZE)
        mm.start_stack = _STACK_TOP - 16

    def _call(self, function: Callable[[*Ts], R], *args: *Ts) -> R:
        """Run kernel code as this process, at once, in the calling greenlet."""
        task = self.task
        if task.exit_code >= 0:
            raise ProcessKilled(f"process {task.pid} has exited")
        sched = self._sched
        previous = sched.enter(task)
        try:
            return function(*args)
        finally:
            if task.fatal_signal_pending and task.exit_code < 0:
                self.kernel.exit_task(task, SIGKILL)
            sched.leave(previous)
            if self._rcu.waiting:
                self._rcu.rcu_barrier()
            if task.fatal_signal_pending:
                raise ProcessKilled(f"process {task.pid} was killed")

    def _killed(self, sig: int) -> None:
        self.kernel.exit_task(self.task, sig)

    @property
    def mm(self) -> MmStruct:
        """The address space. Raises ProcessKilled after exit."""
        mm = self.task.mm
        if mm is None:
            raise ProcessKilled(f"process {self.task.pid} has exited")
        return mm

    @property
    def pid(self) -> int:
        """Process id."""
        return self.task.pid

    def vmas(self) -> list[VmArea]:
        """The areas, ascending."""
        return self.mm.areas()

    # -- mappings -------------------------------------------------------------------------------------------------

    def mmap(self, addr: int, length: int, prot: int = _RW, flags: int = _ANON, fd: int = -1, offset: int = 0) -> int:
        """mmap(2); the address. Raises OSError."""
        if offset & ~PAGE_MASK:
            raise OSError(errno.EINVAL, "mmap: unaligned offset")
        file: MappedFile | None = None
        if not flags & mman.MAP_ANONYMOUS:
            held = self.task.memory_files.get(fd)
            unmappable = held is not None and isinstance(held.what, UserfaultfdCtx)
            file = UserfaultfdFile() if unmappable else self._memory_file(fd)
        return self._call(do_mmap, self.mm, addr, length, prot, flags, file, offset >> 12)

    def munmap(self, addr: int, length: int) -> None:
        """munmap(2). Raises OSError."""
        self._call(do_munmap, self.mm, addr, length)

    def mprotect(self, addr: int, length: int, prot: int) -> None:
        """mprotect(2). Raises OSError."""
        self._call(do_mprotect, self.mm, addr, length, prot)

    def mremap(self, addr: int, old_len: int, new_len: int, flags: int = 0, new_addr: int = 0) -> int:
        """mremap(2); the address. Raises OSError."""
        return self._call(do_mremap, self.mm, addr, old_len, new_len, flags, new_addr)

    def brk(self, addr: int) -> int:
        """The raw brk system call: the break that holds afterwards."""
        return self._call(do_brk, self.mm, addr)

    def madvise(self, addr: int, length: int, advice: int) -> None:
        """madvise(2). Raises OSError; NotModelled for advice on what is not modelled."""
        self._call(do_madvise, self.mm, addr, length, advice)

    def process_madvise(self, addr: int, length: int, advice: int) -> int:
        """process_madvise(2) on oneself, one range; bytes advised. Raises OSError."""
        return self._call(do_process_madvise, self.mm, addr, length, advice)

    def populate(self, addr: int, length: int, *, write: bool = True) -> None:
        """MADV_POPULATE_WRITE (or _READ): have all pages of a range present. Raises OSError ENOMEM, EINVAL, EFAULT."""
        self.madvise(addr, length, mman.MADV_POPULATE_WRITE if write else mman.MADV_POPULATE_READ)

    def mlock(self, addr: int, length: int) -> None:
        """mlock(2). Raises OSError."""
        self._call(do_mlock, self.mm, addr, length)

    def mlock2(self, addr: int, length: int, flags: int) -> None:
        """mlock2(2). Raises OSError."""
        self._call(do_mlock, self.mm, addr, length, flags)

    def munlock(self, addr: int, length: int) -> None:
        """munlock(2). Raises OSError."""
        self._call(do_munlock, self.mm, addr, length)

    def mlockall(self, flags: int) -> None:
        """mlockall(2). Raises OSError."""
        self._call(do_mlockall, self.mm, flags)

    def munlockall(self) -> None:
        """munlockall(2)."""
        self._call(do_munlockall, self.mm)

    def mseal(self, addr: int, length: int, flags: int = 0) -> None:
        """mseal(2). Raises OSError (ENOSYS before 6.10)."""
        self._call(do_mseal, self.mm, addr, length, flags)

    def msync(self, addr: int, length: int, flags: int) -> None:
        """msync(2). Raises OSError."""
        self._call(do_msync, self.mm, addr, length, flags)

    def mincore(self, addr: int, length: int) -> bytes:
        """mincore(2): one byte a page. Raises OSError."""
        return self._call(do_mincore, self.mm, addr, length)

    def mbind(self, addr: int, length: int, mode: int, nodemask: int = 0, flags: int = 0) -> None:
        """mbind(2). Raises OSError; NotModelled where pages would have to move."""
        self._call(do_mbind, self.mm, addr, length, mode, nodemask, flags)

    def set_mempolicy(self, mode: int, nodemask: int = 0) -> None:
        """set_mempolicy(2) of the task. Raises OSError EINVAL."""
        self.task.mempolicy = mpol_new(self.kernel.mm_ctx, mode, nodemask)

    def get_mempolicy(self, addr: int | None = None) -> tuple[int, int]:
        """get_mempolicy(2): (mode with flags, node mask) of the task, or with MPOL_F_ADDR of the area at ``addr``.

        Raises OSError EFAULT where nothing is mapped at ``addr``.
        """
        policy = self.task.mempolicy
        if addr is not None:
            vma = self.mm.mm_mt.load(addr)
            if vma is None:
                raise OSError(errno.EFAULT, "get_mempolicy: nothing is mapped there")
            policy = vma.policy if vma.policy is not None else policy
        return describe(policy)

    def prctl_set_vma_anon_name(self, addr: int, length: int, name: str | None) -> None:
        """prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME). Raises OSError EINVAL where CONFIG_ANON_VMA_NAME is off."""
        if "ANON_VMA_NAME" not in self.kernel.mm_ctx.config:
            raise OSError(errno.EINVAL, "prctl: the kernel is built without CONFIG_ANON_VMA_NAME")
        self._call(madvise_set_anon_name, self.mm, addr, length, name)

    def prctl(self, option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
        """prctl(2), as far as memory management is concerned. Raises OSError EINVAL; NotModelled."""
        if option == PR_SET_VMA and arg2 == PR_SET_VMA_ANON_NAME and "ANON_VMA_NAME" not in self.kernel.mm_ctx.config:
            raise OSError(errno.EINVAL, "prctl: the kernel is built without CONFIG_ANON_VMA_NAME")
        if option == PR_SET_THP_DISABLE:
            if arg3 or arg4 or arg5:
                raise OSError(errno.EINVAL, "prctl: PR_SET_THP_DISABLE takes one argument")
            self.mm.thp_disabled = bool(arg2)
            return 0
        if option == PR_GET_THP_DISABLE:
            if arg2 or arg3 or arg4 or arg5:
                raise OSError(errno.EINVAL, "prctl: PR_GET_THP_DISABLE takes no argument")
            return int(self.mm.thp_disabled)
        if option == PR_SET_MEMORY_MERGE:
            if arg3 or arg4 or arg5:
                raise OSError(errno.EINVAL, "prctl: PR_SET_MEMORY_MERGE takes one argument")
            self._call(ksm_enable_merge_any if arg2 else ksm_disable_merge_any, self.mm)
            return 0
        if option == PR_GET_MEMORY_MERGE:
            if arg2 or arg3 or arg4 or arg5:
                raise OSError(errno.EINVAL, "prctl: PR_GET_MEMORY_MERGE takes no argument")
            return int(self.mm.merge_any)
        raise NotModelled(f"prctl option {option}")

    # -- limits and rights ----------------------------------------------------------------------------------------

    def getrlimit(self, resource: int) -> tuple[int, int]:
        """(soft, hard) limit; 2**64 - 1 is unlimited. Raises OSError EINVAL."""
        if not 0 <= resource < RLIM_NLIMITS:
            raise OSError(errno.EINVAL, "getrlimit: unknown resource")
        return self.task.rlimit(resource), self.task.rlimit_max(resource)

    def setrlimit(self, resource: int, soft: int, hard: int | None = None) -> None:
        """Set the limits (``hard`` None: unchanged). Raises OSError EINVAL, EPERM (CAP_SYS_RESOURCE)."""
        old = self.getrlimit(resource)[1]
        hard = old if hard is None else hard
        if soft > hard:
            raise OSError(errno.EINVAL, "setrlimit: the soft limit exceeds the hard one")
        if hard > old and not self.task.capable(CAP_SYS_RESOURCE):
            raise OSError(errno.EPERM, "setrlimit: raising the hard limit needs CAP_SYS_RESOURCE")
        self.task.rlimits[resource] = soft, hard

    def dropcap(self, capability: int) -> None:
        """Give up a capability (CAP_* number) for good."""
        self.task.capabilities &= ~(1 << capability)

    # -- processes ------------------------------------------------------------------------------------------------

    def fork(self, name: str | None = None) -> Process:
        """fork(2): the child. Raises OSError ENOMEM."""
        return self._call(self._fork, name if name is not None else self.task.name)

    def _fork(self, name: str) -> Process:
        mm = dup_mm(self.kernel, self.mm)
        task = self.kernel.new_task(name)
        parent = self.task
        task.rlimits = dict(parent.rlimits)
        task.capabilities = parent.capabilities
        task.oom_score_adj = parent.oom_score_adj
        task.mempolicy = parent.mempolicy
        task.memory_files = {fd: held.get() for fd, held in parent.memory_files.items()}
        self.kernel.exec_mmap(task, mm)
        return Process(self.kernel, task)

    def exit(self, status: int = 0) -> None:
        """exit_group(2). All memory is given back; a second call does nothing."""
        if self.task.exit_code < 0:
            self._call(self.kernel.exit_task, self.task, (status & 0xFF) << 8)

    def kill(self) -> None:
        """End the process as SIGKILL does."""
        if self.task.exit_code < 0:
            self._call(self.kernel.exit_task, self.task, SIGKILL)

    # -- memory files and userfaultfd -----------------------------------------------------------------------------

    def _install(self, what: ShmemFile | UserfaultfdCtx) -> int:
        """The lowest free descriptor above the standard three."""
        table = self.task.memory_files
        fd = next(fd for fd in range(3, len(table) + 4) if fd not in table)
        table[fd] = MemoryFile(what)
        return fd

    def _memory_file(self, fd: int, *, even_path: bool = False) -> ShmemFile:
        held = self.task.memory_files.get(fd)
        if held is None:
            raise OSError(errno.EBADF, "no such descriptor")
        if not isinstance(held.what, ShmemFile):
            raise OSError(errno.ENODEV, "the descriptor can not be mapped")
        if held.what.only_path and not even_path:
            raise OSError(errno.EBADF, "the descriptor only names a file (O_PATH)")
        return held.what

    def userfaultfd_context(self, fd: int) -> UserfaultfdCtx:
        """The context behind a descriptor, for its ioctls. Raises OSError EBADF, ENOTTY."""
        held = self.task.memory_files.get(fd)
        if held is None:
            raise OSError(errno.EBADF, "no such descriptor")
        if not isinstance(held.what, UserfaultfdCtx):
            raise OSError(errno.ENOTTY, "the descriptor is no userfaultfd")
        return held.what

    def memfd_create(self, name: str, flags: int = 0) -> int:
        """memfd_create(2); a descriptor. Raises OSError EINVAL; NotModelled (huge pages)."""
        if flags & ~0x1F:
            raise NotModelled("memfd_create: huge pages come with hugetlbfs")
        inode = ShmemInode(self.kernel.mm_ctx, f"/memfd:{name} (deleted)", sealable=bool(flags & _MFD_ALLOW_SEALING))
        return self._install(ShmemFile(inode))

    def open(self, path: str, flags: int = O_RDWR) -> int:
        """open(2) of a file in the machine's memory file system, or of /dev/zero; a descriptor. Raises OSError ENOENT,
        EEXIST, EISDIR.
        """
        names = self.kernel.memory_names
        inode: ShmemInode | None
        if path == "/dev/zero":
            inode = DevZero(self.kernel.mm_ctx)
        else:
            inode = names.get(path)
            if inode is not None and flags & O_CREAT and flags & O_EXCL:
                raise OSError(errno.EEXIST, "open: the file exists")
            if inode is None:
                if not flags & O_CREAT or flags & O_PATH:
                    raise OSError(errno.ENOENT, "open: no such file")
                inode = names[path] = ShmemInode(self.kernel.mm_ctx, path, sealable=False)
                inode.mapping.opened(self.kernel.mm_ctx)
        access = flags & O_ACCMODE
        if flags & O_PATH:
            return self._install(ShmemFile(inode, only_path=True))
        if flags & O_TRUNC and path != "/dev/zero":
            self._call(inode.truncate, 0)
        return self._install(ShmemFile(inode, readable=access != O_WRONLY, writable=access != O_RDONLY))

    def unlink(self, path: str) -> None:
        """unlink(2) in the machine's memory file system. Raises OSError ENOENT."""
        inode = self.kernel.memory_names.pop(path, None)
        if inode is None:
            raise OSError(errno.ENOENT, "unlink: no such file")
        inode.name = f"{path} (deleted)"
        self._call(inode.mapping.closed, self.kernel.mm_ctx)

    def ftruncate(self, fd: int, length: int) -> None:
        """ftruncate(2). Raises OSError EBADF, EINVAL, EPERM."""
        file = self._memory_file(fd)
        if not file.writable:
            raise OSError(errno.EINVAL, "ftruncate: not open for writing")
        self._call(file.inode.truncate, length)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """pread(2) of a memory file. Raises OSError EBADF, EINVAL."""
        file = self._memory_file(fd)
        if not file.readable:
            raise OSError(errno.EBADF, "pread: not open for reading")
        return self._call(file.inode.read, length, offset)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        """pwrite(2) of a memory file; bytes written. Raises OSError EBADF, EINVAL, EPERM (sealed), ENOSPC."""
        file = self._memory_file(fd)
        if not file.writable:
            raise OSError(errno.EBADF, "pwrite: not open for writing")
        return self._call(file.inode.write, data, offset)

    def fstat(self, fd: int) -> tuple[int, int]:
        """(size in bytes, blocks of 512 bytes). Raises OSError EBADF."""
        inode = self._memory_file(fd, even_path=True).inode
        return 0 if isinstance(inode, DevZero) else inode.size, len(inode.mapping.folios) * 8

    def add_seals(self, fd: int, seals: int) -> None:
        """fcntl(F_ADD_SEALS). Raises OSError EBADF, EINVAL, EPERM, EBUSY."""
        self._call(self._memory_file(fd).inode.add_seals, seals)

    def get_seals(self, fd: int) -> int:
        """fcntl(F_GET_SEALS). Raises OSError EBADF."""
        return self._memory_file(fd).inode.seals

    def userfaultfd(self, flags: int = 0) -> int:
        """userfaultfd(2); a descriptor. Raises OSError EINVAL."""
        if flags & ~(0o2000000 | 0o4000 | 1):
            raise OSError(errno.EINVAL, "userfaultfd: unknown flag")
        return self._install(UserfaultfdCtx(self.mm))

    def uffd_api(self, fd: int, features: int, version: int = 0xAA) -> tuple[int, int]:
        """UFFDIO_API: (features of the kernel, ioctls). Raises OSError."""
        return self._call(self.userfaultfd_context(fd).api, version, features)

    def uffd_register(self, fd: int, addr: int, length: int, mode: int) -> int:
        """UFFDIO_REGISTER; the ioctls the range takes. Raises OSError."""
        return self._call(self.userfaultfd_context(fd).register, addr, length, mode)

    def uffd_unregister(self, fd: int, addr: int, length: int) -> None:
        """UFFDIO_UNREGISTER. Raises OSError."""
        self._call(self.userfaultfd_context(fd).unregister, addr, length)

    def close(self, fd: int) -> None:
        """close(2). Raises OSError EBADF."""
        held = self.task.memory_files.pop(fd, None)
        if held is None:
            raise OSError(errno.EBADF, "no such descriptor")
        self._call(held.put)

    # -- other processes' memory ----------------------------------------------------------------------------------

    def process_vm_readv(self, target: Process, addr: int, length: int) -> bytes:
        """process_vm_readv(2) of one range of ``target``; what precedes the first page that can not be read. Raises
        OSError EFAULT (nothing does), EPERM, ESRCH.
        """
        return self._call(lambda: read_remote_vm(self._mm_of(target), addr, length))

    def process_vm_writev(self, target: Process, addr: int, data: bytes) -> int:
        """process_vm_writev(2) to one range of ``target``; bytes written. Raises OSError EFAULT, EPERM, ESRCH."""
        return self._call(lambda: write_remote_vm(self._mm_of(target), addr, data))

    def move_pages(self, addrs: Sequence[int]) -> list[int]:
        """move_pages(2) without nodes, that is the query: the node of the page at each address, or a negative errno."""
        return self._call(lambda: do_pages_stat(self.mm, addrs))

    def _mm_of(self, target: Process) -> MmStruct:
        if target.kernel is not self.kernel:
            raise ValueError("a process of another machine")
        return process_mm(self.kernel, self.task, target.pid)

    # -- /proc ----------------------------------------------------------------------------------------------------

    def read_file(self, path: str) -> str:
        """The text of a file such as ``/proc/self/smaps``, opened now, as this process. Raises OSError."""
        return b"".join(self._call(self._read_chunks, path)).decode(errors="surrogateescape")

    def _read_chunks(self, path: str) -> list[bytes]:
        file = open_file(self.kernel, path, O_RDONLY)
        return list(iter(lambda: file.read(1 << 20), b""))

    def read_file_at(self, path: str, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset`` on (``/proc/self/pagemap`` has no end worth reading to). Raises
        OSError.
        """
        return self._call(lambda: open_file(self.kernel, path, O_RDONLY).pread(size, offset))

    def write_file(self, path: str, data: str | bytes) -> int:
        """One write(2) at the start of a file such as ``/proc/sys/vm/overcommit_memory``; bytes taken. Raises
        OSError.
        """
        data = data.encode() if isinstance(data, str) else data
        return self._call(lambda: open_file(self.kernel, path, O_WRONLY).write(data))

    def write_file_at(self, path: str, offset: int, data: bytes) -> int:
        """One pwrite(2) to a file such as ``/proc/self/mem``; bytes taken. Raises OSError."""
        return self._call(lambda: open_file(self.kernel, path, O_WRONLY).pwrite(data, offset))

    def clear_refs(self, number: int) -> None:
        """Write ``number`` to /proc/self/clear_refs. Raises OSError EINVAL."""
        self.write_file("/proc/self/clear_refs", f"{number}\n")

    # -- accesses -------------------------------------------------------------------------------------------------

    def read(self, addr: int, n: int) -> bytes:
        """Load ``n`` bytes, page by page, ascending. Raises FatalSignal, ProcessKilled."""
        return self._cpu.read(addr, n)

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data``, page by page, ascending. Raises FatalSignal, ProcessKilled."""
        self._cpu.write(addr, data)
