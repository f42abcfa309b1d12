# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that only records what it is asked to do, and scripts run on it or on real machines."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from memtwin.errors import FatalSignal
from memtwin.machine import Machine
from memtwin.mm.sysctl import VmSysctl
from memtwin.script import run as run_module
from memtwin.script.run import Runner


class FakeProcess:
    """``does``: call -> what it returns, or raises, or a function of its arguments. Calls without an entry are not
    there. ``memory``: what ``read`` finds; beyond it there is a SIGSEGV.
    """

    def __init__(self, does: dict[str, Any] | None = None, files: dict[str, str | bytes] | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.task = SimpleNamespace(min_flt=0, maj_flt=0)
        self.mm = SimpleNamespace(topdown=True)
        self.does = {"read_file": (files or {}).__getitem__, "exit": None, **(does or {})}
        self.memory: dict[int, int] = {}
        self.areas: list[SimpleNamespace] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in self.does:
            raise AttributeError(name)
        return partial(self._call, name)

    def _call(self, name: str, *args: Any) -> Any:
        if name != "read_file":
            self.calls.append((name, *args))
        result = self.does[name]
        if isinstance(result, BaseException):
            raise result
        return result(*args) if callable(result) else result

    def vmas(self) -> list[SimpleNamespace]:
        return self.areas

    def read(self, addr: int, n: int) -> bytes:
        if addr not in self.memory:
            raise FatalSignal(11, 1, addr)
        self.task.min_flt += 1
        return bytes([self.memory[addr]]) * n

    def write(self, addr: int, data: bytes) -> None:
        self.read(addr, 1)
        self.calls.append(("write", addr, data))


class FakeMachine:
    """A machine whose only process is the given one."""

    def __init__(self, process: FakeProcess) -> None:
        self.process = process
        self.kernel = SimpleNamespace(mm_ctx=SimpleNamespace(sysctl=VmSysctl()))
        self.open = True

    def spawn(self, name: str) -> FakeProcess:
        assert name == "main"
        return self.process

    def close(self) -> None:
        self.open = False


STATUS = "Name:\tmain\nVmSize:\t    8192 kB\nVmLck:\t       0 kB\nVmRSS:\t      12 kB\nVmData:\t     132 kB\n"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeProcess]:
    """``fake(does, files)`` with a /proc/self/status, and no program."""
    for part in ("_start_program", "_prefault"):
        monkeypatch.setattr(run_module, part, lambda process, base: None)

    def make(does: dict[str, Any] | None = None, files: dict[str, str | bytes] | None = None) -> FakeProcess:
        return FakeProcess(does, {"/proc/self/status": STATUS, **(files or {})})

    return make


@pytest.fixture
def fake_machine() -> type[FakeMachine]:
    """The class of a machine whose only process is a given one."""
    return FakeMachine


@pytest.fixture
def ask() -> Callable[..., list[dict[str, Any]]]:
    """``ask(process, "mmap 0 1p rw private", ...)``: the answers of a script on a fake process."""

    def run(process: FakeProcess, *lines: str, explain: bool = False) -> list[dict[str, Any]]:
        return list(Runner(lambda: FakeMachine(process), explain=explain).run(lines))

    return run


@pytest.fixture
def twin() -> Callable[..., list[dict[str, Any]]]:
    """``twin(TEXT)``: the answers of a script on a machine as Linux 6.18."""

    def run(text: str, *, kernel: str = "6.18", explain: bool = False) -> list[dict[str, Any]]:
        return list(Runner(partial(Machine, "64M", kernel=kernel), explain=explain, check=True).run(text.splitlines()))

    return run
