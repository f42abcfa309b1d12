# SPDX-License-Identifier: GPL-2.0-or-later
"""The Unicorn library through ctypes: only the calls, constants and callback types that ``cpu.uc`` uses.

The ``unicorn`` package's own wrappers cost about 1 us a call, swallow exceptions raised in callbacks, and take 80 ms
to import; we load the shared library that it brings. Source of signatures and numbers: unicorn/unicorn.h and
unicorn/x86.h of release 2.1.3.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from memtwin.errors import BadInput

__all__ = ["HOOK_BLOCK", "HOOK_BOOL", "HOOK_INTR", "HOOK_VOID", "UcLib"]

_ARCH_X86: Final = 4
_MODE_64: Final = 1 << 3
PROT_ALL: Final = 7
CPU_X86_NEHALEM: Final = 15

ERR_INSN_INVALID: Final = 10

HOOK_TYPE_INTR: Final = 1 << 0
HOOK_TYPE_INSN: Final = 1 << 1
HOOK_TYPE_BLOCK: Final = 1 << 3

INS_CPUID: Final = 113
INS_RDTSC: Final = 608
INS_SYSCALL: Final = 699

REG_CR0: Final = 50
REG_CR3: Final = 53
REG_CR4: Final = 54
REG_FPSW: Final = 31
REG_ST0: Final = 114
REG_XMM0: Final = 122
REG_FPCW: Final = 246
REG_FPTAG: Final = 247
REG_MSR: Final = 248
REG_MXCSR: Final = 249
REG_FS_BASE: Final = 250
REG_GS_BASE: Final = 251
REG_RFLAGS: Final = 253
REG_RIP: Final = 41
#: Register ids in the order of the instruction encoding: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 ... R15.
REG_GPR: Final = (35, 38, 40, 37, 44, 36, 43, 39, 106, 107, 108, 109, 110, 111, 112, 113)

# uc_ctl(control): type in bits 0-25, number of arguments in 26-29, write in 30, read in 31.
_CTL_USE_EXITS: Final = 4
_CTL_CPU_MODEL: Final = 7
_CTL_TB_REMOVE_CACHE: Final = 9
_CTL_TB_FLUSH: Final = 10
_CTL_TLB_FLUSH: Final = 11


def _write(control: int, arguments: int) -> int:
    return control | arguments << 26 | 1 << 30


#: ``void (*)(uc, intno, user_data)``
HOOK_INTR = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_void_p)
#: ``void (*)(uc, address, size, user_data)``
HOOK_BLOCK = ctypes.CFUNCTYPE(None, c_void_p, c_uint64, c_uint32, c_void_p)
#: ``void (*)(uc, user_data)``: SYSCALL
HOOK_VOID = ctypes.CFUNCTYPE(None, c_void_p, c_void_p)
#: ``int (*)(uc, user_data)``: CPUID, RDTSC; 1 means "replaced"
HOOK_BOOL = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p)


class MsrCell(ctypes.Structure):
    """``uc_x86_msr``: the argument of reading and writing ``REG_MSR``."""

    _fields_ = [("rid", c_uint32), ("value", c_uint64)]


def _library() -> str:
    """Path of the shared library: in the directory $LIBUNICORN_PATH, as the unicorn package has it, or its own."""
    places = [os.environ.get("LIBUNICORN_PATH", "")]
    spec = find_spec("unicorn")
    if spec is not None and spec.submodule_search_locations:
        places += [str(Path(place) / "lib") for place in spec.submodule_search_locations]
    for place in places:
        for name in ("libunicorn.so.2", "libunicorn.so"):
            if place and (path := Path(place) / name).exists():
                return str(path)
    raise BadInput("running programs needs the unicorn package (pip install unicorn)")


class UcLib:
    """One loaded library with prototypes; calls that are quick keep the interpreter lock, ``emu_start`` drops it.

    Every method whose name has no ``address`` in it is the C function without its ``uc_`` prefix; those that return
    ``uc_err`` are to be wrapped in ``check``.
    """

    def __init__(self) -> None:
        path = _library()
        try:
            held, free = ctypes.PyDLL(path), ctypes.CDLL(path)
        except OSError as error:
            raise BadInput(f"the unicorn library can not be loaded: {error}") from None

        def quick(name: str, *arguments: type, result: type = c_int) -> Any:
            function = getattr(held, name)
            function.restype, function.argtypes = result, arguments
            return function

        self.version = quick("uc_version", c_void_p, c_void_p, result=c_uint32)
        self.strerror = quick("uc_strerror", c_int, result=c_char_p)
        self.open = quick("uc_open", c_int, c_int, c_void_p)
        self.close = quick("uc_close", c_void_p)
        self.ctl = quick("uc_ctl", c_void_p, c_uint32)
        self.mem_map_ptr = quick("uc_mem_map_ptr", c_void_p, c_uint64, c_size_t, c_uint32, c_void_p)
        self.mem_unmap = quick("uc_mem_unmap", c_void_p, c_uint64, c_size_t)
        self.hook_add = quick("uc_hook_add", c_void_p, c_void_p, c_int, c_void_p, c_void_p, c_uint64, c_uint64)
        self.reg_read = quick("uc_reg_read", c_void_p, c_int, c_void_p)
        self.reg_write = quick("uc_reg_write", c_void_p, c_int, c_void_p)
        self.reg_read_batch = quick("uc_reg_read_batch", c_void_p, c_void_p, c_void_p, c_int)
        self.reg_write_batch = quick("uc_reg_write_batch", c_void_p, c_void_p, c_void_p, c_int)
        self.context_size = quick("uc_context_size", c_void_p, result=c_size_t)
        self.context_alloc = quick("uc_context_alloc", c_void_p, c_void_p)
        self.context_free = quick("uc_context_free", c_void_p)
        self.context_save = quick("uc_context_save", c_void_p, c_void_p)
        self.context_restore = quick("uc_context_restore", c_void_p, c_void_p)
        self.context_reg_read = quick("uc_context_reg_read", c_void_p, c_int, c_void_p)
        self.context_reg_write = quick("uc_context_reg_write", c_void_p, c_int, c_void_p)
        self.context_reg_read_batch = quick("uc_context_reg_read_batch", c_void_p, c_void_p, c_void_p, c_int)
        self.context_reg_write_batch = quick("uc_context_reg_write_batch", c_void_p, c_void_p, c_void_p, c_int)
        self.emu_stop = quick("uc_emu_stop", c_void_p)
        self.emu_start: Callable[..., int] = free.uc_emu_start
        free.uc_emu_start.restype, free.uc_emu_start.argtypes = (
            c_int,
            [c_void_p, c_uint64, c_uint64, c_uint64, c_size_t],
        )

    def check(self, error: int) -> None:
        """Raises BadInput for a Unicorn error: what is asked for at set-up is what this build of Unicorn can not do."""
        if error:
            raise BadInput(f"unicorn: {self.strerror(error).decode()}")

    def address(self, name: str) -> int:
        """Host address of one of the C functions kept above (the attribute's name)."""
        return ctypes.cast(getattr(self, name), c_void_p).value or 0

    def open_x86(self, model: int) -> int:
        """A new 64-bit x86 engine of CPU ``model`` without a stop address; returns its handle. Raises BadInput."""
        handle = c_void_p()
        self.check(self.open(_ARCH_X86, _MODE_64, ctypes.byref(handle)))
        assert handle.value is not None
        self.check(self.ctl(handle, _write(_CTL_CPU_MODEL, 1), c_int(model)))
        self.check(self.ctl(handle, _write(_CTL_USE_EXITS, 1), c_int(1)))
        return handle.value

    def flush_tlb(self, handle: int) -> None:
        """Drop all cached translations of addresses."""
        self.ctl(handle, _TLB_FLUSH)

    def flush_blocks(self, handle: int) -> None:
        """Drop all translated code."""
        self.ctl(handle, _TB_FLUSH)

    def remove_blocks(self, handle: int, start: int, end: int) -> None:
        """Drop the translated code of virtual addresses ``start`` .. ``end`` (bytes) in the current address space."""
        self.ctl(handle, _TB_REMOVE, c_uint64(start), c_uint64(end))

    def add_hook(self, handle: int, kind: int, callback: int, data: int, instruction: int = 0) -> None:
        """Call the function at host address ``callback`` on events of ``kind`` anywhere. Raises BadInput."""
        hook = c_void_p()
        everywhere = (c_uint64(1), c_uint64(0))
        extra = (c_int32(instruction),) if kind == HOOK_TYPE_INSN else ()
        self.check(self.hook_add(handle, ctypes.byref(hook), kind, callback, data, *everywhere, *extra))


_TLB_FLUSH: Final = _write(_CTL_TLB_FLUSH, 0)
_TB_FLUSH: Final = _write(_CTL_TB_FLUSH, 0)
_TB_REMOVE: Final = _write(_CTL_TB_REMOVE_CACHE, 2)
