# SPDX-License-Identifier: GPL-2.0-or-later
"""The live kernel: builds ``executor/`` once, feeds it programs, reads its answers.

The executor needs a C compiler with a static libc, and root. It is kept in a cache directory under a name made of its
source's hash, so a new version is built when the source changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

from memtwin.errors import BadInput
from memtwin.verify.sysctls import changes_sysctls, lock_file, why_no_sysctls

__all__ = ["Answers", "Live", "cache_directory", "executor", "why_not"]

Answers = list[dict[str, Any]]

#: The image lies where neither low hints nor MAP_32BIT lead; no randomisation reaches it.
#: Where the executor is linked to.
EXECUTOR_BASE: Final = 0x30000000
_BUILD: Final = ("-static", "-no-pie", "-O2", f"-Wl,-Ttext-segment={EXECUTOR_BASE:#x}")
#: ms that one operation may take before its program counts as lost; on a busy machine a dump of all areas takes some s.
_TIMEOUT_MS: Final = 20_000
#: A limit of areas that ``map_room`` can fill up to in reasonable time; the executor has the same number.
_MOST_MAPS: Final = 200_000
#: s that an executor has to end its programs, which may have many areas.
_STOP_SECONDS: Final = 20


def _compiler() -> str | None:
    return shutil.which("gcc") or shutil.which("cc")


def why_not() -> str | None:
    """Why the live kernel can not be asked here, in one line; None if it can."""
    if os.uname().sysname != "Linux" or os.uname().machine != "x86_64":
        return "the live side needs x86-64 Linux"
    if os.geteuid() != 0:
        return "the live side needs root (mount namespaces, the place of the heap, page frame numbers)"
    if _compiler() is None:
        return "the live side needs a C compiler: neither gcc nor cc is in PATH"
    return None


def cache_directory() -> Path:
    """Where built executors are kept: ``$XDG_CACHE_HOME/memtwin``, or a directory of this user's under the temporary
    one.
    """
    home = os.environ.get("XDG_CACHE_HOME")
    if home and os.path.isabs(home):
        return Path(home) / "memtwin"
    return Path(tempfile.gettempdir()) / f"memtwin-{os.getuid()}"


def _private(directory: Path) -> Path:
    """Make the directory; refuse one that somebody else could have put a program into."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.lstat()
    if directory.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise BadInput(f"{directory}: not a directory that only this user can write to (set XDG_CACHE_HOME)")
    return directory


def executor() -> Path:
    """The built executor. Raises BadInput if it can not be built."""
    reason = why_not()
    if reason is not None:
        raise BadInput(reason)
    folder = resources.files("memtwin.verify").joinpath("executor")
    texts = {item.name: item.read_bytes() for item in folder.iterdir() if item.name.endswith((".c", ".h"))}
    sources = sorted(name for name in texts if name.endswith(".c"))
    digest = hashlib.sha256(
        b"\0".join((*(texts[name] for name in sorted(texts)), " ".join(_BUILD).encode()))
    ).hexdigest()[:16]
    try:
        directory = _private(cache_directory())
        built = directory / f"executor-{digest}"
        if built.exists():
            return built
        with tempfile.TemporaryDirectory(dir=directory) as work:
            for name, text in texts.items():
                (Path(work) / name).write_bytes(text)
            compiler = _compiler()
            assert compiler is not None
            command = [compiler, *_BUILD, "-o", "executor", *sources]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["no message"]
                raise BadInput(f"the executor can not be built: {lines[0]}")
            os.replace(Path(work) / "executor", built)
    except OSError as error:
        raise BadInput(f"the executor can not be built: {error}") from None
    return built


class Live:
    """Runs programs on the live kernel, all on one CPU.

    ``size``: bytes that a process occupies in the beginning (VmSize), so that limits on all of it mean the same on both
    halves; it can not be less than what the executor needs. ``release``: of the kernel; ``map_room``: can the operation
    of that name be used; ``no_sysctls``: why programs can not change sysctls, None if they can.
    """

    def __init__(self, path: Path | None = None, *, cpu: int = 0, size: int = 0) -> None:
        self._path = path or executor()
        self._size = size
        cpus = sorted(os.sched_getaffinity(0))
        self._cpu = cpus[cpu % len(cpus)]
        self.release = os.uname().release
        self.no_sysctls = why_no_sysctls()
        self.map_room = int(Path("/proc/sys/vm/max_map_count").read_text()) <= _MOST_MAPS

    def run(self, programs: Sequence[Sequence[str]]) -> list[Answers]:
        """The answers to each program's lines; a program that was lost ends with ``died`` or ``timeout``. Those that
        change sysctls run when nobody else runs programs.

        Raises BadInput if the executor does not run.
        """
        answers: list[Answers] = [[] for _ in programs]
        for change in (False, True):
            numbers = [n for n, lines in enumerate(programs) if changes_sysctls(lines) is change]
            if numbers:
                for n, found in zip(numbers, self._run([programs[n] for n in numbers], change), strict=True):
                    answers[n] = found
        return answers

    def _run(self, programs: Sequence[Sequence[str]], change: bool) -> list[Answers]:
        text = "".join(f"script {n}\n" + "\n".join(lines) + "\n" for n, lines in enumerate(programs))
        command = [str(self._path), "--cpu", str(self._cpu), "--timeout", str(_TIMEOUT_MS), "--size", str(self._size)]
        command += ["--change" if change else "--lock", str(lock_file())]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
            try:
                out, err = process.communicate(text.encode())
            except BaseException:
                _stop(process)
                raise
        if process.returncode:
            lines = err.decode(errors="replace").strip().splitlines()
            raise BadInput(lines[0] if lines else f"the executor ended with status {process.returncode}")
        return _split(out, len(programs))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the executor; it gets the time to put back what it changed."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _split(output: bytes, count: int) -> list[Answers]:
    answers: list[Answers] = [[] for _ in range(count)]
    current: Answers = []
    for line in output.splitlines():
        answer = json.loads(line)
        if "script" in answer:
            current = answers[int(answer["script"])]
        elif "env" not in answer:
            current.append(answer)
    return answers
