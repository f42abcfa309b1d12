# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing answers: addresses as symbols, runs of equal values, names of errors and signals, JSON lines.

A line is compact JSON whose fields keep the order in which they were added. Text is escaped byte by byte, as the
kernel's own files know no encoding.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from memtwin.abi import signal
from memtwin.errors import FatalSignal
from memtwin.script.grammar import SYMBOLS

__all__ = ["Runs", "address", "errno_name", "in_window", "json_line", "quoted", "signal_fields"]

BASE: Final = SYMBOLS["B"]
HEAP: Final = SYMBOLS["K"]
TOP: Final = SYMBOLS["T"]
_BASE_SIZE: Final = 64 << 30
_HEAP_SIZE: Final = 4 << 30
_TOP_SIZE: Final = 1 << 40
_ABOVE_SIZE: Final = 64 << 20
#: Where the kernel places things from, upwards, in the legacy layout.
_LEGACY: Final = 0x2AAA_AAAA_B000

#: Runs that a list of values shows at most.
_MAX_RUNS: Final = 64
#: Characters of a quoted text.
_QUOTED: Final = 200


def address(addr: int) -> str:
    """``B+0x1000`` and the like; ``0x...`` outside the windows."""
    if BASE <= addr <= BASE + _BASE_SIZE:
        return f"B+{addr - BASE:#x}"
    if HEAP <= addr < HEAP + _HEAP_SIZE:
        return f"K+{addr - HEAP:#x}"
    if TOP - _TOP_SIZE <= addr <= TOP:
        return f"T-{TOP - addr:#x}"
    if TOP < addr < TOP + _ABOVE_SIZE:
        return f"T+{addr - TOP:#x}"
    return f"{addr:#x}"


def in_window(addr: int, *, legacy: bool = False) -> bool:
    """Does an area that starts here belong to the script? ``legacy``: its process is laid out bottom-up."""
    return (
        BASE <= addr < BASE + _BASE_SIZE
        or HEAP <= addr < HEAP + _HEAP_SIZE
        or TOP - _TOP_SIZE <= addr < TOP + _ABOVE_SIZE
        or (legacy and _LEGACY <= addr < _LEGACY + _TOP_SIZE)
    )


class Runs:
    """Values as runs ``[[value, count], ...]``, of which the first 64 are kept."""

    __slots__ = ("_count", "_hash", "_total", "_value", "runs")

    def __init__(self, values: Iterable[int] = ()) -> None:
        self.runs: list[list[int]] = []
        self._value = -1
        self._count = 0
        self._total = 0
        for value in values:
            self.add(value)

    def add(self, value: int, count: int = 1) -> None:
        """Append ``count`` times ``value``."""
        if value != self._value or not self._total:
            self._total += 1
            self._value = value
            if self._total <= _MAX_RUNS:
                self.runs.append([value, 0])
        if self._total <= _MAX_RUNS:
            self.runs[-1][1] += count

    @property
    def total(self) -> int:
        """Number of runs, kept or not."""
        return self._total


def byte_runs(key: str, values: bytes) -> dict[str, Any]:
    """The field ``key`` with the runs of ``values``; beyond 64 runs also their number and a hash (FNV-1a, 64 bits)."""
    runs = Runs()
    for match in re.finditer(rb"(?s)(.)\1*", values):
        runs.add(match[0][0], len(match[0]))
    fields: dict[str, Any] = {key: runs.runs}
    if runs.total > _MAX_RUNS:
        hash_ = 1469598103934665603
        for byte in values:
            hash_ = (hash_ ^ byte) * 1099511628211 & (1 << 64) - 1
        fields |= {f"{key}_runs": runs.total, f"{key}_hash": f"{hash_:016x}"}
    return fields


#: Where Python prefers another of two names of one number.
_ERRNO: Final = {errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EDEADLK: "EDEADLK"}


def errno_name(number: int) -> str:
    """``ENOMEM`` for 12; ``?`` if there is no such error."""
    return _ERRNO.get(number) or errno.errorcode.get(number, "?")


_SIGNALS: Final[Mapping[int, tuple[str, Mapping[int, str]]]] = {
    signal.SIGSEGV: (
        "SIGSEGV",
        {
            signal.SEGV_MAPERR: "SEGV_MAPERR",
            signal.SEGV_ACCERR: "SEGV_ACCERR",
            4: "SEGV_PKUERR",
            signal.SI_KERNEL: "SI_KERNEL",
        },
    ),
    signal.SIGBUS: (
        "SIGBUS",
        {signal.BUS_ADRALN: "BUS_ADRALN", signal.BUS_ADRERR: "BUS_ADRERR", 3: "BUS_OBJERR", 4: "BUS_MCEERR_AR"},
    ),
}


def signal_fields(raised: FatalSignal) -> dict[str, str]:
    """``sig``, ``code`` and ``at`` of a touch that faulted."""
    name, codes = _SIGNALS.get(raised.sig, (f"signal {raised.sig}", {}))
    return {"sig": name, "code": codes.get(raised.code, "other"), "at": address(raised.addr)}


def quoted(text: str) -> str:
    """What an answer repeats of a line: at most 200 bytes, each its own character."""
    return os.fsencode(text).decode("latin-1")[:_QUOTED]


_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode
_SHORT_ESCAPE: Final = re.compile(r"\\(.)|\x7f")
_LONG_ESCAPES: Final = {"b": "\\u0008", "t": "\\u0009", "n": "\\u000a", "f": "\\u000c", "r": "\\u000d"}


def json_line(answer: dict[str, Any]) -> str:
    """One line of compact JSON; control characters always as ``\\u00XX``."""
    text = _ENCODE(answer)
    if "\\" not in text and "\x7f" not in text:
        return text
    return _SHORT_ESCAPE.sub(lambda match: _LONG_ESCAPES.get(match[1], match[0]) if match[1] else "\\u007f", text)
