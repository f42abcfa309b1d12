# SPDX-License-Identifier: GPL-2.0-or-later
"""What a named kernel has, with made-up `uname -r` strings."""

from __future__ import annotations

import os

import pytest

from memtwin.changes.catalogue import CHANGES, KNOBS
from memtwin.changes.profiles import profile
from memtwin.errors import BadInput

ALL = tuple(change.id for change in CHANGES)


def test_before_has_nothing() -> None:
    before = profile("before")
    assert (before.changes, before.knobs, before.notes) == ((), {}, ())


def test_default_is_the_whole_catalogue_and_no_knob() -> None:
    base = profile()
    assert base.name == "6.7"
    assert base.changes == ALL
    assert base.knobs == {}
    assert base.notes == ()


def test_6_7_3_has_two_stable_fixes() -> None:
    assert profile("6.7.3").knobs == {"post-mmap-thp-align": "all", "post-majflt-tried": "on"}
    assert profile("6.7.2").knobs == {}
    assert set(profile("6.7.2").undecided) >= {"post-mmap-thp-align", "post-majflt-tried"}


def test_exact_release_starts_at_that_release() -> None:
    assert "post-uffd-move" not in profile("6.7.12").knobs
    assert profile("6.8").knobs["post-uffd-move"] == "on"
    assert "post-mremap-multi-vma" not in profile("6.16.9").knobs
    assert profile("6.17-rc1").knobs["post-mremap-multi-vma"] == "on"


def test_bracket_counts_from_its_upper_end() -> None:
    knob = "post-map-stack-nohugepage"  # 6.7.3-6.12
    assert knob not in profile("6.11.5").knobs
    assert knob in profile("6.11.5").undecided
    assert profile("6.12").knobs[knob] == "on"
    assert knob not in profile("6.12").undecided
    assert knob not in profile("6.7.3").undecided, "6.7.3 was observed to lack it"


def test_bracket_with_a_stable_upper_end() -> None:
    assert "post-rss-exact" not in profile("6.12.94").knobs
    assert profile("6.12.95").knobs["post-rss-exact"] == "on"


def test_valued_knob_moves_on() -> None:
    values = {name: profile(name).knobs.get("post-mmap-thp-align") for name in ("6.7", "6.8", "6.11", "6.12", "6.18")}
    assert values == {"6.7": None, "6.8": "all", "6.11": "all", "6.12": "pmd-multiple", "6.18": "pmd-multiple"}


def test_6_18_has_every_knob_that_was_observed() -> None:
    unseen = {knob.id for knob in KNOBS if all(since.release == "not observed" for since in knob.since)}
    assert unseen == {"post-hugetlb-vma-lock", "post-softdirty-sticky"}
    assert set(profile("6.18").knobs) == {knob.id for knob in KNOBS} - unseen
    assert profile("6.18").undecided == ()


def test_host_takes_the_running_release() -> None:
    host = profile("host", release="6.12.95-cloud-amd64")
    assert host.name == "host"
    assert host.changes == ALL
    assert host.knobs == profile("6.12.95").knobs


def test_host_asks_uname(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.uname()
    fake = os.uname_result((real.sysname, real.nodename, "6.10.1", real.version, real.machine))
    monkeypatch.setattr(os, "uname", lambda: fake)
    assert profile("host").knobs == profile("6.10.1").knobs


def test_newer_than_known_warns_once_and_has_the_newest_knobs() -> None:
    host = profile("host", release="7.1.0")
    assert host.knobs == profile("6.18").knobs
    assert len(host.notes) == 1
    assert "newer than 6.18" in host.notes[0]
    assert profile("host", release="6.18.99").notes == ()


def test_older_than_the_base_is_said_in_one_line() -> None:
    host = profile("host", release="6.1.0-18-amd64")
    assert (host.changes, host.knobs, host.undecided) == ((), {}, ())
    assert len(host.notes) == 1
    assert "6.1 is older than 6.7" in host.notes[0]


@pytest.mark.parametrize("name", ["after", "", "6", "HOST", "linux-6.7"])
def test_unknown_kernel(name: str) -> None:
    with pytest.raises(BadInput, match="unknown kernel"):
        profile(name)
