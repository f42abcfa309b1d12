# SPDX-License-Identifier: GPL-2.0-or-later
"""Resource limits and the map-count limit; also as openings, which are what a whole program is about."""

from __future__ import annotations

from memtwin.verify.actions.mapping import mmap_fixed
from memtwin.verify.actions.moving import mremap
from memtwin.verify.generate import WINDOW, Author
from memtwin.verify.layout import Area

__all__ = ["limits", "lock_limit", "moves_near_map_limit", "near_map_limit", "with_limits"]


def limits(author: Author) -> None:
    """Tighten or loosen a limit near what is in use."""
    n = author.rng.choice((0, 1, 2, 4, 8, 12, 16, 24, 40))
    match author.pick({"as": 3, "data": 3, "memlock": 1, "loose": 2, "show": 0.5, "wrong": 0.3}):
        case "as":
            author.write(f"setrlimit as AS0+{n + 8}p")
        case "data":
            author.write(f"setrlimit data DATA0+{n}p")
        case "memlock":
            lock_limit(author)
        case "show":
            shown = author.rng.choice(("as", "memlock", "stack"))
            # What fills the room counts in AS0 of the live half only.
            author.write(f"getrlimit {'stack' if 'room' in author.flags else shown}")
        case "wrong":
            author.write(f"setrlimit {author.rng.choice(('memlock 0-1', 'memlock 16m', 'as 5p 4p', '99 1'))}")
        case _:
            author.write(f"setrlimit {author.rng.choice(('as', 'data'))} inf")


def lock_limit(author: Author) -> None:
    """RLIMIT_MEMLOCK, counted without the capability; also near what mlockall would lock."""
    if "room" in author.flags:
        return
    author.write("dropcap ipc_lock")
    n = author.rng.choice((0, 1, 2, 4, 6, 8, 12, 16))
    author.write(
        author.rng.choice(
            (
                f"setrlimit memlock {n}p",
                f"setrlimit memlock {n}p",
                f"setrlimit memlock {n}p-1",
                f"setrlimit memlock AS0+{n}p",
            )
        )
    )


def near_map_limit(author: Author) -> None:
    """A few areas, then room for only some more."""
    for _ in range(author.rng.randint(2, 5)):
        mmap_fixed(author)
    author.flags["room"] = 1
    room = author.rng.choice((0, 0, 1, 1, 2, 3, 4, 5, 6))
    author.write(f"map_room {room}")
    if room >= 2 and author.chance(0.6):  # moves need more room than they take
        for _ in range(author.rng.randint(1, 4)):
            mremap(author)


def moves_near_map_limit(author: Author) -> None:
    """Something that can only grow elsewhere, and room for about as many areas as a move asks for."""
    start, pages = author.rng.randrange(WINDOW - 12), author.rng.choice((1, 2, 4))
    author.write(f"mmap {author.pages_at(start, pages)} rw private|anon|fixed")
    author.write(f"mmap {author.pages_at(start + pages, 1)} r private|anon|fixed")
    author.layout.map(Area(start, start + pages))
    author.layout.map(Area(start + pages, start + pages + 1, "anon", "r"))
    author.flags["room"] = 1
    author.write(f"map_room {author.rng.choice((2, 3, 3, 4, 5, 5, 6, 7))}")
    at = author.pages_at(start, pages)
    how = author.pick({"maymove": 4, "maymove|fixed": 3, "maymove|dontunmap": 1})
    new = pages + 1 if how == "maymove" else pages
    author.write(f"mremap {at} {new}p {how}" + (f" B+{WINDOW + 20}p" if "fixed" in how else ""))


def with_limits(author: Author) -> None:
    """A limit from the beginning."""
    for _ in range(author.rng.randint(1, 3)):
        mmap_fixed(author)
    limits(author)
