# SPDX-License-Identifier: GPL-2.0-or-later
"""``memtwin try ID``: run the experiment of one change, without and with it, and say whether its claims hold."""

from __future__ import annotations

from typing import Annotated

import typer

from memtwin.changes import lookup
from memtwin.cli.output import colour, new_app, print_json, table
from memtwin.errors import NotModelled
from memtwin.experiments import ExperimentResult, find

app = new_app("Show one kernel change: what it looks like before and after, and whether its claims hold.")


def _text(result: ExperimentResult) -> str:
    change = lookup(result.id)
    title = getattr(change, "title", change.summary)
    rows = [("", "before", "after"), *((row.name, row.before, row.after) for row in result.rows)]
    verdicts = (
        f"{colour('holds', '32') if claim.holds else colour('FAILS', '31')}  {claim.text}" for claim in result.claims
    )
    return "\n".join([f"{result.id}: {title}", "", table(rows), "", *verdicts])


@app.command(help="Exit status: 0 all claims hold, 1 one does not, 2 unknown id, 3 not modelled yet.")
def try_(
    id_: Annotated[str, typer.Argument(metavar="ID", help="A change that `memtwin changes` lists.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> int:
    try:
        result = find(id_).run(id_)
    except NotModelled:
        if json:
            print_json("try", {"id": id_, "modelled": False, "rows": [], "claims": [], "holds": None})
        raise
    if json:
        document = {
            "id": result.id,
            "modelled": True,
            "rows": [{"name": row.name, "before": row.before, "after": row.after} for row in result.rows],
            "claims": [{"text": claim.text, "holds": claim.holds} for claim in result.claims],
            "holds": result.holds,
        }
        print_json("try", document)
    else:
        print(_text(result))
    return 0 if result.holds else 1
