# SPDX-License-Identifier: GPL-2.0-or-later
"""Every registered experiment runs, holds, and says the same twice."""

from __future__ import annotations

import pytest

from memtwin.changes import CHANGES
from memtwin.errors import BadInput, NotModelled
from memtwin.experiments import Claim, ExperimentResult, find, registry


def test_only_known_ids() -> None:
    assert set(registry.MODULES) <= {change.id for change in CHANGES}


#: Why an experiment takes over a second.
SLOW = {
    "vma-modify": "10,000 sequences of calls on two machines",
    "fork-maple-gfp-kernel": "six machines with thousands of areas and not a page to spare",
}


@pytest.mark.parametrize(
    "change_id", [pytest.param(id_, marks=[pytest.mark.slow] * (id_ in SLOW)) for id_ in registry.MODULES]
)
def test_experiment_holds_and_is_deterministic(change_id: str) -> None:
    result = find(change_id).run(change_id)
    assert result.id == change_id
    assert result.rows
    assert [claim.text for claim in result.claims if not claim.holds] == []
    assert result.holds
    assert find(change_id).run(change_id) == result


def test_unknown_and_unmodelled() -> None:
    with pytest.raises(BadInput, match="unknown change"):
        find("no-such-change")
    missing = next(change.id for change in CHANGES if change.id not in registry.MODULES)
    with pytest.raises(NotModelled, match=f"{missing}: not modelled yet"):
        find(missing)


def test_no_claim_shows_nothing() -> None:
    assert not ExperimentResult("x", [], []).holds
    assert ExperimentResult("x", [], [Claim("a", True)]).holds
    assert not ExperimentResult("x", [], [Claim("a", True), Claim("b", False)]).holds
