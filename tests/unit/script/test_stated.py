# SPDX-License-Identifier: GPL-2.0-or-later
"""What Linux 6.7 answers, as the specification states it (``stated_67/``), and each later difference with its knob off
and on (``knobs.mmo``).
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
from stated import Stated, read, read_all

from memtwin.changes.catalogue import parse_release
from memtwin.machine import Machine
from memtwin.script.run import Runner
from memtwin.verify.live import Live, why_not
from memtwin.verify.twin import Twin

HERE = Path(__file__).parent
STATED = read_all((HERE / "stated_67").glob("*.mmo"))
KNOBS = read(HERE / "knobs.mmo")
#: Knobs that show only with others on.
WITH = {
    "post-thp-align-topdown": ("post-mmap-thp-align=pmd-multiple",),
    "post-mremap-multi-vma": ("post-mremap-checks-first", "post-mremap-fail-clean"),
    "post-dev-zero-thp-align": ("post-mmap-thp-align=pmd-multiple", "post-thp-align-topdown"),
}
#: Values that 6.18 does not have.
NOT_6_18 = ("post-mmap-thp-align=all",)
REASON = why_not()
if REASON is None and parse_release(os.uname().release) < (6, 18, 0):
    REASON = f"the answers are those of 6.18, here runs {os.uname().release}"


def answers(script: Stated, kernel: str = "6.7", with_: tuple[str, ...] = ()) -> list[dict]:
    runner = Runner(partial(Machine, "1G", kernel=kernel, with_=with_), check=True)
    return list(runner.run(script.lines))


@pytest.mark.parametrize("script", STATED, ids=str)
def test_6_7(script: Stated) -> None:
    assert script.disagreements(answers(script)) == []


@pytest.mark.parametrize("script", KNOBS, ids=str)
def test_a_knob_off_and_on(script: Stated) -> None:
    others = WITH.get(script.name, ())
    assert script.disagreements(answers(script, with_=others), 0) == []
    assert script.disagreements(answers(script, with_=(*others, script.name)), 1) == []


@pytest.mark.parametrize("script", [script for script in KNOBS if script.name not in NOT_6_18], ids=str)
def test_all_knobs_of_6_18(script: Stated) -> None:
    assert script.disagreements(answers(script, kernel="6.18"), 1) == []


@pytest.fixture(scope="module")
def live_answers() -> dict[str, list]:
    live = Live(size=Twin("host").size())
    return dict(zip((script.name for script in KNOBS), live.run([script.lines for script in KNOBS]), strict=True))


@pytest.mark.live
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.parametrize("script", [script for script in KNOBS if script.name not in NOT_6_18], ids=str)
def test_the_live_kernel_has_them_on(script: Stated, live_answers) -> None:
    assert script.disagreements(live_answers[script.name], 1) == []


def test_every_knob_of_areas_has_a_script() -> None:
    from memtwin.changes import KNOBS as ALL

    shown = {script.name.partition("=")[0] for script in KNOBS}
    elsewhere = {"post-merge-close-fix", "post-overcommit-log-bytes"}  # unit/mm/test_vma_merge.py, test_overcommit.py
    later = {"post-droppable"}  # not modelled
    wanted = {knob.id for knob in ALL if knob.subsystem in ("vma", "mremap")}
    assert wanted - shown - elsewhere - later == set()
