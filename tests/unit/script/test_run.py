# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole scripts: processes, variables, errors. ``answered/`` holds scripts with the answers of Linux 6.18."""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memtwin.errors import NotModelled, ProcessKilled
from memtwin.machine import Machine
from memtwin.script.answers import json_line
from memtwin.script.run import Runner

B = 0x1000000000
ANSWERED = sorted((Path(__file__).parent / "answered").glob("*.mmo"))


@pytest.mark.parametrize("script", ANSWERED, ids=[path.stem for path in ANSWERED])
def test_answers_are_those_of_linux_byte_for_byte(script: Path) -> None:
    runner = Runner(partial(Machine, "24G", kernel="6.18"), check=True)
    with script.open() as lines:
        answers = [json_line(answer) for answer in runner.run(lines)]
    if runner.missing:
        pytest.skip(f"not modelled yet: {', '.join(runner.missing)}")
    assert answers == script.with_suffix(".jsonl").read_text().splitlines()


def test_variables_take_results_and_what_stands_for_failures(fake: Any, ask: Any) -> None:
    results = iter([B, OSError(errno.ENOMEM, ""), 5, OSError(errno.EMFILE, "")])

    def answer(*_args: Any) -> int:
        result = next(results)
        if isinstance(result, OSError):
            raise result
        return result

    process = fake({"mmap": answer, "memfd_create": answer, "munmap": None, "close": None})
    ask(
        process,
        *("a=mmap 0 1p r private", "b=mmap 0 1p r private", "c=memfd x", "d= memfd y"),
        *("munmap $a $b", "close $c", "close $d"),
    )
    assert process.calls[-3:] == [("munmap", B, B + (32 << 30)), ("close", 5), ("close", -1)]


def test_a_variable_of_something_not_modelled_is_not_modelled(fake: Any, ask: Any) -> None:
    process = fake({"close": None})
    answers = ask(process, "f=memfd a", "close $f", "dump maps $f 1p", "f=close 4", "close $f")
    assert [answer.get("error") for answer in answers] == ["not modelled"] * 3 + [None, None]
    assert process.calls == [("close", 4), ("close", 0)]


def test_baselines(fake: Any, ask: Any) -> None:
    process = fake({"setrlimit": None, "dropcap": None})
    ask(process, "setrlimit as AS0+1p 0", "setrlimit data DATA0 0")
    assert process.calls == [("dropcap", 24), ("setrlimit", 9, (8192 << 10) + 4096, 0), ("setrlimit", 2, 132 << 10, 0)]


def test_without_status_there_are_no_baselines(fake: Any, ask: Any) -> None:
    def missing(_path: str) -> str:
        raise NotModelled("status: not modelled yet")

    process = fake({"read_file": missing, "setrlimit": None})
    assert [answer["error"] for answer in ask(process, "setrlimit as AS0 0", "dump status")] == ["not modelled"] * 2


def test_processes(fake: Any, ask: Any) -> None:
    child = fake({"mmap": B})
    parent = fake({"fork": child}, {"/proc/self/maps": ""})
    child.does["read_file"] = {"/proc/self/maps": "1000000000-1000001000 rw-p 00000000 00:00 0 \n"}.__getitem__
    answers = ask(
        parent,
        *("fork c", "@c mmap 0 1p r private", "fork c", "@* dump maps", "@c exit", "@c read 0 1"),
        *("@* dump maps", "fork c"),
    )
    assert answers[:2] == [
        {"i": 1, "op": "fork", "ret": 0},
        {"i": 2, "proc": "c", "op": "mmap", "ret": "B+0x0"},
    ]
    assert answers[2]["error"] == "process name in use"
    assert answers[3:5] == [
        {
            **{"i": 4, "proc": "*", "op": "dump"},
            "procs": {"main": {"p": 0, "maps": []}, "c": {"p": 0, "maps": ["B+0x0-B+0x1000 rw-p 0"]}},
        },
        {"i": 5, "proc": "c", "op": "exit", "ret": 0},
    ]
    assert answers[5] == {"i": 6, "line": "@c read 0 1", "error": "no such process"}
    assert list(answers[6]["procs"]) == ["main"]
    assert answers[7] == {"i": 8, "op": "fork", "ret": 0}
    assert child.calls == [("mmap", 0, 4096, 1, 2), ("exit",)]
    assert parent.calls == [("fork", "c"), ("fork", "c")]


def test_a_script_has_seven_children(fake: Any, ask: Any) -> None:
    process = fake()
    process.does["fork"] = lambda _name: fake()
    answers = ask(process, *(f"fork c{number}" for number in range(7)), "@c0 exit", "fork d")
    assert all("error" not in answer for answer in answers[:8])
    assert answers[8]["error"] == "too many processes"


def test_a_fork_that_fails_makes_no_process(fake: Any, ask: Any) -> None:
    answers = ask(fake({"fork": OSError(errno.ENOMEM, "")}), "fork c", "@c exit")
    assert answers[0] == {"i": 1, "op": "fork", "ret": -12, "err": "ENOMEM"}
    assert answers[1]["error"] == "no such process"


def test_children_of_a_fork_that_is_not_modelled(fake: Any, ask: Any) -> None:
    answers = ask(fake(), "fork c", "@c read 0 1", "@c dump", "@c exit")
    assert [answer["error"] for answer in answers] == ["not modelled"] * 4
    assert [answer.get("proc") for answer in answers] == [None, "c", "c", "c"]


def test_faults_of_an_operation_are_counted(fake: Any, ask: Any) -> None:
    process = fake()

    def mlock(_addr: int, _length: int) -> None:
        process.task.min_flt += 2
        process.task.maj_flt += 1

    def fork(_name: str) -> Any:
        process.task.min_flt += 3
        return fake()

    process.does |= {"mlock": mlock, "fork": fork}
    assert ask(process, "mlock B 1p", "fork c") == [
        {"i": 1, "op": "mlock", "ret": 0, "min": 2, "maj": 1},
        {"i": 2, "op": "fork", "ret": 0},
    ]


def test_a_killed_process_is_told(fake: Any, ask: Any) -> None:
    answers = ask(fake({"mlock": ProcessKilled("gone")}), "mlock B 1p", "mlock B 1p")
    assert answers[0] == {"i": 1, "op": "mlock", "died": True}
    assert answers[1]["error"] == "no such process"


def test_scripts_do_not_see_each_other(twin: Any) -> None:
    text = "x=mmap B 1p r private|anon|fixed\nscript a\nread B 1\nmunmap $x 1p\nscript\nmmap B 1p r private|anon|fixed"
    answers = twin(text)
    assert answers[0] == {"i": 1, "op": "mmap", "ret": "B+0x0"}
    assert answers[1] == {"script": "a"}
    assert (answers[2]["i"], answers[2]["code"]) == (1, "SEGV_MAPERR")
    assert answers[3]["error"] == "bad argument 1"
    assert answers[4:] == [{"script": ""}, {"i": 1, "op": "mmap", "ret": "B+0x0"}]


def test_every_machine_is_closed(fake: Any, fake_machine: Any) -> None:
    machines: list[Any] = []

    class Closing(fake_machine):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(fake())
            self.closed = False
            machines.append(self)

        def close(self) -> None:
            self.closed = True

    ended: list[str] = []
    runner = Runner(Closing, on_end=lambda script: ended.append(script.name))
    assert list(runner.run(["# nothing", "", "script a", "script b", "echo x"]))
    assert (ended, [machine.closed for machine in machines]) == (["a", "b"], [True, True])
    answers = runner.run(["echo x", "echo y"])
    next(answers)
    answers.close()
    assert machines[-1].closed


def test_lines_that_went_wrong_are_counted(fake: Any, fake_machine: Any) -> None:
    runner = Runner(lambda: fake_machine(fake()))
    list(runner.run(["mlock B 1p", "", "mlock B 1p", "foo", "mseal B 1p", "read $x 1"]))
    assert runner.missing == {"mlock": 2, "mseal": 1}
    assert runner.bad == [(4, "unknown operation"), (6, "bad argument 1")]
