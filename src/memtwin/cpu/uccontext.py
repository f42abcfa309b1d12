# SPDX-License-Identifier: GPL-2.0-or-later
"""The registers of one thread on Unicorn: a saved context, or the live state while the thread is on the CPU.

A saved context is a header and a copy of the CPU state, so the same offsets serve both; only what Unicorn evaluates
lazily (RFLAGS) or keeps in its own formats (x87, SSE) goes through its calls, of which there is a pair: for the
engine and for a saved context.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from memtwin.cpu import uclib
from memtwin.cpu.base import ThreadContext
from memtwin.cpu.uclib import UcLib
from memtwin.cpu.ucstate import Layout, view

__all__ = ["RESET_FXSAVE", "UcContext"]

# FXSAVE64: bytes of the area, and where each Unicorn register is in it. FPSW comes first: it holds the top of the
# stack, by which ST0 ... ST7 are found.
_AREA: Final = 512
_FIELDS: Final = (
    (uclib.REG_FPSW, 2),
    (uclib.REG_FPCW, 0),
    (uclib.REG_MXCSR, 24),
    *((uclib.REG_ST0 + n, 32 + 16 * n) for n in range(8)),
    *((uclib.REG_XMM0 + n, 160 + 16 * n) for n in range(16)),
)
_TAG_AT: Final = 4
_MASK_AT: Final = 28
_MXCSR_MASK: Final = (0xFFFF).to_bytes(4, "little")
_EMPTY: Final = 3
#: x87 and SSE state after FNINIT and a reset of MXCSR: control word 0x37f, all registers empty, MXCSR 0x1f80.
RESET_FXSAVE: Final = (0x37F).to_bytes(24, "little") + (0x1F80).to_bytes(4, "little") + _MXCSR_MASK + bytes(480)
_GONE: Final[memoryview[int]] = memoryview(bytearray())


class UcContext(ThreadContext):
    """``q`` and ``i`` view the state as 64-bit and 32-bit words; ``live`` tells whether they are the engine's own.

    The owner (``UcCpu``) changes that with ``attach`` and ``detach``; nobody else does.
    """

    __slots__ = ("_handle", "_layout", "_lib", "_saved", "_template", "_uc", "i", "live")

    q: memoryview[int]
    i: memoryview[int]

    def __init__(self, lib: UcLib, uc: int, layout: Layout, template: UcContext | None = None) -> None:
        """A copy of ``template``, or of the engine's present state without one."""
        self._lib = lib
        self._uc = uc
        self._layout = layout
        self._template = template
        self.live = False
        handle = ctypes.c_void_p()
        lib.check(lib.context_alloc(uc, ctypes.byref(handle)))
        self._handle: int = handle.value or 0
        lib.context_save(uc, self._handle)
        self._saved = view(self._handle + layout.header, layout.size)
        self.q, self.i = self._saved
        if template is not None:
            self.reset()

    def attach(self, words: tuple[memoryview[int], memoryview[int]] | None) -> None:
        """Load the saved state into the engine; ``words`` views the engine's state (None where that can not be had)."""
        self._lib.context_restore(self._uc, self._handle)
        if words is not None:
            self.q, self.i = words
            self.live = True

    def detach(self) -> None:
        """Save the engine's state here. Nothing to do after ``close``."""
        if self._handle:
            self._lib.context_save(self._uc, self._handle)
            self.q, self.i = self._saved
            self.live = False

    def copy_from(self, other: UcContext) -> None:
        """Take over all registers of ``other``."""
        if self is not other:
            self.q[:] = other.q

    def reset(self) -> None:
        if self._template is not None:
            self.copy_from(self._template)

    def close(self) -> None:
        if self._handle:
            self.q = self.i = _GONE
            self._saved = (_GONE, _GONE)
            handle, self._handle = self._handle, 0
            self._lib.context_free(handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            self.close()

    @property
    def fs_base(self) -> int:
        return self.q[self._layout.q_fs_base]

    @fs_base.setter
    def fs_base(self, value: int) -> None:
        self.q[self._layout.q_fs_base] = value

    @property
    def gs_base(self) -> int:
        return self.q[self._layout.q_gs_base]

    @gs_base.setter
    def gs_base(self, value: int) -> None:
        self.q[self._layout.q_gs_base] = value

    @property
    def rflags(self) -> int:
        cell = ctypes.c_uint64()
        self._transfer(False, uclib.REG_RFLAGS, ctypes.byref(cell))
        return cell.value

    @rflags.setter
    def rflags(self, value: int) -> None:
        self._transfer(True, uclib.REG_RFLAGS, ctypes.byref(ctypes.c_uint64(value)))

    def _transfer(self, write: bool, register: int, cell: Any) -> None:
        lib = self._lib
        if self.live:
            lib.check((lib.reg_write if write else lib.reg_read)(self._uc, register, cell))
        else:
            lib.check((lib.context_reg_write if write else lib.context_reg_read)(self._handle, register, cell))

    def fxsave(self) -> bytes:
        area = ctypes.create_string_buffer(_AREA)
        start = ctypes.addressof(area)
        for register, offset in _FIELDS:
            self._transfer(False, register, start + offset)
        tags = ctypes.c_uint16()
        self._transfer(False, uclib.REG_FPTAG, ctypes.byref(tags))
        # The area has one bit for each register: 1 where the two-bit tag is not "empty".
        area[_TAG_AT] = bytes([sum(1 << n for n in range(8) if tags.value >> 2 * n & 3 != _EMPTY)])
        ctypes.memmove(start + _MASK_AT, _MXCSR_MASK, len(_MXCSR_MASK))
        return area.raw

    def fxrstor(self, area: bytes) -> None:
        if len(area) != _AREA:
            raise ValueError(f"an FXSAVE area has {_AREA} bytes, not {len(area)}")
        copy = ctypes.create_string_buffer(area, _AREA)
        start = ctypes.addressof(copy)
        for register, offset in _FIELDS:
            self._transfer(True, register, start + offset)
        tags = sum(_EMPTY << 2 * n for n in range(8) if not area[_TAG_AT] >> n & 1)
        self._transfer(True, uclib.REG_FPTAG, ctypes.byref(ctypes.c_uint16(tags)))
