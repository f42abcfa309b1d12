/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What Committed_AS does: one line a step, "NAME KB", how much it changed since the row began. Other tasks change it
 * too, so a row is done several times and each step's most frequent number counts. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define P 4096UL
#define B ((char *)0x1000000000UL)
#define RW (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)
#define MOST 8

static long base, steps[MOST][64];
static const char *names[MOST];
static int count, round_;

static long committed(void)
{
	static char text[8192];
	int fd = open("/proc/meminfo", O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	char *at = strstr(text, "Committed_AS:");
	return at ? atol(at + 13) : -1;
}

static void begin(void)
{
	count = 0;
	base = committed();
}

static void step(const char *name)
{
	names[count] = name;
	steps[count++][round_] = committed() - base;
}

/* 12p r--, the middle rw and back, with something done to it in between. */
static void middle(const char *up, const char *down, int what)
{
	int fd = what == 4 ? memfd_create("m", 0) : -1;
	if (fd >= 0)
		ftruncate(fd, 12 * P);
	begin();
	mmap(B, 12 * P, PROT_READ, fd >= 0 ? MAP_PRIVATE | MAP_FIXED : ANON, fd, 0);
	mprotect(B + 4 * P, 4 * P, RW);
	step(up);
	if (what == 1 || what == 3)
		B[5 * P] = 7;
	if (what == 2)
		(void)*(volatile char *)(B + 5 * P);
	if (what == 3)
		madvise(B + 4 * P, 4 * P, MADV_DONTNEED);
	mprotect(B + 4 * P, 4 * P, PROT_READ);
	step(down);
	munmap(B, 12 * P);
	if (fd >= 0)
		close(fd);
}

static void untouched(void) { middle("untouched-rw", "untouched-back", 0); }
static void written(void) { middle("written-rw", "written-back", 1); }
static void only_read(void) { middle("read-rw", "read-back", 2); }
static void zapped(void) { middle("zapped-rw", "zapped-back", 3); }
static void file(void) { middle("file-rw", "file-back", 4); }

static void none(void)
{
	begin();
	mmap(B, 12 * P, RW, ANON, -1, 0);
	step("mapped-rw");
	mprotect(B, 12 * P, PROT_NONE);
	step("to-none");
	munmap(B, 12 * P);
}

static void dontunmap(void)
{
	mmap(B, 8 * P, RW, ANON, -1, 0);
	memset(B, 1, 8 * P);
	begin();
	mremap(B, 8 * P, 8 * P, MREMAP_MAYMOVE | MREMAP_FIXED | 4, B + 20 * P);
	step("dontunmap");
	munmap(B, 40 * P);
}

static void child(int wiped)
{
	mmap(B, 12 * P, RW, ANON, -1, 0);
	memset(B, 1, 12 * P);
	if (wiped)
		madvise(B, 12 * P, MADV_WIPEONFORK);
	int result[2];
	pipe(result);
	if (!fork()) {
		base = committed();
		mprotect(B, 12 * P, PROT_READ);
		long change = committed() - base;
		write(result[1], &change, sizeof(change));
		_exit(0);
	}
	wait(0);
	read(result[0], &steps[0][round_], sizeof(long));
	names[0] = wiped ? "child-wiped" : "child";
	count = 1;
	close(result[0]);
	close(result[1]);
	munmap(B, 12 * P);
}

static void child_wiped(void) { child(1); }
static void child_plain(void) { child(0); }

static void report(int rounds)
{
	for (int s = 0; s < count; s++) {
		int best = 0, most = 0;
		for (int i = 0; i < rounds; i++) {
			int same = 0;
			for (int j = 0; j < rounds; j++)
				same += steps[s][i] == steps[s][j];
			if (same > most)
				most = same, best = i;
		}
		printf("%s %ld\n", names[s], steps[s][best]);
	}
}

int main(int argc, char **argv)
{
	void (*rows[])(void) = {untouched, written, only_read, zapped, file, none, dontunmap, child_wiped, child_plain};
	int rounds = argc > 1 ? atoi(argv[1]) : 1;
	for (unsigned r = 0; r < sizeof(rows) / sizeof(*rows); r++) {
		for (round_ = 0; round_ < rounds; round_++)
			rows[r]();
		report(rounds);
	}
	return 0;
}
