# SPDX-License-Identifier: GPL-2.0-or-later
"""``memtwin verify``: random programs on the live kernel and on the twin, compared, and made small where they part."""

from __future__ import annotations

import json as json_
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memtwin.cli.output import colour, new_app, note, print_json, table
from memtwin.errors import BadInput, NotModelled

if TYPE_CHECKING:
    from memtwin.verify.campaign import Campaign, Case, Report
    from memtwin.verify.hunt import Catch

app = new_app("Compare the twin with the kernel that runs here, by random programs.")


def _answer(answer: dict[str, Any] | None) -> str:
    return "(none)" if answer is None else json_.dumps(answer, ensure_ascii=False)


def _command(campaign: Campaign, number: int) -> str:
    if campaign.texts:
        return f"memtwin verify FILE --only {number}"
    switches = [f"--with {id_}" for id_ in campaign.with_] + [f"--without {id_}" for id_ in campaign.without]
    kernel = [] if campaign.kernel == "host" else [f"--kernel {campaign.kernel}"]
    words = [f"memtwin verify --profile {campaign.profile} --seed {campaign.seed} --only {number}", *kernel, *switches]
    return " ".join(words)


def _case_text(campaign: Campaign, key: str, cases: list[Case], small: Case, saved: str | None) -> str:
    lines = [
        f"{colour('DIFFERS', '31')}  {key}  ({len(cases)} programs, first {cases[0].number})",
        *(f"    {line}" for line in small.lines),
        f"  line   {small.line}",
        f"  live   {_answer(small.difference.live)}",
        f"  twin   {_answer(small.difference.twin)}",
        f"  again  {_command(campaign, cases[0].number)}",
    ]
    if saved is not None:
        lines.append(f"         memtwin verify {saved}")
    return "\n".join(lines)


def _save(directory: str, campaign: Campaign, key: str, small: Case) -> str:
    path = Path(directory) / f"{campaign.profile}-{campaign.seed}-{small.number}.mmo"
    text = [
        f"# {key}",
        f"# line  {small.line}",
        f"# live  {_answer(small.difference.live)}",
        f"# twin  {_answer(small.difference.twin)}",
        *small.lines,
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(text) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--save {directory}: {error.strerror}") from None
    return str(path)


def _case_document(campaign: Campaign, key: str, cases: list[Case], small: Case) -> dict[str, Any]:
    return {
        "kind": key,
        "programs": len(cases),
        "first": cases[0].number,
        "lines": list(small.lines),
        "line": small.line,
        "live": small.difference.live,
        "twin": small.difference.twin,
        "again": _command(campaign, cases[0].number),
    }


def _coverage_text(report: Report, profile: str) -> str:
    from memtwin.verify.cells import cells
    from memtwin.verify.coverage import SITUATIONS

    rows: list[tuple[str, ...]] = [("operation", "result", *SITUATIONS)]
    for op, result, counts in report.coverage.rows():
        rows.append((op, result, *(str(counts.get(where, ".")) for where in SITUATIONS)))
    empty = report.coverage.empty(cells(profile))
    names = [f"{op} -> {result} ({where})" for op, result, where in empty]
    more = f", and {len(names) - 40} more" if len(names) > 40 else ""
    text = f"not reached: {', '.join(names[:40])}{more}" if names else "every cell that can be reached was"
    return f"{table(rows)}\n\n{text}"


def _summary(campaign: Campaign, report: Report) -> str:
    dropped = [f"{report.unstable} unstable", f"{report.lost} lost"]
    if report.undecided:
        dropped.append(f"{report.undecided} left out: what this kernel does there is undecided")
    dropped += [f"{count} not run: {why}" for why, count in report.skipped.items() if count]
    if report.unmodelled:
        dropped += [f"{count} ended at {op}, not modelled" for op, count in report.unmodelled.most_common()]
    what = "scripts" if campaign.texts else f"{campaign.profile}, seed {campaign.seed}"
    return (
        f"{what}: {report.programs} programs, {report.lines} lines compared, "
        f"{len(report.cases)} differences ({', '.join(dropped)})"
    )


def _read(paths: list[str]) -> tuple[tuple[str, ...], ...]:
    """The scripts in files, as programs. Raises BadInput."""
    from memtwin.script.grammar import split, strip_comment

    programs: list[list[str]] = []
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror}") from None
        programs.append([])
        for raw in text.splitlines():
            words = split(strip_comment(raw))
            if words[:1] == ["script"]:
                programs.append([])
            elif words:
                programs[-1].append(" ".join(words))
    found = tuple(tuple(program) for program in programs if program)
    if not found:
        raise BadInput(f"{paths[0]}: no script in it")
    return found


class _Progress:
    """One line on stderr that is rewritten, on a terminal only."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._on = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def __call__(self, report: Report) -> None:
        if self._on:
            text = f"{report.programs}/{self._total} programs, {len(report.cases)} differences"
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the line away."""
        if self._on:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _catch_row(catch: Catch) -> tuple[str, ...]:
    if catch.stale is not None:
        return colour("STALE", "31"), catch.mutation.name, "", catch.stale
    if catch.after is None:
        return colour("SURVIVES", "31"), catch.mutation.name, "", catch.mutation.text
    return colour("caught", "32"), catch.mutation.name, f"after {catch.after}", f"{catch.mutation.text} ({catch.how})"


def _mutate(campaign: Campaign, name: str, jobs: int, json: bool) -> int:
    from memtwin.verify.hunt import hunt
    from memtwin.verify.mutations import lookup

    catches = list(hunt(campaign, lookup(name), jobs))
    survivors = [catch for catch in catches if catch.after is None]
    if json:
        rows = [
            {
                "name": catch.mutation.name,
                "text": catch.mutation.text,
                "after": catch.after,
                "how": catch.how,
                "stale": catch.stale,
            }
            for catch in catches
        ]
        document = {"profile": campaign.profile, "seed": campaign.seed, "programs": campaign.programs}
        print_json("verify", {**document, "mutations": rows, "survivors": len(survivors)})
    else:
        print(table([_catch_row(catch) for catch in catches]))
        print(f"{len(catches) - len(survivors)} of {len(catches)} caught within {campaign.programs} programs")
    return 1 if survivors else 0


def _status(report: Report) -> int:
    if report.cases:
        return 1
    return NotModelled.exit_status if report.unmodelled else 0


@app.command(help="Exit status: 0 no difference, 1 differences, 2 bad input, 3 not modelled yet.")
def verify(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]...", help="Scripts to compare instead of random programs.")
    ] = None,
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="What programs are about: vma, mremap, mlock, fork, fault, madvise.")
    ] = "vma",
    programs: Annotated[int, typer.Option(metavar="N", min=1, help="How many programs.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the programs.")] = 0,
    only: Annotated[int | None, typer.Option(metavar="N", min=0, help="Only program N.")] = None,
    first: Annotated[int, typer.Option(metavar="N", min=0, help="Begin with program N.")] = 0,
    jobs: Annotated[int, typer.Option(metavar="J", min=1, help="Worker processes; the result is the same.")] = 1,
    kernel: Annotated[str, typer.Option(help="What the twin is: host, or another profile.")] = "host",
    with_: Annotated[list[str] | None, typer.Option("--with", metavar="ID", help="Switch this change on.")] = None,
    without: Annotated[list[str] | None, typer.Option(metavar="ID", help="Switch this change off.")] = None,
    show: Annotated[int, typer.Option(metavar="K", min=0, help="Make the first of the K largest groups small.")] = 8,
    mutate: Annotated[
        str | None, typer.Option(metavar="NAME", help="Break this rule of the twin (or all, in turn): is it noticed?")
    ] = None,
    save: Annotated[str | None, typer.Option(metavar="DIR", help="Save the small programs there.")] = None,
    coverage: Annotated[bool, typer.Option(help="Print what was reached.")] = True,
    print_: Annotated[bool, typer.Option("--print", help="Print the programs and run nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    from memtwin.changes import resolve
    from memtwin.verify.campaign import Campaign, minimal, run
    from memtwin.verify.generate import program
    from memtwin.verify.profiles import profile as find_profile

    found = find_profile(profile)
    texts = _read(files) if files else ()
    if texts:
        programs = min(programs, len(texts) - first)
    if only is not None:
        first, programs = only, 1
    if texts and first + programs > len(texts):
        raise BadInput(f"there are only {len(texts)} scripts")
    if print_:
        for number in range(first, first + programs):
            print("\n".join((f"script {profile}-{seed}-{number}", *program(found, seed, number))))
        return 0
    for line in resolve(kernel, with_=with_ or (), without=without or ()).notes:
        note(line)
    campaign = Campaign(profile, seed, programs, first, kernel, tuple(with_ or ()), tuple(without or ()), texts=texts)
    if mutate is not None:
        return _mutate(campaign, mutate, jobs, json)
    progress = _Progress(programs)
    try:
        report = run(campaign, jobs, progress)
    finally:
        progress.end()
    smalls = [(key, cases, minimal(campaign, cases[0])) for key, cases in list(report.groups().items())[:show]]
    saved = [_save(save, campaign, key, small) if save else None for key, _, small in smalls]
    if json:
        from memtwin.verify.cells import cells

        document = {
            "profile": profile,
            "seed": seed,
            "first": first,
            "kernel": kernel,
            "programs": report.programs,
            "lines": report.lines,
            "unstable": report.unstable,
            "lost": report.lost,
            "undecided": report.undecided,
            "skipped": {why: count for why, count in report.skipped.items() if count},
            "unmodelled": dict(sorted(report.unmodelled.items())),
            "differences": len(report.cases),
            "groups": {key: len(cases) for key, cases in report.groups().items()},
            "cases": [_case_document(campaign, *found) for found in smalls],
            "not_reached": [list(cell) for cell in report.coverage.empty(cells(profile))],
            "coverage": [
                {"operation": op, "result": result, "situations": counts}
                for op, result, counts in report.coverage.rows()
            ],
        }
        print_json("verify", document)
        return _status(report)
    if coverage:
        print(_coverage_text(report, profile), end="\n\n")
    for (key, cases, small), path in zip(smalls, saved, strict=True):
        print(_case_text(campaign, key, cases, small, path), end="\n\n")
    others = list(report.groups().items())[show:]
    for key, cases in others:
        print(f"{colour('DIFFERS', '31')}  {key}  ({len(cases)} programs, first {cases[0].number})")
    print(_summary(campaign, report))
    return _status(report)
