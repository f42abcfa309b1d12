# SPDX-License-Identifier: GPL-2.0-or-later
"""What a rate limit lets through."""

from __future__ import annotations

from memtwin.lib.ratelimit import Ratelimit

SECOND = 1_000_000_000


def test_ten_in_five_seconds_counted_from_the_first():
    limit = Ratelimit()
    assert [limit.allows(i * SECOND // 4) for i in range(12)] == [True] * 10 + [False] * 2
    assert not limit.allows(5 * SECOND) and limit.missed == 3
    assert limit.allows(5 * SECOND + 1)
    assert [limit.allows(7 * SECOND) for _ in range(10)] == [True] * 9 + [False]
