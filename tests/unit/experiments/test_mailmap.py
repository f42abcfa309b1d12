# SPDX-License-Identifier: GPL-2.0-or-later
"""Our reading of .mailmap against git's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtwin.errors import NotModelled
from memtwin.experiments.mailmap import _CONTACTS, _TEXTS, Mailmap, run

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

RULES = """\
# comment <c@x> <d@x>
Name Only <name@x>
<proper@x> <address@x>
Both Set <both@x> <other@x>
Right One <right@x> Old Name <shared@x>
  Leading Blanks <blank@x> <lead@x> trailing text
Chain Two <c2@x> <c1@x>
Chain Three <c3@x> <c2@x>
First Line <first@x> <twice@x>
Last Line <last@x> <twice@x>
Late Name <late@x>
<late-address@x> <late@x>
no address at all
"""

CONTACTS = [
    "A <name@x>",
    "A <NAME@X>",
    "<name@x>",
    "B <address@x>",
    "C <other@x>",
    "Old Name <shared@x>",
    "old name <SHARED@x>",
    "New Name <shared@x>",
    "D <lead@x>",
    "E <c1@x>",
    "E <c2@x>",
    "F <twice@x>",
    "G <late@x>",
    "H <unknown@x>",
    "I <d@x>",
]


@pytest.fixture(scope="module")
def git_check(tmp_path_factory: pytest.TempPathFactory):
    """``git check-mailmap`` with a mailmap of our choice."""
    repository: Path = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(repository)], check=True)

    def check(text: str, contacts: list[str]) -> list[str]:
        (repository / ".mailmap").write_text(text)
        done = subprocess.run(
            ["git", "check-mailmap", *contacts], cwd=repository, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    return check


@needs_git
def test_every_rule_as_git_has_it(git_check) -> None:
    assert [Mailmap(RULES).check(contact) for contact in CONTACTS] == git_check(RULES, CONTACTS)


@needs_git
@pytest.mark.parametrize("change_id", _TEXTS)
@pytest.mark.parametrize("side", [0, 1])
def test_the_experiments_texts_as_git_has_them(git_check, change_id: str, side: int) -> None:
    text, contacts = _TEXTS[change_id][side], list(_CONTACTS[change_id])
    assert [Mailmap(text).check(contact) for contact in contacts] == git_check(text, contacts)


def _line(draw_names: st.SearchStrategy[str], addresses: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    address = addresses.map("<{}>".format)
    return st.one_of(
        st.tuples(draw_names, address),
        st.tuples(address, address),
        st.tuples(draw_names, address, address),
        st.tuples(draw_names, address, draw_names, address),
    ).map(" ".join)


NAMES = st.sampled_from(["Ann", "Bob", "ann", "Cy Dee"])
ADDRESSES = st.sampled_from(["a@x", "b@x", "A@X", "c@x"])


@needs_git
@given(lines=st.lists(_line(NAMES, ADDRESSES), max_size=5))
def test_random_mailmaps_as_git_reads_them(git_check, lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    contacts = [f"{name} <{address}>" for name in ("Ann", "bob", "Cy Dee") for address in ("a@x", "B@x", "c@x")]
    assert [Mailmap(text).check(contact) for contact in contacts] == git_check(text, contacts)


def test_a_contact_without_address() -> None:
    with pytest.raises(ValueError, match="no address"):
        Mailmap("").check("Ann")


@pytest.mark.parametrize("change_id", _TEXTS)
def test_the_projects_own_mailmap_has_the_after_side(root: Path, change_id: str) -> None:
    own, after = Mailmap((root / ".mailmap").read_text()), Mailmap(_TEXTS[change_id][1])
    for contact in _CONTACTS[change_id][:2]:
        assert own.check(contact) == after.check(contact)


def test_entries_are_in_dictionary_order(root: Path) -> None:
    lines = (root / ".mailmap").read_text().splitlines()
    assert lines == sorted(lines)


def test_another_id_is_not_modelled() -> None:
    with pytest.raises(NotModelled):
        run("vma-modify")
