# SPDX-License-Identifier: GPL-2.0-or-later
"""Which instructions read *and* write their memory operand: on a real CPU their first access is already a write.

Unicorn does such an instruction as a load and then a store, so that ``add [page], 1`` on an absent page would be
reported as a read: the kernel half would map the zero page, and a second fault would copy it. A CPU asks for the page
once, with the write bit in the error code (measured on real hardware, natively, for every row below: locked or not,
and for a shift by zero too).

Source of the encodings: Intel SDM volume 2, appendix A (opcode maps), 64-bit mode.
"""

from __future__ import annotations

from typing import Final

from memtwin.hw.paging import PFN_MASK, PMD_SHIFT, PRESENT, PSE, PUD_SHIFT
from memtwin.hw.ram import PAGE_SHIFT, PAGE_SIZE, Ram

__all__ = ["MAX_LENGTH", "code_at", "is_read_modify_write"]

#: Longest instruction, bytes.
MAX_LENGTH: Final = 15

_PREFIXES: Final = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))


def _forms(text: str) -> dict[int, int]:
    """Words ``opcodes/digits`` to, for each opcode, a mask of ModRM.reg values that read and write (default: all)."""
    table = {}
    for word in text.split():
        opcodes, _, digits = word.partition("/")
        mask = sum(1 << int(digit) for digit in digits or "01234567")
        first, _, last = opcodes.partition("-")
        for opcode in range(int(first, 16), int(last or first, 16) + 1):
            table[opcode] = mask
    return table


# add or adc sbb and sub xor; the same with an immediate (/7 is cmp); xchg; shifts; not neg; inc dec.
_ONE_BYTE: Final = _forms(
    "00-01 08-09 10-11 18-19 20-21 28-29 30-31 80/0123456 81/0123456 83/0123456"
    " 86-87 c0-c1 d0-d3 f6/23 f7/23 fe/01 ff/01"
)
# After 0f: shld shrd, bts btr btc, cmpxchg, xadd, cmpxchg8b/16b.
_TWO_BYTE: Final = _forms("a4-a5 ac-ad ab b3 bb ba/567 b0-b1 c0-c1 c7/1")


def is_read_modify_write(code: bytes) -> bool:
    """Whether the instruction that begins ``code`` reads and writes one memory operand."""
    at = 0
    end = len(code) - 2
    while at < end and (code[at] in _PREFIXES or code[at] & 0xF0 == 0x40):
        at += 1
    if at >= end + 1:
        return False
    table = _ONE_BYTE
    if code[at] == 0x0F:
        table = _TWO_BYTE
        at += 1
    if at + 1 >= len(code):
        return False
    mask, modrm = table.get(code[at], 0), code[at + 1]
    return modrm < 0xC0 and bool(mask >> (modrm >> 3 & 7) & 1)


def code_at(ram: Ram, pgd_pfn: int, address: int) -> bytes:
    """Up to ``MAX_LENGTH`` bytes at virtual ``address``; shorter (or empty) where the next page is not there."""
    code = b""
    while len(code) < MAX_LENGTH:
        physical = _walk(ram, pgd_pfn, address)
        if physical < 0 or physical >= ram.size:
            break
        size = min(MAX_LENGTH - len(code), PAGE_SIZE - address % PAGE_SIZE)
        code += ram.mem[physical : physical + size]
        address += size
    return code


def _walk(ram: Ram, pgd_pfn: int, address: int) -> int:
    """Physical address of virtual ``address``, -1 where it is not mapped."""
    table = pgd_pfn
    for shift in (39, PUD_SHIFT, PMD_SHIFT, PAGE_SHIFT):
        if table >= ram.nr_frames:
            return -1
        entry = ram.q[(table << 9) + (address >> shift & 511)]
        if not entry & PRESENT:
            return -1
        if shift == PAGE_SHIFT or (entry & PSE and shift != 39):
            offset = (1 << shift) - 1
            return entry & PFN_MASK & ~offset | address & offset
        table = (entry & PFN_MASK) >> PAGE_SHIFT
    return -1
