# SPDX-License-Identifier: GPL-2.0-or-later
"""Is the twin right? Random programs on the live kernel and on the twin, compared (architecture, section 9).

``generate`` writes programs, ``live`` runs them on the kernel that is there through ``executor/``, ``twin`` on a
machine of ours, ``compare`` says where they part, ``shrink`` makes that small, ``campaign`` does all of it for many
programs, ``coverage`` counts what was reached, and ``mutations`` breaks the twin on purpose: a tame generator proves
nothing.
"""
