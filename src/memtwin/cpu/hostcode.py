# SPDX-License-Identifier: GPL-2.0-or-later
"""Hook callbacks as a few bytes of host machine code: they record a trap in ``cells`` and stop the emulator.

Python callbacks cost about a microsecond each, and a block hook runs for every basic block. The code below needs
nothing but the address of ``cells``, which Unicorn hands over as ``user_data``. On a host that is not x86-64, or that
refuses executable memory, ``PythonCallbacks`` does the same, slowly.

Cells (64-bit words): 0 the trap (``CELL_*`` value or vector), 1 address of uc_emu_stop, 2 blocks left, 3 RFLAGS of a
SYSCALL, 4 address of uc_reg_read.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
from typing import Final

from memtwin.cpu.uclib import HOOK_BLOCK, HOOK_INTR, HOOK_VOID, REG_RFLAGS, UcLib
from memtwin.errors import BadInput

__all__ = ["CELL_BUDGET", "CELL_FLAGS", "CELL_TRAP", "TRAPPED_BUDGET", "TRAPPED_NONE", "TRAPPED_SYSCALL", "Callbacks"]

CELL_TRAP: Final = 0
_CELL_STOP: Final = 1
CELL_BUDGET: Final = 2
CELL_FLAGS: Final = 3
_CELL_READ: Final = 4

# Values of CELL_TRAP; smaller ones are interrupt vectors.
TRAPPED_SYSCALL: Final = 0x100
TRAPPED_BUDGET: Final = 0x101
TRAPPED_NONE: Final = 0x102

# System V calling convention: rdi = uc, then the event's arguments, then user_data = &cells.
_INTR: Final = bytes.fromhex(
    "89f6"  # mov esi, esi            ; zero-extend the vector
    "488932"  # mov [rdx], rsi          ; cells[0] = vector
    "ff6208"  # jmp [rdx + 8]           ; uc_emu_stop(uc)
)
_SYSCALL: Final = bytes.fromhex(
    "57"  # push rdi
    "56"  # push rsi
    "50"  # push rax                ; keeps the stack 16-byte aligned at the call
    "48c70600010000"  # mov qword [rsi], 0x100  ; cells[0] = TRAPPED_SYSCALL
    "488d5618"  # lea rdx, [rsi + 24]     ; &cells[3]
    "488b4620"  # mov rax, [rsi + 32]     ; uc_reg_read
    "befd000000"  # mov esi, 253            ; REG_RFLAGS
    "ffd0"  # call rax
    "58"  # pop rax
    "5e"  # pop rsi
    "5f"  # pop rdi
    "ff6608"  # jmp [rsi + 8]           ; uc_emu_stop(uc)
)
_BLOCK: Final = bytes.fromhex(
    "48ff4910"  # dec qword [rcx + 16]    ; cells[2]
    "7801"  # js +1
    "c3"  # ret
    "48c70101010000"  # mov qword [rcx], 0x101  ; cells[0] = TRAPPED_BUDGET
    "ff6108"  # jmp [rcx + 8]           ; uc_emu_stop(uc)
)
assert REG_RFLAGS == 253


class Callbacks:
    """Host addresses of the three callbacks, and the cells they write; ``data`` is the address of the cells.

    ``native`` tells whether they are machine code. Keep the object as long as the engine lives.
    """

    def __init__(self, lib: UcLib, native: bool | None = None) -> None:
        """``native``: None takes machine code where the host allows it. Raises BadInput where True can not be had."""
        area = (ctypes.c_int64 * 8)()
        self.data = ctypes.addressof(area)
        self.cells = memoryview(area).cast("B").cast("q")
        self.cells[_CELL_STOP] = lib.address("emu_stop")
        self.cells[_CELL_READ] = lib.address("reg_read")
        self._keep: list[object] = [area]
        self.native = native if native is not None else platform.machine() in ("x86_64", "AMD64")
        if self.native:
            try:
                self._machine_code()
                return
            except OSError as error:
                if native:
                    raise BadInput(f"the host refuses executable memory: {error}") from None
                self.native = False
        self._python(lib)

    def _machine_code(self) -> None:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        base = ctypes.addressof(ctypes.c_char.from_buffer(page))
        offsets = []
        for code in (_INTR, _SYSCALL, _BLOCK):
            offsets.append(base + page.tell())
            page.write(code.ljust(64, b"\xcc"))
        self.intr, self.syscall, self.block = offsets
        self._keep.append(page)

    def _python(self, lib: UcLib) -> None:
        cells = self.cells

        def intr(uc: int, vector: int, _data: int) -> None:
            cells[CELL_TRAP] = vector
            lib.emu_stop(uc)

        def syscall(uc: int, data: int) -> None:
            cells[CELL_TRAP] = TRAPPED_SYSCALL
            lib.reg_read(uc, REG_RFLAGS, data + 8 * CELL_FLAGS)
            lib.emu_stop(uc)

        def block(uc: int, _address: int, _size: int, _data: int) -> None:
            cells[CELL_BUDGET] -= 1
            if cells[CELL_BUDGET] < 0:
                cells[CELL_TRAP] = TRAPPED_BUDGET
                lib.emu_stop(uc)

        thunks = HOOK_INTR(intr), HOOK_VOID(syscall), HOOK_BLOCK(block)
        self.intr, self.syscall, self.block = (ctypes.cast(thunk, ctypes.c_void_p).value or 0 for thunk in thunks)
        self._keep.append(thunks)
