# SPDX-License-Identifier: GPL-2.0-or-later
"""Measuring two sides in turn, round by round, so that what a noisy machine does to one it does to the other.

A side is a callable that does one round's work and returns one figure: a rate (units per second) or a cost (seconds,
bytes). The first round of each case is a warm-up and not counted. Rounds alternate in which side comes first, and the
ratio is the median of the rounds' ratios, not the ratio of the medians.

``ratio`` is always "how many times as good as the peer": twin / peer for rates, peer / twin for costs; 1 means that
the twin's user waits as long as the live kernel's, above 1 not as long.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.live import Live

__all__ = ["Bench", "Case", "Result", "Side", "Spread", "Unavailable", "measure", "rate"]

Side = Callable[[], float]


class Unavailable(Exception):
    """A side can not be measured here; the text says why, in one line."""


@dataclass
class Bench:
    """What a table needs to set itself up. ``stack`` is unwound when the table is done."""

    live: Live
    tmp: Path
    quick: bool
    stack: ExitStack = field(default_factory=ExitStack)

    def size(self, full: int, quick: int) -> int:
        """``full``, or ``quick`` in a quick run."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Case:
    """One line of a table.

    ``unit``: of both sides' figures, e.g. "pages/s"; ``lower``: less is better. ``peer`` is None where there is nothing
    to compare with, and ``peer_name`` then says why. ``least``: the ratio that is promised; ``most``: the twin's own
    figure that is promised not to be passed. ``rounds``: at most so many, for what takes long or does not vary.
    """

    name: str
    unit: str
    twin: Side
    peer: Side | None
    peer_name: str
    lower: bool = False
    least: float | None = None
    most: float | None = None
    rounds: int | None = None


@dataclass(frozen=True)
class Spread:
    """Median, least and largest of the rounds."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: list[float]) -> Spread | None:
        """None for no values."""
        return cls(median(values), min(values), max(values)) if values else None


@dataclass
class Result:
    """What was measured for one case. ``reason``: why a side is missing, "" if none is."""

    case: Case
    twin_rounds: list[float] = field(default_factory=list)
    peer_rounds: list[float] = field(default_factory=list)
    reason: str = ""

    @property
    def twin(self) -> Spread | None:
        """The twin's figures."""
        return Spread.of(self.twin_rounds)

    @property
    def peer(self) -> Spread | None:
        """The peer's figures."""
        return Spread.of(self.peer_rounds)

    @property
    def ratio(self) -> Spread | None:
        """Over the rounds' ratios; None without a peer."""
        if len(self.twin_rounds) != len(self.peer_rounds):
            return None
        pairs = zip(self.twin_rounds, self.peer_rounds, strict=True)
        return Spread.of([peer / twin if self.case.lower else twin / peer for twin, peer in pairs])

    @property
    def holds(self) -> bool | None:
        """Whether what is promised was measured; None where nothing is promised or nothing could be measured."""
        verdicts = []
        if self.case.least is not None and self.ratio is not None:
            verdicts.append(self.ratio.median >= self.case.least)
        if self.case.most is not None and self.twin is not None:
            verdicts.append(self.twin.median <= self.case.most)
        return all(verdicts) if verdicts else None


def measure(cases: list[Case], rounds: int) -> Iterator[Result]:
    """Run all cases, interleaved: round by round, in each round case by case, in each case side by side.

    Yields the results in the order of the cases, when all rounds are done. A side that raises Unavailable is left out
    from then on.
    """
    results = [Result(case, reason="" if case.peer else case.peer_name) for case in cases]
    twins: list[Side | None] = [case.twin for case in cases]
    peers = [case.peer for case in cases]
    for number in range(rounds + 1):
        for i, (case, result) in enumerate(zip(cases, results, strict=True)):
            if case.rounds is not None and number > case.rounds:
                continue
            pair = ((twins, result.twin_rounds), (peers, result.peer_rounds))
            for sides, figures in pair if number % 2 else reversed(pair):
                side = sides[i]
                if side is None:
                    continue
                gc.collect()
                try:
                    figure = side()
                except Unavailable as why:
                    result.reason = str(why)
                    sides[i] = None
                    figures.clear()
                    continue
                if number:
                    figures.append(figure)
    yield from results


def rate(units: int, work: Callable[[], object]) -> float:
    """Do ``work`` once, which is ``units`` units: units per second."""
    start = perf_counter()
    work()
    return units / (perf_counter() - start)
