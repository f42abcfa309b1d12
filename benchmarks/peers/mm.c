/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The live kernel's side of the benchmarks: a child that does one measured piece of work for each line on stdin and
 * answers "ok UNITS NANOSECONDS" or "error TEXT". It ends when stdin does. Only the work that the unit names is timed;
 * setting up and tearing down is not.
 *
 *   write N      first write to N fresh anonymous pages (MADV_NOHUGEPAGE)
 *   read N       first read of N fresh anonymous pages
 *   recycle N    N times: write to one page, then MADV_DONTNEED it
 *   populate N   MADV_POPULATE_WRITE of N pages; the mapping stays for a "zap N" that follows
 *   zap N        munmap of N populated pages
 *   cycle N      MADV_POPULATE_WRITE of N pages and munmap, both timed
 *   areas N      (not timed) have N areas of 4 pages, every other one not writable
 *   map K        K pairs of mmap and munmap of 4 untouched pages, beside the areas
 *   protect K    K pairs of mprotect: the inner pages of one of the areas (split in three), and back (merge)
 *   remap K      K pairs of mremap: 4 untouched pages to a fixed place and back, beside the areas
 *   maps N       read all of /proc/self/maps as often as it takes to have seen N areas
 *   fork K       K times: fork with the areas, _exit of the child, waitpid
 *   wp N         first write to N pages that were read before (they map the zero page)
 *   cow N        first write to N pages that a child shares since fork
 *   mappop N     mmap with MAP_POPULATE of N pages
 *   dontneed N   MADV_DONTNEED of N populated pages
 *   forkpop N    fork with N populated pages, until it returns; exit and wait are not timed
 *   rights N     mprotect of N populated pages to read-only, and back: each counts half
 *   pagemap N    read /proc/self/pagemap of N populated pages, 1 MiB at a time
 *   smaps N      read all of /proc/self/smaps as often as it takes to have seen N areas
 *   Of pages of 2 MiB (MADV_HUGEPAGE), which the kernel must give at once or it is an error:
 *   hwrite N     first write to N fresh blocks
 *   hread N      first read of N fresh blocks (the huge zero page)
 *   hcow N       first write to N huge pages that a child shares since fork
 *   hfork N      fork with N huge pages, until it returns
 *   hzap N       munmap of N huge pages
 *   hdontneed N  MADV_DONTNEED of N huge pages
 *   hrights N    mprotect of N huge pages to read-only, and back: each counts half
 *   hsplit N     munmap of the first 4 KiB of each of N huge pages
 *   hcollapse N  MADV_COLLAPSE of N blocks of small pages
 *   find K       msync(MS_ASYNC) of one page of one of the areas, K times: of all calls the one that does little but
 *                find the area
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum { PAGE = 4096, AREA_PAGES = 4 };
static const long HUGE = 2 << 20;

static const char *failed;	/* the call that failed, for the answer */
static char *held;		/* what "populate" left behind, held_pages long */
static long held_pages;
static char *areas;
static long nr_areas;
static unsigned long random_state = 1;

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static char *map(long pages, int flags)
{
	char *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	if (p == MAP_FAILED) {
		failed = "mmap";
		return NULL;
	}
	madvise(p, pages * PAGE, MADV_NOHUGEPAGE);
	return p;
}

static long check(int result, const char *call, long passed)
{
	if (!result)
		return passed;
	failed = call;
	return -1;
}

static long touch(long pages, int writing)
{
	volatile char *p = map(pages, 0);
	long start, passed;

	if (!p)
		return -1;
	start = now();
	for (long i = 0; i < pages; i++) {
		if (writing)
			p[i * PAGE] = 1;
		else
			(void)p[i * PAGE];
	}
	passed = now() - start;
	return check(munmap((char *)p, pages * PAGE), "munmap", passed);
}

static long do_write(long pages)
{
	return touch(pages, 1);
}

static long do_read(long pages)
{
	return touch(pages, 0);
}

static long do_recycle(long times)
{
	volatile char *p = map(1, 0);
	long start, passed;
	int bad = 0;

	if (!p)
		return -1;
	start = now();
	for (long i = 0; i < times; i++) {
		p[0] = 1;
		bad |= madvise((char *)p, PAGE, MADV_DONTNEED);
	}
	passed = now() - start;
	munmap((char *)p, PAGE);
	return check(bad, "madvise", passed);
}

static void drop_held(void)
{
	if (held)
		munmap(held, held_pages * PAGE);
	held = NULL;
}

static long do_populate(long pages)
{
	long start, passed;
	int result;

	drop_held();
	held = map(pages, 0);
	held_pages = pages;
	if (!held)
		return -1;
	start = now();
	result = madvise(held, pages * PAGE, MADV_POPULATE_WRITE);
	passed = now() - start;
	return check(result, "MADV_POPULATE_WRITE", passed);
}

static long do_zap(long pages)
{
	long start, passed;
	int result;

	if ((!held || held_pages != pages) && do_populate(pages) < 0)
		return -1;
	start = now();
	result = munmap(held, pages * PAGE);
	passed = now() - start;
	held = NULL;
	return check(result, "munmap", passed);
}

static long do_cycle(long pages)
{
	long passed = do_populate(pages), more = passed < 0 ? -1 : do_zap(pages);

	return more < 0 ? -1 : passed + more;
}

static long do_areas(long count)
{
	if (areas && nr_areas == count)
		return 0;
	if (areas)
		munmap(areas, nr_areas * AREA_PAGES * PAGE);
	nr_areas = count;
	areas = map(count * AREA_PAGES, MAP_NORESERVE);
	for (long i = 0; areas && i < count; i += 2)
		if (mprotect(areas + i * AREA_PAGES * PAGE, AREA_PAGES * PAGE, PROT_READ))
			return check(-1, "mprotect", 0);
	return areas ? 0 : -1;
}

static long pick(void)
{
	random_state = random_state * 6364136223846793005UL + 1442695040888963407UL;
	return (random_state >> 33) % nr_areas;
}

static long do_map(long pairs)
{
	long start = now();

	for (long i = 0; i < pairs; i++) {
		char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			return check(-1, "mmap", 0);
		munmap(p, 4 * PAGE);
	}
	return now() - start;
}

static long do_protect(long pairs)
{
	static const int prot[] = { PROT_READ, PROT_READ | PROT_WRITE };
	long start = now();
	int bad = 0;

	for (long i = 0; i < pairs; i++) {
		long area = pick();
		char *inner = areas + (area * AREA_PAGES + 1) * PAGE;

		bad |= mprotect(inner, 2 * PAGE, prot[!(area & 1)]);
		bad |= mprotect(inner, 2 * PAGE, prot[area & 1]);
	}
	return check(bad, "mprotect", now() - start);
}

static long do_remap(long pairs)
{
	const long length = AREA_PAGES * PAGE;
	char *here = map(AREA_PAGES, 0), *room = map(3 * AREA_PAGES, 0), *there = room + length;
	long start, passed;
	int bad = 0;

	if (!here || !room)
		return -1;
	munmap(room, 3 * length);
	start = now();
	for (long i = 0; i < pairs; i++) {
		bad |= mremap(here, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, there) != there;
		bad |= mremap(there, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, here) != here;
	}
	passed = now() - start;
	munmap(here, length);
	return check(bad, "mremap", passed);
}

static long do_text(const char *path, long seen)
{
	static char text[65536];
	long start = now();

	for (; seen > 0; seen -= nr_areas) {
		int fd = open(path, O_RDONLY);
		ssize_t n;

		if (fd < 0)
			return check(-1, "open", 0);
		do
			n = read(fd, text, sizeof(text));
		while (n > 0);
		close(fd);
		if (n < 0)
			return check(-1, "read", 0);
	}
	return now() - start;
}

static long do_maps(long seen)
{
	return do_text("/proc/self/maps", seen);
}

static long do_smaps(long seen)
{
	return do_text("/proc/self/smaps", seen);
}

static long write_all(volatile char *p, long pages)
{
	long start = now();

	for (long i = 0; i < pages; i++)
		p[i * PAGE] = 2;
	return now() - start;
}

static long do_wp(long pages)
{
	volatile char *p = map(pages, 0);
	long passed;

	if (!p)
		return -1;
	for (long i = 0; i < pages; i++)
		(void)p[i * PAGE];
	passed = write_all(p, pages);
	return check(munmap((char *)p, pages * PAGE), "munmap", passed);
}

/* A child that waits to be ended, -1 if fork failed; "passed": the nanoseconds of the call. */
static pid_t waiting_child(long *passed)
{
	long start = now();
	pid_t child = fork();

	if (!child)
		for (;;)
			pause();
	*passed = now() - start;
	return child < 0 ? check(-1, "fork", 0) : child;
}

static void end_child(pid_t child)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static long do_cow(long pages)
{
	char *p = map(pages, 0);
	pid_t child;
	long passed;

	if (!p)
		return -1;
	write_all(p, pages);
	child = waiting_child(&passed);
	if (child < 0)
		return -1;
	passed = write_all(p, pages);
	end_child(child);
	return check(munmap(p, pages * PAGE), "munmap", passed);
}

static long do_mappop(long pages)
{
	long start, passed;
	char *p;

	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
	start = now();
	p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	passed = now() - start;
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	if (p == MAP_FAILED)
		return check(-1, "mmap", 0);
	return check(munmap(p, pages * PAGE), "munmap", passed);
}

/* Have "pages" populated pages in "held". */
static int hold(long pages)
{
	if (held && held_pages == pages)
		return 0;
	return do_populate(pages) < 0 ? -1 : 0;
}

static long timed_advice(char *at, long length, int advice, const char *name)
{
	long start = now();
	int result = madvise(at, length, advice);

	return check(result, name, now() - start);
}

/* One change of the rights of all of it, of a pair there and back. */
static long timed_rights(char *at, long length)
{
	long start = now();
	int bad = mprotect(at, length, PROT_READ);

	bad |= mprotect(at, length, PROT_READ | PROT_WRITE);
	return check(bad, "mprotect", (now() - start) / 2);
}

static long do_dontneed(long pages)
{
	long passed;

	if (hold(pages))
		return -1;
	passed = timed_advice(held, pages * PAGE, MADV_DONTNEED, "MADV_DONTNEED");
	drop_held();
	return passed;
}

static long do_forkpop(long pages)
{
	long passed;
	pid_t child = hold(pages) ? -1 : waiting_child(&passed);

	if (child < 0)
		return -1;
	end_child(child);
	return passed;
}

static long do_rights(long pages)
{
	return hold(pages) ? -1 : timed_rights(held, pages * PAGE);
}

static long do_pagemap(long pages)
{
	static unsigned long words[131072];
	const long size = sizeof(words);
	long start, end;
	int fd, bad = 0;

	if (hold(pages))
		return -1;
	fd = open("/proc/self/pagemap", O_RDONLY);
	if (fd < 0)
		return check(-1, "open", 0);
	start = now();
	for (long at = 0, left = pages * 8; left; ) {
		long part = left < size ? left : size;

		if (pread(fd, words, part, (unsigned long)held / PAGE * 8 + at) != part) {
			bad = 1;
			break;
		}
		at += part;
		left -= part;
	}
	end = now();
	close(fd);
	return check(bad, "pread", end - start);
}

static long do_fork(long times)
{
	long start = now();

	for (long i = 0; i < times; i++) {
		pid_t child = fork();

		if (!child)
			_exit(0);
		if (child < 0 || waitpid(child, NULL, 0) < 0)
			return check(-1, "fork", 0);
	}
	return now() - start;
}

/* -- huge pages -- */

static char *huge;		/* "count" blocks of 2 MiB in a mapping with one more */
static char *huge_map;

static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

static int huge_fresh(long count)
{
	huge_map = mmap(NULL, (count + 1) * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (huge_map == MAP_FAILED)
		return check(-1, "mmap", 0);
	huge = (char *)(((unsigned long)huge_map + HUGE - 1) & -HUGE);
	return check(madvise(huge, count * HUGE, MADV_HUGEPAGE), "MADV_HUGEPAGE", 0);
}

/* Unmap it; "passed", the nanoseconds of what was measured or -1. */
static long huge_gone(long count, long passed)
{
	return check(munmap(huge_map, (count + 1) * HUGE), "munmap", passed);
}

/* Access one byte of each block; the nanoseconds, -1 if it took more faults than "each" a block. */
static long huge_touch(long count, long at, int writing, long each)
{
	volatile char *p = huge + at;
	long before = faults(), start = now(), passed;

	for (long i = 0; i < count; i++) {
		if (writing)
			p[i * HUGE] = 1;
		else
			(void)p[i * HUGE];
	}
	passed = now() - start;
	errno = ENOMEM;
	return check(faults() - before > count * each + count / 16 + 8, "a huge page at the first touch", passed);
}

static int huge_filled(long count)
{
	if (huge_fresh(count))
		return -1;
	/* More faults than blocks would mean small pages: one more touch of each block tells. */
	return huge_touch(count, 0, 1, 1) < 0 || huge_touch(count, HUGE - PAGE, 1, 0) < 0 ? -1 : 0;
}

static long do_hwrite(long count)
{
	long passed = huge_fresh(count) ? -1 : huge_touch(count, 0, 1, 1);

	if (passed < 0 || huge_touch(count, HUGE - PAGE, 1, 0) < 0)
		return -1;
	return huge_gone(count, passed);
}

static long do_hread(long count)
{
	long passed = huge_fresh(count) ? -1 : huge_touch(count, 0, 0, 1);

	if (passed < 0 || huge_touch(count, HUGE - PAGE, 0, 0) < 0)
		return -1;
	return huge_gone(count, passed);
}

static long huge_child(long count, int copying)
{
	long passed;
	pid_t child = huge_filled(count) ? -1 : waiting_child(&passed);

	if (child < 0)
		return -1;
	if (copying)
		passed = huge_touch(count, 7 * PAGE, 1, 1);
	end_child(child);
	return huge_gone(count, passed);
}

static long do_hcow(long count)
{
	return huge_child(count, 1);
}

static long do_hfork(long count)
{
	return huge_child(count, 0);
}

static long do_hzap(long count)
{
	long start;

	if (huge_filled(count))
		return -1;
	start = now();
	return huge_gone(count, 0) < 0 ? -1 : now() - start;
}

static long do_hdontneed(long count)
{
	return huge_filled(count) ? -1 : huge_gone(count, timed_advice(huge, count * HUGE, MADV_DONTNEED, "MADV_DONTNEED"));
}

static long do_hrights(long count)
{
	return huge_filled(count) ? -1 : huge_gone(count, timed_rights(huge, count * HUGE));
}

static long do_hsplit(long count)
{
	long start, passed;
	int bad = 0;

	if (huge_filled(count))
		return -1;
	start = now();
	for (long i = 0; i < count; i++)
		bad |= munmap(huge + i * HUGE, PAGE);
	passed = now() - start;
	huge_gone(count, 0);
	return check(bad, "munmap", passed);
}

static long do_hcollapse(long count)
{
	if (huge_fresh(count))
		return -1;
	madvise(huge, count * HUGE, MADV_NOHUGEPAGE);
	if (madvise(huge, count * HUGE, MADV_POPULATE_WRITE))
		return check(-1, "MADV_POPULATE_WRITE", 0);
	madvise(huge, count * HUGE, MADV_HUGEPAGE);
	return huge_gone(count, timed_advice(huge, count * HUGE, MADV_COLLAPSE, "MADV_COLLAPSE"));
}

static long do_find(long times)
{
	long start = now();
	int bad = 0;

	for (long i = 0; i < times; i++)
		bad |= msync(areas + pick() * AREA_PAGES * PAGE, PAGE, MS_ASYNC);
	return check(bad, "msync", now() - start);
}

static const struct command {
	const char *name;
	long (*run)(long units);	/* nanoseconds, -1 when a call failed */
} commands[] = {
	{ "write", do_write },	   { "read", do_read }, { "recycle", do_recycle }, { "populate", do_populate },
	{ "zap", do_zap },	   { "cycle", do_cycle }, { "areas", do_areas },   { "map", do_map },
	{ "protect", do_protect }, { "find", do_find },
	{ "remap", do_remap },	   { "maps", do_maps }, { "fork", do_fork },
	{ "wp", do_wp },	   { "cow", do_cow }, { "mappop", do_mappop },	   { "dontneed", do_dontneed },
	{ "forkpop", do_forkpop }, { "rights", do_rights }, { "pagemap", do_pagemap }, { "smaps", do_smaps },
	{ "hwrite", do_hwrite },   { "hread", do_hread }, { "hcow", do_hcow },	   { "hfork", do_hfork },
	{ "hzap", do_hzap },	   { "hdontneed", do_hdontneed }, { "hrights", do_hrights },
	{ "hsplit", do_hsplit },   { "hcollapse", do_hcollapse },
};

static void answer(const char *name, long units)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		long passed;

		if (strcmp(name, commands[i].name))
			continue;
		errno = 0;
		passed = commands[i].run(units);
		if (passed < 0)
			printf("error %s: %s\n", failed, strerror(errno));
		else
			printf("ok %ld %ld\n", units, passed);
		return;
	}
	printf("error unknown command %s\n", name);
}

int main(void)
{
	char line[128], name[32];
	long units;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%31s %ld", name, &units) == 2 && units > 0)
			answer(name, units);
		else
			printf("error malformed line\n");
	}
	return 0;
}
