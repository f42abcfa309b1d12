# SPDX-License-Identifier: GPL-2.0-or-later
"""What the generator can write: one function an operation, or a short idiom of several.

Each aims at boundaries, writes lines and keeps the author's picture true in the ordinary case.
"""

from __future__ import annotations

from memtwin.verify.generate import WINDOW, Author, Range
from memtwin.verify.layout import Area

__all__: list[str] = []

_PROT = {"rw": 40.0, "r": 22.0, "none": 18.0, "rx": 8.0, "rwx": 5.0, "w": 4.0, "x": 2.0, "wx": 1.0}
_KIND = {"private|anon": 80.0, "shared|anon": 9.0, "private|anon|noreserve": 6.0, "private|anon|stack": 2.0}
_ADVICE = {
    "random": 6.0,
    "sequential": 4.0,
    "normal": 7.0,
    "dontfork": 4.0,
    "dofork": 4.0,
    "dontdump": 4.0,
    "dodump": 4.0,
    "wipeonfork": 3.0,
    "keeponfork": 3.0,
    "mergeable": 2.0,
    "unmergeable": 2.0,
    "hugepage": 2.0,
    "nohugepage": 2.0,
    "0-1": 0.4,
    "7": 0.4,
}
_UNDO = {
    "random": "normal",
    "dontfork": "dofork",
    "dontdump": "dodump",
    "wipeonfork": "keeponfork",
    "mergeable": "unmergeable",
}


def _kind(flags: str) -> str:
    return "shared" if flags.startswith("shared") else "anon"


# -- mapping --------------------------------------------------------------------------------------------------------


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
    prot = area.prot if area is not None and author.chance(0.5) else author.pick(_PROT)
    kind = author.pick(_KIND)
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
    kind = author.pick({**_KIND, "shared|anon": 4.0, "private|anon|32bit": 2.0, "private|anon|growsdown": 2.0})
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
    author.write(f"{var}=mmap {hint} {length} {author.pick(_PROT)} {kind}")
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
    prot = author.pick(_PROT)
    at = f"{offset}p" if author.chance(0.96) else author.rng.choice((f"{offset}p+1", "0x7ffffffffffff000", "0-1p"))
    how = author.pick({"fixed": 90, "fixed_noreplace": 8, "fixed|growsdown": 1})
    author.write(f"mmap B+{start}p {pages}p {prot} {kind}|{how} ${var} {at}")
    author.layout.map(Area(start, start + pages, "file", prot))
    return None


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
        author.write(f"mmap K+{place}p {author.small()}p {author.pick(_PROT)} {kind}|fixed")
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


# -- attributes -----------------------------------------------------------------------------------------------------


def mprotect(author: Author) -> None:
    """Protect; often as a neighbour is, so that things merge again."""
    at = author.target()
    prot = author.pick(_PROT)
    if at.sane and author.chance(0.45):
        near = [area for area in author.layout.inside(max(at.start - 1, 0), at.end + 1)]
        if near:
            prot = author.rng.choice(near).prot
    shown = prot
    if author.chance(0.04):
        shown = author.rng.choice(
            (f"{prot}|growsdown", f"{prot}|growsup", f"{prot}|growsdown|growsup", f"{prot}|sem", "0x20", f"{prot}|0x10")
        )
    author.write(f"mprotect {at} {shown}")
    if at.sane:
        author.layout.change(at.start, at.end, prot=prot)


def there_and_back(author: Author) -> None:
    """Change the middle of something and change it back: one area, three, one."""
    at = author.target()
    if "0x7ff" in at.length:
        return
    match author.pick({"mprotect": 5, "madvise": 3, "mlock": 2, "mbind": 1}):
        case "mprotect":
            area = author.layout.inside(at.start, at.end)[:1] if at.sane else []
            before = area[0].prot if area else "rw"
            author.write(f"mprotect {at} {author.pick(_PROT)}")
            if author.chance(0.4):
                touch(author, at)
            author.write(f"mprotect {at} {before}")
        case "madvise":
            advice = author.rng.choice(list(_UNDO))
            author.write(f"madvise {at} {advice}")
            author.write(f"madvise {at} {_UNDO[advice]}")
        case "mlock":
            author.write(f"mlock {at}")
            author.write(f"munlock {at}")
        case _:
            author.write(f"mbind {at} {author.rng.choice(('bind', 'preferred', 'interleave'))} 1 0")
            author.write(f"mbind {at} default 0 0")


def madvise(author: Author) -> None:
    """Advice that changes flags."""
    at, advice = author.target(), author.pick(_ADVICE)
    if "0x7ff" in at.length:  # goes on behind holes, up to what the program itself stands on
        return
    author.write(f"{'process_madvise' if author.chance(0.04) else 'madvise'} {at} {advice}")


def mbind(author: Author) -> None:
    """A memory policy of a range, or of the process; the machine has one node."""
    if author.chance(0.12):
        author.write(
            author.rng.choice(
                ("set_mempolicy bind 1", "set_mempolicy default 0", "set_mempolicy interleave 1", "get_mempolicy")
            )
        )
        return
    at = author.target()
    policy = author.pick(
        {
            "default 0": 4,
            "bind 1": 4,
            "preferred 1": 3,
            "interleave 1": 2,
            "local 0": 1,
            "preferred 0": 1,
            "preferred_many 1": 1,
            "bind|static_nodes 1": 1,
            "bind|relative_nodes 1": 0.5,
            "bind 0": 0.5,
            "bind 2": 0.5,
            "default 1": 0.5,
            "local 1": 0.5,
            "77 1": 0.3,
            "bind|static_nodes|relative_nodes 1": 0.3,
        }
    )
    author.write(f"mbind {at} {policy} {author.pick({'0': 8, 'strict': 1, 'move': 1, 'strict|move': 0.5, '8': 0.4})}")


def userfaultfd(author: Author) -> None:
    """Register and unregister ranges; two descriptors show that the context counts. Faults there end in SIGBUS."""
    if author.flags.get("uffd", 0) < 2 and author.chance(0.5):
        var = author.name("u")
        author.write(f"{var}=userfaultfd")
        if author.chance(0.95):
            author.write(f"uffd_api ${var} {author.pick({'sigbus': 9, '0x40000000': 0.3})}")
        author.flags["uffd"] = author.flags.get("uffd", 0) + 1
        author.flags[f"uffd{author.flags['uffd']}"] = int(var[1:])
        return
    count = author.flags.get("uffd", 0)
    if not count:
        return
    var = f"u{author.flags[f'uffd{author.rng.randint(1, count)}']}"
    at = author.target()
    match author.pick({"register": 6, "unregister": 3, "close": 0.6}):
        case "register":
            mode = author.pick({"missing": 6, "wp": 3, "missing|wp": 2, "minor": 0.7, "0": 0.3, "8": 0.2})
            author.write(f"uffd_register ${var} {at} {mode}")
        case "unregister":
            author.write(f"uffd_unregister ${var} {at}")
        case _:
            author.write(f"close ${var}")


def two_userfaultfds(author: Author) -> None:
    """Neighbours registered alike with two descriptors: only the context parts them."""
    if author.flags.get("uffd", 0):
        return
    first, second = author.name("u"), author.name("u")
    for var in (first, second):
        author.write(f"{var}=userfaultfd")
        author.write(f"uffd_api ${var} sigbus")
    author.flags |= {"uffd": 2, "uffd1": int(first[1:]), "uffd2": int(second[1:])}
    area = author.area(lambda area: area.kind == "anon" and area.pages > 1)
    if area is None:
        return
    cut = author.rng.randint(1, area.pages - 1)
    mode = author.pick({"missing": 3, "wp": 1})
    author.write(f"uffd_register ${first} {author.pages_at(area.start, cut)} {mode}")
    other = second if author.chance(0.7) else first
    author.write(f"uffd_register ${other} {author.pages_at(area.start + cut, area.pages - cut)} {mode}")
    author.write("dump maps")


def prctl(author: Author) -> None:
    """Process-wide bits that change flags of areas."""
    author.write(author.rng.choice(("thp_disable 1", "thp_disable 0", "merge 1", "merge 0", "get_merge")))


def msync(author: Author) -> None:
    """Only its checks matter here."""
    flags = author.pick({"async": 3, "sync": 3, "invalidate": 2, "async|sync": 1, "0": 1, "8": 1, "sync|invalidate": 1})
    author.write(f"msync {author.target()} {flags}")


# -- pages ----------------------------------------------------------------------------------------------------------


def touch(author: Author, at: Range | None = None) -> None:
    """Read or write a few pages: that is what gives an area its anon_vma."""
    if at is None:
        at = author.target()
    if "0x7ff" in at.length or "0-" in at.length or at.pages > 64:
        return
    if author.chance(0.7):
        author.write(f"write {at} {author.rng.randrange(1, 255)}")
    else:
        author.write(f"read {at}")
    if at.sane:
        author.layout.change(at.start, at.end, touched=True)


def zap(author: Author) -> None:
    """Drop pages."""
    at = author.target()
    if "0x7ff" in at.length:
        return
    advice = author.pick({"dontneed": 5, "dontneed_locked": 1, "free": 1})
    author.write(f"madvise {at} {advice}")
    if advice == "free":  # freed pages wait in a batch of their CPU: how they look in smaps meanwhile is nobody's rule
        author.flags["freed"] = 1


def below_stack_like(author: Author) -> None:
    """An area that grows down, something below it, and touches between them."""
    base = WINDOW + author.rng.choice((300, 500, 600))
    gap = author.rng.choice((10, 100, 255, 256, 257, 258, 290))
    author.write(f"mmap B+{base}p {author.small()}p rw private|anon|fixed|growsdown")
    if author.chance(0.8):
        author.write(f"mmap B+{base - gap - 2}p 2p {author.pick({'rw': 3, 'none': 1, 'r': 1})} private|anon|fixed")
    for _ in range(author.rng.randint(1, 2)):
        author.write(f"write B+{base - author.rng.choice((1, 2, 3, gap - 256, gap - 257, gap, gap + 1))}p 1p 9")
    if author.chance(0.4):
        author.write(f"mmap B+{base - author.rng.choice((10, 256, 257, 258))}p 2p rw private|anon")
    if author.chance(0.3):
        author.write(f"mprotect B+{base + 1}p 1p r|growsdown")


# -- moving ---------------------------------------------------------------------------------------------------------


def mremap(author: Author) -> None:
    """Shrink, grow in place, move, duplicate; to free and to taken places."""
    at = author.target()
    old = at.pages if at.pages else 1
    new = max(old + author.rng.choice((-2, -1, 0, 0, 0, 1, 1, 2, 5)), 0)
    flags = author.pick(
        {
            "maymove": 40,
            "0": 18,
            "maymove|fixed": 30,
            "maymove|dontunmap": 8,
            "maymove|fixed|dontunmap": 8,
            "fixed": 1,
            "dontunmap": 1,
            "8": 0.5,
            "maymove|8": 0.5,
        }
    )
    old_text = at.length
    if author.chance(0.04):
        old_text = "0"
    if "dontunmap" in flags and author.chance(0.85):
        new = old
    new_text = f"{new}p" if author.chance(0.96) else author.rng.choice(("0", "0-1p", "0x7fffffffffff", f"{new}p+1"))
    line = f"mremap {at.addr} {old_text} {new_text} {flags}"
    to = author.place(max(new, 1))
    if "fixed" in flags or author.chance(0.1):
        if author.chance(0.08) and at.sane:
            to = max(at.start + author.rng.choice((-1, 0, 1)), 0)
        wild = author.chance(0.03)
        line += f" {author.rng.choice(('0', f'B+{to}p+1', '0x7ffffffff000', '0-1p'))}" if wild else f" B+{to}p"
    elif "dontunmap" in flags and author.chance(0.3):
        line += f" B+{to}p"
    var = author.name("v")
    moved = "maymove" in flags and "fixed" not in flags
    author.write(f"{var}={line}" if moved else line)
    if not at.sane or not new:
        return
    if "fixed" in flags:
        author.layout.move(at.start, old, new, to, keep="dontunmap" in flags)
    elif new < old:
        author.layout.unmap(at.start + new, at.end)
    elif flags == "0" and author.layout.free(at.end, at.start + new):
        author.layout.move(at.start, old, new, at.start)
    elif moved:
        author.big.append((var, new))


def move_there_and_back(author: Author) -> None:
    """Move something away and back to where it was."""
    at = author.target(lambda area: area.pages < 12)
    if not at.sane:
        return
    away = WINDOW + 16 + author.rng.randrange(8)
    if author.chance(0.4):
        touch(author, at)
    author.write(f"mremap {at} {at.pages}p maymove|fixed B+{away}p")
    if author.chance(0.3):
        author.write("dump maps")
    author.write(f"mremap B+{away}p {at.pages}p {at.pages}p maymove|fixed {at.addr}")


# -- locking --------------------------------------------------------------------------------------------------------


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
    prot = author.pick(_PROT)
    author.write(f"mmap B+{place}p {pages}p {prot} {author.pick(_KIND)}|fixed|locked")
    author.layout.map(Area(place, place + pages, "anon", prot, True))


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
            author.write(f"getrlimit {author.rng.choice(('as', 'memlock', 'stack'))}")
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


# -- openings: what a whole program is about ------------------------------------------------------------------------


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


# -- processes ------------------------------------------------------------------------------------------------------


def fork(author: Author) -> None:
    """A child of the current process, an exit, or the turn of somebody else."""
    living = list(author.layouts)
    match author.pick(
        {"fork": 4 if len(living) < 4 else 0.1, "turn": 4 if len(living) > 1 else 0, "exit": 1 if author.proc else 0}
    ):
        case "fork":
            if author.flags.get("forks", 0) >= 5:
                return
            author.flags["forks"] = author.flags.get("forks", 0) + 1
            name = author.name("c")
            author.write(f"fork {name}")
            author.layouts[name] = author.layout.copy()
            if author.chance(0.6):
                author.proc = name
        case "turn":
            author.proc = author.rng.choice(living)
        case _:
            author.write("exit")
            del author.layouts[author.proc]
            author.proc = ""


def wiped(author: Author) -> None:
    """What a child finds of an area that is wiped on fork: it never had a page there."""
    if author.flags.get("forks", 0) >= 5:
        return
    author.flags["forks"] = author.flags.get("forks", 0) + 1
    at = author.pages_at(author.rng.randrange(WINDOW - 8), author.small())
    author.write(f"mmap {at} rw private|anon|fixed")
    author.write(f"write {at} 7")
    author.write(f"madvise {at} {author.pick({'wipeonfork': 5, 'keeponfork': 1})}")
    author.layout.map(Area(at.start, at.end, "anon", "rw", True))
    name = author.name("c")
    author.write(f"fork {name}")
    author.layouts[name] = author.layout.copy()
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
    author.write("dump maps" if "freed" in author.flags else "dump maps smaps")
