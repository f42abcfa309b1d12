# SPDX-License-Identifier: GPL-2.0-or-later
"""Guards beside a thread that fills the pages again as fast as it can: on the live kernel every call succeeds in the
end, and leaves a guard on every page. (The twin's side is ``tests/unit/mm/test_fault_races.py``, where the other thread
can be as fast as one likes.)
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from memtwin.changes.catalogue import parse_release

pytestmark = pytest.mark.live

PROBE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
enum { PAGE = 4096, PAGES = 16, ROUNDS = 4000, INSTALL = 102, REMOVE = 103 };
static char *area;
static volatile int over;
static volatile long filled;
static __thread sigjmp_buf back;
static void segv(int sig) { (void)sig; siglongjmp(back, 1); }
static void *fill(void *arg)
{
    for (volatile unsigned i = (unsigned)(long)arg; !over; i++)
        if (!sigsetjmp(back, 1)) {
            *(volatile char *)(area + i % PAGES * PAGE) = 1;
            filled++;
        }
    return NULL;
}
int main(void)
{
    area = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (madvise(area, PAGE, INSTALL)) { printf("unknown\n"); return 0; }
    signal(SIGSEGV, segv);
    int fd = open("/proc/self/pagemap", O_RDONLY);
    pthread_t threads[2];
    for (long i = 0; i < 2; i++) pthread_create(&threads[i], NULL, fill, (void *)(i * 7));
    int errors = 0, without = 0;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t entries[PAGES];
        if (madvise(area, PAGES * PAGE, INSTALL)) errors++;
        if (pread(fd, entries, sizeof entries, (off_t)(uintptr_t)area / PAGE * 8) != sizeof entries) abort();
        for (int k = 0; k < PAGES; k++) without += !(entries[k] >> 58 & 1);
        if (madvise(area, PAGES * PAGE, REMOVE)) errors++;
        for (long seen = filled, n = 0; filled == seen && n < 100000; n++) { }
    }
    over = 1;
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    printf("%d %d %d\n", errors, without, filled > ROUNDS / 10);
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_guards_are_everywhere(tmp_path: Path) -> None:
    if parse_release(os.uname().release) < (6, 15, 0):
        pytest.skip("guards came with 6.13, their bit in pagemap with 6.15")
    if (os.cpu_count() or 1) < 2:
        pytest.skip("needs two CPUs")
    source, program = tmp_path / "guards.c", tmp_path / "guards"
    source.write_text(PROBE)
    subprocess.run(["gcc", "-O2", "-w", "-pthread", "-o", program, source], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["0", "0", "1"]
