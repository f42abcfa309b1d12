# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark harness itself: interleaving, ratios, missing sides, the live child, the command line. No speed is
asserted.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# benchmarks/ is not installed: it lies beside src.
sys.path.insert(0, str(ROOT))

from benchmarks import child, live, report  # noqa: E402
from benchmarks.harness import Bench, Case, Result, Spread, Unavailable, measure, rate  # noqa: E402
from benchmarks.settings import held_settings  # noqa: E402
from benchmarks.tables import NAMES  # noqa: E402

needs_gcc = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="the live side needs gcc and Linux"
)


def _sides(log: list[str], twin: list[float], peer: list[float]) -> tuple[object, object]:
    """Two sides that say when they are called, and give these figures one after the other."""

    def side(name: str, figures: list[float]) -> object:
        left = iter(figures)

        def call() -> float:
            log.append(name)
            return next(left)

        return call

    return side("twin", twin), side("peer", peer)


def test_rounds_are_interleaved_and_take_turns_in_who_comes_first() -> None:
    log: list[str] = []
    twin, peer = _sides(log, [1.0] * 4, [1.0] * 4)
    list(measure([Case("a", "pages/s", twin, peer, "p")], rounds=3))
    assert log == ["peer", "twin", "twin", "peer", "peer", "twin", "twin", "peer"]


def test_cases_of_a_round_run_one_after_the_other() -> None:
    log: list[str] = []

    def case(name: str) -> Case:
        return Case(name, "pages/s", lambda: log.append(name) or 1.0, None, "no peer")

    list(measure([case("a"), case("b")], rounds=2))
    assert log == ["a", "b", "a", "b", "a", "b"]


def test_the_warm_up_round_does_not_count_and_the_ratio_is_the_median_of_ratios() -> None:
    twin, peer = _sides([], [900.0, 10.0, 40.0, 90.0], [1.0, 10.0, 20.0, 30.0])
    (result,) = measure([Case("a", "pages/s", twin, peer, "p")], rounds=3)
    assert result.twin_rounds == [10.0, 40.0, 90.0]
    assert result.twin == Spread(40.0, 10.0, 90.0)
    assert result.peer == Spread(20.0, 10.0, 30.0)
    assert result.ratio == Spread(2.0, 1.0, 3.0)


def test_for_costs_the_ratio_is_turned_round() -> None:
    twin, peer = _sides([], [0.0, 4.0], [0.0, 2.0])
    (result,) = measure([Case("a", "s", twin, peer, "p", lower=True)], rounds=1)
    assert result.ratio == Spread(0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("least", "most", "holds"),
    [
        (None, None, None),
        (2.0, None, True),
        (2.1, None, False),
        (None, 4.0, True),
        (None, 3.9, False),
        (2.0, 3.0, False),
    ],
)
def test_promises(least: float | None, most: float | None, holds: bool | None) -> None:
    case = Case("a", "pages/s", lambda: 0.0, lambda: 0.0, "p", least=least, most=most)
    assert Result(case, [4.0, 4.0], [2.0, 2.0]).holds is holds


def test_a_promise_against_a_missing_peer_is_neither_kept_nor_missed() -> None:
    case = Case("a", "pages/s", lambda: 4.0, None, "no peer", least=2.0)
    assert Result(case, [4.0]).holds is None


def test_an_unavailable_peer_leaves_the_twin_and_tells_the_reason() -> None:
    asked = 0

    def peer() -> float:
        nonlocal asked
        asked += 1
        raise Unavailable("gcc is not installed")

    (result,) = measure([Case("a", "pages/s", lambda: 5.0, peer, "p")], rounds=2)
    assert (result.twin_rounds, result.peer, result.ratio) == ([5.0, 5.0], None, None)
    assert result.reason == "gcc is not installed"
    assert asked == 1


def test_an_unavailable_twin_leaves_no_figures() -> None:
    def twin() -> float:
        raise Unavailable("not modelled yet")

    (result,) = measure([Case("a", "pages/s", twin, lambda: 1.0, "p")], rounds=2)
    assert (result.twin, result.ratio, result.reason) == (None, None, "not modelled yet")
    assert result.peer_rounds == [1.0, 1.0]


def test_a_case_may_ask_for_fewer_rounds() -> None:
    cases = [Case("a", "MB", lambda: 1.0, None, "no peer", rounds=1), Case("b", "ms", lambda: 1.0, None, "no peer")]
    results = list(measure(cases, rounds=4))
    assert [len(result.twin_rounds) for result in results] == [1, 4]


def test_rate_counts_units_per_second() -> None:
    assert 500 < rate(100, lambda: time.sleep(0.1)) <= 1000


def test_figures_keep_three_digits() -> None:
    told = [
        report.figure(value, unit)
        for value, unit in ((1_234_567, "pages/s"), (45_600, "p/s"), (12, "p/s"), (0.0123, "s"), (4168, "bytes/page"))
    ]
    assert told == ["1.23 M pages/s", "45.6 k p/s", "12.0 p/s", "0.012 s", "4,168 bytes/page"]


def test_rows_name_a_missed_promise_and_a_missing_peer() -> None:
    good = Result(Case("a", "pages/s", lambda: 1.0, lambda: 1.0, "munmap", least=3.0), [8.0], [2.0])
    bad = Result(Case("b", "ms", lambda: 1.0, None, "no peer", lower=True, most=2.0), [2.5], reason="no peer")
    assert report.row(good) == ("a", "8.00 pages/s", "2.00 pages/s", "4.00 (4.00-4.00)", ">= 3", "munmap")
    assert report.row(bad) == ("b", "2.50 ms", "-", "-", "<= 2 ms MISSED", "no peer")
    head, first, second = report.lines([good, bad])
    assert head.index("ratio") == first.index("4.00 (") == second.index("-                 <= 2 ms")


def test_the_document_holds_every_round() -> None:
    result = Result(Case("a", "pages/s", lambda: 1.0, lambda: 1.0, "munmap", least=3.0), [8.0, 4.0], [2.0, 2.0])
    document = report.document(report.environment(2, True, None), {"t": ("Title", [result])})
    assert document["schema"] == "memtwin.bench/1"
    assert {"kernel", "python", "cpus", "pinned_to_cpu", "rounds", "quick", "date"} <= set(document["environment"])
    (case,) = document["tables"][0]["cases"]
    assert case["twin_rounds"] == [8.0, 4.0]
    assert case["ratio"] == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert (case["ratio_at_least"], case["holds"]) == (3.0, True)
    json.dumps(document)


# -- the live child


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live.compile_peer("mm", tmp_path_factory.mktemp("peers"), "-Werror")


@pytest.fixture
def kernel(peer: Path) -> Iterator[live.Live]:
    child = live.Live(lambda: [str(peer)])
    yield child
    child.close()


@needs_gcc
@pytest.mark.parametrize(
    "command", ["write", "read", "recycle", "populate", "zap", "cycle", "map", "protect", "find"], ids=str
)
def test_every_command_answers_with_its_units(kernel: live.Live, command: str) -> None:
    kernel.ask("areas 10")
    try:
        units, passed = kernel.ask(f"{command} 300")
    except Unavailable as why:
        pytest.skip(str(why))
    assert units == 300
    assert passed > 0
    assert kernel.rate(command, 300)() > 0


@needs_gcc
@pytest.mark.parametrize(
    "command", ["hwrite", "hread", "hcow", "hfork", "hzap", "hdontneed", "hrights", "hsplit", "hcollapse"]
)
def test_commands_on_huge_pages_answer_with_their_units(kernel: live.Live, command: str) -> None:
    try:
        with held_settings():
            units, passed = kernel.ask(f"{command} 4")
    except Unavailable as why:
        pytest.skip(str(why))
    assert units == 4
    assert passed > 0


@needs_gcc
def test_areas_are_made_once_and_can_be_exchanged(kernel: live.Live) -> None:
    for count in (10, 10, 50, 3):
        assert kernel.ask(f"areas {count}") == (count, 0)
        assert kernel.ask("protect 100")[0] == 100


@needs_gcc
@pytest.mark.parametrize("command", ["dance 3", "write", "write -1", ""])
def test_a_bad_command_is_told_and_the_child_lives_on(kernel: live.Live, command: str) -> None:
    with pytest.raises(Unavailable, match=r"unknown command|malformed line"):
        kernel.ask(command)
    assert kernel.ask("write 10")[0] == 10


def test_a_child_that_dies_is_not_asked_again() -> None:
    starts = 0

    def start() -> list[str]:
        nonlocal starts
        starts += 1
        return [sys.executable, "-c", "input(); raise SystemExit(7)"]

    dying = live.Live(start)
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"the live side ended at 'write 1' with status 7|Broken pipe"):
            dying.ask("write 1")
    assert starts == 1
    dying.close()


def test_without_gcc_there_is_one_clear_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.shutil, "which", lambda name: None)
    monkeypatch.setattr(live.platform, "system", lambda: "Linux")
    lonely = live.Live(lambda: [str(live.compile_peer("mm", tmp_path))])
    with pytest.raises(Unavailable, match=r"^gcc is not installed$"):
        lonely.ask("write 1")
    lonely.close()


def test_elsewhere_than_on_linux_there_is_a_reason_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.platform, "system", lambda: "Plan9")
    with pytest.raises(Unavailable, match="needs Linux, not Plan9"):
        live.compile_peer("mm", tmp_path)


@needs_gcc
def test_a_peer_that_does_not_compile_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"gcc can not compile mm\.c: .+"):
        live.compile_peer("mm", tmp_path, "-no-such-option")


@needs_gcc
def test_the_fault_program_prints_its_sum(tmp_path: Path) -> None:
    program = live.compile_peer("faults", tmp_path, "-Werror")
    for pages in (0, 1, 1024, 2500):
        done = subprocess.run([program, str(pages)], capture_output=True, text=True, check=True)
        assert int(done.stdout) == pages * (pages + 1) // 2


# -- settings of the live kernel, in files that look like them


WANTED = {"enabled": "madvise", "use_zero_page": "1"}


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    folder = tmp_path / "thp"
    folder.mkdir()
    (folder / "enabled").write_text("always madvise [never]\n")
    (folder / "use_zero_page").write_text("1\n")
    return folder


def _held(folder: Path) -> bool:
    """Whether somebody holds the lock exclusively."""
    with open(folder.parent / "lock", "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_settings_are_set_under_the_lock_and_put_back(settings: Path) -> None:
    with pytest.raises(ZeroDivisionError), held_settings(settings, WANTED, settings.parent / "lock"):
        assert (settings / "enabled").read_text() == "madvise"
        assert (settings / "use_zero_page").read_text() == "1\n"
        assert _held(settings)
        raise ZeroDivisionError
    assert (settings / "enabled").read_text() == "never\n"
    assert not _held(settings)


def test_settings_that_fit_are_left_alone_and_others_may_look(settings: Path) -> None:
    with held_settings(settings, {"enabled": "never"}, settings.parent / "lock"):
        assert (settings / "enabled").read_text() == "always madvise [never]\n"
        assert not _held(settings)


def test_settings_are_put_back_when_the_process_is_killed(settings: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from benchmarks.settings import held_settings\n"
        f"with held_settings(Path({str(settings)!r}), {WANTED!r}, Path({str(settings.parent / 'lock')!r})):\n"
        f"    print(Path({str(settings / 'enabled')!r}).read_text(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("madvise\n", -signal.SIGKILL)
    with open(settings.parent / "lock", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # held until all is as it was
    assert (settings / "enabled").read_text() == "never\n"


def test_settings_that_are_missing_or_refused_are_told(settings: Path) -> None:
    lock = settings.parent / "lock"
    with (
        pytest.raises(Unavailable, match="without transparent huge pages"),
        held_settings(settings / "no", WANTED, lock),
    ):
        pytest.fail("there is nothing to set")
    (settings / "scan").mkdir()
    with pytest.raises(Unavailable), held_settings(settings, {"scan": "1"}, lock):
        pytest.fail("a folder is no setting")
    assert not _held(settings)


# -- tables


@pytest.mark.parametrize("name", NAMES)
def test_every_table_gives_cases_that_say_what_they_compare(name: str, tmp_path: Path, peer: Path) -> None:
    table = importlib.import_module(f"benchmarks.tables.{name}")
    assert table.TITLE
    assert len(table.NOTE) > 40
    kernel = live.Live(lambda: [str(peer)])
    bench = Bench(kernel, tmp_path, quick=True)
    with bench.stack:
        cases = list(table.cases(bench))
    kernel.close()
    assert cases
    assert all(case.name and case.unit and case.peer_name for case in cases)
    assert len({(case.name, case.unit, case.peer_name) for case in cases}) == len(cases)


def test_memory_of_a_page_is_measured_in_a_process_of_its_own() -> None:
    assert 0 < child.grown("populate", 20_000) / 20_000 < 4096
    with pytest.raises(RuntimeError, match="boot rhubarb"):
        child.grown("boot", "rhubarb")


# -- the command line: processes of their own, which take a second or so


def _bench(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks/bench.py", *args],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_one_table_as_text_and_as_a_document(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    done = _bench("--only", "command_line", "--quick", "--rounds", "1", "--json", str(out), TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "Command line [command_line]" in done.stdout
    document = json.loads(out.read_text())
    assert [table["name"] for table in document["tables"]] == ["command_line"]
    assert document["environment"]["rounds"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


def test_a_document_on_stdout_has_stdout_for_itself() -> None:
    done = _bench("--only", "command_line", "--quick", "--rounds", "1", "--json", "-", "--no-pin")
    assert json.loads(done.stdout)["environment"]["pinned_to_cpu"] is None
    assert "Command line [command_line]" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--only", "everything"], "invalid choice: 'everything'"),
        (["--rounds", "0"], "'0' is not a positive number"),
        (["--cpu", "9999"], "CPU 9999 is not among those allowed here"),
        (["--json", "/nowhere/at/all.json"], "/nowhere/at/all.json"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_input_is_one_line_and_2(args: list[str], said: str) -> None:
    done = _bench(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr.splitlines()[-1]
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupting_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, status: int) -> None:
    running = subprocess.Popen(
        [sys.executable, ROOT / "benchmarks/bench.py", "--only", "first_touch", "--rounds", "500"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    wanted = "memtwin-bench-*/mm" if shutil.which("gcc") else "memtwin-bench-*"
    while not list(tmp_path.glob(wanted)) and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.02)
    time.sleep(0.2)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode == status
    assert err == ("benchmarks: interrupted\n" if number == signal.SIGINT else "")
    assert list(tmp_path.iterdir()) == []
