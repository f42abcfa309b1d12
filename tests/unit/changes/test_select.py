# SPDX-License-Identifier: GPL-2.0-or-later
"""with / without / needs, and the frozen Features."""

from __future__ import annotations

import dataclasses

import pytest

from memtwin.changes import CHANGES, resolve
from memtwin.changes.select import lookup
from memtwin.errors import BadInput


def test_default() -> None:
    features = resolve()
    assert features.kernel == "6.7"
    assert features.ids() == tuple(change.id for change in CHANGES)
    assert features.has("vma-modify")
    assert not features.has("post-mseal")
    assert features.value("post-mmap-thp-align") == "off"


def test_features_are_frozen_and_comparable() -> None:
    features = resolve()
    with pytest.raises(dataclasses.FrozenInstanceError):
        features.kernel = "before"  # type: ignore[misc]
    assert features == resolve("6.7")
    assert hash(features) == hash(resolve("6.7"))
    assert features != resolve(without=["ksm-smart-scan"])


def test_without_one() -> None:
    features = resolve(without=["ksm-smart-scan"])
    assert not features.has("ksm-smart-scan")
    assert features.has("ksm-pages-skipped"), "only a want, not a need"
    assert len(features.ids()) == len(CHANGES) - 1


def test_with_pulls_in_what_it_needs() -> None:
    features = resolve("before", with_=["vma-lock-cow-faults"])
    assert set(features.ids()) == {"fault-lock-release", "vmf-anon-prepare", "vma-lock-cow-faults"}
    deep = resolve("before", with_=["end-writeback-xor-waiters"])
    assert deep.has("xor-unlock-negative-byte"), "needs are followed through"


def test_without_drops_what_needs_it() -> None:
    features = resolve(without=["xor-unlock-negative-byte"])
    gone = {change.id for change in CHANGES} - set(features.ids())
    assert gone == {
        "xor-unlock-negative-byte",
        "xor-unlock-m68k",
        "xor-unlock-ppc32",
        "folio-xor-flags-has-waiters",
        "end-writeback-xor-waiters",
    }


def test_named_ids_that_contradict_each_other() -> None:
    with pytest.raises(BadInput, match="'vma-lock-cow-faults' needs 'fault-lock-release', which is excluded"):
        resolve(with_=["vma-lock-cow-faults"], without=["fault-lock-release"])
    with pytest.raises(BadInput, match="needs 'xor-unlock-negative-byte', which is excluded"):
        resolve("before", with_=["end-writeback-xor-waiters"], without=["xor-unlock-negative-byte"])
    for id_ in ("vma-modify", "post-mseal"):
        with pytest.raises(BadInput, match="both asked for and excluded"):
            resolve(with_=[id_], without=[id_])


def test_experiments_may_break_the_rule() -> None:
    features = resolve(with_=["vma-lock-cow-faults"], without=["fault-lock-release"], ignore_needs=True)
    assert features.has("vma-lock-cow-faults")
    assert features.has("vma-lock-read-faults")
    assert not features.has("fault-lock-release")


def test_knobs_by_name_and_value() -> None:
    assert resolve(with_=["post-mseal"]).value("post-mseal") == "on"
    assert resolve(with_=["post-mseal=off"]).value("post-mseal") == "off"
    assert resolve(with_=["post-mmap-thp-align"]).value("post-mmap-thp-align") == "pmd-multiple"
    assert resolve(with_=["post-mmap-thp-align=all"]).value("post-mmap-thp-align") == "all"
    assert not resolve("6.18", without=["post-mmap-thp-align"]).has("post-mmap-thp-align")
    assert resolve("6.18").has("post-mmap-thp-align")


def test_naming_a_knob_decides_it() -> None:
    assert "post-map-stack-nohugepage" in resolve("6.10").undecided
    assert "post-map-stack-nohugepage" not in resolve("6.10", with_=["post-map-stack-nohugepage"]).undecided
    assert "post-map-stack-nohugepage" not in resolve("6.10", without=["post-map-stack-nohugepage"]).undecided


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"with_": ["vma-modfy"]}, "unknown change 'vma-modfy': did you mean vma-modify"),
        ({"without": ["zzzzzzzz"]}, "`memtwin changes` lists them"),
        ({"with_": ["vma-modify=on"]}, "is a change and takes no value"),
        ({"with_": ["post-mmap-thp-align=some"]}, "has no value 'some': use off, all, pmd-multiple"),
        ({"without": ["post-mseal=on"]}, "what is excluded takes no value"),
        ({"kernel": "nonsense"}, "unknown kernel 'nonsense'"),
    ],
)
def test_bad_input(kwargs, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        resolve(**kwargs)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_asking_for_an_unknown_id() -> None:
    with pytest.raises(BadInput, match="did you mean ksm-smart-scan"):
        resolve().has("ksm-smart-scn")
    with pytest.raises(BadInput, match="unknown knob 'post-msea': did you mean post-mseal"):
        resolve().value("post-msea")
    with pytest.raises(BadInput, match="unknown change"):
        lookup("nothing-like-it")


def test_notes_of_the_profile_are_kept() -> None:
    assert len(resolve("host", release="9.9").notes) == 1
