# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings of the live kernel's transparent huge pages while they are measured, and back to what they were.

A guard, a shell in a session of its own, restores them when this process lets go of it: at the end, at an exception, or
when it is killed. It shares the project's lock file, locked exclusively where a setting changes, so that nobody
else changes or reads settings meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.harness import Unavailable
from memtwin.verify.sysctls import lock_file

__all__ = ["THP", "held_settings"]

THP: Final = Path("/sys/kernel/mm/transparent_hugepage")
#: What is measured: huge pages where they are asked for, at once or not at all.
WANTED: Final = {"enabled": "madvise", "defrag": "madvise", "use_zero_page": "1"}


def _value(path: Path) -> str:
    """The value in force: of a choice the one in brackets."""
    text = path.read_text(encoding="ascii").strip()
    return text.partition("[")[2].partition("]")[0] or text


def _standing(folder: Path, wanted: Mapping[str, str]) -> dict[str, str]:
    """What the files hold that are to change."""
    try:
        found = {name: _value(folder / name) for name in wanted}
    except OSError:
        raise Unavailable(f"there is no {folder} to read: a kernel without transparent huge pages") from None
    return {name: value for name, value in found.items() if value != wanted[name]}


@contextmanager
def held_settings(folder: Path = THP, wanted: Mapping[str, str] = WANTED, lock: Path | None = None) -> Iterator[None]:
    """While inside, the files of ``folder`` hold what is ``wanted``. Raises Unavailable where they can not."""
    try:
        held = os.open(lock or lock_file(), os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Unavailable(f"the lock on settings can not be had: {error.strerror}") from None
    with open(held, "rb"):
        fcntl.flock(held, fcntl.LOCK_SH)
        if not _standing(folder, wanted):
            yield
            return
        fcntl.flock(held, fcntl.LOCK_EX)
        # Again: waiting for the lock gave others their turn.
        standing = _standing(folder, wanted)
        guard = _guard(folder, standing, held)
        try:
            _set(folder, {name: wanted[name] for name in standing})
            yield
        finally:
            guard.communicate()


def _set(folder: Path, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        try:
            (folder / name).write_text(value, encoding="ascii")
        except OSError as error:
            raise Unavailable(f"{folder / name} can not be set to {value}: {error.strerror}") from None


def _guard(folder: Path, standing: Mapping[str, str], held: int) -> subprocess.Popen[bytes]:
    """A process that puts back ``standing`` and gives up the lock as soon as its stdin ends."""
    back = "; ".join(
        f"echo {shlex.quote(value)} > {shlex.quote(str(folder / name))}" for name, value in standing.items()
    )
    return subprocess.Popen(
        ["/bin/sh", "-c", f"cat > /dev/null; {back or 'true'}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(held,),
        start_new_session=True,
    )
