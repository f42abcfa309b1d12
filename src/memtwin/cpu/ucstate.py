# SPDX-License-Identifier: GPL-2.0-or-later
"""Where Unicorn keeps the CPU's state: offsets inside it, and the live state itself as memory views.

Unicorn's calls for single registers cost 2 us each, and the fields that unicorn issue #1883 makes us reset
(``old_exception``) have no call at all. But a saved context is a copy of the state from its first byte on, so offsets
are *measured*: known values go in, one known page fault (error code 0x14: user, instruction fetch, not present) is
taken, and the blob is searched for them. Nothing is assumed about a version of Unicorn but that the sixteen registers
and RIP are adjacent words, CR2 stands before CR3, and the INT flag after the error code; anything unexpected raises
``Uncalibrated``.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from memtwin.cpu.base import RIP, X86_TRAP_PF
from memtwin.errors import BadInput

__all__ = ["FETCH_FAULT", "Layout", "Uncalibrated", "find_live", "measure", "view"]

#: Error code of the calibration fault.
FETCH_FAULT: Final = 0x14

#: How far into the engine structure, and into the CPU it points to, we look for the state (bytes).
_ENGINE_SPAN: Final = 8 << 10
_CPU_SPAN: Final = 64 << 10


class Uncalibrated(BadInput):
    """This build of Unicorn does not lay out its state as we know it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in the CPU state. ``q_*`` index 64-bit words, ``i_*`` 32-bit ones, from its first byte."""

    header: int  #: bytes of a saved context before the state
    size: int  #: bytes of the state
    q_fs_base: int
    q_gs_base: int
    q_cr2: int
    q_cr3: int
    i_error: int  #: error code of the last exception; the word after it tells whether an INT instruction raised it
    i_old_exception: int


def measure(before: bytes, after: bytes, registers: bytes, fs: int, gs: int, cr3: int, fault: int) -> Layout:
    """The layout, from contexts saved before and after a fetch fault at address ``fault``.

    ``registers`` are the 128 bytes that the sixteen registers had at the fault; ``fs``, ``gs``, ``cr3`` the values of
    those. All must be values that occur nowhere else. Raises Uncalibrated.
    """
    header = after.find(registers)
    if header < 0 or header & 7:
        raise Uncalibrated("unicorn: the registers are not adjacent words of the CPU state")
    size = len(after) - header & ~7
    q = memoryview(after[header : header + size]).cast("Q")
    old, new = (memoryview(blob[header : header + size]).cast("i") for blob in (before, after))

    def only(places: list[int], what: str) -> int:
        if len(places) != 1:
            raise Uncalibrated(f"unicorn: {what} is at {len(places)} places of the CPU state, not one")
        return places[0]

    def word(value: int, what: str) -> int:
        return only([at for at, word in enumerate(q) if word == value], what)

    def change(was: int, now: int, what: str) -> int:
        return only([at for at, pair in enumerate(zip(old, new, strict=True)) if pair == (was, now)], what)

    layout = Layout(
        header=header,
        size=size,
        q_fs_base=word(fs, "the base of FS"),
        q_gs_base=word(gs, "the base of GS"),
        q_cr2=word(cr3, "CR3") - 1,
        q_cr3=word(cr3, "CR3"),
        i_error=change(0, FETCH_FAULT, "the error code"),
        i_old_exception=change(-1, X86_TRAP_PF, "the exception in flight"),
    )
    if q[RIP] != fault or q[layout.q_cr2] != fault or new[layout.i_error + 1] != 0:
        raise Uncalibrated("unicorn: RIP, CR2 or the INT flag is not where it was expected in the CPU state")
    return layout


def view(address: int, size: int) -> tuple[memoryview[int], memoryview[int]]:
    """Host memory at ``address`` as 64-bit unsigned and as 32-bit signed words; ``size`` in bytes, a multiple of 8."""
    raw = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
    return raw.cast("Q"), raw.cast("i")


def find_live(handle: int, registers: bytes) -> Iterator[int]:
    """Host addresses, one pointer away from the engine ``handle``, where the 128 bytes ``registers`` stand.

    They may be left-over copies: the caller must test for life. Reads through /proc/self/mem, which answers with an
    error where a pointer leads nowhere; yields nothing where the host forbids that.
    """
    try:
        memory = os.open("/proc/self/mem", os.O_RDONLY)
    except OSError:
        return
    try:
        engine = b""
        with suppress(OSError):
            engine = os.pread(memory, _ENGINE_SPAN, handle)
        seen: dict[int, None] = {}
        for pointer in dict.fromkeys(memoryview(engine[: len(engine) & ~7]).cast("Q")):
            if pointer & 7 or not 0x10000 <= pointer < 1 << 47:
                continue
            at = -1
            with suppress(OSError):
                at = os.pread(memory, _CPU_SPAN, pointer).find(registers)
            if at >= 0 and pointer + at not in seen:
                seen[pointer + at] = None
                yield pointer + at
    finally:
        os.close(memory)
