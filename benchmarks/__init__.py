# SPDX-License-Identifier: GPL-2.0-or-later
"""Benchmarks: the twin against its peer, interleaved in the same run. Run as ``python -m benchmarks``; see
docs/benchmarks.md.
"""
