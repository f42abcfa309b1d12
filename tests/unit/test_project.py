# SPDX-License-Identifier: GPL-2.0-or-later
"""The project's own frame: lazy names, layering that import-linter can not see, files that belong together."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import memtwin
from memtwin.errors import BadInput


def _sources(root: Path) -> list[Path]:
    return sorted((root / "src/memtwin").rglob("*.py"))


def _room(path: Path, root: Path) -> str:
    """The subsystem a source file belongs to: the part of its name below memtwin."""
    return path.relative_to(root / "src/memtwin").parts[0].removesuffix(".py")


def test_public_names_are_lazy() -> None:
    assert memtwin.BadInput is BadInput
    assert {"Machine", "Process", "FatalSignal", "__version__"} <= set(dir(memtwin))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = memtwin.Nonsense


def test_every_source_file_opens_with_its_license_and_a_docstring(root: Path) -> None:
    bad = []
    for path in (*_sources(root), *sorted((root / "tests").rglob("*.py"))):
        text = path.read_text()
        if not text.startswith("# SPDX-License-Identifier: GPL-2.0-or-later\n") or not ast.get_docstring(
            ast.parse(text)
        ):
            bad.append(str(path.relative_to(root)))
    assert bad == []


def test_nobody_imports_underscore_names_of_another_subsystem(root: Path) -> None:
    bad = []
    for path in _sources(root):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("memtwin."):
                continue
            other = node.module.split(".")[1]
            private = [part for part in (*node.module.split("."), *(a.name for a in node.names)) if part[0] == "_"]
            private = [name for name in private if not name.startswith("__") and name != "_fast"]
            if private and other != _room(path, root):
                bad.append(f"{path.relative_to(root)}:{node.lineno}: {', '.join(private)} of memtwin.{other}")
    assert bad == []


def test_every_room_is_placed_in_the_import_contract(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())
    (contract,) = project["tool"]["importlinter"]["contracts"]
    placed = {name.strip(" ()") for layer in contract["layers"] for name in layer.split(":")}
    rooms = {_room(path, root) for path in _sources(root)} - {"__init__", *contract["exhaustive_ignores"]}
    assert rooms <= placed


def test_setup_commands_of_the_readme_are_make_targets(root: Path) -> None:
    makefile = (root / "Makefile").read_text()
    readme = (root / "README.md").read_text()
    assert re.findall(r"^make (\w+)", readme.split("## From Python")[0], re.MULTILINE) == ["demo", "test"]
    for target in set(re.findall(r"`make (\w+)`", readme)) | {
        "demo",
        "test",
        "lint",
        "bench",
        "verify",
        "docs",
        "clean",
    }:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_pages_of_the_documentation_exist(root: Path) -> None:
    names = re.findall(r": (\S+\.md)$", (root / "mkdocs.yml").read_text(), re.MULTILINE)
    assert len(names) >= 7
    assert [name for name in names if not (root / "docs" / name).exists()] == []


def test_links_between_pages_lead_somewhere(root: Path) -> None:
    bad = []
    for page in (root / "README.md", root / "CHANGELOG.md", *sorted((root / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http") and not (page.parent / target).exists():
                bad.append(f"{page.name}: {target}")
    assert bad == []


def test_the_version_is_in_one_place(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", memtwin.__version__)


def _get_busybox(root: Path, busybox: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, root / "tools/get-busybox"],
        env={**os.environ, "BUSYBOX": str(busybox)},
        capture_output=True,
        text=True,
    )


def test_get_busybox_refuses_what_is_not_static(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "busybox"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    for candidate in (script, tmp_path / "missing", tmp_path):
        done = _get_busybox(root, candidate)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert f"'{candidate}' is no static x86-64 program" in done.stderr


@pytest.mark.skipif(shutil.which("gcc") is None or os.uname().machine != "x86_64", reason="needs gcc on x86-64")
@pytest.mark.parametrize(("flags", "status"), [(["-static"], 0), (["-no-pie"], 2)])
def test_get_busybox_knows_a_static_program(root: Path, tmp_path: Path, flags: list[str], status: int) -> None:
    program = tmp_path / "busybox"
    source = "int main(void) { return 0; }"
    subprocess.run(["gcc", *flags, "-x", "c", "-", "-o", program], input=source, text=True, check=True)
    done = _get_busybox(root, program)
    assert (done.returncode, done.stdout) == (status, f"{program}\n" if status == 0 else "")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["demo", "test", "lint", "verify", "docs"])
def test_make_targets_parse_and_say_what_they_would_do(root: Path, target: str) -> None:
    done = subprocess.run(["make", "--dry-run", "-C", root, target], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ".venv/bin/" in done.stdout


def test_the_readmes_example_runs(root, capsys):
    example = re.search(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    exec(compile(example[1], "README.md", "exec"), {})
    assert capsys.readouterr().out == "b'hello'\n"


def test_constants_are_names_of_abi():
    from memtwin import abi

    assert (abi.PROT_WRITE, abi.RLIMIT_AS, abi.SIGSEGV, abi.MPOL_BIND) == (2, 9, 11, 2)
    with pytest.raises(AttributeError):
        _ = abi.NONSENSE
