# SPDX-License-Identifier: GPL-2.0-or-later
"""The twin's half: a program on a machine that looks like the host, answers line by line.

``map_room N``, which only programs of this package use, leaves room for N more areas: the live half fills the address
space up to ``vm.max_map_count`` with areas nobody looks at, the twin's moves the limit instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from memtwin.errors import InvariantBroken
from memtwin.machine import Machine, host_memory, host_sysctls
from memtwin.mm.mm_types import VM_LOCKED
from memtwin.script.grammar import expression
from memtwin.script.run import Script
from memtwin.verify.live import EXECUTOR_BASE
from memtwin.verify.sysctls import settings_held

__all__ = ["Before", "Twin", "words_of"]

#: Called before each line: the script, the process, and the words of the line from the operation on.
Before = Callable[[Script, str, Sequence[str]], None]
_ROOM: Final = "map_room"
_LAYOUT: Final = "sysctl legacy_va_layout "


def words_of(line: str) -> tuple[str, list[str]]:
    """The process of a line ("main" where none is named), and its words from the operation on, without the variable."""
    words = line.split()
    proc = words.pop(0)[1:] if words[0].startswith("@") else "main"
    words[0] = words[0].rpartition("=")[2]
    return proc, words


class Twin:
    """Makes machines and runs programs on them.

    ``kernel``, ``with_``, ``without``: as for :class:`~memtwin.machine.Machine`; the machine has the host's memory and
    settings. ``check``: check every invariant after every program.
    """

    def __init__(
        self, kernel: str = "host", with_: Sequence[str] = (), without: Sequence[str] = (), *, check: bool = True
    ) -> None:
        self._kernel = kernel
        self._with = tuple(with_)
        self._without = tuple(without)
        self._check = check
        self._memory = host_memory()
        with settings_held():
            self._sysctls = host_sysctls()

    def machine(self) -> Machine:
        """A new machine. Raises BadInput."""
        machine = Machine(self._memory, 1, kernel=self._kernel, with_=self._with, without=self._without)
        machine.set_sysctls(self._sysctls)
        return machine

    def size(self) -> int:
        """Bytes that a process occupies before its first line (VmSize)."""
        with self.machine() as machine:
            return Script("", machine, program_base=EXECUTOR_BASE).variable("AS0")

    def run(self, lines: Sequence[str], before: Before | None = None) -> Iterator[dict[str, Any]]:
        """The answers to a program, one a line, as they are asked for. An exception of the twin itself is an answer
        with the field ``broken``, and the last one.
        """
        machine = self.machine()
        if lines and lines[0].startswith(_LAYOUT):  # decided before there is a process
            layout = _number(lines[0].split()[2])
            if layout is not None:
                machine.set_sysctls({"legacy_va_layout": layout})
        script = Script("", machine, program_base=EXECUTOR_BASE)
        own = frozenset(vma.start for vma in script.processes["main"].vmas())
        try:
            for line in lines:
                try:
                    if before is not None:
                        before(script, *words_of(line))
                    yield _answer(script, line, own)
                except Exception as error:  # a bug of the twin is a difference like any other
                    yield {"broken": f"{type(error).__name__}: {error}"}
                    return
            if self._check:
                try:
                    machine.check()
                except InvariantBroken as error:
                    yield {"broken": f"InvariantBroken: {error}"}
        finally:
            machine.close()


def _answer(script: Script, line: str, own: frozenset[int]) -> dict[str, Any]:
    if _ROOM in line:
        return _map_room(script, line)
    answer = script.answer(line)
    if answer.get("op") == "dump":
        _forget_own_locks(script, answer, own)
    return answer


def _number(text: str) -> int | None:
    """An expression without variables that a sysctl may take, or None."""
    try:
        value = expression(text, dict[str, int]().__getitem__)
    except (KeyError, ValueError):
        return None
    return value if value < 1 << 31 else None


def _map_room(script: Script, line: str) -> dict[str, Any]:
    proc, words = words_of(line)
    script.number += 1
    mm = script.processes[proc].mm
    sysctl = mm.ctx.sysctl
    limit = mm.map_count + int(words[1])
    script.max_map_count += limit - sysctl.max_map_count
    sysctl.max_map_count = limit
    return {"i": script.number, "op": _ROOM, "ret": 0}


def _forget_own_locks(script: Script, answer: dict[str, Any], own: frozenset[int]) -> None:
    """mlockall also locks the areas a process had in the beginning, which are not the script's."""
    views = answer.get("procs") or {answer.get("proc", "main"): answer}
    for name, view in views.items():
        status = view.get("status")
        if not status or "VmLck" not in status:
            continue
        locked = sum(
            vma.end - vma.start for vma in script.processes[name].vmas() if vma.flags & VM_LOCKED and vma.start in own
        )
        status["VmLck"] -= locked >> 10
        if not status["VmLck"]:
            del status["VmLck"]
