# SPDX-License-Identifier: GPL-2.0-or-later
"""The live kernel's side: the C programs in ``peers/``, compiled with ``gcc -O2`` into a temporary directory, and the
long-lived child that answers commands (see ``peers/mm.c`` for them).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Side, Unavailable

__all__ = ["Live", "compile_peer", "pin"]

PEERS = Path(__file__).resolve().parent / "peers"


def compile_peer(name: str, tmp: Path, *flags: str) -> Path:
    """Compile ``peers/NAME.c``; the program's path. Raises Unavailable."""
    if platform.system() != "Linux":
        raise Unavailable(f"the live side needs Linux, not {platform.system()}")
    gcc = shutil.which("gcc")
    if gcc is None:
        raise Unavailable("gcc is not installed")
    program = tmp / name
    done = subprocess.run(
        [gcc, "-O2", "-Wall", *flags, "-o", program, PEERS / f"{name}.c"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Unavailable(
            f"gcc can not compile {name}.c: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}"
        )
    return program


class Live:
    """The child that measures the live kernel; started when first asked."""

    def __init__(self, start: Callable[[], list[str]]) -> None:
        """``start()``: the command line of the child; may raise Unavailable."""
        self._start = start
        self._child: subprocess.Popen[str] | None = None
        self._reason = ""

    def ask(self, command: str) -> tuple[int, int]:
        """Have one piece of work done: (units, nanoseconds). Raises Unavailable, with the same reason from then on."""
        if self._reason:
            raise Unavailable(self._reason)
        try:
            return self._ask(command)
        except (OSError, Unavailable) as why:
            if self._child is None or self._child.poll() is not None:
                self._reason = str(why)
            raise Unavailable(str(why)) from None

    def _ask(self, command: str) -> tuple[int, int]:
        if self._child is None:
            self._child = subprocess.Popen(
                self._start(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(command + "\n")
        line = self._child.stdout.readline()
        match line.split(maxsplit=1):
            case ["ok", rest]:
                units, passed = rest.split()
                return int(units), int(passed)
            case ["error", rest]:
                raise Unavailable(f"live '{command}': {rest.strip()}")
        status = self._child.wait(10)
        raise Unavailable(f"the live side ended at '{command}' with status {status}")

    def rate(self, name: str, units: int, *, first: str = "") -> Side:
        """A side that measures ``units`` units of the command ``name``, as units per second; ``first``: a command to
        give before.
        """

        def side() -> float:
            if first:
                self.ask(first)
            done, passed = self.ask(f"{name} {units}")
            return done * 1e9 / max(passed, 1)

        return side

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.communicate()


def pin(cpu: int | None) -> int | None:
    """Keep this process and the children to come on one CPU: ``cpu``, or the last one allowed. None where the host
    can not.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    cpu = max(allowed) if cpu is None else cpu
    if cpu not in allowed:
        raise ValueError(f"CPU {cpu} is not among those allowed here: {', '.join(map(str, sorted(allowed)))}")
    os.sched_setaffinity(0, {cpu})
    return cpu
