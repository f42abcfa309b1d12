# SPDX-License-Identifier: GPL-2.0-or-later
"""Touching and dropping pages."""

from __future__ import annotations

from memtwin.verify.generate import WINDOW, Author, Range

__all__ = ["below_stack_like", "touch", "zap"]


def touch(author: Author, at: Range | None = None) -> None:
    """Read or write a few pages: that is what gives an area its anon_vma."""
    if at is None:
        at = author.target()
    if at.wild or at.pages > 64:
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
    if at.endless:
        return
    author.write(f"madvise {at} {author.pick({'dontneed': 5, 'dontneed_locked': 1, 'free': 1})}")


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
