# SPDX-License-Identifier: GPL-2.0-or-later
"""mremap."""

from __future__ import annotations

from memtwin.verify.actions.pages import touch
from memtwin.verify.generate import WINDOW, Author

__all__ = ["move_there_and_back", "mremap"]


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
