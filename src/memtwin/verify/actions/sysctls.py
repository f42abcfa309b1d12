# SPDX-License-Identifier: GPL-2.0-or-later
"""Openings that change a setting under /proc/sys/vm, with what shows it.

Only values that nobody else on the machine notices: a limit of areas just below the one that stands, which only a
program that has filled its address space reaches; a commit limit of 64 TiB, of which a program promises multiples of 8.
"""

from __future__ import annotations

from memtwin.verify.actions.limits import near_map_limit
from memtwin.verify.actions.mapping import mmap_chosen
from memtwin.verify.generate import Author

__all__ = ["sysctl", "with_sysctl"]

_ADDRESSES = ("0", "1p", "15p", "16p", "17p", "31p", "256p", "511p", "512p", "513p")
_LOWEST = ("0", "1", "4096", "4097", "65536", "65537", "0x20000", "0x100000", "0x200000")


def with_sysctl(author: Author) -> None:
    """A setting from the beginning."""
    which = author.pick({"overcommit": 3, "strict": 3, "areas": 1.2, "lowest": 3, "below": 1.5, "layout": 3})
    author.flags["sysctl"] = 1
    author.flags["room"] = 1  # no mlockall over terabytes
    match which:
        case "overcommit":
            author.write(f"sysctl overcommit_memory {author.rng.choice((1, 1, 1, 0))}")
            for _ in range(author.rng.randint(1, 3)):
                _promise(author, ("40g", "200g", "1024g"))
        case "strict":
            author.write("sysctl overcommit_kbytes 64g")
            author.write("sysctl overcommit_memory 2")
            author.flags["sysctl"] = 2
            for _ in range(author.rng.randint(2, 5)):
                _promise(author, ("8192g", "16384g", "24576g", "40960g", "57344g", "65536g"))
        case "areas":  # at most 3 less: where the twin's limit is moved it can be as low as the program's own 3 areas
            near_map_limit(author)
            author.write(f"sysctl max_map_count MAPS0{author.rng.choice(('-1', '-1', '-2', '-3', '-3', '+1', '+2'))}")
            author.flags["sysctl"] = 3
        case "lowest":
            author.write(f"sysctl mmap_min_addr {author.rng.choice(_LOWEST)}")
            if author.chance(0.6):
                author.write("dropcap sys_rawio")
            for _ in range(author.rng.randint(2, 5)):
                _low(author)
        case "below":  # it came there with the capability, and is to grow without
            place, pages = author.rng.choice(("16p", "17p", "31p")), author.small()
            author.write("sysctl mmap_min_addr 0x100000")
            author.write(f"mmap {place} {pages}p rw private|anon|fixed")
            if author.chance(0.8):
                author.write("dropcap sys_rawio")
            author.write(f"mremap {place} {pages}p {pages + 1}p {author.rng.choice(('0', 'maymove'))}")
        case _:
            author.write("sysctl legacy_va_layout 1")
            for _ in range(author.rng.randint(2, 5)):
                mmap_chosen(author)
            if author.chance(0.7):  # the program keeps the layout that it began with
                author.write("sysctl legacy_va_layout 0")
                mmap_chosen(author)


def sysctl(author: Author) -> None:
    """Change or read a setting again, in a program that began with one; also to what is refused."""
    match author.flags.get("sysctl", 0):
        case 0:
            return
        case 2:
            author.write(author.pick({"sysctl overcommit_memory 0": 1, "sysctl overcommit_memory": 1}))
            author.flags["sysctl"] = 1
        case 3:
            author.write(f"sysctl max_map_count MAPS0{author.rng.choice(('-3', '-2', '+0', '+1', '+3'))}")
        case _:
            author.write(
                author.pick(
                    {
                        "sysctl overcommit_memory 0": 3,
                        "sysctl overcommit_memory 1": 3,
                        "sysctl overcommit_memory 3": 1,
                        "sysctl overcommit_memory 0-1": 1,
                        "sysctl overcommit_memory": 1,
                        "sysctl max_map_count 0-1": 1,
                        "sysctl legacy_va_layout 1": 1,
                        "sysctl legacy_va_layout 0": 1,
                        "sysctl mmap_min_addr": 0.5,
                        f"sysctl mmap_min_addr {author.rng.choice(_LOWEST)}": 3,
                        "sysctl overcommit_ratio": 0.5,
                        "sysctl overcommit_ratio 50": 0.5,
                    }
                )
            )


def _promise(author: Author, sizes: tuple[str, ...]) -> None:
    """A mapping nobody could fill, and what changes its charge."""
    var, size = author.name("h"), author.rng.choice(sizes)
    prot = author.pick({"rw": 6, "none": 2, "r": 2})
    kind = author.pick({"private|anon": 6, "private|anon|noreserve": 3, "shared|anon": 1.5, "shared|anon|noreserve": 1})
    author.write(f"{var}=mmap 0 {size} {prot} {kind}")
    match author.pick({"": 4, "protect": 3, "back": 1, "unmap": 2, "grow": 2, "fork": 0.6}):
        case "protect":
            author.write(f"mprotect ${var} {size} {author.rng.choice(('rw', 'rw', 'r'))}")
        case "back":
            author.write(f"mprotect ${var} {size} rw")
            author.write(f"mprotect ${var} {size} none")
        case "unmap":
            author.write(f"munmap ${var} {author.rng.choice((size, '1p', '4096g'))}")
        case "grow":
            author.write(f"mremap ${var} {size} {size}+{author.rng.choice(('1p', '8192g'))} maymove")
        case "fork":
            author.fork(3)
        case _:
            pass


def _low(author: Author) -> None:
    """Something below 4 MiB."""
    place = author.rng.choice(_ADDRESSES)
    pages = author.small()
    match author.pick({"fixed": 5, "hint": 2, "noreplace": 1, "move": 2, "grow": 1}):
        case "fixed":
            author.write(f"mmap {place} {pages}p rw private|anon|fixed")
        case "hint":
            author.write(f"mmap {place} {pages}p rw private|anon")
        case "noreplace":
            author.write(f"mmap {place} {pages}p rw private|anon|fixed_noreplace")
        case "move":
            author.write(f"mmap B {pages}p rw private|anon|fixed")
            author.write(f"mremap B {pages}p {pages}p maymove|fixed {place}")
        case _:
            author.write(f"mmap {place} {pages}p rw private|anon|fixed|growsdown")
            author.write(f"write {place}-{author.rng.choice((1, 2, 5, 16))}p 1p 5")
