# SPDX-License-Identifier: GPL-2.0-or-later
"""One module a table: ``TITLE`` (one line), ``NOTE`` (what is compared with what), and ``cases(bench)``, which sets up
both sides and yields :class:`~benchmarks.harness.Case` objects in the order in which a round takes them.
"""

from __future__ import annotations

#: In the order in which they run.
NAMES = (
    "page_alloc",
    "first_touch",
    "populate",
    "populated",
    "huge_pages",
    "areas",
    "address_space",
    "boot",
    "footprint",
    "program",
    "command_line",
)
