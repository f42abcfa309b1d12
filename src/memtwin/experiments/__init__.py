# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``memtwin try ID`` runs: an experiment for each change of the catalogue, found by its id."""

from __future__ import annotations

from memtwin.experiments.base import Claim, Experiment, ExperimentResult, Observation
from memtwin.experiments.registry import find

__all__ = ["Claim", "Experiment", "ExperimentResult", "Observation", "find"]
