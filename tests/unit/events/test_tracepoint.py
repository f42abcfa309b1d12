# SPDX-License-Identifier: GPL-2.0-or-later
"""Tracepoints: off is None, sinks hear what they asked for, the bytes of JSON lines."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from enum import auto

import pytest

from memtwin.errors import BadInput, InvariantBroken
from memtwin.events import POINTS, JsonLines, MemorySink, Reason, SchedEvents, Tracepoints
from memtwin.events.tracepoint import Event
from memtwin.sched import Scheduler


class Why(Reason):
    """An example."""

    FLAGS_DIFFER = auto()


@pytest.fixture
def sched():
    return Scheduler()


@pytest.fixture
def tp(sched):
    return Tracepoints(sched)


def test_everything_is_off_at_first(tp):
    assert tp.enabled() == []
    assert [getattr(tp, name) for name in POINTS] == [None] * len(POINTS)
    with pytest.raises(AttributeError):
        _ = tp.mm_page_aloc


def test_a_sink_hears_what_it_asked_for(sched, tp):
    sink = MemorySink()
    assert tp.enable("mm_page_alloc", sink) == ["mm_page_alloc"]
    sched.clock.advance(5)
    sched.run_as(sched.new_task("p"), lambda: tp.mm_page_alloc(7, 0, 0xCC0, 1))
    assert tp.mm_page_free is None
    assert sink.events == [
        Event(5, "p(1)", "mm_page_alloc", {"pfn": 7, "order": 0, "gfp_flags": 0xCC0, "migratetype": 1})
    ]
    assert sink.named("mm_page_alloc") == sink.events and sink.named("mm_page_free") == []
    sink.clear()
    assert sink.events == []


def test_several_sinks(tp):
    one, two = MemorySink(), MemorySink()
    tp.enable("mm_page_free", one)
    tp.enable("mm_page_free", two)
    tp.enable("mm_page_free", two)
    tp.mm_page_free(1, 0)
    assert tp.disable("mm_page_free", one) == ["mm_page_free"]
    tp.mm_page_free(2, 0)
    assert [event.fields["pfn"] for event in one.events] == [1]
    assert [event.fields["pfn"] for event in two.events] == [1, 2]
    assert tp.disable("mm_page_free", one) == []
    assert tp.disable() == ["mm_page_free"]
    assert tp.mm_page_free is None and tp.enabled() == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("exceptions:*", ["page_fault_user", "page_fault_kernel"]),
        ("page_fault_*", ["page_fault_user", "page_fault_kernel"]),
        ("kmem:mm_page_free", ["mm_page_free"]),
        ("*", list(POINTS)),
    ],
)
def test_patterns(tp, pattern, names):
    assert tp.enable(pattern, MemorySink()) == names
    assert tp.enabled() == names


@pytest.mark.parametrize("method", ["enable", "disable"])
def test_unknown_name(tp, method):
    with pytest.raises(BadInput, match="no tracepoint is called 'mm_page_aloc'"):
        getattr(tp, method)("mm_page_aloc", MemorySink())


def test_wrong_number_of_values(tp):
    tp.enable("mm_page_free", MemorySink())
    with pytest.raises(InvariantBroken, match=r"mm_page_free has 2 fields .* fired with 1"):
        tp.mm_page_free(1)


class TestJsonLines:
    def test_bytes(self, sched, tp):
        out = io.StringIO()
        tp.enable("*", JsonLines(out))
        tp.memtwin_vma_no_merge(1, 0x1000, Why.FLAGS_DIFFER("VM_ACCOUNT"))
        sched.clock.advance(3)
        tp.memtwin_vma_no_merge(None, True, Why.FLAGS_DIFFER)
        tp.sys_enter(9, (0, -1, 4096))
        assert out.getvalue() == (
            '{"ts":0,"task":"host-0","event":"memtwin_vma_no_merge","mm":1,"addr":4096,"reason":"FLAGS_DIFFER(VM_ACCOUNT)"}\n'
            '{"ts":3,"task":"host-0","event":"memtwin_vma_no_merge","mm":null,"addr":true,"reason":"FLAGS_DIFFER"}\n'
            '{"ts":3,"task":"host-0","event":"sys_enter","id":9,"args":[0,-1,4096]}\n'
        )

    def test_refuses_what_would_print_an_address(self, tp):
        tp.enable("exit_mmap", JsonLines(io.StringIO()))
        with pytest.raises(InvariantBroken, match="exit_mmap carries a object"):
            tp.exit_mmap(object(), 0)


def story() -> str:
    """Two daemons and their switches, as JSON lines."""
    out = io.StringIO()
    sched = Scheduler(cpus=2)
    tp = Tracepoints(sched)
    sched.instruments.append(SchedEvents(tp))
    tp.enable("sched:*", JsonLines(out))
    for name, period in (("ksmd", 20), ("kswapd0", 30)):
        sched.spawn(lambda period=period: [sched.sleep(period) for _ in range(2)], name)
    sched.run(until=lambda: not sched.tasks)
    return out.getvalue()


def test_scheduler_events():
    lines = story().splitlines()
    assert lines[0] == (
        '{"ts":0,"task":"swapper-0","event":"sched_switch","prev_comm":"swapper","prev_pid":0,"prev_prio":120,'
        '"prev_state":"R","next_comm":"ksmd","next_pid":1,"next_prio":120}'
    )
    assert '"event":"sched_wakeup","comm":"ksmd","pid":1,"prio":120,"target_cpu":0}' in lines[4]
    assert sum('"event":"sched_process_exit"' in line for line in lines) == 2


def test_scheduler_events_cost_nothing_when_off():
    sched = Scheduler()
    tp = Tracepoints(sched)
    sched.instruments.append(SchedEvents(tp))
    sched.spawn(lambda: sched.sleep(5), "t")
    sched.run(until=10)
    assert tp.enabled() == []


def test_same_bytes_under_any_hash_seed(root):
    code = f"import sys; sys.path.insert(0, {str(root / 'tests/unit/events')!r}); "
    code += "import test_tracepoint as t; print(t.story())"
    outs = []
    for hash_seed in ("0", "1234"):
        env = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONHASHSEED": hash_seed}
        outs.append(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout)
    assert outs[0] == outs[1] != b"\n"
