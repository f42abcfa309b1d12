# SPDX-License-Identifier: GPL-2.0-or-later
"""What user space sees of x86-64 Linux: constants and layouts. Imports nothing."""
