# SPDX-License-Identifier: GPL-2.0-or-later
"""Making a program that shows a difference as small as possible: first fewer lines, then fewer words, smaller numbers.

``differs(candidates)`` judges many candidates at once, because starting the live half costs more than running a
program; it returns the index of the first candidate that still shows the difference. The result is a program in which
no single line can be left out and no single word be made simpler.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

__all__ = ["Judge", "shrink"]

Program = tuple[str, ...]
#: Index of the first of some candidates that still shows the difference, or None.
Judge = Callable[[Sequence[Program]], int | None]

_NUMBER = re.compile(r"(?<![\w$])(\d+)(p\b)")
_TAIL = re.compile(r"\+(0x[0-9a-fA-F]+|\d+)(?![\w])")


def shrink(lines: Sequence[str], differs: Judge) -> list[str]:
    """The smallest program found from ``lines``, which shows the difference itself."""
    program = tuple(lines)
    while True:
        smaller = _fewer_lines(program, differs)
        for candidates in (_simpler_words, _smaller_numbers):
            smaller = _first_improvement(smaller, candidates, differs)
        if smaller == program:
            return list(program)
        program = smaller


def _fewer_lines(program: Program, differs: Judge) -> Program:
    """Leave out blocks of lines: halves, quarters, ... single lines, from the end."""
    size = max(len(program) // 2, 1)
    while True:
        starts = range(max(len(program) - size, 0), -1, -size) if size > 1 else range(len(program) - 1, -1, -1)
        candidates = [program[:at] + program[at + size :] for at in starts]
        candidates = [candidate for candidate in candidates if candidate]
        found = differs(candidates) if candidates else None
        if found is not None:
            program = candidates[found]
            size = min(size, max(len(program) // 2, 1))
        elif size == 1:
            return program
        else:
            size //= 2


def _first_improvement(program: Program, candidates: Callable[[Program], Iterator[Program]], differs: Judge) -> Program:
    while True:
        offered = list(candidates(program))
        found = differs(offered) if offered else None
        if found is None:
            return program
        program = offered[found]


def _with(program: Program, index: int, words: Sequence[str]) -> Program:
    return (*program[:index], " ".join(words), *program[index + 1 :])


def _simpler_words(program: Program) -> Iterator[Program]:
    """Every program with something less: a process, an assignment, a flag, a view of a dump."""
    text = " ".join(program)
    for proc in _processes(program):
        mine = [line.removeprefix(f"@{proc} ") for line in program]
        yield tuple(line for line in mine if line.split()[-2:] != ["fork", proc] and line != "exit")
    for index, line in enumerate(program):
        words = line.split()
        at = 1 if words[0].startswith("@") else 0
        who, head, rest = words[:at], words[at], words[at + 1 :]
        name, equals, op = head.rpartition("=")
        if equals and f"${name}" not in text:
            yield _with(program, index, [*who, op, *rest])
        if who == ["@*"]:
            yield _with(program, index, [head, *rest])
            yield from (_with(program, index, [f"@{other}", head, *rest]) for other in _processes(program))
        if head == "dump" and len(rest) > 1:
            yield from (_with(program, index, [*who, head, *rest[:k], *rest[k + 1 :]]) for k in range(len(rest)))
        for k, word in enumerate(words):
            flags = word.split("|")
            if len(flags) > 1:
                less = ("|".join(flags[:drop] + flags[drop + 1 :]) for drop in range(len(flags)))
                yield from (_with(program, index, [*words[:k], fewer, *words[k + 1 :]]) for fewer in less)


def _processes(program: Program) -> list[str]:
    return [line.split()[-1] for line in program if "fork " in line]


def _smaller_numbers(program: Program) -> Iterator[Program]:
    """Every program with one number of pages smaller, or an odd number of bytes left out."""
    for index, line in enumerate(program):
        for match in _NUMBER.finditer(line):
            value = int(match[1])
            for less in sorted({1, 2, value // 2, value - 1}):
                if 0 < less < value:
                    yield _with(program, index, [f"{line[: match.start(1)]}{less}{line[match.end(1) :]}"])
        for match in _TAIL.finditer(line):
            yield _with(program, index, [line[: match.start()] + line[match.end() :]])
