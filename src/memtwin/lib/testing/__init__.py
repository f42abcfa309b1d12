# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of data structures run on: shims of slab and locks, models, and tests that experiments repeat."""
