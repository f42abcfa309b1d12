# SPDX-License-Identifier: GPL-2.0-or-later
"""What is told about a run, in words and as data."""
