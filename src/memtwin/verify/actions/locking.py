# SPDX-License-Identifier: GPL-2.0-or-later
"""mlock and its relatives."""

from __future__ import annotations

from memtwin.verify.actions.words import KIND, PROT
from memtwin.verify.generate import Author
from memtwin.verify.layout import Area

__all__ = ["mlock", "mlockall", "mmap_locked"]


def mlock(author: Author) -> None:
    """Lock and unlock ranges."""
    at = author.target()
    call = author.pick({"mlock": 8, "mlock2 onfault": 5, "mlock2 0": 2, "munlock": 8, "mlock2 2": 0.4})
    name, _, flags = call.partition(" ")
    author.write(f"{name} {at} {flags}".rstrip())


def mlockall(author: Author) -> None:
    """Lock what is there, what will come, or nothing. Not with thousands of areas."""
    if "room" in author.flags:
        return
    author.write(
        author.pick(
            {
                "mlockall current": 3,
                "mlockall future": 4,
                "mlockall current|future": 3,
                "mlockall current|onfault": 2,
                "mlockall future|onfault": 2,
                "mlockall current|future|onfault": 1,
                "munlockall": 6,
                "mlockall onfault": 0.6,
                "mlockall 0": 0.6,
                "mlockall 8": 0.4,
            }
        )
    )


def mmap_locked(author: Author) -> None:
    """A mapping with MAP_LOCKED, at a place or anywhere."""
    pages, place = author.small(), author.place(4)
    prot = author.pick(PROT)
    author.write(f"mmap B+{place}p {pages}p {prot} {author.pick(KIND)}|fixed|locked")
    author.layout.map(Area(place, place + pages, "anon", prot, True))
