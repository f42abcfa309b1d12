# SPDX-License-Identifier: GPL-2.0-or-later
"""Changing what an area is: protection, advice that sets flags, policy, sync."""

from __future__ import annotations

from memtwin.verify.actions.pages import touch
from memtwin.verify.actions.words import PROT
from memtwin.verify.generate import Author

__all__ = ["madvise", "mbind", "mprotect", "mseal", "msync", "prctl", "there_and_back"]

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


def mprotect(author: Author) -> None:
    """Protect; often as a neighbour is, so that things merge again."""
    at = author.target()
    prot = author.pick(PROT)
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
    if at.endless:
        return
    match author.pick({"mprotect": 5, "madvise": 3, "mlock": 2, "mbind": 1}):
        case "mprotect":
            area = author.layout.inside(at.start, at.end)[:1] if at.sane else []
            before = area[0].prot if area else "rw"
            author.write(f"mprotect {at} {author.pick(PROT)}")
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
    if at.endless:  # goes on behind holes, up to what the program itself stands on
        return
    author.write(f"{'process_madvise' if author.chance(0.04) else 'madvise'} {at} {advice}")


def mseal(author: Author) -> None:
    """Seal something: nothing changes it any more, so not often."""
    at = author.target()
    if not at.endless:
        author.write(f"mseal {at}{author.pick({'': 30, ' 0': 2, ' 1': 1})}")


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


def prctl(author: Author) -> None:
    """Process-wide bits that change flags of areas."""
    author.write(author.rng.choice(("thp_disable 1", "thp_disable 0", "merge 1", "merge 0", "get_merge")))


def msync(author: Author) -> None:
    """Only its checks matter here."""
    flags = author.pick({"async": 3, "sync": 3, "invalidate": 2, "async|sync": 1, "0": 1, "8": 1, "sync|invalidate": 1})
    author.write(f"msync {author.target()} {flags}")
