# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading the script language: lines, expressions, flags.

    line  = [ "@" PROC ] [ VAR "=" ] OP ARG...
    expr  = term { ("+"|"-") term } ; term = number[p|k|m|g] | B | K | T | AS0 | DATA0 | MAPS0 | inf | $VAR
    flags = NAME { "|" NAME } | expr      (mixed allowed)

The grammar has no nesting, so it is read by splitting and two regular expressions, without a parser library. What can
not be read is told by ``BadLine``; its text is the ``error`` of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = [
    "MASK",
    "PAGE",
    "SYMBOLS",
    "BadLine",
    "Line",
    "expression",
    "flags",
    "parse_line",
    "signed",
    "split",
    "strip_comment",
]

PAGE: Final = 4096
MASK: Final = (1 << 64) - 1  #: arithmetic is modulo 2^64

#: Base of the script's own window, start of the heap, top for addresses that the kernel chooses.
SYMBOLS: Final = {"B": 0x10_0000_0000, "K": 0x8_0000_0000, "T": 0x7FFF_F7FF_F000, "inf": MASK}

#: Terms that stand for what a script finds when it begins.
_OF_THE_START: Final = ("AS0", "DATA0", "MAPS0")
#: Longest name of a variable.
_VAR_LEN: Final = 20
_NUMBER: Final = re.compile(r"(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)([pkmg]?)")
_TERM: Final = re.compile(r"([+-]?)([^+-]+)")
_SHIFT: Final = {"": 0, "k": 10, "p": 12, "m": 20, "g": 30}


class BadLine(Exception):
    """A line that can not be understood; ``args[0]`` says why, in the words of the answer's ``error``."""


@dataclass(frozen=True, slots=True)
class Line:
    """One operation as it stands. ``text``: the line without its comment; ``proc``: "main" where none is named;
    ``var``: variable that takes the result, or None.
    """

    text: str
    proc: str
    var: str | None
    op: str
    words: tuple[str, ...]


def split(text: str) -> list[str]:
    """The words of a line; blanks, tabs and carriage returns part them."""
    return [word for word in text.replace("\t", " ").replace("\r", " ").split(" ") if word]


def strip_comment(text: str) -> str:
    """``text`` up to its first '#'."""
    return text.partition("#")[0]


def parse_line(text: str) -> Line:
    """Take a line without its comment apart; something must stand in it. Raises BadLine."""
    words = split(text)
    proc, var = "main", None
    if words[0].startswith("@"):
        proc = words.pop(0)[1:]
        if not words:
            raise BadLine("no operation")
    head, equals, rest = words[0].partition("=")
    if equals:
        var = head
        words[:1] = [rest] if rest else []
        if not words or not 0 < len(var) <= _VAR_LEN:
            raise BadLine("bad assignment")
    return Line(text, proc, var, words[0], tuple(words[1:]))


def _number(text: str) -> int:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(text)
    digits = match[1]
    octal = len(digits) > 1 and digits[0] == "0" and digits[1] not in "xX"
    return min(int(digits, 8 if octal else 0), MASK) << _SHIFT[match[2]]


def expression(text: str, variable: Callable[[str], int]) -> int:
    """Value of an expression, 0 to 2^64-1. ``variable`` gives what a term like ``$name``, ``AS0``, ``DATA0`` or
    ``MAPS0`` stands for, and raises KeyError where it is not known. Raises ValueError, KeyError.
    """
    total, at = 0, 0
    while at < len(text) or at == 0:
        match = _TERM.match(text, at)
        if match is None:
            raise ValueError(text)
        sign, term = match[1], match[2]
        if term in SYMBOLS:
            value = SYMBOLS[term]
        elif term[0] == "$" or term in _OF_THE_START:
            value = variable(term)
        else:
            value = _number(term)
        total += -value if sign == "-" else value
        at = match.end()
    return total & MASK


def flags(text: str, names: Mapping[str, int], variable: Callable[[str], int]) -> int:
    """Value of names and expressions joined by '|'. Raises ValueError, KeyError."""
    value = 0
    for part in text.split("|"):
        if part:
            value |= names[part] if part in names else expression(part, variable)
    return value


def signed(value: int, bits: int = 64) -> int:
    """The low ``bits`` of ``value`` as a signed number, as Linux takes an int or long."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
