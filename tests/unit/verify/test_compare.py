# SPDX-License-Identifier: GPL-2.0-or-later
"""Comparing: what counts as a difference, and where it is."""

from memtwin.machine import Machine
from memtwin.script.run import Script
from memtwin.verify.compare import compare, depends_on, ignored, lost, normal, unruled, what_differs

OK = {"i": 1, "op": "mmap", "ret": "B+0x0"}
REFUSED = {"i": 2, "op": "munmap", "ret": -22, "err": "EINVAL"}


def test_equal_answers():
    assert compare([OK, REFUSED], [dict(OK), dict(REFUSED)]) == (None, None)


def test_the_first_difference_counts_and_no_more_is_asked():
    def twin():
        yield OK
        yield {"i": 2, "op": "munmap", "ret": 0}
        raise AssertionError("asked for more than was needed")

    difference, missing = compare([OK, REFUSED, OK], twin())
    assert missing is None and difference is not None
    assert (difference.index, difference.live, difference.fields) == (1, REFUSED, ("err", "ret"))


def test_answers_that_are_missing_or_too_many():
    assert compare([OK, REFUSED], [OK])[0].fields == ("missing",)
    assert compare([OK], [OK, REFUSED])[0].index == 1


def test_nothing_can_be_said_behind_what_is_not_modelled():
    assert compare([OK, OK], [{"i": 1, "op": "mmap", "error": "not modelled"}, REFUSED]) == (None, "mmap")


def test_nothing_can_be_said_behind_what_the_executor_does_not_have():
    unknown = {"i": 1, "op": "clear_refs", "error": "unknown operation"}
    assert compare([unknown, OK], [{"i": 1, "op": "clear_refs", "ret": 0}, REFUSED]) == (None, "clear_refs")


def test_a_broken_twin_is_a_difference():
    difference, _ = compare([OK], [OK, {"broken": "InvariantBroken: x"}])
    assert (difference.index, difference.live, difference.fields) == (0, OK, ("broken",))


def test_errors_of_the_language_may_be_worded_differently():
    assert compare([{"i": 1, "error": "bad arguments"}], [{"i": 1, "error": "bad argument 3"}]) == (None, None)


def test_what_is_not_compared():
    live = {
        "smaps": [{"vma": "B", "Pss_Dirty": 4, "LazyFree": 8, "VmFlags": "rd sd wr"}],
        "pagemap": [["B", 1, "PKX", 0]],
    }
    twin = {"smaps": [{"vma": "B", "VmFlags": "rd wr"}], "pagemap": [["B", 1, "PX", 0]]}
    assert normal(live) == normal(twin)
    status = {"status": {"VmSize": 4, "VmRSS": 4}}
    assert normal(status, ignored("6.18.1")) == status
    assert normal(status, ignored("6.7.3")) == {"status": {"VmSize": 4}}


def test_the_fields_that_differ():
    left = {"maps": ["a"], "smaps": [{"vma": "B", "Rss": 4}], "status": {"VmSize": 4}}
    right = {"maps": ["a"], "smaps": [{"vma": "B", "Rss": 8}], "status": {"VmSize": 4, "VmLck": 4}}
    assert what_differs(left, right) == ("smaps.Rss", "status.VmLck")
    assert what_differs({"procs": {"c": left}}, {"procs": {"c": right}}) == ("smaps.Rss", "status.VmLck")


def test_lost_programs():
    assert lost([]) and lost([OK, {"i": 2, "timeout": True}]) and lost([{"i": 1, "died": True}])
    assert not lost([OK])


def test_what_an_undecided_knob_can_show_in():
    lines = ["mmap B 4p rw private|anon|fixed|stack", "dump maps"]
    assert depends_on(("post-map-stack-nohugepage",), lines)
    assert not depends_on(("post-map-stack-nohugepage",), lines[1:])
    assert not depends_on(("post-mremap-multi-vma", "a-knob-of-tomorrow"), lines)
    assert not depends_on((), lines)


LOCKED_AND_FORKED = (
    "mmap B 1p rw private|anon|locked|fixed",
    "fork c",
    "munmap B 1p",
    "@c write B 1p 100",
    "@c fork d",
    "@d dump smaps",
)


def test_a_child_reuses_what_was_locked():
    """A difference that is kept: Linux copies the page while a batch holds a reference to it."""
    script = Script("", Machine("64M", kernel="host"))
    *_, last = (script.answer(line) for line in LOCKED_AND_FORKED)
    assert last["smaps"][0]["Referenced"] == 4


def test_what_waits_in_batches_is_not_compared():
    assert unruled(LOCKED_AND_FORKED) == unruled(["madvise B 1p free"]) == {"Referenced"}
    assert not unruled(["mmap B 1p rw private|anon|locked", "fork"][:1]) and not unruled(
        ["fork c", "madvise B 1p freeze"]
    )
