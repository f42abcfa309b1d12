# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees of processes."""

from __future__ import annotations

from memtwin.verify.generate import WINDOW, Author
from memtwin.verify.layout import Area

__all__ = ["fork", "wiped"]


def fork(author: Author) -> None:
    """A child of the current process, an exit, or the turn of somebody else."""
    living = list(author.layouts)
    match author.pick(
        {"fork": 4 if len(living) < 4 else 0.1, "turn": 4 if len(living) > 1 else 0, "exit": 1 if author.proc else 0}
    ):
        case "fork":
            name = author.fork()
            if name and author.chance(0.6):
                author.proc = name
        case "turn":
            author.proc = author.rng.choice(living)
        case _:
            author.write("exit")
            del author.layouts[author.proc]
            author.proc = ""


def wiped(author: Author) -> None:
    """What a child finds of an area that is wiped on fork: it never had a page there."""
    at = author.pages_at(author.rng.randrange(WINDOW - 8), author.small())
    author.write(f"mmap {at} rw private|anon|fixed")
    author.write(f"write {at} 7")
    author.write(f"madvise {at} {author.pick({'wipeonfork': 5, 'keeponfork': 1})}")
    author.layout.map(Area(at.start, at.end, "anon", "rw", True))
    name = author.fork()
    if not name:
        return
    author.proc = name
    for _ in range(author.rng.randint(1, 2)):
        match author.pick({"protect": 3, "grow": 2, "touch": 1}):
            case "protect":
                author.write(f"mprotect {at} r")
            case "grow":
                author.write(f"mmap {author.pages_at(at.end, 2)} rw private|anon|fixed")
                author.write(f"madvise {author.pages_at(at.end, 2)} wipeonfork")
            case _:
                author.write(f"write {at} 9" if author.chance(0.5) else f"read {at}")
    author.write("dump maps smaps")
