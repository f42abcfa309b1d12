# SPDX-License-Identifier: GPL-2.0-or-later
"""The profiles of the generator: one module each, with a ``PROFILE``."""

from __future__ import annotations

from importlib import import_module

from memtwin.errors import BadInput, NotModelled
from memtwin.verify.generate import Profile

__all__ = ["LATER", "NAMES", "profile"]

NAMES = ("vma", "mremap", "mlock", "fork", "fault", "madvise", "thp")
#: Profiles that are not built yet.
LATER = ("shmem", "hugetlb", "scan")


def profile(name: str) -> Profile:
    """The profile ``name``. Raises BadInput, NotModelled."""
    if name in LATER:
        raise NotModelled(f"profile {name}: not modelled yet (there are {', '.join(NAMES)})")
    if name not in NAMES:
        raise BadInput(f"no such profile: {name} (there are {', '.join(NAMES)})")
    found = import_module(f"memtwin.verify.profiles.{name}").PROFILE
    assert isinstance(found, Profile)
    return found
