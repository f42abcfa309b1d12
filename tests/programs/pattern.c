// SPDX-License-Identifier: GPL-2.0-or-later
// Known accesses to 64 pages: page i is not touched (i % 4 == 0), read (1), written (2), or read and then written (3); then pages
// 60 to 63 are given back. Prints the address.
#include <stdio.h>
#include <sys/mman.h>

int main(void) {
	volatile unsigned char *m = mmap(0, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < 64; i++) {
		volatile unsigned char *p = m + i * 4096 + i;
		if (i % 4 == 1 || i % 4 == 3)
			(void)*p;
		if (i % 4 >= 2)
			*p = i;
	}
	madvise((void *)(m + 60 * 4096), 4 * 4096, MADV_DONTNEED);
	printf("%p\n", (void *)m);
	return 0;
}
