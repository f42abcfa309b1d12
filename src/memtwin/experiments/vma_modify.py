# SPDX-License-Identifier: GPL-2.0-or-later
"""Experiment ``vma-modify``: seven inlined copies of "merge, else split" against the one routine that replaced them.

Two machines get the same random sequences of calls, among them ones that meet the limit of areas; after every call the
answers and all areas are compared. Then the rows of the spec: a change in the middle of an area and its undoing, by
every caller, and a call that needs two splits where the limit allows one.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, cast

from memtwin.abi.mempolicy import MPOL_BIND, MPOL_DEFAULT
from memtwin.abi.mman import (
    MADV_DODUMP,
    MADV_DOFORK,
    MADV_DONTDUMP,
    MADV_DONTFORK,
    MADV_NORMAL,
    MADV_RANDOM,
    MADV_SEQUENTIAL,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE,
)
from memtwin.abi.userfaultfd import UFFDIO_REGISTER_MODE_WP
from memtwin.experiments.base import Claim, ExperimentResult, Observation
from memtwin.machine import Machine
from memtwin.mm.vma_modify import VmaModify
from memtwin.process import Process

__all__ = ["run"]

SEQUENCES: Final = 10_000
CALLS: Final = 6  #: of each sequence
SEED: Final = 7
PAGE: Final = 4096
PAGES: Final = 12
LENGTH: Final = PAGES * PAGE
BASE: Final = 0x10000000
RW: Final = PROT_READ | PROT_WRITE
ANON: Final = MAP_PRIVATE | MAP_ANONYMOUS
MAX_MAP_COUNT: Final = "/proc/sys/vm/max_map_count"
ADVICE: Final = (
    MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_DONTFORK, MADV_DOFORK, MADV_DONTDUMP, MADV_DODUMP,
)  # fmt: skip
#: mlock gives only its part an anon_vma, and 6.7 does not merge that with neighbours that have none (the knob
#: post-merge-faulted-unfaulted does).
UNTOUCHED: Final = "mlock, munlock of an untouched area"
SITES: Final = ("mprotect", "mlock", "madvise", "mbind", "uffd_register", "uffd_unregister", "uffd_release")

#: What is drawn from: unregistering means something only where something is registered, so both come more often.
KINDS: Final = (
    "mprotect", "mprotect", "mlock", "munlock", "madvise", "name", "mbind", "register", "register", "register",
    "unregister", "unregister", "unregister", "close", "write",
)  # fmt: skip

Call = tuple[str, int, int, int]
"""What is called, on which offset, for how many bytes, with which choice."""
State = list[tuple[object, ...]]


class _Counted:
    """Passes every call on to the kernel's shape of the seven call sites, and counts it."""

    def __init__(self, shape: VmaModify, calls: Counter[str]) -> None:
        self._shape = shape
        self._calls = calls

    def __getattr__(self, site: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._shape, site)

        def call(*args: Any) -> Any:
            self._calls[site] += 1
            return method(*args)

        return call


def _draw(rng: random.Random) -> tuple[int, list[Call]]:
    """One sequence: areas that are left until the limit (-1: no limit near), and its calls."""
    calls: list[Call] = []
    for _ in range(CALLS):
        kind = rng.choice(KINDS)
        first = rng.randrange(PAGES)
        last = rng.randrange(first, PAGES)
        calls.append((kind, first * PAGE, (last - first + 1) * PAGE, rng.randrange(len(ADVICE))))
    return rng.choice((-1, -1, 0, 1, 2, 3)), calls


class _Player:
    """Plays sequences on one machine, each in a process of its own."""

    def __init__(self, change_id: str, *, after: bool) -> None:
        self.machine = Machine(
            memory="64M", nodes=2, config=["ANON_VMA_NAME"], without=[] if after else [change_id], seed=SEED
        )
        ctx = self.machine.kernel.mm_ctx
        self.shape = type(ctx.modify).__name__
        self.sites: Counter[str] = Counter()
        ctx.modify = cast(VmaModify, _Counted(ctx.modify, self.sites))
        self.answers: Counter[str] = Counter()

    def begin(self, room: int) -> tuple[Process, int]:
        """A process with a mapping of 12 pages, ``room`` areas below the limit; and a userfaultfd."""
        process = self.machine.spawn()
        process.mmap(BASE, LENGTH, RW, ANON | MAP_FIXED)
        if room >= 0:
            process.write_file(MAX_MAP_COUNT, str(process.mm.map_count + room))
        return process, self._userfaultfd(process)

    @staticmethod
    def _userfaultfd(process: Process) -> int:
        fd = process.userfaultfd()
        process.uffd_api(fd, 0)
        return fd

    def end(self, process: Process, room: int) -> None:
        """The process exits, and the limit is as it was."""
        if room >= 0:
            process.write_file(MAX_MAP_COUNT, "65530")
        process.exit()

    def call(self, process: Process, fd: int, call: Call) -> tuple[str, int]:
        """Make one call; its answer, and the userfaultfd to use from now on."""
        kind, offset, length, choice = call
        addr = BASE + offset
        answer = "ok"
        try:
            if kind == "mprotect":
                process.mprotect(addr, length, (PROT_NONE, PROT_READ, RW)[choice % 3])
            elif kind == "mlock":
                process.mlock2(addr, length, choice & 1)
            elif kind == "munlock":
                process.munlock(addr, length)
            elif kind == "madvise":
                process.madvise(addr, length, ADVICE[choice])
            elif kind == "name":
                process.prctl_set_vma_anon_name(addr, length, (None, "a", "b")[choice % 3])
            elif kind == "mbind":
                nodes = choice % 3
                process.mbind(addr, length, MPOL_BIND if nodes else MPOL_DEFAULT, nodes)
            elif kind == "register":
                process.uffd_register(fd, addr, length, UFFDIO_REGISTER_MODE_WP)
            elif kind == "unregister":
                process.uffd_unregister(fd, addr, length)
            elif kind == "close":
                process.close(fd)
                fd = self._userfaultfd(process)
            else:
                _write_where_allowed(process, addr)
        except OSError as error:
            answer = errno.errorcode[error.errno or 0]
        self.answers[answer] += 1
        return answer, fd


def _write_where_allowed(process: Process, addr: int) -> None:
    """Give the area at ``addr`` a page, if a write is permitted there and no monitor would be asked."""
    vma = process.mm.mm_mt.load(addr)
    if vma.flags & PROT_WRITE and vma.uffd_ctx is None:
        process.write(addr, b"x")


def _state(process: Process) -> State:
    """Everything that decides what an area is and with what it may merge."""
    return [
        (
            vma.start,
            vma.end,
            vma.flags,
            vma.pgoff,
            vma.policy,
            vma.uffd_ctx is not None,
            vma.anon_name,
            vma.anon_vma.id if vma.anon_vma is not None else 0,
            len(vma.anon_vma_chain),
        )
        for vma in process.vmas()
    ]


def _compare(before: _Player, after: _Player) -> tuple[int, int, int]:
    """Play all sequences on both; returns differing sequences, most areas seen, and sequences near the limit."""
    rng = random.Random(SEED)
    differing = most = limited = 0
    for _ in range(SEQUENCES):
        room, calls = _draw(rng)
        limited += room >= 0
        (one, one_fd), (two, two_fd) = before.begin(room), after.begin(room)
        for call in calls:
            one_answer, one_fd = before.call(one, one_fd, call)
            two_answer, two_fd = after.call(two, two_fd, call)
            state = _state(one)
            most = max(most, len(state))
            if one_answer != two_answer or state != _state(two):
                differing += 1
                break
        before.end(one, room)
        after.end(two, room)
    return differing, most, limited


def _there_and_back(player: _Player) -> dict[str, str]:
    """Areas that 12 pages are: at first, after the middle 4 changed, and after they changed back; by caller."""
    start, length = BASE + 4 * PAGE, 4 * PAGE
    pairs: dict[str, tuple[Callable[[Process, int], object], Callable[[Process, int], object]]] = {
        "mprotect": (lambda p, fd: p.mprotect(start, length, PROT_READ), lambda p, fd: p.mprotect(start, length, RW)),
        "mlock, munlock": (lambda p, fd: p.mlock(start, length), lambda p, fd: p.munlock(start, length)),
        UNTOUCHED: (lambda p, fd: p.mlock(start, length), lambda p, fd: p.munlock(start, length)),
        "madvise": (
            lambda p, fd: p.madvise(start, length, MADV_RANDOM),
            lambda p, fd: p.madvise(start, length, MADV_NORMAL),
        ),
        "mbind": (
            lambda p, fd: p.mbind(start, length, MPOL_BIND, 1),
            lambda p, fd: p.mbind(start, length, MPOL_DEFAULT),
        ),
        "UFFDIO_REGISTER, UFFDIO_UNREGISTER": (
            lambda p, fd: p.uffd_register(fd, start, length, UFFDIO_REGISTER_MODE_WP),
            lambda p, fd: p.uffd_unregister(fd, start, length),
        ),
        "UFFDIO_REGISTER, close of the userfaultfd": (
            lambda p, fd: p.uffd_register(fd, start, length, UFFDIO_REGISTER_MODE_WP),
            lambda p, fd: p.close(fd),
        ),
    }
    seen: dict[str, str] = {}
    for name, calls in pairs.items():
        process, fd = player.begin(-1)
        if name != UNTOUCHED:
            process.write(BASE, b"x")
        counts = [_areas(process)]
        for call in calls:
            call(process, fd)
            counts.append(_areas(process))
        seen[name] = " -> ".join(map(str, counts))
        process.exit()
    return seen


def _areas(process: Process) -> int:
    return sum(BASE <= vma.start < BASE + LENGTH for vma in process.vmas())


def _half_done(player: _Player) -> list[str]:
    """mprotect of a page in the middle needs two splits; the limit allows one. What two such calls leave."""
    process, fd = player.begin(1)
    parts: list[str] = []
    for _ in range(2):
        answer, fd = player.call(process, fd, ("mprotect", 5 * PAGE, PAGE, 1))
        left = player.machine.kernel.mm_ctx.sysctl.max_map_count - process.mm.map_count
        alike = len({vma.flags for vma in process.vmas() if BASE <= vma.start < BASE + LENGTH}) == 1
        parts.append(f"{answer}, {_areas(process)} areas{' alike' * alike}, room for {left}")
    player.end(process, 1)
    return parts


def run(change_id: str, /) -> ExperimentResult:
    """Sequences and rows on a machine without and one with the change."""
    sides = before, after = _Player(change_id, after=False), _Player(change_id, after=True)
    differing, most, limited = _compare(before, after)
    total = sum(before.answers.values())
    answers = [dict(sorted(player.answers.items())) for player in sides]
    sites = [[player.sites[site] for site in SITES] for player in sides]
    back = [_there_and_back(player) for player in sides]
    half = [_half_done(player) for player in sides]
    for player in sides:
        player.machine.check()
        player.machine.kernel.check_no_leak()
        player.machine.close()
    rows = [
        Observation("shape of the call sites", before.shape, after.shape),
        Observation("random sequences", f"{SEQUENCES}", f"{SEQUENCES}"),
        Observation("of these, near the limit of areas", f"{limited}", f"{limited}"),
        *(
            Observation(f"calls answered {answer}", *(str(seen.get(answer, 0)) for seen in answers))
            for answer in sorted({name for seen in answers for name in seen})
        ),
        *(Observation(f"{site} got to merge or split", *map(str, at)) for site, *at in zip(SITES, *sites, strict=True)),
        Observation("most areas of one process", f"{most}", f"{most}"),
        Observation("sequences with different answers or areas", "", f"{differing}"),
        *(Observation(f"areas, there and back: {name}", back[0][name], back[1][name]) for name in back[0]),
        Observation("two splits needed, room for one", half[0][0], half[1][0]),
        Observation("the same call again", half[0][1], half[1][1]),
    ]
    limits = answers[0].get("ENOMEM", 0)
    claims = [
        Claim(
            f"inlined and common shape leave the same areas after each of {total} calls in {SEQUENCES} sequences",
            before.shape != after.shape and not differing,
        ),
        Claim(
            f"all seven call sites were reached, and {limits} calls met the limit of areas",
            all(sites[0]) and sites[0] == sites[1] and limits > 0,
        ),
        Claim(
            "every caller splits one area into three and makes it one again (if all of it has the same anon_vma)",
            all(counts == f"1 -> 3 -> {1 + 2 * (name == UNTOUCHED)}" for seen in back for name, counts in seen.items()),
        ),
        Claim(
            "a call that fails at its second split leaves the first one, with both parts alike; again, nothing more",
            all(seen == ["ENOMEM, 2 areas alike, room for 0"] * 2 for seen in half),
        ),
    ]
    return ExperimentResult(change_id, rows, claims)
