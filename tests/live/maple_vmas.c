// SPDX-License-Identifier: GPL-2.0-or-later
/* maple_vmas up|down COUNT 0|1 COPIES: COPIES fresh processes of this program make COUNT one-page VMAs each, alternating
 * ---p and r--p, at a fixed place, ascending or descending, adjacent (0) or one page apart (1). Says "ready" when all have
 * done so and ends at end of input. With COPIES 0 it is one of these processes; "?" for the third argument then makes it
 * print its /proc/self/maps instead. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define WINDOW 0x10000000000UL

static char buffer[1 << 16];

static int make_vmas(int down, long count, long step)
{
	for (long k = 0; k < count; k++) {
		long i = down ? count - 1 - k : k;
		void *at = (void *)(WINDOW + i * step * 4096UL);

		if (mmap(at, 4096, i & 1 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
			return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	long count = atol(argv[2]), copies = atol(argv[4]);
	char byte = 0;

	if (copies == 0) { /* lives while its standard input is open */
		if (argv[3][0] == '?') {
			int fd = open("/proc/self/maps", O_RDONLY);
			long got;

			while ((got = read(fd, buffer, sizeof(buffer))) > 0)
				if (write(1, buffer, got) != got)
					return 1;
			return 0;
		}
		if (make_vmas(argv[1][0] == 'd', count, argv[3][0] == '1' ? 2 : 1))
			return 1;
		if (write(1, "v", 1) != 1)
			return 1;
		return read(0, &byte, 1) == 0 ? 0 : 1;
	}

	int up[2]; /* the copies write one byte each when they are done */

	if (pipe(up))
		return 1;
	for (long c = 0; c < copies; c++) {
		pid_t pid = vfork();

		if (pid < 0)
			return 1;
		if (pid == 0) {
			dup2(up[1], 1);
			execl("/proc/self/exe", argv[0], argv[1], argv[2], argv[3], "0", (char *)0);
			_exit(1);
		}
	}
	close(up[1]);
	for (long c = 0; c < copies; c++)
		if (read(up[0], &byte, 1) != 1 || byte != 'v')
			return 1;
	if (write(1, "ready\n", 6) != 6)
		return 1;
	if (read(0, &byte, 1) != 0)
		return 1;
	for (long c = 0; c < copies; c++)
		if (wait(NULL) < 0)
			return 1;
	return 0;
}
