# SPDX-License-Identifier: GPL-2.0-or-later
"""The experiment of buddy-break-down-cleanup."""

from memtwin.experiments import find


def test_it_holds_and_is_repeatable():
    runs = [find("buddy-break-down-cleanup").run("buddy-break-down-cleanup") for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0].holds, [claim.text for claim in runs[0].claims if not claim.holds]
    assert (runs[0].rows[0].before, runs[0].rows[0].after) == ("20", "10")
