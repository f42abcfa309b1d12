# SPDX-License-Identifier: GPL-2.0-or-later
"""Every merge case of R4 with every set of faulted areas, in parent and child: the live kernel and the twin have the
same areas. (What becomes of which area is drawn in ``tests/unit/mm/test_vma_merge.py``.)
"""

from __future__ import annotations

import os
from itertools import chain, combinations

import pytest

from memtwin.verify.compare import compare, ignored
from memtwin.verify.live import Live, why_not
from memtwin.verify.twin import Twin

REASON = why_not()
pytestmark = [pytest.mark.live, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

#: name -> (areas as letter, first page, end; the odd one of them; changed range).
CASES = {
    "hole": ((("P", 0, 3), ("N", 6, 9)), "", (3, 6)),
    "4": ((("P", 0, 5), ("N", 5, 8)), "P", (3, 5)),
    "5": ((("P", 0, 3), ("C", 3, 8)), "C", (3, 5)),
    "6": ((("P", 0, 3), ("C", 3, 6), ("N", 6, 9)), "C", (3, 6)),
    "7": ((("P", 0, 3), ("C", 3, 6)), "C", (3, 6)),
    "8": ((("C", 0, 3), ("N", 3, 6)), "C", (0, 3)),
    "inside": ((("P", 0, 3), ("C", 3, 9), ("N", 9, 12)), "C", (5, 7)),
}
ATTRIBUTES = {
    "dontdump": ("madvise {} dontdump", "madvise {} dodump"),
    "rights": ("mprotect {} rwx", "mprotect {} rw"),
    "lock": ("mlock2 {} onfault", "munlock {}"),
    "policy": ("mbind {} bind 1 0", "mbind {} default 0 0"),
}


def pages(start: int, end: int) -> str:
    return f"B+{start}p {end - start}p"


def script(case: str, faulted: str, attribute: str, who: str) -> list[str]:
    areas, odd, changed = CASES[case]
    give, take = ATTRIBUTES[attribute]
    lines = []
    for letter, start, end in sorted(areas, key=lambda area: area[0] not in odd):
        lines.append(f"mmap {pages(start, end)} rw private|anon|fixed")
        if letter in odd:
            lines.append(give.format(pages(start, end)))
    lines += [f"write {pages(start, end)} 7" for letter, start, end in areas if letter in faulted]
    if who:
        lines.append("fork c")
    lines.append(who + (take.format(pages(*changed)) if odd else f"mmap {pages(*changed)} rw private|anon|fixed"))
    return [*lines, f"{who}dump maps smaps"]


def scripts() -> dict[str, list[str]]:
    found = {}
    for case, (areas, odd, _) in CASES.items():
        letters = [area[0] for area in areas]
        for faulted in chain.from_iterable(combinations(letters, size) for size in range(len(letters) + 1)):
            for attribute in ATTRIBUTES if odd else ("rights",):
                for who in ("", "@c "):
                    name = f"{case}-{''.join(faulted)}-{attribute}-{who}"
                    found[name] = script(case, "".join(faulted), attribute, who)
    return found


def test_every_set_of_faulted_areas() -> None:
    wanted = scripts()
    twin = Twin("host")
    answers = Live(size=twin.size()).run(list(wanted.values()))
    ignore = ignored(os.uname().release)
    differ = {
        name: compare(live, twin.run(lines), ignore)
        for (name, lines), live in zip(wanted.items(), answers, strict=True)
    }
    assert len(differ) > 200
    assert {name: found for name, found in differ.items() if found != (None, None)} == {}
