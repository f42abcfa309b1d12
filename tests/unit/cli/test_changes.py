# SPDX-License-Identifier: GPL-2.0-or-later
"""`memtwin changes` and `memtwin changes show`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from memtwin.changes import CHANGES, KNOBS
from memtwin.experiments import registry


def test_listing_has_every_id(cli) -> None:
    ran = cli("changes")
    assert (ran.status, ran.err) == (0, "")
    words = set(ran.out.split())
    assert {entry.id for entry in (*CHANGES, *KNOBS)} <= words


def test_json_document(cli) -> None:
    ran = cli("changes", "--json")
    document = json.loads(ran.out)
    assert document["schema"] == "memtwin.changes/1"
    assert document["kernel"] == "6.7"
    assert [record["id"] for record in document["changes"]] == [change.id for change in CHANGES]
    assert [record["id"] for record in document["knobs"]] == [knob.id for knob in KNOBS]
    assert all(record["on"] for record in document["changes"])
    assert {record["id"] for record in document["changes"] if record["experiment"]} == set(registry.MODULES)
    assert document["notes"] == []
    modify = document["changes"][1]
    assert modify == {
        "id": "vma-modify",
        "title": "one 'merge, else split' routine for seven call sites",
        "author": "Lorenzo Stoakes",
        "date": "2023-10-11",
        "class": "structure",
        "also": [],
        "subsystem": "vma",
        "series": "Abstract vma_merge() and split_vma() 2/5",
        "release": "6.7",
        "backported": [],
        "needs": [],
        "wants": [],
        "summary": modify["summary"],
        "experiment": "vma-modify" in registry.MODULES,
        "on": True,
    }


def test_a_selection(cli) -> None:
    ran = cli("changes", "--kernel", "before", "--with", "vma-lock-cow-faults", "--with", "post-mseal", "--json")
    document = json.loads(ran.out)
    on = {record["id"] for record in document["changes"] if record["on"]}
    assert on == {"fault-lock-release", "vmf-anon-prepare", "vma-lock-cow-faults"}
    assert {record["id"] for record in document["knobs"] if record["value"] != "off"} == {"post-mseal"}
    ran = cli("changes", "--without", "ksm-smart-scan")
    assert [line.split()[0] for line in ran.out.splitlines() if " ksm-smart-scan " in line] == ["-"]


def test_undecided_knobs_are_marked(cli) -> None:
    listing = cli("changes", "--kernel", "6.10").out
    assert [line.split()[0] for line in listing.splitlines() if " post-map-stack-nohugepage " in line] == ["?"]


def test_notes_of_the_host_profile(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.uname()
    fake = os.uname_result((real.sysname, real.nodename, "99.1.0", real.version, real.machine))
    monkeypatch.setattr(os, "uname", lambda: fake)
    ran = cli("changes", "--kernel", "host", "--json")
    assert ran.status == 0
    assert ran.err.startswith("memtwin: Linux 99.1 is newer than 6.18")
    assert ran.err.count("\n") == 1
    assert len(json.loads(ran.out)["notes"]) == 1


def test_show_a_change(cli) -> None:
    ran = cli("changes", "show", "vma-lock-cow-faults")
    assert (ran.status, ran.err) == (0, "")
    fields = {line.split()[0]: line.split(maxsplit=1)[1] for line in ran.out.split("\n\n")[0].splitlines()}
    assert fields["needs"] == "fault-lock-release, vmf-anon-prepare"
    assert fields["class"] == "perf"
    assert fields["on"] == "yes"
    assert "date" not in fields, "unknown, so it is not shown"


def test_show_a_knob(cli) -> None:
    ran = cli("changes", "show", "post-mmap-thp-align")
    assert "all: 6.7-6.7.3, pmd-multiple: 6.7.3-6.12" in ran.out


@pytest.mark.parametrize("order", [("show", "ksm-smart-scan", "--json"), ("--json", "show", "ksm-smart-scan")])
def test_show_json(cli, order: tuple[str, ...]) -> None:
    document = json.loads(cli("changes", *order).out)
    assert document["schema"] == "memtwin.change/1"
    assert (document["id"], document["date"], document["class"]) == ("ksm-smart-scan", "2023-09-26", "behaviour")


def test_show_json_of_a_knob(cli) -> None:
    document = json.loads(cli("changes", "--kernel", "6.18", "show", "post-mseal", "--json").out)
    assert (document["schema"], document["value"]) == ("memtwin.knob/1", "on")
    assert document["since"] == [{"value": "on", "release": "6.10"}]


def test_markdown_is_for_the_list_only(cli) -> None:
    assert cli("changes", "--markdown", "show", "vma-modify").status == 2


def test_the_page_of_the_documentation_is_up_to_date(cli, root: Path) -> None:
    page = (root / "docs/changes.md").read_text()
    assert page == cli("changes", "--markdown").out, "run `make pages`"
