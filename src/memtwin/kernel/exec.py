# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting a program in a process (fs/exec.c): find it, give the process a new address space, build its first stack.

The first stack, from the top down (System V AMD64 ABI 3.4.1, observed with address randomisation off): eight zero
bytes, the path of the program, the environment strings, the argument strings; then, 16-aligned, the platform string, 16
random bytes, and at the stack pointer argc, argv, envp and the auxiliary vector. There is no vDSO, so no
AT_SYSINFO_EHDR.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from memtwin.abi import auxv, mman
from memtwin.abi.fcntl import O_RDONLY
from memtwin.abi.resource import RLIMIT_STACK
from memtwin.abi.stat import S_IFMT, S_IFREG
from memtwin.fs.open import do_open
from memtwin.kernel.binfmt_elf import Elf, Loaded, load_segments, parse
from memtwin.kernel.rseq import RSEQ_ALIGN, RSEQ_FEATURE_SIZE
from memtwin.kernel.signal import SIG_IGN, SS_DISABLE, SigHand
from memtwin.kernel.uaccess import copy_to_user
from memtwin.mm.mmap import setup_arg_pages
from memtwin.mm.mprotect import do_mprotect

if TYPE_CHECKING:
    from memtwin.fs.file import File
    from memtwin.kernel.syscalls import SyscallTable
    from memtwin.kernel.task import TaskStruct

__all__ = ["STACK_TOP", "do_execve", "find_program"]

STACK_TOP: Final = 0x7FFFFFFFF000
_STACK_EXPAND: Final = 131072  #: bytes added below the strings (setup_arg_pages)
_MAX_ARG_STRLEN: Final = 131072  #: bytes of one string, its NUL included
_PLATFORM: Final = b"x86_64\0"
_CLK_TCK: Final = 100
#: Bytes of a signal frame on a CPU with FXSAVE only: 736 for the largest frame, 16 and 63 for alignment, 512 + 112 of
#: FPU state, in 16s.
_MINSIGSTKSZ: Final = 1440


def find_program(task: TaskStruct, name: bytes, path: bytes) -> bytes:
    """Where execvp would find ``name``: itself if it has a slash, else the first executable regular file along
    ``path``.

    Raises OSError ENOENT; EACCES if there was one that may not be executed.
    """
    if b"/" in name:
        return name
    denied = None
    for directory in path.split(b":"):
        candidate = (directory or b".") + b"/" + name
        try:
            _open_exec(task, candidate)
        except PermissionError as error:
            denied = denied or error
        except OSError:
            continue
        else:
            return candidate
    raise denied or OSError(errno.ENOENT, "no such program in PATH")


def _open_exec(task: TaskStruct, path: bytes) -> File:
    """Open a program. Raises OSError: what the path walk says, EACCES for what is no regular file or not executable."""
    file = do_open(task.fs, task.fs.pwd, path, O_RDONLY)
    if file.inode.is_dir:
        raise OSError(errno.EACCES, "it is a directory")
    if file.inode.mode & S_IFMT != S_IFREG:
        raise OSError(errno.EACCES, "it is not a regular file")
    if not file.inode.mode & 0o111:
        raise OSError(errno.EACCES, "it is not executable")
    file.inode.permission(1)
    return file


def do_execve(
    sys: SyscallTable, task: TaskStruct, path: bytes, argv: Sequence[bytes], envp: Sequence[bytes], hwcap: int
) -> None:
    """Replace what ``task`` runs by the program at ``path``; its registers are set for the first instruction.

    ``hwcap``: EDX of CPUID leaf 1. Raises OSError with a reason as its text; before the old address space is gone,
    except ENOMEM.
    """
    file = _open_exec(task, path)
    elf = parse(file)
    _check_size(task, [*argv, *envp, path])
    kernel = sys.kernel
    kernel.exec_mmap(task, kernel.mm_alloc())
    mm = task.mm
    assert mm is not None
    strings = _Strings(path, argv, envp)
    used = (STACK_TOP - strings.bottom + 4095) & -4096
    setup_arg_pages(mm, STACK_TOP, used + _STACK_EXPAND)
    if elf.exec_stack:
        rwx = mman.PROT_READ | mman.PROT_WRITE | mman.PROT_EXEC
        do_mprotect(mm, STACK_TOP - used - _STACK_EXPAND, used + _STACK_EXPAND, rwx)
    copy_to_user(task, strings.bottom, strings.data)
    loaded = load_segments(task, file, elf)
    mm.start_code, mm.end_code = loaded.start_code, loaded.end_code
    mm.start_data, mm.end_data = loaded.start_data, loaded.end_data
    mm.start_brk = mm.brk = loaded.brk
    mm.arg_start, mm.arg_end = strings.argv[0] if argv else strings.bottom, strings.arg_end
    mm.env_start, mm.env_end = strings.arg_end, strings.env_end
    sp = _create_tables(sys, task, elf, loaded, strings, hwcap)
    mm.start_stack = sp
    _reset(sys, task, file, path)
    trace = kernel.trace.sched_process_exec
    if trace is not None:
        trace(path.decode(errors="surrogateescape"), task.pid, task.pid)
    task.regs.reset()
    task.regs.rip = loaded.entry
    task.regs.rsp = sp


def _check_size(task: TaskStruct, strings: Sequence[bytes]) -> None:
    """E2BIG: a string over 128 KiB, or all of them and their pointers over a quarter of the stack's limit."""
    limit = max(min(task.rlimits[RLIMIT_STACK][0] // 4, 6 << 20), _MAX_ARG_STRLEN)
    if any(len(text) + 1 > _MAX_ARG_STRLEN for text in strings) or sum(len(text) + 9 for text in strings) > limit:
        raise OSError(errno.E2BIG, "its arguments and environment are too long")


def _reset(sys: SyscallTable, task: TaskStruct, file: File, path: bytes) -> None:
    """What a process forgets when it becomes another program."""
    for fd in list(task.files.close_on_exec):
        task.files.close(fd)
    hand: SigHand = task.sighand
    hand.actions = {sig: action for sig, action in hand.actions.items() if action[0] == SIG_IGN}
    hand.altstack = (0, SS_DISABLE, 0)
    task.name = path.rsplit(b"/", 1)[-1][:15].decode(errors="surrogateescape")
    task.fs.exe = file.dentry
    task.clear_child_tid = task.robust_list = 0
    sys.rseq.pop(task.pid, None)


class _Strings:
    """The strings at the top of the stack: their bytes, the address of each, and of the whole."""

    __slots__ = ("arg_end", "argv", "bottom", "data", "env_end", "envp", "execfn")

    def __init__(self, path: bytes, argv: Sequence[bytes], envp: Sequence[bytes]) -> None:
        texts = [text + b"\0" for text in (*argv, *envp, path)]
        self.data = b"".join(texts) + bytes(8)
        self.bottom = at = STACK_TOP - len(self.data)
        addresses = []
        for text in texts:
            addresses.append(at)
            at += len(text)
        self.argv = addresses[: len(argv)]
        self.envp = addresses[len(argv) : -1]
        self.execfn = addresses[-1]
        self.env_end = self.execfn
        self.arg_end = self.envp[0] if envp else self.execfn


def _create_tables(sys: SyscallTable, task: TaskStruct, elf: Elf, loaded: Loaded, strings: _Strings, hwcap: int) -> int:
    """Write platform, random bytes, auxiliary vector, envp, argv and argc below the strings; the stack pointer."""
    platform = (strings.bottom & ~15) - len(_PLATFORM)
    random = platform - 16
    vector = (
        (auxv.AT_MINSIGSTKSZ, _MINSIGSTKSZ),
        (auxv.AT_HWCAP, hwcap),
        (auxv.AT_PAGESZ, 4096),
        (auxv.AT_CLKTCK, _CLK_TCK),
        (auxv.AT_PHDR, loaded.phdr),
        (auxv.AT_PHENT, 56),
        (auxv.AT_PHNUM, elf.phnum),
        (auxv.AT_BASE, 0),
        (auxv.AT_FLAGS, 0),
        (auxv.AT_ENTRY, loaded.entry),
        (auxv.AT_UID, 0),
        (auxv.AT_EUID, 0),
        (auxv.AT_GID, 0),
        (auxv.AT_EGID, 0),
        (auxv.AT_SECURE, 0),
        (auxv.AT_RANDOM, random),
        (auxv.AT_HWCAP2, 0),  # no FSGSBASE, no MONITOR in user mode
        (auxv.AT_EXECFN, strings.execfn),
        (auxv.AT_PLATFORM, platform),
        (auxv.AT_RSEQ_FEATURE_SIZE, RSEQ_FEATURE_SIZE),
        (auxv.AT_RSEQ_ALIGN, RSEQ_ALIGN),
        (auxv.AT_NULL, 0),
    )
    words = [len(strings.argv), *strings.argv, 0, *strings.envp, 0]
    for kind, value in vector:
        words += (kind, value)
    sp = (random - 8 * len(words)) & ~15
    copy_to_user(task, random, sys.random_bytes(16) + _PLATFORM)
    copy_to_user(task, sp, struct.pack(f"<{len(words)}Q", *words))
    return sp
