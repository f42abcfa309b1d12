# SPDX-License-Identifier: GPL-2.0-or-later
"""Words of the operation language that several actions choose from, with how often."""

from __future__ import annotations

__all__ = ["KIND", "PROT"]

PROT = {"rw": 40.0, "r": 22.0, "none": 18.0, "rx": 8.0, "rwx": 5.0, "w": 4.0, "x": 2.0, "wx": 1.0}
KIND = {"private|anon": 80.0, "shared|anon": 9.0, "private|anon|noreserve": 6.0, "private|anon|stack": 2.0}
