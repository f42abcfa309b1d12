# SPDX-License-Identifier: GPL-2.0-or-later
"""``memtwin run -- PROGRAM [ARGS...]``: a real program on a machine of your own description.

The exit status is the program's, or 128 + signal; 127 if there is no such program, 126 if it can not be run, 125 if
memtwin itself can not go on, 70 for a broken invariant; 2 for bad options, since nothing was run then.
"""

from __future__ import annotations

import json as json_
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Annotated

import typer

from memtwin.cli.output import new_app, note
from memtwin.errors import BadInput, InvariantBroken, MemtwinError

if TYPE_CHECKING:
    from memtwin.cpu.base import Cpu
    from memtwin.cpu.loop import Program
    from memtwin.kernel.task import TaskStruct
    from memtwin.machine import Machine

app = new_app("Run a program on a machine of your own description.")

_OWN_FAILURE = 125


def _environment(pairs: list[str]) -> dict[str, str]:
    from memtwin.cpu.loop import DEFAULT_ENV

    env = dict(DEFAULT_ENV)
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise BadInput(f"--env {pair}: not of the form KEY=VALUE")
        env[key] = value
    return env


def _epoch(text: str | None) -> int:
    """--epoch: ns since 1970."""
    from memtwin.kernel.syscalls import EPOCH

    if text is None:
        return EPOCH
    if text == "now":
        import time

        return time.time_ns()
    try:
        seconds = float(text)
    except ValueError:
        raise BadInput(f"--epoch {text}: neither seconds since 1970 nor 'now'") from None
    if not 0 <= seconds < 1 << 33:
        raise BadInput(f"--epoch {text}: out of range")
    return int(seconds * 1_000_000_000)


def _open_output(stack: ExitStack, option: str, path: str) -> IO[str]:
    try:
        return stack.enter_context(open(path, "w", encoding="utf-8", errors="surrogateescape"))
    except OSError as error:
        raise BadInput(f"{option} {path}: {error.strerror}") from None


@contextmanager
def _interruptible(cpu: Cpu) -> Iterator[None]:
    """Let Ctrl-C end a program that never traps: the emulator returns to Python only when another thread asks it to."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)

    def watch() -> None:
        while os.read(read_end, 1)[0] == signal.SIGINT:
            cpu.interrupt()

    thread = threading.Thread(target=watch, daemon=True)
    before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(write_end, b"\0")
        thread.join()
        os.close(read_end)
        os.close(write_end)


class _Shown:
    """The texts of --show, as they are when the program ends, just before its memory goes."""

    def __init__(self, program: Program, paths: list[str]) -> None:
        self._program = program
        self._paths = paths
        self._texts: dict[str, str] = {}
        for path in paths:
            if not path.startswith("/proc/"):
                raise BadInput(f"--show {path}: not a file of the twin's /proc")
        self._next = program.kernel.on_exit
        program.kernel.on_exit = self._on_exit

    def _on_exit(self, task: TaskStruct) -> None:
        for path in self._paths:
            try:
                self._texts[path] = self._program.sys.vfs.text(path)
            except OSError as error:
                self._texts[path] = f"{error.strerror}\n"
        if self._next is not None:
            self._next(task)

    def print(self) -> None:
        """On stderr, since stdout is the program's."""
        for path, text in self._texts.items():
            print(f"==> {path} <==\n{text}", end="", file=sys.stderr)


@app.command(
    help="Run PROGRAM (static x86-64) with ARGS. Options end at PROGRAM; its exit status is memtwin's.",
    context_settings={"allow_interspersed_args": False},
)
def run(
    argv: Annotated[list[str], typer.Argument(metavar="PROGRAM [ARGS]...", show_default=False)],
    memory: Annotated[str, typer.Option(help="Memory of the machine, such as 512M or 2G.")] = "2G",
    cpus: Annotated[int, typer.Option(help="Number of CPUs.")] = 1,
    nodes: Annotated[int, typer.Option(help="Number of NUMA nodes of equal size.")] = 1,
    kernel: Annotated[str, typer.Option(help="Profile: before, 6.7, host, or a release such as 6.12.")] = "6.7",
    with_: Annotated[list[str] | None, typer.Option("--with", metavar="ID", help="Switch this change on.")] = None,
    without: Annotated[list[str] | None, typer.Option(metavar="ID", help="Switch this change off.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    epoch: Annotated[
        str | None,
        typer.Option(metavar="SECONDS", help="Date at boot, since 1970; 'now' for the host's. [default: 12 Nov 2023]"),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Kill the program after this much virtual time."),
    ] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Add to the environment.")] = None,
    cwd: Annotated[str | None, typer.Option(metavar="DIR", help="Working directory. [default: current]")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check every invariant, and for leaks.")] = False,
    check_every: Annotated[
        int, typer.Option(metavar="N", help="Check every invariant after every N system calls and faults too.")
    ] = 0,
    blocks: Annotated[bool, typer.Option("--blocks", help="Count executed blocks (slower).")] = False,
    events: Annotated[str | None, typer.Option(metavar="FILE", help="Write tracepoints as JSON lines.")] = None,
    event: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Only these tracepoints.")] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the summary as JSON.")] = None,
    summary: Annotated[bool, typer.Option(help="Print a summary on stderr.")] = True,
    show: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Print this file of the twin's /proc at the end, on stderr."),
    ] = None,
) -> int:
    from memtwin.cpu.loop import Program
    from memtwin.events import JsonLines
    from memtwin.machine import Machine
    from memtwin.report.summary import Summary, end_of

    if timeout is not None and timeout <= 0:
        raise BadInput(f"--timeout {timeout}: must be positive")
    if event and events is None:
        raise BadInput("--event chooses what --events FILE writes: give both")
    environment, boot = _environment(env or []), _epoch(epoch)
    try:
        where = os.path.abspath(cwd if cwd is not None else os.getcwd())
    except OSError as error:
        raise BadInput(f"no working directory: {error.strerror}") from None
    with ExitStack() as stack:
        machine = stack.enter_context(
            Machine(memory, cpus, nodes, kernel=kernel, with_=with_ or (), without=without or (), seed=seed)
        )
        for line in machine.kernel.features.notes:
            note(line)
        if events is not None:
            sink = JsonLines(_open_output(stack, "--events", events))
            for pattern in event or ["*"]:
                machine.kernel.trace.enable(pattern, sink)
        json_file = _open_output(stack, "--json", json) if json is not None else None
        program = Program(
            machine.kernel,
            argv,
            env=environment,
            cwd=where,
            epoch=boot,
            limit_ns=int(timeout * 1e9) if timeout is not None else None,
            count_blocks=blocks or timeout is not None,
            check_every=check_every,
        )
        report = Summary(program)
        shown = _Shown(program, show or [])
        status = _run(program, stack)
        if check or check_every:
            _check(machine)
        end = end_of(program)
        if end is not None:
            note(end)
        shown.print()
        if summary:
            print(report.text(), end="", file=sys.stderr)
        if json_file is not None:
            json_.dump({"schema": "memtwin.run/1", **report.document()}, json_file, indent=2, ensure_ascii=False)
            json_file.write("\n")
    return status


def _run(program: Program, stack: ExitStack) -> int:
    sys.stdout.flush()
    try:
        with _interruptible(program.cpu):
            return program.run()
    except InvariantBroken:
        raise
    except MemtwinError as error:
        for line in program.kernel.log:
            note(line)
        error.exit_status = _OWN_FAILURE
        raise


def _check(machine: Machine) -> None:
    machine.kernel.check()
    machine.kernel.check_no_leak()
