# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory management proper; one module mirrors one file of Linux's mm/. It changes state and fires tracepoints."""
