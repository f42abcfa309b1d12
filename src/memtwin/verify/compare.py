# SPDX-License-Identifier: GPL-2.0-or-later
"""Where two lists of answers part.

Not compared: the page flag K (a reporting bug of some kernels), ``sd`` in VmFlags, Pss_Dirty, LazyFree (batched per
CPU), and on kernels that count them approximately the RSS values of ``status``. Behind an operation that the twin does
not model yet nothing can be said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from memtwin.changes.catalogue import parse_release

__all__ = ["Difference", "Ignored", "compare", "depends_on", "ignored", "lost", "normal", "unruled", "what_differs"]

_RSS: Final = frozenset(("VmRSS", "RssAnon", "RssFile", "RssShmem"))
_ALWAYS: Final = frozenset(("Pss_Dirty", "LazyFree"))
#: The release from which RSS in ``status`` is exact (knob post-rss-exact: observed in 6.12.95, not in 6.7.3).
_RSS_EXACT: Final = (6, 12, 95)

Ignored = frozenset[str]

#: What must stand in a program for a knob to show in it: one of these words or flags.
_SHOWS_WITH: Final = {
    "post-merge-faulted-unfaulted": ("madvise", "mprotect", "mlock", "mbind"),
    "post-mmap-merge-prev-first": ("mmap",),
    "post-mmap-merge-unfaulted-prev": ("mmap",),
    "post-mmap-fixed-fail-keeps": ("fixed",),
    "post-mmap-fixed-fail-splits": ("setrlimit",),
    "post-mmap-thp-align": ("512p", "1024p", "4m", "2m"),
    "post-thp-align-topdown": ("512p", "1024p", "4m", "2m"),
    "post-dev-zero-thp-align": ("/dev/zero",),
    "post-map-stack-nohugepage": ("stack",),
    "post-mseal": ("mseal",),
    "post-mremap-checks-first": ("mremap",),
    "post-mremap-fail-clean": ("mremap",),
    "post-mremap-multi-vma": ("mremap",),
    "post-mremap-dontunmap-locked": ("dontunmap",),
    "post-anon-prepare-vma-lock": ("uffd_register",),
    "post-populate-stop-at-hole": ("populate_read", "populate_write"),
    "post-pageout-keeps-young": ("pageout",),
    "post-process-madvise-self": ("process_madvise",),
    "post-madv-guard": ("guard_install", "guard_remove"),
    "post-guard-flag": ("guard_install",),
    "post-move-pages-enoent": ("page_status",),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """The first line on which the halves disagree. ``index``: of the line in the program; the answers as compared,
    None where there is none.
    """

    index: int
    live: dict[str, Any] | None
    twin: dict[str, Any] | None

    @property
    def fields(self) -> tuple[str, ...]:
        """What differs in it: names of fields, one level down for dumps."""
        return what_differs(self.live, self.twin)


def depends_on(undecided: Iterable[str], lines: Iterable[str]) -> bool:
    """Can one of the undecided knobs of a live kernel show in these lines?"""
    words = {word for line in lines for word in re.split(r"[\s|=]+", line)}
    return any(word in words for knob in undecided for word in _SHOWS_WITH.get(knob, ()))


def unruled(lines: Iterable[str]) -> Ignored:
    """The fields that say nothing behind these lines: pages offered by MADV_FREE wait in a batch of their CPU, and so
    do locked pages, which holds a reference: what a child writes then is copied, not reused. Whether such pages count
    as referenced is nobody's rule.
    """
    text = "\n".join(lines)
    batched = " free\n" in text + "\n" or ("fork " in text and ("mlock" in text or "locked" in text))
    return frozenset(("Referenced",)) if batched else frozenset()


def ignored(release: str) -> Ignored:
    """The fields that say nothing on a live kernel of this release."""
    return _ALWAYS if parse_release(release) >= _RSS_EXACT else _ALWAYS | _RSS


def normal(value: Any, ignore: Ignored = _ALWAYS) -> Any:
    """``value`` without what is not compared."""
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        for key, inner in value.items():
            if key in ignore:
                continue
            if key == "VmFlags":
                kept[key] = " ".join(word for word in inner.split() if word != "sd")
            elif key == "pagemap":
                kept[key] = [[run[0], run[1], run[2].replace("K", ""), *run[3:]] for run in inner]
            else:
                kept[key] = normal(inner, ignore)
        return kept
    if isinstance(value, list):
        return [normal(inner, ignore) for inner in value]
    return value


def lost(answers: Sequence[dict[str, Any]]) -> bool:
    """Did the live half lose the program (a process killed by it, or an operation that never returned)?"""
    return not answers or "died" in answers[-1] or "timeout" in answers[-1]


def compare(
    live: Sequence[dict[str, Any]], twin: Iterable[dict[str, Any]], ignore: Ignored = _ALWAYS
) -> tuple[Difference | None, str | None]:
    """The first difference, and the name of the operation that is not modelled if that ended the comparison.

    ``twin`` is asked for no more answers than needed.
    """
    index = -1
    for index, answer in enumerate(twin):
        if "broken" in answer:
            at = max(min(index, len(live) - 1), 0)
            return Difference(at, normal(live[at], ignore) if live else None, answer), None
        if answer.get("error") == "not modelled":
            return None, str(answer["op"])
        if index < len(live) and live[index].get("error") == "unknown operation" and "error" not in answer:
            return None, str(answer["op"])  # the executor does not have it
        expected = normal(live[index], ignore) if index < len(live) else None
        found = normal(answer, ignore)
        if expected != found and not (expected and "error" in expected and "error" in found):
            return Difference(index, expected, found), None
    if index + 1 < len(live):
        return Difference(index + 1, normal(live[index + 1], ignore), None), None
    return None, None


def what_differs(live: dict[str, Any] | None, twin: dict[str, Any] | None) -> tuple[str, ...]:
    """The fields in which two answers differ, sorted; ``status.VmLck`` for one of a dump's views."""
    if live is None or twin is None:
        return ("missing",)
    if "broken" in twin:
        return ("broken",)
    found: list[str] = []
    for key in sorted(live.keys() | twin.keys()):
        left, right = live.get(key), twin.get(key)
        if left == right:
            continue
        if key == "procs" and left and right:
            for name in left.keys() | right.keys():
                found += what_differs(left.get(name, {}), right.get(name, {}))
        elif key == "smaps" and left and right and [area["vma"] for area in left] == [area["vma"] for area in right]:
            for one, other in zip(left, right, strict=True):
                found += [f"smaps.{inner}" for inner in what_differs(one, other)]
        elif isinstance(left, dict) and isinstance(right, dict):
            found += [f"{key}.{inner}" for inner in what_differs(left, right)]
        else:
            found.append(key)
    return tuple(sorted(set(found)))
