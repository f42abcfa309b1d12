# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lock the live kernel's faults take, seen by its own tracepoint, against the twin: how often ``mmap_lock`` is
taken for reading, and which faults are major.

The trace goes to an instance of its own for one process; nothing else is traced, and the instance is removed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from memtwin.experiments.fault_kinds import KINDS, all_kinds

pytestmark = pytest.mark.live

EVENT = "events/mmap_lock/mmap_lock_acquire_returned/enable"

#: Kinds that a program can make on an ordinary disk file system, by their place in the table. The others want a page
#: with the readahead mark, a file that tracks dirty pages without page_mkwrite, or a driver.
ASKED = (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12)

PROBE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
enum { PAGE = 4096, PAGES = 64 };
static int mark = -1;
static char *file;
static long majors(void) { struct rusage u; getrusage(RUSAGE_SELF, &u); return u.ru_majflt; }
static long minors(void) { struct rusage u; getrusage(RUSAGE_SELF, &u); return u.ru_minflt; }
static void say(const char *text) { if (write(mark, text, strlen(text)) < 0) exit(9); }
static void fault(int kind, volatile char *p, int store)
{
	char text[64];
	long major = majors(), minor = minors();
	sprintf(text, "begin %d", kind);
	say(text);
	if (store) *p = 1; else (void)*p;
	sprintf(text, "end %d", kind);
	say(text);
	printf("%d %ld %ld\n", kind, majors() - major, minors() - minor);
}
static char *map(int fd, int flags) { 
	char *p = mmap((void *)0x10000000, PAGES * PAGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
	if (p == MAP_FAILED) exit(3);
	return p;
}
static int opened(int cold)
{
	int fd = open(file, O_RDWR);
	char page[PAGE];
	if (fd < 0) exit(4);
	fsync(fd);
	if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)) exit(5);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	if (!cold) for (int i = 0; i < PAGES; i++) if (pread(fd, page, PAGE, (long)i * PAGE) < 0) exit(6);
	return fd;
}
static void kind(int k)
{
	static const int share[] = { 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1 };
	int fd = -1, cold = k == 2 || k == 5 || k == 6 || k == 10;
	if (k >= 2) fd = opened(cold);
	char *p = k < 2 ? map(-1, MAP_PRIVATE | MAP_ANONYMOUS) : map(fd, share[k] ? MAP_SHARED : MAP_PRIVATE);
	madvise(p, PAGES * PAGE, MADV_NOHUGEPAGE);
	if (k >= 2) madvise(p, PAGES * PAGE, MADV_RANDOM);
	if (k == 1 || k == 6 || k == 7 || k == 9) p[0] = 1;           /* gives it an anon_vma */
	if (k == 8 || k == 9 || k == 12) (void)*(volatile char *)(p + 32 * PAGE); /* a read-only entry */
	fault(k, p + 32 * PAGE, k != 2 && k != 3);
	munmap(p, PAGES * PAGE);
	if (fd >= 0) close(fd);
}
int main(int argc, char **argv)
{
	static const int kinds[] = { 0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12 };
	char text[PAGE] = "x", go;
	file = argv[1];
	int fd = open(file, O_RDWR | O_CREAT | O_TRUNC, 0600);
	for (int i = 0; i < PAGES; i++) if (write(fd, text, PAGE) != PAGE) return 2;
	close(fd);
	mark = open(argv[2], O_WRONLY);
	if (mark < 0 || read(0, &go, 1) != 1) return 1;
	fault(99, text, 1); /* everything of its own is resident */
	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) kind(kinds[i]);
	unlink(file);
	return 0;
}
"""


@pytest.fixture
def tracing(tmp_path: Path) -> Iterator[Path]:
    """A trace instance of our own."""
    if os.geteuid():
        pytest.skip("tracing needs root")
    root = Path("/sys/kernel/tracing")
    mounted = None
    if not (root / "instances").is_dir():
        root = mounted = tmp_path / "tracefs"
        mounted.mkdir()
        if subprocess.run(["mount", "-t", "tracefs", "nodev", str(mounted)], capture_output=True).returncode:
            pytest.skip("no tracefs")
    try:
        if not (root / EVENT).exists():
            pytest.skip("the kernel has no mmap_lock tracepoints")
        instance = root / "instances" / f"memtwin-{os.getpid()}"
        instance.mkdir()
        try:
            yield instance
        finally:
            (instance / EVENT).write_text("0")
            instance.rmdir()
    finally:
        if mounted is not None:
            subprocess.run(["umount", str(mounted)], check=True)


def live(instance: Path, tmp_path: Path) -> dict[int, tuple[int, int, int]]:
    """(times ``mmap_lock`` was taken for reading, major faults, minor faults) of each kind."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    source, program = tmp_path / "probe.c", tmp_path / "probe"
    source.write_text(PROBE)
    subprocess.run(["gcc", "-O1", "-static", "-o", str(program), str(source)], check=True)
    command = [str(program), str(tmp_path / "data"), str(instance / "trace_marker")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        (instance / "set_event_pid").write_text(str(process.pid))
        (instance / EVENT).write_text("1")
        out, _ = process.communicate("g", timeout=60)
    assert process.returncode == 0
    taken: dict[int, int] = {}
    now = None
    for line in (instance / "trace").read_text().splitlines():
        if "tracing_mark_write: begin " in line:
            now = int(line.split()[-1])
            taken[now] = 0
        elif "tracing_mark_write: end " in line:
            now = None
        elif now is not None and "write=false success=true" in line:
            taken[now] += 1
    counts = (tuple(map(int, line.split())) for line in out.splitlines())
    return {kind: (taken[kind], major, minor) for kind, major, minor in counts}


def test_the_locks_of_faults(tracing: Path, tmp_path: Path) -> None:
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if release < (6, 12):
        pytest.skip("an older kernel")
    if subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True).stdout.strip() not in (
        "ext2/ext3",
        "xfs",
    ):
        pytest.skip("the temporary directory is not on a disk file system with page_mkwrite")
    seen = live(tracing, tmp_path)
    if seen.pop(99) != (0, 0, 0):
        pytest.skip("the tracepoint or the counters are not quiet")
    twin = all_kinds(with_=["post-anon-prepare-vma-lock", "post-majflt-tried"])
    names = list(KINDS)
    assert {names[kind]: seen[kind] for kind in ASKED} == {
        names[kind]: (twin[names[kind]].times, twin[names[kind]].maj_flt, twin[names[kind]].min_flt) for kind in ASKED
    }
