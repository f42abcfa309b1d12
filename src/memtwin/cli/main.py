# SPDX-License-Identifier: GPL-2.0-or-later
"""Entry point of ``memtwin``: the table of commands, and what an error looks like outside.

A command is a module with a typer ``app`` whose functions return the exit status (None is 0). Only the module of the
command that runs is imported, so ``memtwin --help`` costs neither typer nor NumPy. To add a command, add its file and a
row of ``COMMANDS``.

Exit status: 0 fine; 1 a difference or a claim that does not hold; 2 bad input, one line on stderr; 3 not modelled yet;
70 a broken invariant or any other bug of memtwin; 130 interrupted; 141 nobody reads our output any more.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from memtwin import __version__, compiled
from memtwin.cli.output import note
from memtwin.errors import BadInput, InvariantBroken, MemtwinError, NotModelled

__all__ = ["COMMANDS", "Command", "main"]


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table: its name, the module with its ``app``, and one line of help."""

    name: str
    module: str
    help: str

    def exists(self) -> bool:
        """Is the command's module there? (Some are not built yet.)"""
        return find_spec(self.module) is not None


COMMANDS = (
    Command("run", "memtwin.cli.run", "run a program on a machine of your own description"),
    Command("script", "memtwin.cli.script", "run a script of memory operations, one answer line each"),
    Command("explain", "memtwin.cli.explain", "say why areas are not one, and which rules refused calls"),
    Command("verify", "memtwin.cli.verify", "compare the twin with the kernel that runs here"),
    Command("try", "memtwin.cli.try_", "show one kernel change: before, after, and whether its claims hold"),
    Command("changes", "memtwin.cli.changes", "list the kernel changes and knobs that a machine can switch"),
    Command("coverage", "memtwin.cli.coverage", "print what is modelled, partly or not, as a page"),
)


def _help_text() -> str:
    rows = "\n".join(f"  {command.name:<10} {command.help}" for command in COMMANDS if command.exists())
    return f"""\
Usage: memtwin [--help] [--version] COMMAND [ARGS]...

A software twin of Linux memory management.

Commands:
{rows}

'memtwin COMMAND --help' tells more about a command.
Exit status: 0 fine, 1 a difference or a claim that does not hold, 2 bad input, 3 not modelled yet, 70 a bug of
memtwin."""


def _find(name: str) -> Command:
    for command in COMMANDS:
        if command.name == name:
            if not command.exists():
                raise NotModelled(f"{name}: not modelled yet")
            return command
    from difflib import get_close_matches

    if name.startswith("-"):
        raise BadInput(f"no such option: {name} (try 'memtwin --help')")
    close = get_close_matches(name, [command.name for command in COMMANDS], n=1)
    hint = f"did you mean {close[0]}?" if close else "try 'memtwin --help'"
    raise BadInput(f"no such command: {name} ({hint})")


def _invoke(command: Command, args: Sequence[str]) -> int:
    """Run one command in typer, without typer's own handling of errors; returns the exit status."""
    import typer

    runner = typer.main.get_command(import_module(command.module).app)
    prog = f"memtwin {command.name}"
    try:
        with runner.make_context(prog, list(args)) as context:
            status = runner.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        # The usage errors of typer (of click, in older releases) have no public base class in common.
        text = getattr(error, "format_message", None)
        if text is None:
            raise
        message = " ".join(str(text()).split())
        raise BadInput(
            f"{command.name}: {message[:1].lower()}{message[1:].rstrip('.')} (try '{prog} --help')"
        ) from None
    return status if isinstance(status, int) else 0


def _dispatch(args: Sequence[str]) -> int:
    if not args:
        raise BadInput("no command given (try 'memtwin --help')")
    if args[0] in ("--help", "-h"):
        print(_help_text())
        return 0
    if args[0] == "--version":
        print(f"memtwin {__version__}" + (" (compiled)" if compiled() else ""))
        return 0
    return _invoke(_find(args[0]), args[1:])


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What writing to stdout may fail with. Errors of the simulated kernel never come this far."""


def _quiet_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush is silent too."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.close(devnull)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: the process's own) and return the exit status."""
    try:
        status = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except MemtwinError as error:
        if isinstance(error, InvariantBroken):
            traceback.print_exc()
        note(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    except BrokenPipeError:
        _quiet_stdout()
        return 141
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            _quiet_stdout()
            note(f"can not write the output: {error.strerror}")
            return BadInput.exit_status
        traceback.print_exc()
        note(f"a bug of memtwin: {type(error).__name__}: {error}")
        return InvariantBroken.exit_status


if __name__ == "__main__":
    sys.exit(main())
