# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures that tests of several rooms share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import memtwin

ROOT = Path(__file__).resolve().parent.parent

# The same examples on every run, as everything here; no deadline, since CI machines are slow at times.
settings.register_profile("memtwin", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("memtwin")


@dataclass(frozen=True)
class Ran:
    """What a command line left behind."""

    status: int
    out: str
    err: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if memtwin.compiled():
        for item in items:
            if item.get_closest_marker("interpreted"):
                item.add_marker(pytest.mark.skip(reason="patches functions, and memtwin is compiled"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """``cli("changes", "--json")`` runs the command line in this process."""
    from memtwin.cli.main import main

    def run(*args: str) -> Ran:
        capsys.readouterr()
        status = main(args)
        out, err = capsys.readouterr()
        return Ran(status, out, err)

    return run


@pytest.fixture
def cli_process() -> Callable[..., Ran]:
    """``cli_process("changes", env={...})`` runs ``python -m memtwin`` in a process of its own."""

    def run(*args: str, env: dict[str, str] | None = None) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "memtwin", *args],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run
