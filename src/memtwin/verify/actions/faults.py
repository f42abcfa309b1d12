# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults and what they leave: accesses of every kind, populating, files under mappings, copies after fork."""

from __future__ import annotations

from memtwin.verify.actions.pages import touch
from memtwin.verify.actions.words import PROT
from memtwin.verify.generate import WINDOW, Author, Range
from memtwin.verify.layout import Area

__all__ = [
    "access",
    "beyond_the_file",
    "big_area",
    "cow",
    "file_io",
    "look",
    "map_populate",
    "mincore",
    "populate",
    "read_then_write",
]


def _wild(at: Range) -> bool:
    return at.wild or at.pages > 64


def _near(author: Author) -> Range:
    """A range around an end of an area: what faults there depends on the page."""
    area = author.area() or Area(4, 8)
    start = max(author.rng.choice((area.start - 1, area.start, area.end - 1, area.end - 2, area.end)), 0)
    return author.pages_at(start, author.rng.choice((1, 2, 2, 3)))


def access(author: Author) -> None:
    """Loads or stores, a byte a stride: page by page, several to a page, every second page, from within a page."""
    at = _near(author) if author.chance(0.35) else author.target()
    if _wild(at):
        return
    addr = at.addr
    if author.chance(0.2):
        addr += author.rng.choice(("+1", "+0x800", "+0xfff", "-1", "+8"))
    stride = author.pick({"": 70, " 2p": 8, " 3p": 4, " 0x800": 6, " 0x555": 3, " 1": 0 if at.pages > 1 else 2})
    if author.chance(0.55):
        author.write(f"write {addr} {at.length} {author.rng.randrange(1, 255)}{stride}")
        if at.sane:
            author.layout.change(at.start, at.end, touched=True)
    else:
        author.write(f"read {addr} {at.length}{stride}")


def read_then_write(author: Author) -> None:
    """The zero page or a cached page first, its copy then."""
    at = author.target()
    if _wild(at):
        return
    author.write(f"read {at}")
    if author.chance(0.3):
        author.write(f"mprotect {at} {author.pick(PROT)}")
    author.write(f"write {at} {author.rng.randrange(1, 255)}")
    if author.chance(0.3):
        author.write(f"read {at}")


def populate(author: Author) -> None:
    """Advice to have pages present."""
    at = author.target()
    if at.endless:
        return
    advice = author.pick({"populate_read": 1, "populate_write": 1})
    author.write(f"{'process_madvise' if author.chance(0.05) else 'madvise'} {at} {advice}")


def map_populate(author: Author) -> None:
    """mmap that faults its pages at once, anonymous or of a file."""
    pages = author.small()
    start = author.place(pages)
    prot = author.pick(PROT)
    how = author.pick({"populate": 6, "locked": 3, "populate|locked": 1, "populate|nonblock": 1})
    if author.files and author.chance(0.4):
        var, size = author.rng.choice(author.files)
        offset = author.rng.choice((0, 0, 1, max(size - 2, 0), size))
        kind = author.pick({"private": 1, "shared": 1})
        author.write(f"mmap B+{start}p {pages}p {prot} {kind}|fixed|{how} ${var} {offset}p")
        author.layout.map(Area(start, start + pages, "file", prot, True))
        return
    kind = author.pick({"private|anon": 5, "shared|anon": 2})
    author.write(f"mmap B+{start}p {pages}p {prot} {kind}|fixed|{how}")
    author.layout.map(Area(start, start + pages, "shared" if kind[0] == "s" else "anon", prot, True))


def mincore(author: Author) -> None:
    """Which pages are resident."""
    at = author.target()
    if not at.endless:
        author.write(f"mincore {at}")


def look(author: Author) -> None:
    """Which pages are there and which are one, over all processes."""
    author.lines.append("@* dump pagemap status")


def file_io(author: Author) -> None:
    """Reading, writing and cutting files that are mapped."""
    if not author.files:
        return
    var, size = author.rng.choice(author.files)
    page = author.rng.randrange(size + 1)
    match author.pick({"pwrite": 4, "pread": 2, "ftruncate": 3, "fstat": 2}):
        case "pwrite":
            at = author.pick({f"{page}p": 4, f"{page}p+100": 1})
            length = author.pick({"1p": 2, "2p": 2, "100": 1})
            author.write(f"pwrite ${var} {at} {length} {author.rng.randrange(1, 255)}")
        case "pread":
            author.write(f"pread ${var} {page}p {author.pick({'1p': 1, '2p': 1, '5000': 1})}")
        case "ftruncate":
            author.write(f"ftruncate ${var} {page}p" + author.pick({"": 3, "+100": 1, "+4095": 0.5}))
        case _:
            author.write(f"fstat ${var}")


def beyond_the_file(author: Author) -> None:
    """A mapping that reaches further than its file, and accesses around the end."""
    var, name, pages = author.name("f"), author.name("t"), author.rng.choice((1, 2, 3, 5))
    author.write(f"{var}=memfd {name}")
    author.write(f"ftruncate ${var} {pages}p" + author.pick({"": 2, "+1": 1, "-1": 1, "+0x800": 1}))
    author.files.append((var, pages))
    start = author.rng.randrange(WINDOW - 8)
    kind = author.pick({"private": 1, "shared": 1})
    prot = author.pick({"rw": 4, "r": 1})
    author.write(f"mmap B+{start}p {pages + 3}p {prot} {kind}|fixed ${var}")
    author.layout.map(Area(start, start + pages + 3, "file", prot))
    for _ in range(author.rng.randint(1, 3)):
        first = start + author.rng.randrange(pages + 2)
        access_at = author.pages_at(first, author.rng.randint(1, 3))
        author.write(author.pick({f"read {access_at}": 1, f"write {access_at} 5": 1, f"mincore {access_at}": 0.4}))


def big_area(author: Author) -> None:
    """An area of several page tables: what is done to whole tables, and to pieces of them."""
    pages = author.rng.choice((600, 1100, 1536))
    start = 512 - author.rng.choice((0, 30, 100))
    author.write(f"mmap B+4m+{start}p {pages}p rw private|anon|fixed")
    for _ in range(author.rng.randint(2, 6)):
        first = author.rng.choice((0, 1, 30, 512 - 8, 512, 600 - 60))
        count = author.rng.choice((1, 20, 41, 64, 512, pages))
        at = f"B+4m+{start + first}p {count}p"
        line = author.pick(
            {
                f"write {at} 7": 5,
                f"write {at} 9 {author.rng.choice((2, 5, 17))}p": 3,
                f"read {at}": 2,
                f"read {at} 7p": 1,
                f"madvise {at} populate_write": 2,
                f"madvise {at} populate_read": 2,
                f"madvise {at} dontneed": 3,
                f"madvise {at} cold": 1,
                f"mprotect {at} r": 2,
                f"mprotect {at} none": 1,
                f"mprotect {at} rw": 2,
                f"mincore {at}": 1,
                f"mlock {at}": 0.5,
                f"munmap {at}": 1,
                f"mremap {at} {count}p maymove|fixed B+16m": 1,
                f"madvise {at} guard_install": 1,
                f"madvise {at} guard_remove": 1,
            }
        )
        author.write(line)


def cow(author: Author) -> None:
    """Pages that parent and child share, and who writes first."""
    area = author.area(lambda area: area.kind == "anon")
    if area is None:
        return
    at = author.pages_at(area.start, min(area.pages, 6))
    if author.chance(0.7):
        touch(author, at)
    name = author.fork()
    if not name:
        return
    first, second = author.rng.sample((author.proc, name), 2)
    for proc in (first, second):
        author.proc = proc
        if author.chance(0.8):
            part = author.pages_at(at.start, author.rng.randint(1, at.pages))
            author.write(author.pick({f"write {part} {author.rng.randrange(1, 255)}": 3, f"read {part}": 1}))
        if author.chance(0.2):
            author.write(f"madvise {at} {author.pick({'dontneed': 2, 'populate_write': 1, 'cold': 1})}")
        if author.chance(0.3):
            look(author)
    if author.chance(0.3):
        if not author.proc:
            author.proc = name
        author.write("exit")
        del author.layouts[author.proc]
        author.proc = ""
