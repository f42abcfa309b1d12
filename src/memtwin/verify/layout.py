# SPDX-License-Identifier: GPL-2.0-or-later
"""A light picture of the address space that a program is building up, so that most operations hit something.

It believes that operations with valid arguments succeed and knows nothing of merging or limits: areas are what was
asked for, in pages of one window. Where it is wrong the program is still a program.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, replace

__all__ = ["Area", "Layout"]


@dataclass(frozen=True, slots=True, order=True)
class Area:
    """Pages [start, end) that were mapped by one operation, or what is left of them.

    ``kind``: anon, shared (anonymous), file, hole; ``prot``: as the operation language writes it; ``touched``: a page
    of it was written or locked.
    """

    start: int
    end: int
    kind: str = "anon"
    prot: str = "rw"
    touched: bool = False

    @property
    def pages(self) -> int:
        """Length in pages."""
        return self.end - self.start


class Layout:
    """Areas of one window, ascending and disjoint."""

    __slots__ = ("areas",)

    def __init__(self) -> None:
        self.areas: list[Area] = []

    def copy(self) -> Layout:
        """The same areas, for a forked process."""
        twin = Layout()
        twin.areas = list(self.areas)
        return twin

    def inside(self, start: int, end: int) -> list[Area]:
        """The areas that overlap [start, end)."""
        return [area for area in self.areas if area.start < end and start < area.end]

    def free(self, start: int, end: int) -> bool:
        """Is nothing mapped in [start, end)?"""
        return not self.inside(start, end)

    def unmap(self, start: int, end: int) -> None:
        """Cut [start, end) out."""
        kept: list[Area] = []
        for area in self.areas:
            if area.end <= start or end <= area.start:
                kept.append(area)
                continue
            if area.start < start:
                kept.append(replace(area, end=start))
            if end < area.end:
                kept.append(replace(area, start=end))
        self.areas = kept

    def map(self, area: Area) -> None:
        """Put ``area`` in, over whatever is there."""
        if area.start >= area.end:
            return
        self.unmap(area.start, area.end)
        insort(self.areas, area)

    def change(self, start: int, end: int, *, prot: str | None = None, touched: bool | None = None) -> None:
        """Give [start, end) another protection, or have it touched; holes stay holes."""
        for area in self.inside(start, end):
            cut = replace(
                area,
                start=max(area.start, start),
                end=min(area.end, end),
                prot=area.prot if prot is None else prot,
                touched=area.touched if touched is None else touched,
            )
            self.map(cut)

    def move(self, start: int, old: int, new: int, to: int, *, keep: bool = False) -> None:
        """What mremap does: ``old`` pages at ``start`` become ``new`` pages at ``to``."""
        source = self.inside(start, start + 1)
        if not source:
            return
        if not keep:
            self.unmap(start, start + old)
        self.map(replace(source[0], start=to, end=to + new))
