#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: ``python -m benchmarks`` or ``python benchmarks/bench.py`` (``make bench``).

It measures the checkout it lies in, whatever else is installed; with --compiled the package that was built there.
Exit status: 0 fine; 1 with --check when a promise is missed; 2 bad input; 130 interrupted. Nothing is left behind: the
children end and the temporary directory goes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
for place in (ROOT, ROOT / "src"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))
if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT / "benchmarks"]

if TYPE_CHECKING:
    from benchmarks.harness import Result
    from benchmarks.live import Live


class _Parser(argparse.ArgumentParser):
    """Tells an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"benchmarks: {message}\n")


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m benchmarks",
        description="Measure the twin against the kernel that runs here.",
        allow_abbrev=False,
    )
    parser.add_argument("--only", metavar="NAME", action="append", choices=names, help=f"a table: {', '.join(names)}")
    parser.add_argument("--compiled", metavar="DIR", help="measure the package built in DIR (make compiled), not src")
    parser.add_argument("--rounds", type=_positive, help="rounds to count (default 7, quick 2)")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: does it work, not how fast")
    parser.add_argument("--json", metavar="FILE", help="write one JSON document; - is stdout, tables then on stderr")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables, as docs/benchmarks.md has them")
    parser.add_argument("--cpu", type=int, metavar="N", help="the CPU both sides run on (default: the last allowed)")
    parser.add_argument("--no-pin", action="store_true", help="let both sides run on any CPU")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a promise is missed")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, print; the exit status."""
    from benchmarks.live import Live, compile_peer, pin
    from benchmarks.tables import NAMES

    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    options = _parser(NAMES).parse_args(argv)
    if options.compiled is not None:
        sys.path.insert(0, options.compiled)
    try:
        _find_compiled(options.compiled)
        cpu = None if options.no_pin else pin(options.cpu)
        out = _open(options.json)
    except (OSError, ValueError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    wanted = [name for name in NAMES if not options.only or name in options.only]
    with tempfile.TemporaryDirectory(prefix="memtwin-bench-") as name:
        tmp = Path(name)
        with closing(Live(lambda: [str(compile_peer("mm", tmp))])) as live:
            try:
                kept = _run(wanted, options, cpu, live, tmp, out)
            except KeyboardInterrupt:
                print("benchmarks: interrupted", file=sys.stderr)
                return 130
    return 1 if options.check and not kept else 0


def _find_compiled(package: str | None) -> None:
    """Raises ValueError unless ``package`` holds a compiled memtwin and nothing else was imported before."""
    import memtwin

    if package is not None and not (
        memtwin.compiled() and Path(memtwin.__file__).is_relative_to(Path(package).resolve())
    ):
        raise ValueError(f"{package} holds no compiled memtwin")


def _open(path: str | None) -> IO[str] | None:
    """Opened before the measuring, so that a bad path is told before minutes have passed. Raises OSError."""
    if path is None:
        return None
    return os.fdopen(os.dup(1), "w") if path == "-" else open(path, "w", encoding="utf-8")


def _run(
    names: list[str], options: argparse.Namespace, cpu: int | None, live: Live, tmp: Path, out: IO[str] | None
) -> bool:
    from benchmarks import report
    from benchmarks.harness import Bench, measure

    to = sys.stderr if options.json == "-" else sys.stdout
    rounds = options.rounds or (2 if options.quick else 7)
    env = report.environment(rounds, options.quick, cpu)
    print(report.heading(env), file=to, flush=True)
    lines = report.markdown if options.markdown else report.lines
    tables: dict[str, tuple[str, list[Result]]] = {}
    for name in names:
        table: Any = import_module(f"benchmarks.tables.{name}")
        bench = Bench(live, tmp, options.quick)
        with bench.stack:
            results = list(measure(list(table.cases(bench)), rounds))
        tables[name] = (table.TITLE, results)
        title = f"### {table.TITLE} (`{name}`)\n" if options.markdown else f"{table.TITLE} [{name}]"
        note = f"{table.NOTE}\n" if options.markdown else table.NOTE
        print("", title, note, *lines(results), sep="\n", file=to, flush=True)
    if out is not None:
        with out:
            json.dump(report.document(env, tables), out, indent=2, ensure_ascii=False)
            out.write("\n")
    return all(result.holds is not False for _, results in tables.values() for result in results)


if __name__ == "__main__":
    sys.exit(main())
