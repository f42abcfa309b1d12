# SPDX-License-Identifier: GPL-2.0-or-later
"""Many programs: written, run on both halves, compared; what differs is confirmed, grouped and made small.

Work is cut into chunks of a fixed size and results are taken in order, so that a campaign's result does not depend on
the number of workers. A program whose live answers change when it is run again is dropped and counted; so is one that
the live half lost.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from memtwin.changes.profiles import profile as kernel_profile
from memtwin.verify.compare import Difference, Ignored, compare, depends_on, ignored, lost, normal, unruled
from memtwin.verify.coverage import Coverage, marker
from memtwin.verify.generate import Profile, program
from memtwin.verify.live import Answers, Live, executor
from memtwin.verify.profiles import profile as find_profile
from memtwin.verify.shrink import Program, shrink
from memtwin.verify.sysctls import changes_sysctls
from memtwin.verify.twin import Twin

__all__ = ["CHUNK", "Campaign", "Case", "Report", "Worker", "follow_parent", "judge", "key_of", "minimal", "run"]

#: Programs of one unit of work.
CHUNK = 50


@dataclass(frozen=True, slots=True)
class Campaign:
    """What to do: programs ``first`` to ``first + programs - 1`` of a profile and seed, on which kernel; or, instead of
    generated ones, the programs in ``texts``.
    """

    profile: str
    seed: int
    programs: int
    first: int = 0
    kernel: str = "host"
    with_: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    check: bool = True
    texts: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """A program that shows a difference."""

    number: int
    lines: tuple[str, ...]
    difference: Difference

    @property
    def line(self) -> str:
        """The line that differs."""
        return self.lines[self.difference.index] if self.difference.index < len(self.lines) else "(after the last line)"


@dataclass(slots=True)
class Report:
    """What came out. ``programs``, ``lines``: compared; ``unstable``, ``lost``: dropped; ``undecided``: they
    differ where nobody knows what this live kernel does, and are left out; ``skipped``: not run, by reason;
    ``unmodelled``: operations at which comparisons ended; ``cases``: differences, in order of their numbers.
    """

    programs: int = 0
    lines: int = 0
    unstable: int = 0
    lost: int = 0
    undecided: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    unmodelled: Counter[str] = field(default_factory=Counter)
    cases: list[Case] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)

    def add(self, other: Report) -> None:
        """Count ``other`` in."""
        self.programs += other.programs
        self.lines += other.lines
        self.unstable += other.unstable
        self.lost += other.lost
        self.undecided += other.undecided
        self.skipped += other.skipped
        self.unmodelled += other.unmodelled
        self.cases += other.cases
        self.coverage.add(other.coverage)

    def groups(self) -> dict[str, list[Case]]:
        """Cases that look alike, largest group first."""
        found: dict[str, list[Case]] = {}
        for case in self.cases:
            found.setdefault(key_of(case), []).append(case)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _outcome(answer: dict[str, object] | None) -> str:
    if answer is None:
        return "no answer"
    if "broken" in answer:
        return re.sub(r"\d+", "N", str(answer["broken"])[:80])
    return str(answer.get("err") or answer.get("sig") or "ok")


def key_of(case: Case) -> str:
    """What two cases have in common that are probably one: the operation, the results, the fields that differ."""
    words = case.line.split()
    op = words[1] if words[0].startswith("@") and len(words) > 1 else words[0]
    op = op.rpartition("=")[2]
    live, twin = _outcome(case.difference.live), _outcome(case.difference.twin)
    how = f"{live} -> {twin}" if live != twin else ",".join(case.difference.fields)
    return f"{op}: {how}"


class Worker:
    """Both halves, set up once in a process."""

    def __init__(self, campaign: Campaign, path: Path, cpu: int) -> None:
        self.campaign = campaign
        self.profile: Profile = find_profile(campaign.profile)
        self.twin = Twin(campaign.kernel, campaign.with_, campaign.without, check=campaign.check)
        self.live = Live(path, cpu=cpu, size=self.twin.size())
        self.ignore: Ignored = ignored(self.live.release)
        self.undecided = kernel_profile("host").undecided

    def write(self, number: int) -> list[str]:
        """The lines of a program, without what can not be done here."""
        if self.campaign.texts:
            return list(self.campaign.texts[number])
        lines = program(self.profile, self.campaign.seed, number)
        return lines if self.live.map_room else [line for line in lines if "map_room" not in line]

    def ask(self, report: Report, first: int, count: int) -> list[tuple[int, list[str], Answers]]:
        """Number, lines and live answers of programs ``first`` to ``first + count - 1`` that can be run here."""
        programs = [(number, self.write(number)) for number in range(first, first + count)]
        if self.live.no_sysctls is not None:
            able = [(number, lines) for number, lines in programs if not changes_sysctls(lines)]
            report.skipped[self.live.no_sysctls] += len(programs) - len(able)
            programs = able
        answers = self.live.run([lines for _, lines in programs])
        return [(number, lines, live) for (number, lines), live in zip(programs, answers, strict=True)]

    def chunk(self, first: int, count: int) -> Report:
        """Run programs ``first`` to ``first + count - 1``."""
        report = Report()
        for number, lines, answers in self.ask(report, first, count):
            self._one(report, number, lines, answers)
        return self._confirmed(report)

    def _one(self, report: Report, number: int, lines: Sequence[str], answers: Answers) -> None:
        if lost(answers):
            report.lost += 1
            return
        mark, done = marker(report.coverage)
        difference, missing = compare(answers, done(self.twin.run(lines, mark)), self.ignore | unruled(lines))
        if missing is not None:
            report.unmodelled[missing] += 1
        report.programs += 1
        report.lines += len(lines) if difference is None else difference.index + 1
        if difference is None:
            return
        if depends_on(self.undecided, lines[: difference.index + 1]):
            report.undecided += 1
        else:
            report.cases.append(Case(number, tuple(lines), difference))

    def _confirmed(self, report: Report) -> Report:
        """Without the cases whose live answers are not the same again."""
        if not report.cases:
            return report
        cases = []
        for case, answers in zip(report.cases, self.live.run([case.lines for case in report.cases]), strict=True):
            index = case.difference.index
            again = normal(answers[index], self.ignore | unruled(case.lines)) if index < len(answers) else None
            if again == case.difference.live:
                cases.append(case)
            else:
                report.unstable += 1
        report.cases = cases
        return report


_PR_SET_PDEATHSIG = 1


def follow_parent() -> None:
    """Make this process a worker that ends when its parent does: Ctrl-C is the parent's, and even if that is killed,
    nobody is left.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


_worker: Worker


def _start_worker(campaign: Campaign, path: Path, cpus: multiprocessing.SimpleQueue[int]) -> None:
    global _worker
    follow_parent()
    _worker = Worker(campaign, path, cpus.get())


def _work(chunk: tuple[int, int]) -> Report:
    return _worker.chunk(*chunk)


def _chunks(campaign: Campaign) -> list[tuple[int, int]]:
    end = campaign.first + campaign.programs
    return [(first, min(CHUNK, end - first)) for first in range(campaign.first, end, CHUNK)]


def reports(campaign: Campaign, jobs: int = 1) -> Iterator[Report]:
    """The report of each chunk, in order. Raises BadInput, NotModelled."""
    path = executor()
    if jobs == 1:
        worker = Worker(campaign, path, 0)
        for chunk in _chunks(campaign):
            yield worker.chunk(*chunk)
        return
    context = multiprocessing.get_context("fork")
    cpus = context.SimpleQueue()
    for cpu in range(jobs):
        cpus.put(cpu)
    with context.Pool(jobs, _start_worker, (campaign, path, cpus)) as pool:
        yield from pool.imap(_work, _chunks(campaign))


def run(campaign: Campaign, jobs: int = 1, progress: Callable[[Report], None] | None = None) -> Report:
    """The whole campaign. ``progress`` is told the state after each chunk. Raises BadInput, NotModelled."""
    total = Report()
    for report in reports(campaign, jobs):
        total.add(report)
        if progress is not None:
            progress(total)
    return total


def judge(campaign: Campaign, wanted: Callable[[Case], bool]) -> Callable[[Sequence[Program]], int | None]:
    """Judges candidates of the shrinker: do they show a difference of the wanted kind?"""
    worker = Worker(campaign, executor(), 0)

    def differs(candidates: Sequence[Program]) -> int | None:
        for index, (lines, answers) in enumerate(zip(candidates, worker.live.run(candidates), strict=True)):
            if lost(answers) or any("error" in answer for answer in answers):
                continue  # a smaller program is still one in the language
            difference, missing = compare(answers, worker.twin.run(lines), worker.ignore | unruled(lines))
            if missing is None and difference is not None and wanted(Case(-1, lines, difference)):
                return index
        return None

    return differs


def minimal(campaign: Campaign, case: Case) -> Case:
    """The smallest program that shows the same kind of difference."""
    key = key_of(case)
    differs = judge(campaign, lambda other: key_of(other) == key)
    start = case.lines[: case.difference.index + 1]
    if differs([start]) is None:
        start = case.lines
    lines = tuple(shrink(start, differs))
    worker = Worker(campaign, executor(), 0)
    (answers,) = worker.live.run([lines])
    difference, _ = compare(answers, worker.twin.run(lines), worker.ignore | unruled(lines))
    return Case(case.number, lines, difference) if difference is not None else case
