# SPDX-License-Identifier: GPL-2.0-or-later
"""Areas registered with userfaultfd."""

from __future__ import annotations

from memtwin.verify.generate import Author

__all__ = ["two_userfaultfds", "userfaultfd"]


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
