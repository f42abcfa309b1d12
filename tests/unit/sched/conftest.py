# SPDX-License-Identifier: GPL-2.0-or-later
"""A scheduler with the lock checker on, torn down after each test, and the trace the tests write."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from memtwin.sched import Scheduler


@pytest.fixture
def sched() -> Iterator[Scheduler]:
    scheduler = Scheduler(cpus=4, lockdep=True)
    yield scheduler
    scheduler.close()


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def preempt_at(sched: Scheduler) -> Callable[[str], None]:
    """``preempt_at("site")``: every task gives the CPU away when it passes the site."""
    sites: list[str] = []

    def hook(site: str) -> None:
        if site in sites:
            sched.preempt()

    def add(site: str) -> None:
        sites.append(site)
        sched.hook = hook

    return add
