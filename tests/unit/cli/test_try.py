# SPDX-License-Identifier: GPL-2.0-or-later
"""`memtwin try ID`."""

from __future__ import annotations

import json
import sys
import types

import pytest

from memtwin.changes import CHANGES
from memtwin.experiments import Claim, ExperimentResult, Observation, registry

MISSING = next(change.id for change in reversed(CHANGES) if change.id not in registry.MODULES)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> str:
    """An experiment whose second claim does not hold, in place of the one of vma-modify."""

    def run(change_id: str) -> ExperimentResult:
        rows = [Observation("VMAs", "3", "1")]
        return ExperimentResult(change_id, rows, [Claim("fewer VMAs", True), Claim("none at all", False)])

    module = types.ModuleType("memtwin.experiments.failing")
    module.run = run
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(registry.MODULES, "vma-modify", "failing")
    return "vma-modify"


def test_text(cli) -> None:
    ran = cli("try", "mailmap-bartosz-golaszewski")
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith("mailmap-bartosz-golaszewski: map an old address")
    assert lines[2].split() == ["before", "after"]
    assert [line.split()[0] for line in lines[-2:]] == ["holds", "holds"]
    assert "\x1b" not in ran.out, "no colour into a pipe"


def test_json(cli) -> None:
    document = json.loads(cli("try", "mailmap-bartosz-golaszewski", "--json").out)
    assert document["schema"] == "memtwin.try/1"
    assert (document["id"], document["modelled"], document["holds"]) == ("mailmap-bartosz-golaszewski", True, True)
    assert document["rows"][0] == {
        "name": "bgolaszewski <BGolaszewski@BayLibre.com>",
        "before": "bgolaszewski <BGolaszewski@BayLibre.com>",
        "after": "Bartosz Golaszewski <brgl@bgdev.pl>",
    }
    assert all(set(claim) == {"text", "holds"} for claim in document["claims"])


def test_a_claim_that_fails_is_status_1(cli, failing: str) -> None:
    ran = cli("try", failing)
    assert ran.status == 1
    assert ran.out.splitlines()[-1] == "FAILS  none at all"
    ran = cli("try", failing, "--json")
    assert (ran.status, json.loads(ran.out)["holds"]) == (1, False)


def test_not_modelled_is_status_3(cli) -> None:
    ran = cli("try", MISSING)
    assert (ran.status, ran.out, ran.err) == (3, "", f"memtwin: {MISSING}: not modelled yet\n")


def test_not_modelled_is_still_a_json_document(cli) -> None:
    ran = cli("try", MISSING, "--json")
    assert (ran.status, ran.err) == (3, f"memtwin: {MISSING}: not modelled yet\n")
    assert json.loads(ran.out) == {
        "schema": "memtwin.try/1",
        "id": MISSING,
        "modelled": False,
        "rows": [],
        "claims": [],
        "holds": None,
    }


def test_unknown_id_is_status_2(cli) -> None:
    ran = cli("try", "mailmap-oleksij", "--json")
    assert (ran.status, ran.out) == (2, "")
    assert "did you mean mailmap-oleksij-rempel" in ran.err


def test_a_knob_has_no_experiment(cli) -> None:
    assert cli("try", "post-mseal").status == 3


def test_statuses_of_a_process(cli_process) -> None:
    assert cli_process("try", "mailmap-oleksij-rempel").status == 0
    assert cli_process("try", MISSING).status == 3
    assert cli_process("try", "no-such-id").status == 2


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_only_on_a_terminal_that_wants_it(
    cli, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert ("\x1b[32mholds\x1b[0m" in cli("try", "mailmap-oleksij-rempel").out) is coloured
