# SPDX-License-Identifier: GPL-2.0-or-later
"""Saying why: which rule refused a call, and why two neighbouring areas are not one.

The rules tell it themselves: an ``OSError`` carries the text of the rule that raised it, and the code that merges areas
lists what keeps two of them apart. Nothing is decided here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from memtwin.mm.vma import explain_merge
from memtwin.script import dump
from memtwin.script.answers import in_window

if TYPE_CHECKING:
    from memtwin.mm.mm_types import VmArea
    from memtwin.process import Process

__all__ = ["Border", "Refusal", "apart", "borders", "reason"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused call: number and text of its line, name of the errno, and the rule ("" if it is not told)."""

    i: int
    line: str
    err: str
    reason: str


@dataclass(frozen=True, slots=True)
class Border:
    """Two neighbouring areas, ``hole`` bytes between them; an area is "" where there is none on that side.
    ``reasons``: why they are not one; empty if a hole says it all.
    """

    below: str
    above: str
    hole: int
    reasons: tuple[str, ...]


def reason(error: OSError) -> str:
    """The rule that refused a call, as the code that decided tells it; "" where it tells no more than the errno."""
    told = getattr(error, "reason", None)
    if told is not None:
        return str(told)
    text = error.strerror or ""
    return "" if text == os.strerror(error.errno or 0) else text


def apart(process: Process) -> Iterator[tuple[int, list[str]]]:
    """Where two areas of the script touch: the address, and why they are not one."""
    for previous, following in pairwise(_areas(process)):
        if previous.end == following.start:
            yield following.start, _why_apart(previous, following)


def borders(process: Process, at: int | None = None) -> list[Border]:
    """The borders of the area that contains the address ``at``, or of the hole there; without ``at`` all borders where
    two areas touch. Raises NotModelled.
    """
    areas = _areas(process)
    texts = {start: line for start, _, line in dump.areas(process)}

    def border(below: VmArea | None, above: VmArea | None) -> Border:
        hole = above.start - below.end if below is not None and above is not None else 0
        why = _why_apart(below, above) if below is not None and above is not None and not hole else []
        return Border(
            texts[below.start] if below is not None else "",
            texts[above.start] if above is not None else "",
            hole,
            tuple(why),
        )

    if at is None:
        return [border(below, above) for below, above in pairwise(areas) if below.end == above.start]
    index = sum(1 for area in areas if area.end <= at)  # of the first area that ends above the address
    around: list[VmArea | None] = [None, *areas, None, None]
    below, here, above = around[index : index + 3]
    if here is None or at < here.start:
        return [border(below, here)] if areas else []
    return [border(below, here), border(here, above)]


def _areas(process: Process) -> list[VmArea]:
    return [vma for vma in process.vmas() if in_window(vma.start, legacy=not process.mm.topdown)]


def _why_apart(previous: VmArea, following: VmArea) -> list[str]:
    return [str(why) for why in explain_merge(previous, following)]
