# SPDX-License-Identifier: GPL-2.0-or-later
"""What an experiment is: a workload on two sides, without and with one change; what was seen; which claims hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Claim", "Experiment", "ExperimentResult", "Observation"]


@dataclass(frozen=True, slots=True)
class Observation:
    """One observable: its name, and its value as text on either side."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Something the change is said to do (or to leave alone), and whether it was seen."""

    text: str
    holds: bool


@dataclass(frozen=True, slots=True)
class ExperimentResult:
    """Everything one experiment has to say. Deterministic: the same machine and seed give the same result."""

    id: str
    rows: Sequence[Observation]
    claims: Sequence[Claim]

    @property
    def holds(self) -> bool:
        """Do all claims hold? (An experiment without a claim shows nothing, so it does not.)"""
        return bool(self.claims) and all(claim.holds for claim in self.claims)


class Experiment(Protocol):
    """A module of this package: one patch series, asked for one of its ids."""

    def run(self, change_id: str, /) -> ExperimentResult:
        """Run the experiment of ``change_id``. Raises NotModelled for a part that is not there yet."""
        ...
