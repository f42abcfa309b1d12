# SPDX-License-Identifier: GPL-2.0-or-later
"""Random programs in the operation language, made so that they hit boundaries.

An :class:`Author` writes one program: it draws operations by the weights of a profile, aims them with a light picture
of what is mapped (:mod:`.layout`), and prefers the places where rules change: whole areas, heads, tails, middles,
ranges over borders and holes, nothing, zero lengths, unaligned ends, the end of the address space. The same profile,
seed and number give the same program, whoever asks.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from memtwin.verify.layout import Area, Layout

__all__ = ["WINDOW", "Author", "Profile", "Range", "program"]

#: Pages of the window that programs use; small, so that operations meet.
WINDOW = 48

Action = Callable[["Author"], None]


@dataclass(frozen=True, slots=True)
class Profile:
    """What programs of a kind are made of.

    ``weights``: action -> how often, relative; ``openings``: likewise, actions that may come first (one at most);
    ``length``: least and most operations; ``dump``: what the last dump shows; ``peek``: what those in between show;
    ``peeks``: share of operations that are followed by such a dump. ``bases``: pages from B on at which the window may
    begin (488: the border of two page tables lies in its middle).
    """

    name: str
    weights: Mapping[Action, float]
    openings: Mapping[Action, float] = field(default_factory=dict)
    length: tuple[int, int] = (16, 30)
    dump: str = "maps smaps status"
    peek: str = "maps"
    peeks: float = 0.12
    bases: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Range:
    """What an operation is aimed at: the two expressions, and the pages of the window if it lies there sensibly."""

    addr: str
    length: str
    start: int = -1
    pages: int = 0

    @property
    def sane(self) -> bool:
        """Are ``start`` and ``pages`` meaningful?"""
        return self.start >= 0 and self.pages > 0

    @property
    def end(self) -> int:
        """The page behind the last."""
        return self.start + self.pages

    @property
    def endless(self) -> bool:
        """Does it end beyond all areas, those of the program itself included?"""
        return "0x7ff" in self.length

    @property
    def wild(self) -> bool:
        """Is its length nothing that could be mapped or locked?"""
        return self.endless or "0-" in self.length

    def __str__(self) -> str:
        return f"{self.addr} {self.length}"


class Author:
    """Writes one program. ``rng`` decides everything; ``layout``: of the process whose turn it is; ``proc``: its name
    ("" for main); ``lines``: the program so far; ``flags``: what actions want to remember.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.lines: list[str] = []
        self.layouts: dict[str, Layout] = {"": Layout()}
        self.proc = ""
        self.flags: dict[str, int] = {}
        self.files: list[tuple[str, int]] = []  #: variable and size in pages
        self.big: list[tuple[str, int]] = []  #: kernel-chosen mappings: variable and size in pages
        self._names = 0

    @property
    def layout(self) -> Layout:
        """The picture of the current process."""
        return self.layouts[self.proc]

    def chance(self, p: float) -> bool:
        """True with probability ``p``."""
        return self.rng.random() < p

    def pick(self, choices: Mapping[str, float]) -> str:
        """A key, by its weight."""
        return self.rng.choices(list(choices), list(choices.values()))[0]

    def name(self, prefix: str) -> str:
        """A name not used yet."""
        self._names += 1
        return f"{prefix}{self._names}"

    def write(self, line: str) -> None:
        """Add a line, for the current process."""
        self.lines.append(f"@{self.proc} {line}" if self.proc else line)

    def fork(self, most: int = 5) -> str:
        """Fork the current process; the child's name, "" if the program has forked often enough."""
        if self.flags.get("forks", 0) >= most:
            return ""
        self.flags["forks"] = self.flags.get("forks", 0) + 1
        name = self.name("c")
        self.write(f"fork {name}")
        self.layouts[name] = self.layout.copy()
        return name

    # -- aiming -------------------------------------------------------------------------------------------------------

    def area(self, wanted: Callable[[Area], bool] | None = None) -> Area | None:
        """Some area of the picture."""
        areas = self.layout.areas if wanted is None else [area for area in self.layout.areas if wanted(area)]
        return self.rng.choice(areas) if areas else None

    def small(self) -> int:
        """A number of pages: mostly few."""
        return self.rng.choice((1, 1, 1, 2, 2, 3, 4, 4, 5, 6, 8))

    def place(self, pages: int) -> int:
        """A page of the window at which ``pages`` pages begin: mostly at an end of what is there."""
        rng = self.rng
        area = self.area()
        if area is None or self.chance(0.2):
            return rng.randrange(max(WINDOW - pages, 1))
        start = rng.choice(
            (area.end, area.end, area.start - pages, area.start - pages, area.end - 1, area.start, area.start + 1)
        )
        return min(max(start, 0), WINDOW + 8)

    def hole(self) -> tuple[int, int] | None:
        """A hole between two areas that is small enough to be filled."""
        areas = self.layout.areas
        holes = [(a.end, b.start) for a, b in pairwise(areas) if 0 < b.start - a.end <= 8]
        return self.rng.choice(holes) if holes else None

    def pages_at(self, start: int, pages: int) -> Range:
        """The range [start, start + pages) of the window."""
        return Range(f"B+{start}p" if start else "B", f"{pages}p", start, pages)

    def target(self, wanted: Callable[[Area], bool] | None = None) -> Range:
        """Where to aim an operation on existing mappings."""
        if self.chance(0.05):
            return self.odd()
        if self.big and self.chance(0.1):
            return self._in_big()
        area = self.area(wanted) or self.area()
        if area is None:
            return self.pages_at(self.rng.randrange(WINDOW - 8), self.small())
        return self._around(area)

    def _around(self, area: Area) -> Range:
        rng, n = self.rng, area.pages
        part = rng.randint(1, max(n - 1, 1))
        match self.pick(_SHAPES):
            case "whole":
                return self.pages_at(area.start, n)
            case "head":
                return self.pages_at(area.start, part)
            case "tail":
                return self.pages_at(area.end - part, part)
            case "middle":
                if n < 3:
                    return self.pages_at(area.start, n)
                start = rng.randint(1, n - 2)
                return self.pages_at(area.start + start, rng.randint(1, n - start - 1))
            case "over":
                return self.pages_at(area.end - part, part + self.small())
            case "two":
                following = [other for other in self.layout.areas if other.start >= area.end]
                end = following[0].end if following else area.end + 1
                return self.pages_at(area.start, end - area.start)
            case "before":
                low = max(area.start - self.small(), 0)
                return self.pages_at(low, area.start + part - low)
            case "many":
                return self.pages_at(max(area.start - 2, 0), rng.randint(10, 24))
            case _:
                hole = self.hole()
                if hole is None:
                    return self.pages_at(WINDOW + rng.randrange(4), self.small())
                return self.pages_at(hole[0], hole[1] - hole[0])

    def _in_big(self) -> Range:
        var, pages = self.rng.choice(self.big)
        start = self.rng.choice((0, 0, 1, pages // 2, max(pages - 2, 0)))
        count = self.rng.choice((1, 2, pages, max(pages - start, 1)))
        return Range(f"${var}+{start}p" if start else f"${var}", f"{count}p")

    def odd(self) -> Range:
        """A range that is wrong in some way."""
        area = self.area() or Area(4, 8)
        at = self.pages_at(area.start, area.pages)
        match self.pick(_ODD):
            case "zero":
                return Range(at.addr, "0")
            case "unaligned":
                return Range(f"{at.addr}+{self.rng.choice(('1', '0x800', '0xfff'))}", at.length)
            case "part of a page":
                length = self.rng.choice((f"{at.pages}p-1", "1", f"{max(at.pages - 1, 1)}p+1"))
                return Range(at.addr, length, at.start, at.pages)
            case "huge":
                return Range(at.addr, self.rng.choice(("0x7fffffffffff", "0-1p", "0-1", "0x7ff000000000")))
            case "wraps":
                return Range(self.rng.choice(("0-1p", "0-2p")), self.rng.choice(("1p", "2p", "3p")))
            case "null":
                return Range("0", "1p")
            case _:
                return Range(self.rng.choice(("0x7ffffffff000", "0x800000000000")), "1p")


_SHAPES = {
    "whole": 22.0,
    "head": 12.0,
    "tail": 12.0,
    "middle": 14.0,
    "over": 8.0,
    "two": 10.0,
    "before": 6.0,
    "many": 5.0,
    "hole": 6.0,
}
_ODD = {
    "zero": 3.0,
    "unaligned": 4.0,
    "part of a page": 3.0,
    "huge": 2.0,
    "wraps": 1.0,
    "null": 1.0,
    "end of space": 1.0,
}


_B = re.compile(r"\bB\b")


def program(profile: Profile, seed: int, number: int) -> list[str]:
    """The lines of program ``number`` of a campaign."""
    author = Author(random.Random(f"{profile.name}/{seed}/{number}"))
    actions: Sequence[Action] = list(profile.weights)
    weights = list(profile.weights.values())
    rng = author.rng
    if profile.openings:
        openings: list[Action | None] = [None, *profile.openings]
        opening = rng.choices(openings, [max(1 - sum(profile.openings.values()), 0), *profile.openings.values()])[0]
        if opening is not None:
            opening(author)
    for _ in range(rng.randint(*profile.length)):
        rng.choices(actions, weights)[0](author)
        if author.chance(profile.peeks):
            author.write(f"dump {profile.peek}")
    if len(author.layouts) > 1:
        author.lines.append(f"@* dump {profile.dump}")
    else:
        author.write(f"dump {profile.dump}")
    base = rng.choice(profile.bases) if len(profile.bases) > 1 else profile.bases[0]
    return [_B.sub(f"B+{base}p", line) for line in author.lines] if base else author.lines
