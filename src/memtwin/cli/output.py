# SPDX-License-Identifier: GPL-2.0-or-later
"""What all commands print alike: JSON documents, notes on stderr, plain tables, and colour where it is wanted."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

__all__ = ["colour", "markdown_table", "new_app", "note", "print_json", "table"]


def new_app(help_: str) -> typer.Typer:
    """A typer app with the settings of all commands: plain help, no completion options, no own tracebacks."""
    import typer

    return typer.Typer(
        help=help_,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def note(text: str) -> None:
    """One line for the user on stderr; line breaks in ``text`` become blanks."""
    print("memtwin:", " ".join(text.split("\n")), file=sys.stderr)


def print_json(name: str, document: Mapping[str, Any]) -> None:
    """Print one document with ``"schema": "memtwin.NAME/1"`` on stdout."""
    print(json.dumps({"schema": f"memtwin.{name}/1", **document}, indent=2, ensure_ascii=False))


def table(rows: Iterable[Sequence[str]], *, gap: int = 2) -> str:
    """Left-aligned columns as wide as needed; the last one is not padded."""
    rows = list(rows)
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("".join(cell.ljust(width + gap) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; '|' in cells is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def colour(text: str, code: str) -> str:
    """``text`` in an ANSI colour ("32" green, "31" red) if stdout is a terminal and NO_COLOR is not set."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{code}m{text}\x1b[0m" if wanted else text
