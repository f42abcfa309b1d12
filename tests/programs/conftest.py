# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiling C programs, and running programs on the twin and natively with their output in files."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from memtwin.cpu.loop import DEFAULT_ENV, Program
from memtwin.machine import Machine

HERE = Path(__file__).parent


@dataclass
class Ran:
    """What a program left behind."""

    status: int
    out: bytes
    err: bytes
    program: Program | None = None


@pytest.fixture(scope="session")
def cc(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """cc(name, source=None, *flags): path of a static program; without source, tests/programs/NAME.c is compiled."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    directory = tmp_path_factory.mktemp("programs")
    made: dict[tuple[Any, ...], str] = {}

    def compile_(name: str, source: str | None = None, *flags: str) -> str:
        key = (name, source, flags)
        if key not in made:
            path = HERE / f"{name}.c"
            if source is not None:
                path = directory / f"{name}.c"
                path.write_text(source)
            out = directory / f"{name}{len(made)}"
            static = () if "-static-pie" in flags else ("-static",)
            subprocess.run([compiler, "-O1", "-w", *static, *flags, "-o", str(out), str(path)], check=True)
            made[key] = str(out)
        return made[key]

    return compile_


@pytest.fixture(scope="session")
def busybox() -> str:
    """A static busybox."""
    path = shutil.which("busybox")
    if path is None:
        pytest.skip("no busybox")
    if b"/ld-linux" in Path(path).read_bytes()[:4096]:
        pytest.skip("busybox is not static")
    return path


@pytest.fixture
def twin(tmp_path: Path) -> Callable[..., Ran]:
    """twin(argv, cwd=..., stdin=..., on_exit=..., machine options): on a fresh machine, which is checked."""
    count = 0

    def run(
        argv: Sequence[str],
        *,
        cwd: Path | str = "/",
        stdin: bytes = b"",
        on_exit: Callable[[Any], None] | None = None,
        program: dict[str, Any] | None = None,
        **machine: Any,
    ) -> Ran:
        nonlocal count
        count += 1
        files = _files(tmp_path, f"twin{count}", stdin)
        try:
            with Machine(**{"memory": "256M", **machine}) as m:
                m.kernel.on_exit = on_exit
                p = Program(m.kernel, argv, **{"cwd": str(cwd), "stdio": tuple(files), **(program or {})})
                status = p.run()
                m.check()
                m.kernel.check_no_leak()
        finally:
            for fd in files:
                os.close(fd)
        return Ran(status, *_outputs(tmp_path, f"twin{count}"), p)

    return run


@pytest.fixture
def native(tmp_path: Path) -> Callable[..., Ran]:
    """native(argv, cwd=..., stdin=...): the same on the kernel that runs here."""
    count = 0

    def run(argv: Sequence[str], *, cwd: Path | str = "/", stdin: bytes = b"") -> Ran:
        nonlocal count
        count += 1
        files = _files(tmp_path, f"native{count}", stdin)
        done = subprocess.run(
            argv, cwd=cwd, env=dict(DEFAULT_ENV), stdin=files[0], stdout=files[1], stderr=files[2], timeout=60
        )
        for fd in files:
            os.close(fd)
        status = done.returncode if done.returncode >= 0 else 128 - done.returncode
        return Ran(status, *_outputs(tmp_path, f"native{count}"))

    return run


def _files(directory: Path, name: str, stdin: bytes) -> list[int]:
    (directory / f"{name}.in").write_bytes(stdin)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    return [
        os.open(directory / f"{name}.in", os.O_RDONLY),
        os.open(directory / f"{name}.out", flags, 0o600),
        os.open(directory / f"{name}.err", flags, 0o600),
    ]


def _outputs(directory: Path, name: str) -> tuple[bytes, bytes]:
    return (directory / f"{name}.out").read_bytes(), (directory / f"{name}.err").read_bytes()
