/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A program that does little but fault: it maps 1024 fresh pages, writes a word to each, adds them up and unmaps them,
 * until PAGES pages (the only argument, default 0) were touched; then it prints the sum. Static, so that it runs on the
 * twin, on the live kernel and under another emulator alike.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PAGE = 4096, CHUNK = 1024 };

int main(int argc, char **argv)
{
	long pages = argc > 1 ? atol(argv[1]) : 0;
	unsigned long sum = 0;

	while (pages > 0) {
		long n = pages < CHUNK ? pages : CHUNK;
		volatile long *p = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED) {
			perror("mmap");
			return 1;
		}
#ifdef MADV_NOHUGEPAGE
		madvise((void *)p, n * PAGE, MADV_NOHUGEPAGE);
#endif
		for (long i = 0; i < n; i++)
			p[i * (PAGE / sizeof(*p))] = pages - i;
		for (long i = 0; i < n; i++)
			sum += p[i * (PAGE / sizeof(*p))];
		munmap((void *)p, n * PAGE);
		pages -= n;
	}
	printf("%lu\n", sum);
	return 0;
}
