# SPDX-License-Identifier: GPL-2.0-or-later
"""Hunting planted faults: after how many programs is each mutation noticed?

The live half runs each program once; the twin runs it once whole and once with every mutation that is still at large.
Programs on which the whole twin differs say nothing and are left out.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from memtwin.errors import BadInput
from memtwin.verify.campaign import CHUNK, Campaign, Case, Report, Worker, follow_parent, key_of
from memtwin.verify.compare import compare, lost, unruled
from memtwin.verify.live import executor
from memtwin.verify.mutations import Mutation, planted

__all__ = ["Catch", "hunt"]


@dataclass(frozen=True, slots=True)
class Catch:
    """What became of a mutation. ``after``: the programs it took, None if it survived; ``how``: what differed;
    ``stale``: why it could not be planted.
    """

    mutation: Mutation
    after: int | None = None
    how: str = ""
    stale: str | None = None


def _chunk(campaign: Campaign, cpu: int, names: tuple[Mutation, ...], first: int) -> dict[str, tuple[int, str]]:
    """For each mutation noticed in this chunk: number of the program, what differed."""
    worker = Worker(campaign, executor(), cpu)
    count = min(CHUNK, campaign.first + campaign.programs - first)
    good = [
        (number, lines, live)
        for number, lines, live in worker.ask(Report(), first, count)
        if not lost(live) and compare(live, worker.twin.run(lines), worker.ignore | unruled(lines))[0] is None
    ]
    found: dict[str, tuple[int, str]] = {}
    for mutation in names:
        with planted(mutation):
            for number, lines, live in good:
                difference, _ = compare(live, worker.twin.run(lines), worker.ignore | unruled(lines))
                if difference is not None:
                    found[mutation.name] = number, key_of(Case(number, tuple(lines), difference))
                    break
    return found


def _stale(mutation: Mutation) -> str | None:
    try:
        mutation.code()
    except BadInput as error:
        return str(error)
    return None


def hunt(campaign: Campaign, mutations: Sequence[Mutation], jobs: int = 1) -> Iterator[Catch]:
    """What becomes of each mutation that programs of this profile can notice, in the order of the table."""
    mutations = [mutation for mutation in mutations if campaign.profile in mutation.profiles]
    stale = {mutation.name: why for mutation in mutations if (why := _stale(mutation)) is not None}
    at_large = [mutation for mutation in mutations if mutation.name not in stale]
    caught: dict[str, tuple[int, str]] = {}
    starts = list(range(campaign.first, campaign.first + campaign.programs, CHUNK))
    executor()
    with multiprocessing.get_context("fork").Pool(jobs, follow_parent) as pool:
        while starts and at_large:
            now, starts = starts[:jobs], starts[jobs:]
            work = [
                pool.apply_async(partial(_chunk, campaign, cpu, tuple(at_large), first))
                for cpu, first in enumerate(now)
            ]
            for result in work:
                for name, where in result.get().items():
                    caught.setdefault(name, where)
            at_large = [mutation for mutation in at_large if mutation.name not in caught]
    for mutation in mutations:
        catch = Catch(mutation, stale=stale.get(mutation.name))
        if mutation.name in caught:
            number, how = caught[mutation.name]
            catch = replace(catch, after=number - campaign.first + 1, how=how)
        yield catch
