# SPDX-License-Identifier: GPL-2.0-or-later
"""Scripts with the answers that the specification states, and what of an answer list disagrees with them.

A file holds several scripts. What is expected of a line stands behind ``#>``, so that a file is also an ordinary
script file; columns for several kernels are parted by `` | `` (the last one counts for all that are not there). A
column is a list of words, all of which must hold:

====================  ==================================================================================================
``ok``                neither an errno nor a signal
``ENOMEM``            this errno; ``SEGV_MAPERR`` etc.: this signal code
``B+4p``, ``0``       what was returned
``[0,4)rw-p``         the areas, all of them in order: pages from B (``K[0,1)`` from K, ``T[-4,0)`` from T); the rights,
                      ``@7`` (offset in pages) and ``:[heap]`` (name) are compared if given. ``none``: there is no area
``n=3``               the number of areas
``4+lo``, ``4-lo``    VmFlags of the area with page 4 contain ``lo``, or do not (the dump must show smaps)
``4.Rss=8``           a number of that area's smaps, 0 where it is not there
``vals=7,7,0``        bytes read, or another field that is a list of runs, one by one
``VmLck=16``          another field of the answer, or a number of ``status``, 0 where it is not there
====================  ==================================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from memtwin.script.grammar import SYMBOLS, expression, strip_comment

_SYMBOLS = {name: SYMBOLS[name] for name in "BKT"}
_AREA = re.compile(r"([KT]?)\[(-?\d+),(-?\d+)\)([^@:]*)(?:@(-?\d+))?(?::(.+))?")
_FLAG = re.compile(r"([KT]?-?\d+)([+-])([a-z]{2})")
_SMAPS = re.compile(r"([KT]?-?\d+)\.(\w+)=(\d+)")


@dataclass
class Stated:
    """One script. ``about``: the comments at its head; ``lines`` and, for each, its columns (None: not stated)."""

    name: str
    about: str = ""
    lines: list[str] = field(default_factory=list)
    columns: list[list[str] | None] = field(default_factory=list)

    def __str__(self) -> str:
        return self.name

    def disagreements(self, answers: Sequence[dict[str, Any]], column: int = 0) -> list[str]:
        """What of the answers is not as stated; empty if all is."""
        found = [f"{len(answers)} answers to {len(self.lines)} lines"] if len(answers) != len(self.lines) else []
        for line, columns, answer in zip(self.lines, self.columns, answers, strict=False):
            if "error" in answer or "broken" in answer:
                found.append(f"{line}: {answer}")
            elif columns is not None:
                wanted = columns[min(column, len(columns) - 1)]
                found += [f"{line}: wanted {word}, got {answer}" for word in _unmet(wanted.split(), answer)]
        return found


def read(path: Path) -> list[Stated]:
    """The scripts of a file."""
    scripts: list[Stated] = []
    for raw in path.read_text().splitlines():
        text, _, wanted = raw.partition("#>")
        words = text.split()
        if words[:1] == ["script"]:
            scripts.append(Stated(words[1]))
        elif raw.startswith("# ") and scripts:
            scripts[-1].about += raw[2:] + "\n"
        elif strip_comment(text).strip():
            scripts[-1].lines.append(strip_comment(text).strip())
            scripts[-1].columns.append([column.strip() for column in wanted.split(" | ")] if wanted else None)
    return scripts


def read_all(paths: Iterable[Path]) -> list[Stated]:
    """The scripts of several files, whose names must differ."""
    scripts = [script for path in sorted(paths) for script in read(path)]
    names = [script.name for script in scripts]
    assert len(set(names)) == len(names), "two scripts have the same name"
    return scripts


# -- comparing --------------------------------------------------------------------------------------------------------


def _unmet(words: Sequence[str], answer: dict[str, Any]) -> list[str]:
    areas = [word for word in words if _AREA.fullmatch(word)]
    unmet = [word for word in words if word not in areas and not _holds(word, answer)]
    if areas:
        shown = answer.get("maps", [])
        if len(areas) != len(shown) or not all(map(_is_area, areas, shown)):
            unmet.append(" ".join(areas))
    return unmet


def _holds(word: str, answer: dict[str, Any]) -> bool:
    if word == "ok":
        return "err" not in answer and "sig" not in answer
    if word == "none":
        return answer.get("maps") == []
    if word.startswith("n="):
        return len(answer["maps"]) == int(word[2:])
    if re.fullmatch(r"E[A-Z0-9]+", word):
        return answer.get("err") == word
    if word.startswith(("SEGV_", "BUS_")):
        return answer.get("code") == word
    if match := _FLAG.fullmatch(word):
        return (match[3] in _smaps(answer, match[1])["VmFlags"].split()) == (match[2] == "+")
    if match := _SMAPS.fullmatch(word):
        return _smaps(answer, match[1]).get(match[2], 0) == int(match[3])
    key, equals, value = word.partition("=")
    if not equals:
        return "err" not in answer and _number(answer.get("ret")) == _number(word)
    found = answer.get(key, answer.get("status", {}).get(key, 0))
    if isinstance(found, list):
        return [item for item, count in found for _ in range(count)] == [int(item) for item in value.split(",")]
    return _number(found) == _number(value)


def _number(value: Any) -> int | None:
    if value is None or isinstance(value, int):
        return value
    negative = value.startswith("-")
    number = expression(value.removeprefix("-"), lambda term: 0)
    return -number if negative else number


def _page(text: str) -> int:
    symbol = text[0] if text[0] in _SYMBOLS else "B"
    return _SYMBOLS[symbol] + int(text.lstrip("KT")) * 4096


def _bounds(shown: str) -> tuple[int, int]:
    low, high = re.fullmatch(r"((?:[BKT][+-])?0x[0-9a-f]+|[BKT])-((?:[BKT][+-])?0x[0-9a-f]+|[BKT])", shown).groups()
    return expression(low, lambda term: 0), expression(high, lambda term: 0)


def _is_area(wanted: str, shown: str) -> bool:
    symbol, first, last, rights, offset, name = _AREA.fullmatch(wanted).groups()
    place, is_rights, is_offset, *is_name = shown.split(maxsplit=3)
    return (
        _bounds(place) == (_page(symbol + first), _page(symbol + last))
        and rights in ("", is_rights)
        and (offset is None or int(offset) * 4096 == int(is_offset, 16))
        and name in (None, *is_name)
    )


def _smaps(answer: dict[str, Any], page: str) -> dict[str, Any]:
    address = _page(page)
    for area in answer["smaps"]:
        low, high = _bounds(area["vma"])
        if low <= address < high:
            return area
    raise AssertionError(f"no area at page {page}: {answer['smaps']}")
