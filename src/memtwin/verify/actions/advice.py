# SPDX-License-Identifier: GPL-2.0-or-later
"""Advice about pages."""

from __future__ import annotations

from memtwin.verify.generate import WINDOW, Author
from memtwin.verify.layout import Area

__all__ = ["advise_pages", "aged", "free_and_page_out", "guard", "guarded", "locked_and_dropped", "punch"]

_ADVICE = {
    "dontneed": 14,
    "dontneed_locked": 4,
    "free": 8,
    "cold": 6,
    "pageout": 8,
    "willneed": 3,
    "remove": 5,
    "populate_read": 5,
    "populate_write": 6,
    "guard_install": 8,
    "guard_remove": 6,
}


def advise_pages(author: Author) -> None:
    """Any advice about pages, anywhere."""
    at = author.target()
    if at.endless:
        return
    author.write(f"{'process_madvise' if author.chance(0.06) else 'madvise'} {at} {author.pick(_ADVICE)}")


def guard(author: Author) -> None:
    """Guards put up, tried and taken away."""
    at = author.target()
    if at.wild:
        return
    author.write(f"madvise {at} guard_install")
    for _ in range(author.rng.randint(0, 2)):
        other = author.pages_at(at.start, at.pages) if at.sane and author.chance(0.6) else author.target()
        if other.wild:
            continue
        author.write(
            author.pick(
                {
                    f"read {other}": 3,
                    f"write {other} 8": 3,
                    f"mincore {other}": 1,
                    f"mlock {other}": 0.5,
                    f"madvise {other} dontneed": 1,
                    f"madvise {other} populate_write": 1,
                    f"mprotect {other} r": 1,
                }
            )
        )
    if author.chance(0.4):
        author.write(f"madvise {author.target()} guard_remove")


def guarded(author: Author) -> None:
    """Areas side by side, one of them with a guard in it, that come to be alike."""
    start, left, right = author.rng.randrange(WINDOW - 16), author.small(), author.small()
    one, two = author.pages_at(start, left), author.pages_at(start + left, right)
    author.write(f"mmap {one} rw private|anon|fixed")
    author.write(f"mmap {two} {author.pick({'r': 1, 'none': 1})} private|anon|fixed")
    author.write(f"madvise {author.rng.choice((one, two))} guard_install")
    for at in (one, two):
        if author.chance(0.3):
            author.write(f"madvise {at} {author.pick({'guard_remove': 2, 'dontneed': 1})}")
        if author.chance(0.3):
            author.write(f"write {at} 3")
    author.write(f"mprotect {two} rw")
    if author.chance(0.5):
        author.write("dump smaps")
    author.layout.map(Area(start, start + left + right, "anon", "rw", True))


def free_and_page_out(author: Author) -> None:
    """Pages offered, some taken back by writing, and what is left of them."""
    at = author.target()
    if not at.sane:
        return
    author.write(f"write {at} {author.rng.randrange(1, 255)}")
    author.write(f"madvise {at} free")
    if author.chance(0.5):
        part = author.pages_at(at.start, author.rng.randint(1, at.pages))
        author.write(author.pick({f"write {part} 4": 2, f"read {part}": 1, f"madvise {part} dontneed": 0.5}))
    author.write(f"madvise {at} {author.pick({'pageout': 4, 'cold': 1})}")
    if author.chance(0.6):
        author.write(f"read {at}")


def aged(author: Author) -> None:
    """Pages that two processes map: advice of one of them about their age, and what the other's say then."""
    at = author.pages_at(author.rng.randrange(WINDOW - 8), author.rng.randint(1, 4))
    kind = author.pick({"shared": 2, "private": 1})
    author.write(f"mmap {at} rw {kind}|anon|fixed")
    author.write(author.pick({f"write {at} 3": 1, f"read {at}": 1 if kind == "shared" else 0}))
    author.layout.map(Area(at.start, at.end, "shared" if kind == "shared" else "anon", "rw", True))
    name = author.fork()
    if not name:
        return
    if kind == "shared":
        author.lines.append(f"@{name} read {at}")
        author.lines.append(f"@{name} madvise {at} cold")
        if author.chance(0.3):
            author.write(f"madvise {at} {author.pick({'random': 1, 'sequential': 1})}")
    author.write(f"madvise {at} {author.pick({'cold': 2, 'dontneed': 3, 'pageout': 1})}")
    author.lines.append("@* dump smaps pagemap")


def punch(author: Author) -> None:
    """A hole in what a shared mapping shows, where a private one shows it too."""
    if not author.files:
        return
    var, size = author.rng.choice(author.files)
    start = author.rng.randrange(WINDOW - 2 * size) if 2 * size < WINDOW else 0
    shared, private = author.pages_at(start, size), author.pages_at(start + size, size)
    author.write(f"mmap {shared} {author.pick({'rw': 3, 'r': 1})} shared|fixed ${var}")
    author.write(f"mmap {private} rw private|fixed ${var}")
    author.layout.map(Area(start, start + size, "file", "rw"))
    author.layout.map(Area(start + size, start + 2 * size, "file", "rw"))
    for at in (shared, private):
        if author.chance(0.7):
            author.write(author.pick({f"write {at} 6": 2, f"read {at}": 1}))
    part = author.pages_at(start + author.rng.randrange(size), author.rng.randint(1, size))
    author.write(f"madvise {part} {author.pick({'remove': 4, 'pageout': 2, 'dontneed': 1})}")
    author.write(f"fstat ${var}")
    if author.chance(0.5):
        author.write(f"read {author.rng.choice((shared, private))}")


def locked_and_dropped(author: Author) -> None:
    """Advice about locked memory: what is refused, and what drops it all the same."""
    at = author.target()
    if at.wild:
        return
    author.write(author.pick({f"mlock {at}": 3, f"mlock2 {at} onfault": 1}))
    for _ in range(author.rng.randint(1, 2)):
        other = author.target()
        if not other.endless:
            author.write(f"madvise {other} {author.pick(_ADVICE)}")
    if author.chance(0.6):
        author.write(f"munlock {at}")
