# SPDX-License-Identifier: GPL-2.0-or-later
"""`memtwin script` and `memtwin explain`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memtwin.process import Process

GOOD = "script good\nx=mmap 0 4p rw private|anon\nwrite $x 1p 7\nmunmap $x+1 1p\n"
ANSWERS = [
    '{"script":"good"}',
    '{"i":1,"op":"mmap","ret":"T-0x4000"}',
    '{"i":2,"op":"write","ret":1,"min":1}',
    '{"i":3,"op":"munmap","ret":-22,"err":"EINVAL"}',
]


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """``write(TEXT)``: the name of a script file."""

    def make(text: str | bytes, name: str = "a.mmo") -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return make


def test_answers(cli, write) -> None:
    ran = cli("script", write(GOOD), "--memory", "64M")
    assert (ran.status, ran.err) == (0, "")
    env, *answers = ran.out.splitlines()
    assert answers == ANSWERS
    assert json.loads(env)["env"]["memory"] == 64 << 20
    assert json.loads(env)["env"]["kernel"] == "6.7"


def test_several_files_and_options(cli, write) -> None:
    files = write(GOOD), write("mmap B 1p r private|anon|fixed\n", "b.mmo")
    ran = cli("script", *files, "--kernel", "before", "--with", "vma-modify", "--seed", "3", "--check")
    assert ran.status == 0
    assert ran.out.splitlines()[1:] == [*ANSWERS, '{"i":1,"op":"mmap","ret":"B+0x0"}']


def test_standard_input(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "memtwin", "script", "-"],
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        input=GOOD,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ANSWERS


def test_json(cli, write) -> None:
    ran = cli("script", write(GOOD), "--json")
    document = json.loads(ran.out)
    assert (ran.status, document["schema"]) == (0, "memtwin.script/1")
    assert document["env"]["base"] == "0x1000000000"
    assert document["answers"] == [json.loads(line) for line in ANSWERS]


def test_explain_adds_the_rule(cli, write) -> None:
    answer = json.loads(cli("script", write(GOOD), "--explain").out.splitlines()[-1])
    assert "unaligned" in answer["reason"]


def test_a_line_that_is_not_understood_is_status_2(cli, write) -> None:
    path = write("mmap 0 1p r private|anon\n\nfoo 1\nscript b\nbar\n")
    ran = cli("script", path)
    assert (ran.status, ran.err) == (2, f"memtwin: {path}:3: unknown operation (and 1 more)\n")
    assert json.loads(ran.out.splitlines()[2]) == {"i": 2, "line": "foo 1", "error": "unknown operation"}


def test_not_modelled_is_status_3(cli, write) -> None:
    ran = cli("script", write("scan B 1p 0 0 0 0 0\nscan B 1p 0 0 0 0 0\nuffd_poison 3 B 1p\n"))
    assert (ran.status, ran.err) == (3, "memtwin: not modelled yet: scan (2), uffd_poison (1)\n")
    assert ran.out.splitlines()[1] == '{"i":1,"op":"scan","error":"not modelled"}'


def test_bad_line_wins_over_not_modelled(cli, write) -> None:
    ran = cli("script", write("scan B 1p 0 0 0 0 0\nfoo\n"))
    assert ran.status == 2
    assert ran.err.count("\n") == 2


@pytest.mark.parametrize("command", ["script", "explain"])
def test_files_that_can_not_be_read(cli, tmp_path: Path, command: str) -> None:
    ran = cli(command, str(tmp_path / "none"))
    assert (ran.status, ran.out, ran.err) == (2, "", f"memtwin: {tmp_path}/none: No such file or directory\n")
    assert cli(command, str(tmp_path)).status == 2
    assert cli(command).status == 2
    assert cli(command, "--kernel", "5.x", str(tmp_path / "none")).status == 2


@pytest.mark.parametrize("command", ["script", "explain"])
def test_wrong_options(cli, write, command: str) -> None:
    path = write(GOOD)
    for option in (("--kernel", "x"), ("--with", "vma-modifi"), ("--memory", "1k")):
        ran = cli(command, path, *option)
        assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)


def test_bytes_that_are_no_text(cli, write) -> None:
    ran = cli("script", write(b"echo \xff\xc3\xa9\0x\n"))
    assert ran.out.splitlines()[1] == r'{"i":1,"op":"echo","text":"echo \u00ff\u00c3\u00a9 x"}'


def test_an_empty_file_has_no_answers(cli, write) -> None:
    ran = cli("script", write("# nothing\n"))
    assert (ran.status, len(ran.out.splitlines())) == (0, 1)


# -- explain ------------------------------------------------------------------------------------------------------

AREAS = "script areas\nmmap B 2p r private|anon|fixed\nmmap B+4p 1p r private|anon|fixed\nmunmap B 0\n"


@pytest.fixture(autouse=True)
def maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Process has no read_file yet: one that knows maps."""
    from memtwin.fs.proc import task_mmu

    if not hasattr(Process, "read_file"):
        texts = {"maps": lambda mm: task_mmu.maps(mm), "status": task_mmu.status_vm}
        read = lambda self, path: texts[path.rpartition("/")[2]](self.mm)  # noqa: E731
        monkeypatch.setattr(Process, "read_file", read, raising=False)


def test_explain_in_words(cli, write) -> None:
    ran = cli("explain", write(AREAS), "--at", "B+5")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "script areas, 3 operations:",
        "  B+0x0-B+0x2000 r--p 0",
        "    nothing below it",
        "  B+0x0-B+0x2000 r--p 0",
        "  B+0x4000-B+0x5000 r--p 0",
        "    apart: 8 kB between them",
        "refused calls:",
        "  3: munmap B 0",
        "    EINVAL: munmap: length is 0",
    ]


def test_explain_json_and_where_to_look(cli, write) -> None:
    path = write("echo first\n" + AREAS)
    document = json.loads(cli("explain", path, "--json", "--script", "areas", "--after", "1", "--at", "B").out)
    assert document["schema"] == "memtwin.explain/1"
    (one,) = document["scripts"]
    assert (one["script"], one["operations"], one["refused"]) == ("areas", 1, [])
    assert one["borders"][1] == {"below": "B+0x0-B+0x2000 r--p 0", "above": "", "hole": 0, "reasons": []}
    both = json.loads(cli("explain", path, "--json").out)["scripts"]
    assert [one["script"] for one in both] == ["", "areas"]
    assert both[1]["refused"][0]["err"] == "EINVAL"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--at", "x"), "--at x"),
        (("--at", "$v"), "--at $v"),
        (("--script", "none"), "no script 'none'"),
        (("--after", "9"), "with an operation 9"),
        (("--proc", "child"), "--proc child"),
    ],
)
def test_explain_of_what_is_not_there(cli, write, options: tuple[str, ...], said: str) -> None:
    ran = cli("explain", write(AREAS), *options)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert said in ran.err
