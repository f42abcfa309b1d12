# SPDX-License-Identifier: GPL-2.0-or-later
"""``memtwin script FILE...``: run scripts of memory operations, one JSON answer line each (docs/script.md)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from memtwin.cli.output import new_app, note, print_json
from memtwin.errors import BadInput, NotModelled

if TYPE_CHECKING:
    from memtwin.script.run import Answer, Runner

app = new_app("Run scripts of memory operations, one answer line each.")

Files = Annotated[
    list[str], typer.Argument(metavar="FILE...", help="Scripts; - is standard input.", show_default=False)
]
Kernel = Annotated[str, typer.Option(help="Profile: before, 6.7, host, or a release such as 6.12.")]
With = Annotated[list[str] | None, typer.Option("--with", metavar="ID", help="Switch this change on.")]
Without = Annotated[list[str] | None, typer.Option(metavar="ID", help="Switch this change off.")]
Memory = Annotated[str, typer.Option(help="Memory of the machine, such as 512M or 24G.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
DEFAULT_MEMORY = "24G"


def open_script(path: str) -> TextIO:
    """A file of scripts, or standard input for "-"; bytes that are no UTF-8 survive. Raises BadInput."""
    try:
        if path == "-":
            return open(0, encoding="utf-8", errors="surrogateescape", newline="\n", closefd=False)
        return open(path, encoding="utf-8", errors="surrogateescape", newline="\n")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None


def verdict(runs: Iterable[tuple[str, Runner]]) -> int:
    """The exit status of runs that have ended, named by their files; says in one line each what went wrong."""
    bad = [(path, *where) for path, runner in runs for where in runner.bad]
    missing: dict[str, int] = {}
    for _, runner in runs:
        for op, count in runner.missing.items():
            missing[op] = missing.get(op, 0) + count
    if missing:
        note(f"not modelled yet: {', '.join(f'{op} ({count})' for op, count in sorted(missing.items()))}")
    if bad:
        path, number, error = bad[0]
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        note(f"{path}:{number}: {error}{more}")
        return BadInput.exit_status
    return NotModelled.exit_status if missing else 0


@app.command(
    help="Run the scripts of FILE, each on a machine of its own. Exit status: 0 all answered, 2 a line was not "
    "understood, 3 an operation is not modelled yet."
)
def script(
    files: Files,
    kernel: Kernel = "6.7",
    with_: With = None,
    without: Without = None,
    explain: Annotated[bool, typer.Option("--explain", help="Add the reasons to the answers.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of lines.")] = False,
    memory: Memory = DEFAULT_MEMORY,
    seed: Seed = 0,
    check: Annotated[bool, typer.Option("--check", help="Check every invariant after every operation.")] = False,
) -> int:
    from memtwin.machine import Machine
    from memtwin.script.answers import json_line
    from memtwin.script.run import Runner, environment

    new_machine = partial(Machine, memory, kernel=kernel, with_=with_ or (), without=without or (), seed=seed)
    runs: list[tuple[str, Runner]] = []
    answers: list[Answer] = []
    with ExitStack() as stack:
        sources = [stack.enter_context(open_script(path)) for path in files]
        with new_machine() as machine:  # tells wrong options before anything runs
            env = environment(machine)
            for line in machine.kernel.features.notes:
                note(line)
        if not json:
            print(json_line(env))
        for path, source in zip(files, sources, strict=True):
            runner = Runner(new_machine, explain=explain, check=check)
            runs.append((path, runner))
            for answer in runner.run(source):
                if json:
                    answers.append(answer)
                else:
                    print(json_line(answer), flush=path == "-")
    if json:
        print_json("script", {**env, "answers": answers})
    return verdict(runs)
