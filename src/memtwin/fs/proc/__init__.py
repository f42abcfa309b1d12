# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc of the twin (fs/proc/): its own state, never the host's."""
