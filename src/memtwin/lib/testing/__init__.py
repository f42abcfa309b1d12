# SPDX-License-Identifier: GPL-2.0-or-later
"""What the data structures' own tests run on: shims of slab and locks, models, and the tests that experiments repeat."""
