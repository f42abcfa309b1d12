# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m memtwin`` is the command ``memtwin``."""

from __future__ import annotations

import sys

from memtwin.cli.main import main

sys.exit(main())
