# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiments ``mailmap-*``: how an author's alias resolves with and without the entries of the two changes.

Models git's reading of ``.mailmap`` (gitmailmap(5), each rule confirmed with ``git check-mailmap`` by a test): four
forms of a line, keys that compare without case, one pass, the last line of a key wins, an entry with a commit name
only for that name. Works on text, so it needs neither git nor a repository.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from memtwin.errors import NotModelled
from memtwin.experiments.base import Claim, ExperimentResult, Observation

__all__ = ["Mailmap", "run"]

_LINE = re.compile(r"\s*([^<#]*)<([^>]*)>(?:([^<]*)<([^>]*)>)?")
_CONTACT = re.compile(r"(.*?)\s*<([^>]*)>")


@dataclass(slots=True)
class _Entry:
    """What one address maps to: for any name, and for particular commit names. None keeps what the commit says."""

    name: str | None = None
    email: str | None = None
    by_name: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)


class Mailmap:
    """A parsed ``.mailmap``; ``check`` resolves one contact."""

    def __init__(self, text: str) -> None:
        self._entries: dict[str, _Entry] = {}
        for line in text.splitlines():
            match = _LINE.match(line)
            if match is not None and not line.startswith("#"):
                self._add(*(part.strip() if part is not None else None for part in match.groups()))

    def _add(self, name: str | None, email: str | None, old_name: str | None, old_email: str | None) -> None:
        if old_email is None:  # "Name <commit@>": the address is the key, and is kept
            old_email, email = email, None
        entry = self._entries.setdefault((old_email or "").lower(), _Entry())
        if old_name:
            entry.by_name[old_name.lower()] = (name or None, email or None)
        else:
            entry.name = name or entry.name
            entry.email = email or entry.email

    def check(self, contact: str) -> str:
        """``"Name <address>"`` as git would show it; unmatched contacts are unchanged.

        Raises ValueError when the contact has no address.
        """
        match = _CONTACT.fullmatch(contact)
        if match is None:
            raise ValueError(f"no address in {contact!r}")
        name, email = match.groups()
        entry = self._entries.get(email.lower())
        if entry is not None:
            new_name, new_email = entry.by_name.get(name.lower(), (entry.name, entry.email))
            name, email = new_name or name, new_email or email
        return f"{name} <{email}>" if name else f"<{email}>"


_OLD_PRIVATE = "Oleksij Rempel <linux@rempel-privat.de> <bug-track@fisher-privat.net>\n"

_TEXTS = {
    "mailmap-oleksij-rempel": (
        _OLD_PRIVATE
        + "Oleksij Rempel <linux@rempel-privat.de> <o.rempel@pengutronix.de>\n"
        + "Oleksij Rempel <linux@rempel-privat.de> <ore@pengutronix.de>\n",
        _OLD_PRIVATE
        + "Oleksij Rempel <o.rempel@pengutronix.de>\n"
        + "Oleksij Rempel <o.rempel@pengutronix.de> <ore@pengutronix.de>\n",
    ),
    "mailmap-bartosz-golaszewski": (
        "",
        "Bartosz Golaszewski <brgl@bgdev.pl> <bgolaszewski@baylibre.com>\n",
    ),
}
"""Change id -> the lines of the mailmap it is about, before and after."""

_CONTACTS = {
    "mailmap-oleksij-rempel": (
        "O.R. <o.rempel@pengutronix.de>",
        "ORE <ORE@pengutronix.de>",
        "bug-track <bug-track@fisher-privat.net>",
    ),
    "mailmap-bartosz-golaszewski": (
        "bgolaszewski <BGolaszewski@BayLibre.com>",
        "Bartosz Golaszewski <brgl@bgdev.pl>",
    ),
}


def _claims(change_id: str, seen: dict[str, tuple[str, str]]) -> list[Claim]:
    if change_id == "mailmap-oleksij-rempel":
        private, work = "Oleksij Rempel <linux@rempel-privat.de>", "Oleksij Rempel <o.rempel@pengutronix.de>"
        first, second, old = (seen[contact] for contact in _CONTACTS[change_id])
        return [
            Claim("the work address is kept, and no longer mapped to the private one", first == (private, work)),
            Claim("the second work address maps to the first", second == (private, work)),
            Claim("the old private alias still maps to the private address", old == (private, private)),
        ]
    alias, current = _CONTACTS[change_id]
    return [
        Claim("the old address, in any case, maps to the current one", seen[alias] == (alias, current)),
        Claim("the current address is unchanged", seen[current] == (current, current)),
    ]


def run(change_id: str, /) -> ExperimentResult:
    """Resolve the contacts of one change with its mailmap lines before and after."""
    if change_id not in _TEXTS:
        raise NotModelled(f"{change_id}: not modelled yet")
    before, after = (Mailmap(text) for text in _TEXTS[change_id])
    seen = {contact: (before.check(contact), after.check(contact)) for contact in _CONTACTS[change_id]}
    rows = [Observation(contact, *values) for contact, values in seen.items()]
    return ExperimentResult(change_id, rows, _claims(change_id, seen))
