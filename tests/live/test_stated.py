# SPDX-License-Identifier: GPL-2.0-or-later
"""What the specification says about Linux 6.18 (``live 6.18:``), asked of the kernel that runs here and of the twin.

``stated/`` holds the scripts, one file a part of the specification; ``pending.md`` says what is not there yet. The
twin's half also runs where the live kernel can not be asked.
"""

import os
from pathlib import Path

import pytest
from stated import Stated, read_all

from memtwin.changes.catalogue import parse_release
from memtwin.verify.compare import compare, ignored
from memtwin.verify.live import Live, why_not
from memtwin.verify.twin import Twin

SCRIPTS = read_all((Path(__file__).parent / "stated").glob("*.mmo"))
REASON = why_not()
if REASON is None and parse_release(os.uname().release) < (6, 18, 0):
    REASON = f"the answers are those of 6.18, here runs {os.uname().release}"


@pytest.fixture(scope="module")
def twin() -> Twin:
    return Twin("6.18")


@pytest.fixture(scope="module")
def live_answers() -> dict[str, list]:
    """The live kernel's answers to all scripts: one run of the executor."""
    live = Live(size=Twin("host").size())
    return dict(zip((script.name for script in SCRIPTS), live.run([script.lines for script in SCRIPTS]), strict=True))


def needs_room(script: Stated) -> bool:
    return any("map_room" in line for line in script.lines)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_the_twin_answers_as_stated(script: Stated, twin: Twin) -> None:
    assert script.disagreements(list(twin.run(script.lines))) == []


@pytest.mark.live
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_the_live_kernel_answers_as_stated_and_the_twin_alike(script: Stated, live_answers) -> None:
    live = live_answers[script.name]
    if needs_room(script) and any("error" in answer for answer in live):
        pytest.skip("vm.max_map_count is too large here to be filled")
    assert script.disagreements(live) == []
    difference, missing = compare(live, Twin("host").run(script.lines), ignored(os.uname().release))
    assert (difference, missing) == (None, None)
