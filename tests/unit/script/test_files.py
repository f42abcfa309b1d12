# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of a script; the answers are those of Linux 6.18."""

from __future__ import annotations

from typing import Any

import pytest

from memtwin.script.answers import json_line


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        ("f=open a\nftruncate $f 3p\nfstat $f", ['"ret":0', '"ret":0', '"ret":0,"size":12288,"blocks":0']),
        ("open a rdonly\nopen a wronly|creat\nopen a rdonly", ['"ret":-2,"err":"ENOENT"', '"ret":0', '"ret":0']),
        ("open a\nopen a rdwr|creat|0x80", ['"ret":0', '"ret":-17,"err":"EEXIST"']),
        (
            "f=open a\nftruncate $f 5\nopen a rdwr|trunc\nfstat $f",
            ['"ret":0', '"ret":0', '"ret":0', '"ret":0,"size":0,"blocks":0'],
        ),
        (
            "f=open a\nunlink a\nunlink a\nftruncate $f 1p\nopen a rdonly",
            ['"ret":0', '"ret":0', '"ret":-2,"err":"ENOENT"', '"ret":0', '"ret":-2,"err":"ENOENT"'],
        ),
        (
            "f=open /dev/zero\nmmap B 1p rw private|fixed $f\nwrite B 1 3\nread B+1 1",
            ['"ret":0', '"ret":"B+0x0"', '"ret":1,"min":1', '"ret":1,"vals":[[0,1]]'],
        ),
        ("open .\nopen x/y\nopen /x", ['"ret":-21,"err":"EISDIR"', '"ret":-2,"err":"ENOENT"', '"ret":0']),
        ("f=open a rdonly|creat\nftruncate $f 1", ['"ret":0', '"ret":-22,"err":"EINVAL"']),
        (
            "f=open a\nftruncate $f 1p\nmmap B 1p rw shared|fixed $f\nwrite B 1 7\nclose $f\nunlink a\nread B 1",
            ['"ret":0'] * 2 + ['"ret":"B+0x0"', '"ret":1,"min":1'] + ['"ret":0'] * 2 + ['"ret":1,"vals":[[7,1]]'],
        ),
    ],
)
def test_files(twin: Any, lines: str, answers: list[str]) -> None:
    got = [json_line(answer) for answer in twin(lines)]
    ops = [(line.split("=")[-1] if line[1:2] == "=" else line).split()[0] for line in lines.splitlines()]
    assert got == [f'{{"i":{i},"op":"{op}",{text}}}' for i, (op, text) in enumerate(zip(ops, answers, strict=True), 1)]


def test_content_lives_with_the_name(twin: Any) -> None:
    text = "f=open a\nftruncate $f 1p\nmmap B 1p rw shared|fixed $f\nwrite B 1 7\nmunmap B 1p\nclose $f\n"
    answers = twin(text + "f=open a\nfstat $f\nmmap B 1p r private|fixed $f\nread B 1")
    assert (answers[7]["blocks"], answers[9]["vals"]) == (8, [[7, 1]])


def test_another_script_has_another_directory(twin: Any) -> None:
    answers = twin("open a\nscript b\nopen a rdonly")
    assert answers[-1]["err"] == "ENOENT"
