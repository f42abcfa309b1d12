# SPDX-License-Identifier: GPL-2.0-or-later
"""Saying why: which rule refused a call, and why two neighbouring areas are not one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from memtwin.mm import vma as mm_vma
from memtwin.script.answers import in_window

if TYPE_CHECKING:
    from memtwin.mm.mm_types import VmArea
    from memtwin.process import Process

__all__ = ["apart", "reason", "why_apart"]


def reason(error: OSError) -> str:
    """The rule that refused a call, as the code that decided tells it; empty where it tells no more than the errno."""
    told = getattr(error, "reason", None)
    if told is not None:
        return str(told)
    text = error.strerror or ""
    return "" if text == os.strerror(error.errno or 0) else text


def apart(process: Process) -> Iterator[tuple[int, list[str]]]:
    """Where two areas of the script touch: the address, and why they are not one."""
    areas = [vma for vma in process.vmas() if in_window(vma.start)]
    for previous, following in pairwise(areas):
        if previous.end == following.start:
            yield following.start, why_apart(previous, following)


def why_apart(previous: VmArea, following: VmArea) -> list[str]:
    """The rules that keep two touching areas two; the code that merges tells them."""
    explain_merge = getattr(mm_vma, "explain_merge", None)
    return list(explain_merge(previous, following)) if explain_merge is not None else ["not modelled"]
