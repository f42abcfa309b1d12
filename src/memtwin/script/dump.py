# SPDX-License-Identifier: GPL-2.0-or-later
"""Looking at a process through its files in /proc, as anybody outside could: maps, smaps, pagemap, status.

The files are read as text and bytes and parsed here, so their formats (R14) are part of what a dump shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from memtwin.errors import NotModelled
from memtwin.fs.proc import task_mmu
from memtwin.script.answers import address, in_window
from memtwin.script.grammar import PAGE
from memtwin.script.operations import DIRECTORY, Fields, method

if TYPE_CHECKING:
    from memtwin.mm.mm_types import MmStruct
    from memtwin.process import Process

__all__ = ["DEFAULT", "VIEWS", "Classes", "Range", "areas", "status", "view"]

Range = tuple[int, int]

#: What can be asked for, in the order of the answer's fields.
VIEWS: Final = ("maps", "smaps", "pagemap", "status", "hugetlb", "numa")
DEFAULT: Final = VIEWS[:4]

#: Keys of /proc/PID/status; of the first six an answer tells the difference from the start of the script.
_RELATIVE: Final = ("VmSize", "VmRSS", "RssAnon", "RssFile", "RssShmem", "VmData")
_STATUS: Final = (*_RELATIVE, "VmLck", "VmSwap", "HugetlbPages", "VmPin")

_MAPS_LINE: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) \S+ \S+ *(.*)")
_HEAD: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ")
#: Pages of an address space that one dump looks at, at most, and how many it reads at once.
_MAX_PAGES: Final = 1 << 21
_CHUNK: Final = 1 << 16


#: Of an entry of pagemap.
_PRESENT: Final = 1 << 63
_PFN: Final = (1 << 55) - 1
#: Frames between two pages whose flags are read together all the same.
_NEAR: Final = 32


class Classes:
    """Numbers the physical pages of one dump, from 0 in order of first appearance, and says what kind each is."""

    __slots__ = ("_flags", "_numbers")

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._flags: dict[int, int] = {}

    def number(self, pfn: int) -> int:
        """The class of a page."""
        return self._numbers.setdefault(pfn, len(self._numbers))

    def look(self, process: Process, entries: Iterable[int]) -> None:
        """Read what /proc/kpageflags has for the pages of these entries of pagemap, neighbours in one go."""
        pfns = sorted({value & _PFN for value in entries if value & _PRESENT and value & _PFN} - self._flags.keys())
        at = 0
        while at < len(pfns):
            end = at + 1
            while end < len(pfns) and pfns[end] - pfns[end - 1] <= _NEAR:
                end += 1
            first = pfns[at]
            data = _bytes(process, "/proc/kpageflags", first * 8, (pfns[end - 1] - first + 1) * 8)
            words = memoryview(data).cast("Q")
            # Memory of a device may lie behind the last frame that the file knows.
            known = len(words)
            self._flags.update((pfn, words[pfn - first] if pfn - first < known else 0) for pfn in pfns[at:end])
            at = end

    def flags(self, pfn: int) -> int:
        """Its entry in /proc/kpageflags, looked at before."""
        return self._flags[pfn]


#: The texts behind these files, for as long as ``Process`` has no ``read_file``.
_VIEWS_OF_MM: Final[Mapping[str, Callable[[MmStruct], str]]] = {
    "/proc/self/maps": task_mmu.maps,
    "/proc/self/status": task_mmu.status_vm,
}


def _text(process: Process, path: str) -> str:
    """A whole file. Every file that a dump reads is there in Linux: one that is missing is not modelled."""
    if not hasattr(process, "read_file") and path in _VIEWS_OF_MM:
        return _VIEWS_OF_MM[path](process.mm)
    try:
        content = method(process, "read_file")(path)
    except OSError as error:
        raise NotModelled(f"{path}: {error.strerror}") from None
    return content if isinstance(content, str) else content.decode("utf-8", "surrogateescape")


def _bytes(process: Process, path: str, offset: int, size: int) -> bytes:
    """At most ``size`` bytes of a file that is too long to be read at once."""
    try:
        data: bytes = method(process, "read_file_at")(path, offset, size)
    except OSError as error:
        raise NotModelled(f"{path}: {error.strerror}") from None
    return data


def _name(name: str) -> str:
    """A file's name as an answer has it: files of the script's own tmpfs without the place where they are."""
    name = name.replace('"', "").replace("\\", "")
    return "tmpfs:" + name.removeprefix(DIRECTORY) if name.startswith(DIRECTORY + "/") else name


def _shown(process: Process, start: int) -> bool:
    return in_window(start, legacy=not process.mm.topdown)


def areas(process: Process) -> Iterator[tuple[int, int, str]]:
    """Start, end and the line of each area that starts inside the windows."""
    for line in _text(process, "/proc/self/maps").splitlines():
        match = _MAPS_LINE.fullmatch(line)
        if match is None:
            raise NotModelled(f"a line of maps that can not be read: {line}")
        start, end = int(match[1], 16), int(match[2], 16)
        if _shown(process, start):
            name = f" {_name(match[5])}" if match[5] else ""
            yield start, end, f"{address(start)}-{address(end)} {match[3]} {int(match[4], 16):x}{name}"


def _maps(process: Process, _within: Range, _classes: Classes) -> Fields:
    return {"maps": [line for _, _, line in areas(process)]}


def _smaps(process: Process, _within: Range, _classes: Classes) -> Fields:
    found: list[dict[str, Any]] = []
    inside = False
    for line in _text(process, "/proc/self/smaps").splitlines():
        head = _HEAD.match(line)
        if head is not None:
            start, end = int(head[1], 16), int(head[2], 16)
            inside = _shown(process, start)
            if inside:
                found.append({"vma": f"{address(start)}-{address(end)}"})
            continue
        key, _, value = line.partition(":")
        if not inside:
            continue
        if key == "VmFlags":
            found[-1][key] = value.strip()
            continue
        number = int(value.split()[0])
        if number and not (number == 4 and key in ("KernelPageSize", "MMUPageSize")):
            found[-1][key] = number
    return {"smaps": found}


#: Bits of kpageflags, and of an entry of pagemap with their letters in the order of the answer.
_KPF_HUGE, _KPF_KSM, _KPF_THP, _KPF_ZERO = 1 << 17, 1 << 21, 1 << 22, 1 << 24
_ENTRY_LETTERS: Final = ((1 << 62, "S"), (1 << 61, "F"), (1 << 58, "G"), (1 << 57, "W"), (1 << 56, "X"))


def _entry(value: int, classes: Classes) -> tuple[str, int]:
    """Letters and class (-1: none) of one entry of pagemap."""
    letters, number = "", -1
    if value & _PRESENT:
        letters = "P"
        pfn = value & _PFN
        flags = classes.flags(pfn) if pfn else 0
        if flags & _KPF_ZERO:
            letters += "Z"
        elif pfn:
            number = classes.number(pfn)
        letters += "H" if flags & _KPF_HUGE else "T" if flags & _KPF_THP else ""
        letters += "K" if flags & _KPF_KSM else ""
    return letters + "".join(letter for bit, letter in _ENTRY_LETTERS if value & bit), number


def _pagemap(process: Process, within: Range, classes: Classes) -> Fields:
    runs: list[list[Any]] = []
    looked = 0
    for start, end, _ in list(areas(process)):
        at, stop = max(start, within[0]), min(end, within[1])
        open_ = False  # a run can not go on over the border of an area
        while at < stop and looked <= _MAX_PAGES:
            data = _bytes(process, "/proc/self/pagemap", at // PAGE * 8, min((stop - at) // PAGE, _CHUNK) * 8)
            if len(data) < 8:
                break
            looked += len(data) // 8
            if data.count(0) == len(data):
                at += len(data) // 8 * PAGE
                open_ = False
                continue
            entries = memoryview(data).cast("Q")
            classes.look(process, entries)
            for value in entries:
                letters, number = _entry(value, classes) if value else ("", -1)
                if open_ and _continues(runs[-1], letters, number):
                    runs[-1][1] += 1
                else:
                    open_ = bool(letters)
                    if open_:
                        runs.append([address(at), 1, letters, *([number] if number >= 0 else [])])
                at += PAGE
    return {"pagemap": runs, "pagemap_truncated": True} if looked > _MAX_PAGES else {"pagemap": runs}


def _continues(run: list[Any], letters: str, number: int) -> bool:
    """May the next page, with these letters and this class, join ``run``?"""
    if run[2] != letters:
        return False
    return number == run[3] + run[1] if len(run) > 3 else number < 0


def status(process: Process) -> dict[str, int]:
    """What a dump tells of /proc/PID/status, in kB, zeros included."""
    values = dict.fromkeys(_STATUS, 0)
    for line in _text(process, "/proc/self/status").splitlines():
        key, _, value = line.partition(":")
        if key in values:
            values[key] = int(value.split()[0])
    return values


def _relative_status(process: Process, base: Mapping[str, int]) -> Fields:
    values = status(process)
    shown = {key: values[key] - (base[key] if key in _RELATIVE else 0) for key in _STATUS}
    return {"status": {key: value for key, value in shown.items() if value}}


_POOL: Final = "/sys/kernel/mm/hugepages/hugepages-2048kB/"
_POOL_FILES: Final = {"total": "nr", "free": "free", "resv": "resv", "surp": "surplus"}


def _hugetlb(process: Process, _within: Range, _classes: Classes) -> Fields:
    pool = {key: int(_text(process, f"{_POOL}{file}_hugepages")) for key, file in _POOL_FILES.items()}
    return {"hugetlb": pool}


def _numa(process: Process, _within: Range, _classes: Classes) -> Fields:
    lines = []
    for line in _text(process, "/proc/self/numa_maps").splitlines():
        start, blank, rest = line.partition(" ")
        if _shown(process, int(start, 16)):
            rest = re.sub(r"(?<=file=)\S+", lambda match: _name(match[0]), rest)
            lines.append(address(int(start, 16)) + blank + rest)
    return {"numa_maps": lines}


_VIEWS: Final[Mapping[str, Callable[[Process, Range, Classes], Fields]]] = {
    "maps": _maps,
    "smaps": _smaps,
    "pagemap": _pagemap,
    "hugetlb": _hugetlb,
    "numa": _numa,
}


def view(process: Process, what: str, within: Range, classes: Classes, base: Mapping[str, int]) -> Fields:
    """The fields of a dump that show ``what``; pages only ``within`` a range, ``status`` relative to ``base``. Raises
    NotModelled, OSError.
    """
    if what == "status":
        return _relative_status(process, base)
    return _VIEWS[what](process, within, classes)
