# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m benchmarks``."""

from __future__ import annotations

import sys

from benchmarks.bench import main

sys.exit(main())
