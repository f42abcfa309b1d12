# SPDX-License-Identifier: GPL-2.0-or-later
"""Operations on an area with transparent huge pages: on whole blocks of 2 MiB, parts of one, and across a border.

Its window has pages of its own: four blocks from B + 2 MiB on, and three at B + 64 MiB that parts are moved to.
"""

from __future__ import annotations

from typing import Final

from memtwin.verify.generate import Author

__all__ = [
    "advise_huge",
    "collapse_huge",
    "huge_area",
    "huge_processes",
    "lock_huge",
    "map_huge",
    "move_huge",
    "populate_huge",
    "protect_huge",
    "read_huge",
    "uffd_huge",
    "unmap_huge",
    "write_huge",
    "zap_huge",
]

BLOCK: Final = 512  #: pages of a huge page
BLOCKS: Final = 4
AREA: Final = BLOCKS * BLOCK


def _at(page: int) -> str:
    return f"B+2m+{page}p" if page else "B+2m"


def _range(author: Author) -> tuple[int, int]:
    """First page and number of pages: whole blocks, a part of one, or across a border."""
    rng = author.rng
    match author.pick({"blocks": 35, "part": 45, "border": 20}):
        case "blocks":
            first, pages = rng.randrange(BLOCKS) * BLOCK, BLOCK * rng.randint(1, 2)
        case "part":
            first = rng.randrange(BLOCKS) * BLOCK + rng.choice((0, 1, 7, 100, 255, 500, 511))
            pages = rng.choice((1, 2, 3, 40, 200))
        case _:
            first, pages = rng.randint(1, BLOCKS - 1) * BLOCK - rng.choice((1, 5, 60)), rng.choice((8, 100, BLOCK))
    return first, min(pages, AREA - first)


def _target(author: Author) -> str:
    first, pages = _range(author)
    return f"{_at(first)} {pages}p"


def _spot(author: Author) -> str:
    """A few pages of it: what is accessed answers page by page."""
    first, pages = _range(author)
    return f"{_at(first)} {min(pages, 6)}p"


def _line(author: Author, line: str) -> None:
    """A line, and then everything about every process: what changed where, and for whom."""
    author.write(line)
    author.lines.append("@* dump")


def huge_area(author: Author) -> None:
    """What a program begins with; half of the time small pages that are there before huge ones are wanted."""
    whole = f"{_at(0)} {AREA}p"
    author.write(f"mmap {whole} rw private|anon|fixed")
    if author.chance(0.3):
        author.write(f"madvise {whole} nohugepage")
        for _ in range(author.rng.randint(1, 4)):
            author.write(f"write {_target(author)} {author.rng.randint(1, 255)}")
    _line(author, f"madvise {whole} hugepage")


def write_huge(author: Author) -> None:
    """Write a few pages."""
    _line(author, f"write {_spot(author)} {author.rng.randint(1, 255)}")


def read_huge(author: Author) -> None:
    """Read a few pages: the huge zero page where nothing is."""
    _line(author, f"read {_spot(author)}")


def protect_huge(author: Author) -> None:
    """Another protection."""
    _line(author, f"mprotect {_target(author)} {author.rng.choice(('r', 'rw', 'rw', 'none'))}")


def zap_huge(author: Author) -> None:
    """Drop pages; of a part of a huge page only the entries go."""
    _line(author, f"madvise {_target(author)} dontneed")


def unmap_huge(author: Author) -> None:
    """A hole."""
    _line(author, f"munmap {_target(author)}")


def map_huge(author: Author) -> None:
    """A new area over a part, which is not advised: huge pages end at its border."""
    at = _target(author)
    author.write(f"mmap {at} rw private|anon|fixed")
    _line(author, f"madvise {at} {author.pick({'hugepage': 2, 'nohugepage': 1})}")


def move_huge(author: Author) -> None:
    """Away from the window, mostly by whole blocks, so that whole tables or leaves move. Then the target is accessed,
    and the source where it stays: a block that lost its table may have a huge page.
    """
    first, pages = _range(author)
    to = f"B+64m+{author.rng.randrange(3) * BLOCK + author.rng.choice((0, 0, 9))}p"
    stays = author.chance(0.4)
    _line(author, f"mremap {_at(first)} {pages}p {pages}p maymove|{'dontunmap' if stays else 'fixed'} {to}")
    for at in (to, _at(first)) if stays else (to,):
        _line(author, f"write {at} {min(pages, 3)}p 5" if author.chance(0.7) else f"read {at} {min(pages, 3)}p")


def advise_huge(author: Author) -> None:
    """Advice about ageing and about huge pages."""
    advice = {"cold": 3, "hugepage": 2, "nohugepage": 2, "free": 1 if len(author.layouts) == 1 else 0}
    _line(author, f"madvise {_target(author)} {author.pick(advice)}")


def collapse_huge(author: Author) -> None:
    """Make huge pages now; of parts only whole blocks inside count."""
    _line(author, f"madvise {_target(author)} collapse")


def populate_huge(author: Author) -> None:
    """Fill ahead of use."""
    _line(author, f"madvise {_target(author)} {author.pick({'populate_read': 1, 'populate_write': 1})}")


def lock_huge(author: Author) -> None:
    """Lock or unlock; what is locked is there afterwards."""
    _line(author, f"{author.pick({'mlock': 1, 'munlock': 1})} {_target(author)}")


def uffd_huge(author: Author) -> None:
    """A range where missing pages are SIGBUS, until the userfaultfd is closed."""
    name = author.name("u")
    author.write(f"{name}=userfaultfd")
    author.write(f"uffd_api ${name} sigbus")
    author.write(f"uffd_register ${name} {_target(author)} missing")
    for _ in range(author.rng.randint(1, 2)):
        author.rng.choice((collapse_huge, write_huge, read_huge, populate_huge))(author)
    _line(author, f"close ${name}")


def huge_processes(author: Author) -> None:
    """A child, an exit, or the turn of another process of at most three."""
    living = list(author.layouts)
    kinds = {"fork": 3 if len(living) < 3 else 0, "turn": 4 if len(living) > 1 else 0, "exit": 1 if author.proc else 0}
    match author.pick(kinds) if any(kinds.values()) else "":
        case "fork":
            author.fork()
        case "turn":
            author.proc = author.rng.choice(living)
        case "exit":
            author.write("exit")
            del author.layouts[author.proc]
            author.proc = ""
            author.lines.append("@* dump")
