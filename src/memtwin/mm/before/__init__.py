# SPDX-License-Identifier: GPL-2.0-or-later
"""Longer shapes of code from before a change of the catalogue; chosen at boot, never by an ``if`` in the newer code."""
