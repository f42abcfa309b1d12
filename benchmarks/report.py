# SPDX-License-Identifier: GPL-2.0-or-later
"""How results are told: plain tables for a reader, one JSON document (schema ``memtwin.bench/1``) for a program."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

import memtwin
from benchmarks.harness import Result, Spread
from memtwin.cli.output import markdown_table

__all__ = ["document", "environment", "figure", "heading", "lines", "markdown", "row"]

_PREFIXES = ((1e9, " G"), (1e6, " M"), (1e3, " k"))


def figure(value: float, unit: str) -> str:
    """Three significant digits, rates with a prefix: "1.23 M pages/s", "4.56 ms"."""
    if unit.endswith("/s"):
        for factor, prefix in _PREFIXES:
            if value >= factor:
                return f"{_digits(value / factor)}{prefix} {unit}"
    return f"{_digits(value)} {unit}"


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _ratio(ratio: Spread | None) -> str:
    return f"{_digits(ratio.median)} ({_digits(ratio.min)}-{_digits(ratio.max)})" if ratio else "-"


def _promise(result: Result) -> str:
    if result.holds is None:
        return ""
    least, most = result.case.least, result.case.most
    wanted = f">= {least:g}" if least is not None else f"<= {most:g} {result.case.unit}"
    return wanted if result.holds else f"{wanted} MISSED"


HEAD = ("what", "twin", "peer", "ratio (min-max)", "promised", "the peer does")


def row(result: Result) -> tuple[str, ...]:
    """The cells of one line, as HEAD names them."""
    unit = result.case.unit
    return (
        result.case.name,
        figure(result.twin.median, unit) if result.twin else "-",
        figure(result.peer.median, unit) if result.peer else "-",
        _ratio(result.ratio),
        _promise(result),
        result.reason or result.case.peer_name,
    )


def lines(results: Iterable[Result]) -> list[str]:
    """An aligned plain-text table."""
    rows = [HEAD, *(row(result) for result in results)]
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows]


def markdown(results: Iterable[Result]) -> list[str]:
    """The same as a Markdown table, for docs/benchmarks.md."""
    return markdown_table(HEAD, map(row, results)).splitlines()


def environment(rounds: int, quick: bool, cpu: int | None) -> dict[str, Any]:
    """Where and how the figures were taken."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "pinned_to_cpu": cpu,
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "memtwin": memtwin.__version__,
        "compiled": memtwin.compiled(),
        "rounds": rounds,
        "quick": quick,
    }


def heading(env: dict[str, Any]) -> str:
    """One line on the environment."""
    where = f"both sides on CPU {env['pinned_to_cpu']}" if env["pinned_to_cpu"] is not None else "not pinned"
    return (
        f"{env['kernel']}, {env['cpus']} CPUs, {where}; Python {env['python']}, NumPy {env['numpy']}; "
        f"memtwin {'compiled' if env['compiled'] else 'interpreted'}; "
        f"{env['date']}, {env['rounds']} rounds" + (", quick" if env["quick"] else "")
    )


def _spread(spread: Spread | None) -> dict[str, float] | None:
    return {"median": spread.median, "min": spread.min, "max": spread.max} if spread else None


def document(env: dict[str, Any], tables: dict[str, tuple[str, list[Result]]]) -> dict[str, Any]:
    """The JSON document. ``tables``: title and results by name."""
    return {
        "schema": "memtwin.bench/1",
        "environment": env,
        "tables": [
            {"name": name, "title": title, "cases": [_case(result) for result in results]}
            for name, (title, results) in tables.items()
        ],
    }


def _case(result: Result) -> dict[str, Any]:
    case = result.case
    return {
        "name": case.name,
        "unit": case.unit,
        "better": "lower" if case.lower else "higher",
        "twin": _spread(result.twin),
        "twin_rounds": result.twin_rounds,
        "peer_does": case.peer_name,
        "peer": _spread(result.peer),
        "peer_rounds": result.peer_rounds,
        "ratio": _spread(result.ratio),
        "ratio_at_least": case.least,
        "twin_at_most": case.most,
        "holds": result.holds,
        "reason": result.reason,
    }
