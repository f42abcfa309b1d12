# SPDX-License-Identifier: GPL-2.0-or-later
"""Making and dropping mappings, of memory and of files, and the heap."""

from __future__ import annotations

from memtwin.verify.actions.processes import fork
from memtwin.verify.actions.words import KIND, PROT
from memtwin.verify.generate import WINDOW, Author
from memtwin.verify.layout import Area

__all__ = [
    "brk",
    "fill_between",
    "mmap_chosen",
    "mmap_file",
    "mmap_fixed",
    "mmap_wrong",
    "munmap",
    "new_file",
    "remap_file_pages",
    "two_files",
]


def _kind(flags: str) -> str:
    return "shared" if flags.startswith("shared") else "anon"


def mmap_fixed(author: Author) -> None:
    """Map somewhere in the window; often exactly into a hole, or adjacent to something."""
    hole = author.hole()
    if hole is not None and author.chance(0.35):
        start, pages = hole[0], hole[1] - hole[0]
        if author.chance(0.3):
            pages += author.rng.choice((-1, 1))
    else:
        pages = author.small()
        start = author.place(pages)
    area = author.area()
    prot = area.prot if area is not None and author.chance(0.5) else author.pick(PROT)
    kind = author.pick(KIND)
    extra = author.pick(
        {"": 88, "|growsdown": 2, "|populate": 3, "|locked": 3, "|nonblock|populate": 1, "|denywrite": 1}
    )
    how = author.pick({"fixed": 80, "fixed_noreplace": 12, "fixed|fixed_noreplace": 1})
    length = (
        "0"
        if author.chance(0.01)
        else f"{pages}p"
        if author.chance(0.97)
        else f"{max(pages, 1)}p-{author.rng.choice((1, 100, 4095))}"
    )
    addr = f"B+{start}p" + ("+0x10" if author.chance(0.01) else "")
    author.write(f"mmap {addr} {length} {prot} {kind}|{how}{extra}")
    if pages > 0 and (how == "fixed" or author.layout.free(start, start + pages)):
        touched = "populate" in extra or "locked" in extra
        author.layout.map(Area(start, start + pages, _kind(kind), prot, touched))


def mmap_chosen(author: Author) -> None:
    """Let the kernel choose the place: without a hint, or with one that is free, taken, unaligned, low or wild."""
    pages = author.rng.choice((1, 2, 4, 4, 16, 511, 512, 513, 768, 1024))
    length = f"{pages}p"
    kind = author.pick({**KIND, "shared|anon": 4.0, "private|anon|32bit": 2.0, "private|anon|growsdown": 2.0})
    area = author.area() or Area(4, 8)
    hint = author.pick(
        {
            "0": 60,
            f"B+{author.place(4)}p": 12,
            f"B+{area.start}p": 8,
            f"B+{area.end}p+0x123": 4,
            "1p": 2,
            "0x10000": 1,
            "1": 1,
            "0x7fffffffe000": 1,
            "0x800000000000": 1,
            "T": 2,
            "T-4p": 2,
            "0-1p": 1,
        }
    )
    if hint in ("1p", "0x10000", "1"):  # below everything, where a process has its own image not far above
        pages = min(pages, 16)
        length = f"{pages}p"
    var = author.name("v")
    author.write(f"{var}=mmap {hint} {length} {author.pick(PROT)} {kind}")
    author.big.append((var, pages))


def mmap_wrong(author: Author) -> None:
    """Flags and lengths that are refused."""
    place, pages = author.place(2), author.small()
    author.write(
        "mmap "
        + author.pick(
            {
                f"B+{place}p {pages}p rw anon|fixed": 1,
                f"B+{place}p {pages}p rw private|shared|anon|fixed|growsdown": 1,
                f"B+{place}p {pages}p rw shared|anon|fixed|growsdown": 1,
                f"B+{place}p {pages}p rw shared_validate|anon|fixed": 1,
                f"B+{place}p 0 rw private|anon|fixed": 1,
                f"B+{place}p 0-1 rw private|anon": 1,
                f"B+{place}p 0-1p rw private|anon|fixed": 1,
                f"B+{place}p 0x7fffffffffff rw private|anon|fixed": 1,
                f"0x7ffffffff000 {pages}p rw private|anon|fixed": 1,
                f"B+{place}p {pages}p rw private|fixed": 1,
                f"B+{place}p+1 {pages}p rw private|anon|fixed": 1,
                f"0 {pages}p 0xff8 private|anon": 1,
                f"B+{place}p {pages}p rw 0": 1,
                "0 0x7fffffffe000 none private|anon|noreserve": 1,
                "0 0x7ffffffff001 none private|anon|noreserve": 1,
                f"B+{place}p 200g rw private|anon|fixed": 1,
                "0 200g rw private|anon": 1,
                "0 1p rw private|anon|32bit": 1,
            }
        )
    )


def new_file(author: Author) -> None:
    """A file of a few pages: a memfd, or one on the tmpfs; sometimes read-only."""
    var, pages = author.name("f"), author.rng.choice((2, 4, 8, 16))
    name = author.name("t")
    how = author.pick({"memfd": 5, "open": 5, "readonly": 2, "zero": 1})
    if how == "zero":
        author.write(f"{var}=open /dev/zero")
    elif how == "memfd":
        author.write(f"{var}=memfd {name}")
        author.write(f"ftruncate ${var} {pages}p")
    else:
        author.write(f"{var}=open {name}")
        author.write(f"ftruncate ${var} {pages}p")
        if how == "readonly":
            again = author.name("f")
            author.write(f"{again}=open {name} rdonly")
            var = again
    author.files.append((var, pages))


def mmap_file(author: Author) -> None:
    """Map a file at some offset; neighbours often continue each other."""
    if not author.files or author.chance(0.1):
        return new_file(author)
    var, size = author.rng.choice(author.files)
    pages = author.small()
    start = author.place(pages)
    offset = author.rng.choice((0, 0, 1, 2, max(size - 1, 0), size))
    last = author.flags.get(var)
    if last is not None and author.chance(0.5):  # where the last mapping of this file would go on
        offset = max(start - last, 0)
    author.flags[var] = start - offset
    kind = author.pick(
        {"private": 5, "shared": 5, "shared_validate": 1, "shared_validate|sync": 0.3, "private|noreserve": 0.5}
    )
    prot = author.pick(PROT)
    at = f"{offset}p" if author.chance(0.96) else author.rng.choice((f"{offset}p+1", "0x7ffffffffffff000", "0-1p"))
    how = author.pick({"fixed": 90, "fixed_noreplace": 8, "fixed|growsdown": 1})
    author.write(f"mmap B+{start}p {pages}p {prot} {kind}|{how} ${var} {at}")
    author.layout.map(Area(start, start + pages, "file", prot))
    return None


def two_files(author: Author) -> None:
    """Neighbours whose offsets go on, of the same file or of two: only the file parts them."""
    first, second = author.name("f"), author.name("f")
    for var in (first, second):
        author.write(f"{var}=memfd {author.name('t')}")
        author.write(f"ftruncate ${var} 8p")
        author.files.append((var, 8))
    start, left, right = author.rng.randrange(WINDOW - 12), author.small(), author.small()
    kind, prot = author.pick({"private": 1, "shared": 1}), author.pick(PROT)
    author.write(f"mmap {author.pages_at(start, left)} {prot} {kind}|fixed ${first} 0")
    other = second if author.chance(0.7) else first
    author.write(f"mmap {author.pages_at(start + left, right)} {prot} {kind}|fixed ${other} {left}p")
    author.layout.map(Area(start, start + left + right, "file", prot))
    author.write("dump maps")


def munmap(author: Author) -> None:
    """Unmap anywhere."""
    at = author.target()
    author.write(f"munmap {at}")
    if at.sane:
        author.layout.unmap(at.start, at.end)


def remap_file_pages(author: Author) -> None:
    """The old call that is emulated."""
    at = author.target(lambda area: area.kind != "anon")
    author.write(f"remap_file_pages {at} {author.rng.choice((0, 0, 0, 1))} {author.rng.choice((0, 1, 2))} 0")


def brk(author: Author) -> None:
    """Move the break: up, down, to the byte, onto something."""
    now = author.flags.get("brk", 0)
    if author.chance(0.08):  # something in its way, or over it
        place = max(now + author.rng.choice((-2, -1, 0, 1, 2, 4)), 0)
        kind = author.pick({"private|anon": 5, "private|anon|growsdown": 1})
        author.write(f"mmap K+{place}p {author.small()}p {author.pick(PROT)} {kind}|fixed")
        return
    if now and author.chance(0.1):
        call, last = author.rng.choice((("munmap", ""), ("mprotect", " r"), ("mlock", "")))
        author.write(f"{call} K+{author.rng.randrange(now)}p 1p{last}")
        return
    to = author.rng.choice((0, now + 1, now + 1, now + 2, now + 5, max(now - 1, 0), max(now - 2, 0), now, now + 9))
    if author.chance(0.04):
        author.write(f"brk {author.rng.choice(('0', 'K-1', 'K-1p', 'K+0x7f0000000000', 'K+200g', '0-1'))}")
        return
    author.write(f"brk K+{to}p" + author.pick({"": 85, "+1": 4, "+0x800": 4, "-1": 4}))
    author.flags["brk"] = to


def fill_between(author: Author) -> None:
    """Two areas with a hole between them, each touched or not before the hole is filled."""
    start, left, hole, right = author.rng.randrange(WINDOW - 12), author.small(), author.small(), author.small()
    prot = author.pick({"rw": 6, "rwx": 1, "w": 1})
    parts = (author.pages_at(start, left), author.pages_at(start + left + hole, right))
    author.write(f"munmap {author.pages_at(start, left + hole + right)}")
    for at in parts:
        author.write(f"mmap {at} {prot} private|anon|fixed")
    for at in parts:
        if author.chance(0.6):
            author.write(f"write {at.addr} 1p {author.rng.randrange(1, 255)}")
    if author.chance(0.15):
        fork(author)
    author.write(f"mmap {author.pages_at(start + left, hole)} {prot} private|anon|fixed")
    author.layout.map(Area(start, start + left + hole + right, "anon", prot, True))
