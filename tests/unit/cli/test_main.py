# SPDX-License-Identifier: GPL-2.0-or-later
"""The command table, exit statuses, and what errors look like outside."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import types

import pytest
import typer

from memtwin import __version__, compiled
from memtwin.cli import main as cli_main
from memtwin.cli.output import new_app
from memtwin.errors import BadInput, Deadlock, InvariantBroken, NotModelled

VERSION = f"memtwin {__version__}{' (compiled)' if compiled() else ''}\n"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch):
    """Adds a command `broken` to the table whose function raises what it is told to; or returns it, if a number."""
    outcome: list[object] = [0]
    module = types.ModuleType("memtwin.cli.broken")
    module.app = new_app("Raise something.")

    @module.app.command()
    def run(option: str = "") -> int:
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    monkeypatch.setitem(sys.modules, "memtwin.cli.broken", module)
    monkeypatch.setattr(cli_main.Command, "exists", lambda self: True)
    monkeypatch.setattr(cli_main, "COMMANDS", (cli_main.Command("broken", "memtwin.cli.broken", "break"),))

    def tell(what: object) -> None:
        outcome[0] = what

    return tell


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(cli, option: str) -> None:
    ran = cli(option)
    assert ran.status == 0
    assert ran.err == ""
    assert ran.out.startswith("Usage: memtwin")
    for name in ("try", "changes", "coverage"):
        assert f"\n  {name} " in ran.out


def test_help_lists_only_what_is_there(cli) -> None:
    out = cli("--help").out
    for command in cli_main.COMMANDS:
        assert (f"\n  {command.name} " in out) == command.exists()


@pytest.mark.parametrize("command", [c.name for c in cli_main.COMMANDS if c.exists()])
def test_help_of_each_command(cli, command: str) -> None:
    ran = cli(command, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: memtwin {command}")


def test_version(cli) -> None:
    assert cli("--version") == type(cli("--version"))(0, VERSION, "")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ([], "memtwin: no command given (try 'memtwin --help')"),
        (["--bogus"], "memtwin: no such option: --bogus (try 'memtwin --help')"),
        (["chanegs"], "memtwin: no such command: chanegs (did you mean changes?)"),
        (["xyzzy"], "memtwin: no such command: xyzzy (try 'memtwin --help')"),
        (["try"], "memtwin: try: missing argument 'ID' (try 'memtwin try --help')"),
        (["try", "vma-modfy"], "memtwin: unknown change 'vma-modfy': did you mean vma-modify?"),
        (["changes", "shw"], None),
        (["changes", "show"], None),
        (["changes", "show", "a\nb"], None),
        (["changes", "--kernel"], None),
        (["changes", "--kernel", "5"], None),
        (["changes", "--with", "nothing"], None),
        (["changes", "--jsn"], None),
        (["changes", "--json=1"], None),
        (["try", "vma-modify", "ksm-smart-scan"], None),
        (["coverage", "surplus"], None),
    ],
)
def test_bad_input_is_one_line_and_status_2(cli, args: list[str], line: str | None) -> None:
    ran = cli(*args)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("memtwin: ")
    if line is not None:
        assert ran.err == line + "\n"


def test_a_planned_command_is_not_modelled_yet(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = cli_main.Command("later", "memtwin.cli.surely_not_there", "comes later")
    monkeypatch.setattr(cli_main, "COMMANDS", (planned,))
    ran = cli("later", "--any", "thing")
    assert (ran.status, ran.out, ran.err) == (3, "", "memtwin: later: not modelled yet\n")
    assert "later" not in cli("--help").out.split("Commands:")[1].split("'memtwin")[0]


@pytest.mark.parametrize(
    ("outcome", "status", "line"),
    [
        (0, 0, ""),
        (1, 1, ""),
        (None, 0, ""),
        (BadInput("no such file: x"), 2, "memtwin: no such file: x\n"),
        (BadInput("two\nlines"), 2, "memtwin: two lines\n"),
        (NotModelled("fork: not modelled yet"), 3, "memtwin: fork: not modelled yet\n"),
        (Deadlock("nobody can run"), 1, "memtwin: nobody can run\n"),
        (KeyboardInterrupt(), 130, "memtwin: interrupted\n"),
        (typer.Abort(), 130, "memtwin: interrupted\n"),
        (typer.Exit(77), 77, ""),
    ],
)
def test_exit_status(cli, broken, outcome: object, status: int, line: str) -> None:
    broken(outcome)
    ran = cli("broken")
    assert (ran.status, ran.out, ran.err) == (status, "", line)


@pytest.mark.parametrize("error", [InvariantBroken("page 7 is free twice, seed 3"), ZeroDivisionError("oops")])
def test_own_bugs_are_70_and_keep_their_traceback(cli, broken, error: Exception) -> None:
    broken(error)
    ran = cli("broken")
    assert (ran.status, ran.out) == (70, "")
    assert "Traceback" in ran.err
    assert str(error) in ran.err.splitlines()[-1]


def test_broken_pipe_is_quiet(broken) -> None:
    """A real pipe that nobody reads, in a process of its own."""
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from memtwin.cli.main import main; sys.exit(main(['changes']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_is_one_line() -> None:
    code = "import sys; from memtwin.cli.main import main; sys.exit(main(['--version']))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, env=env)
    assert (done.returncode, done.stderr) == (2, "memtwin: can not write the output: No space left on device\n")


def test_interrupt_ends_a_process_with_130() -> None:
    code = (
        "import os, signal, sys; from memtwin.cli import main as m\n"
        "m._dispatch = lambda args: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.exit(m.main(['changes']))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "memtwin: interrupted\n")


def test_python_dash_m(cli_process) -> None:
    assert cli_process("--version").out == VERSION
    assert cli_process("try", "vma-modify-not").status == 2


def test_output_does_not_depend_on_the_hash_seed(cli_process) -> None:
    outs = {cli_process("changes", "--json", env={"PYTHONHASHSEED": seed}).out for seed in ("0", "1", "77")}
    assert len(outs) == 1


def _cpu_seconds(code: str) -> float:
    """CPU time of a fresh interpreter that runs ``code``; the best of three."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


@pytest.mark.parametrize("args", [["--help"], *([c.name, "--help"] for c in cli_main.COMMANDS if c.exists())])
def test_help_takes_at_most_0_3_s_of_cpu(args: list[str]) -> None:
    assert _cpu_seconds(f"from memtwin.cli.main import main; main({args!r})") <= 0.3


def test_start_up_imports_nothing_heavy() -> None:
    code = (
        "import sys, memtwin; from memtwin.cli.main import main; main(['--help']); main(['changes', '--json'])\n"
        "heavy = {'numpy', 'unicorn', 'elftools', 'greenlet', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
