# SPDX-License-Identifier: GPL-2.0-or-later
"""Worlds for CPU tests: every test that takes ``world`` runs with both cures of unicorn issue #1883."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from memtwin.cpu.tiny import World


@pytest.fixture
def make() -> Iterator[Callable[..., World]]:
    """``make(size, cure=..., native=..., preempt=..., tsc=...)``; all are closed at the end of the test."""
    worlds: list[World] = []

    def factory(*args: int, **options: object) -> World:
        worlds.append(World(*args, **options))
        return worlds[-1]

    yield factory
    for world in worlds:
        world.close()


@pytest.fixture(params=["live", "blob"])
def world(request: pytest.FixtureRequest, make: Callable[..., World]) -> World:
    return make(cure=request.param)
