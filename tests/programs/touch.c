// SPDX-License-Identifier: GPL-2.0-or-later
// Touch many pages and read them back; argument: number of pages. Exit status 1 if a byte is not what was written.
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char **argv) {
	long pages = atol(argv[1]), sum = 0;
	unsigned char *m = mmap(0, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED)
		return 2;
	for (long i = 0; i < pages; i++)
		*(long *)(m + i * 4096 + i % 512 * 8) = i * 2654435761;
	for (long i = 0; i < pages; i++) {
		if (*(long *)(m + i * 4096 + i % 512 * 8) != i * 2654435761)
			return 1;
		sum += m[i * 4096 + i % 512 * 8];
	}
	printf("%ld pages, sum %ld\n", pages, sum);
	return 0;
}
