# SPDX-License-Identifier: GPL-2.0-or-later
"""``memtwin explain FILE``: run a script and say why its areas are not one, and which rules refused its calls."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memtwin.cli.output import new_app, note, print_json
from memtwin.cli.script import DEFAULT_MEMORY, Kernel, Memory, Seed, With, Without, open_script, verdict
from memtwin.errors import BadInput

if TYPE_CHECKING:
    from memtwin.script.explain import Border, Refusal
    from memtwin.script.run import Script

app = new_app("Say why areas are not one, and which rules refused calls.")


def _inspect(script: Script, proc: str, at: str | None) -> dict[str, Any]:
    """What there is to tell of a script as it stands. Raises BadInput, NotModelled."""
    from memtwin.script.explain import borders
    from memtwin.script.grammar import expression

    address = None
    if at is not None:
        try:
            address = expression(at, script.variable)
        except (ValueError, KeyError):
            raise BadInput(f"--at {at}: neither a number nor an expression such as B+4p or $v") from None
    process = script.processes.get(proc)
    if process is None:
        raise BadInput(f"--proc {proc}: no such process after operation {script.number} of script '{script.name}'")
    return {
        "script": script.name,
        "operations": script.number,
        "borders": borders(process, address),
        "refused": list(script.refusals),
    }


def _border_text(border: Border) -> str:
    if not border.below or not border.above:
        return f"  {border.below or border.above}\n    nothing {'above' if border.below else 'below'} it"
    why = "\n".join(f"    apart: {reason}" for reason in border.reasons) if not border.hole else ""
    return f"  {border.below}\n  {border.above}\n" + (why or f"    apart: {border.hole >> 10} kB between them")


def _refusal_text(refusal: Refusal) -> str:
    return f"  {refusal.i}: {refusal.line}\n    {refusal.err}" + (f": {refusal.reason}" if refusal.reason else "")


def _text(found: dict[str, Any]) -> str:
    lines = [f"script {found['script'] or '(without a name)'}, {found['operations']} operations:"]
    lines += [_border_text(border) for border in found["borders"]]
    if found["refused"]:
        lines += ["refused calls:", *(_refusal_text(refusal) for refusal in found["refused"])]
    return "\n".join(lines)


@app.command(
    help="Run the scripts of FILE (- is standard input) and tell for neighbouring areas why they are not one, and for "
    "every refused call which rule refused it. Exit status as of memtwin script."
)
def explain(
    file: Annotated[str, typer.Argument(metavar="FILE", show_default=False)],
    at: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Only the borders there: a number, B+4p, $v. [default: all]")
    ] = None,
    after: Annotated[
        int | None, typer.Option(metavar="N", help="Look after operation N of a script. [default: at its end]")
    ] = None,
    proc: Annotated[str, typer.Option(metavar="NAME", help="The process to look at.")] = "main",
    script: Annotated[str | None, typer.Option(metavar="NAME", help="Only this script. [default: all]")] = None,
    kernel: Kernel = "6.7",
    with_: With = None,
    without: Without = None,
    memory: Memory = DEFAULT_MEMORY,
    seed: Seed = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    from memtwin.machine import Machine
    from memtwin.script.run import Runner

    new_machine = partial(Machine, memory, kernel=kernel, with_=with_ or (), without=without or (), seed=seed)
    with new_machine() as machine:
        for line in machine.kernel.features.notes:
            note(line)
    found: list[dict[str, Any]] = []

    def look(ended: Script) -> None:
        if after is None and script in (None, ended.name):
            found.append(_inspect(ended, proc, at))

    runner = Runner(new_machine, on_end=look)
    with open_script(file) as source:
        for answer in runner.run(source):
            now = runner.script
            if now is not None and after is not None and answer.get("i") == after and script in (None, now.name):
                found.append(_inspect(now, proc, at))
    if not found:
        name = f" '{script}'" if script is not None else ""
        raise BadInput(f"{file}: no script{name}" + (f" with an operation {after}" if after is not None else ""))
    if json:
        scripts = [
            {**one, **{key: [asdict(entry) for entry in one[key]] for key in ("borders", "refused")}} for one in found
        ]
        print_json("explain", {"scripts": scripts})
    else:
        print("\n\n".join(_text(one) for one in found))
    return verdict([(file, runner)])
