/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Runs operations on the live kernel for test_first_life.py: one a line on standard input, one answer a line.
 *
 *   mmap ADDR LEN PROT FLAGS | munmap ADDR LEN | mprotect ADDR LEN PROT | madvise ADDR LEN ADVICE | brk DELTA
 *   r ADDR | w ADDR BYTE | bits ADDR
 *
 * Answers: "= VALUE" or "! ERRNO" or "sig NUMBER CODE ADDR", then the minor faults the operation took. Numbers are
 * hexadecimal; brk is relative to the start of the heap. "bits" answers present and exclusive of the page (pagemap).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static sigjmp_buf again;
static volatile int caught, code;
static volatile uintptr_t where;

static void handler(int sig, siginfo_t *info, void *context)
{
	(void)context;
	caught = sig;
	code = info->si_code;
	where = (uintptr_t)info->si_addr;
	siglongjmp(again, 1);
}

static long minflt(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

static void run(const char *op, unsigned long a, unsigned long b, unsigned long c, unsigned long d, int pagemap,
		unsigned long heap)
{
	volatile long result = 0;
	volatile long before = minflt();
	uint64_t entry = 0;

	caught = 0;
	errno = 0;
	if (!sigsetjmp(again, 1)) {
		if (!strcmp(op, "mmap"))
			result = syscall(SYS_mmap, a, b, c, d, -1, 0);
		else if (!strcmp(op, "munmap"))
			result = syscall(SYS_munmap, a, b);
		else if (!strcmp(op, "mprotect"))
			result = syscall(SYS_mprotect, a, b, c);
		else if (!strcmp(op, "madvise"))
			result = syscall(SYS_madvise, a, b, c);
		else if (!strcmp(op, "brk"))
			result = syscall(SYS_brk, heap + a) - heap;
		else if (!strcmp(op, "r"))
			result = *(volatile unsigned char *)a;
		else if (!strcmp(op, "w"))
			*(volatile unsigned char *)a = b;
		else if (!strcmp(op, "bits")) {
			if (pread(pagemap, &entry, 8, a / 4096 * 8) == 8)
				result = (entry >> 62 & 2) | (entry >> 56 & 1);
		} else {
			fprintf(stderr, "unknown operation %s\n", op);
			exit(2);
		}
	}
	if (caught)
		printf("sig %d %d %lx", caught, code, where);
	else if (result == -1 && errno)
		printf("! %d", errno);
	else
		printf("= %lx", result);
	printf(" %ld\n", minflt() - before);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t stack = { .ss_sp = malloc(1 << 16), .ss_size = 1 << 16 };
	static char in[1 << 16], out[1 << 20];
	unsigned long a, b, c, d, heap;
	char line[256], op[16];
	int pagemap;

	if (argc < 2) {
		personality(ADDR_NO_RANDOMIZE);
		prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
		execl("/proc/self/exe", argv[0], "again", NULL);
		return 3;
	}
	memset((void *)stack.ss_sp, 0, 1 << 16);
	memset(in, 0, sizeof(in));
	memset(out, 0, sizeof(out));
	setvbuf(stdin, in, _IOFBF, sizeof(in));
	setvbuf(stdout, out, _IOFBF, sizeof(out));
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	sigaltstack(&stack, NULL);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	heap = (syscall(SYS_brk, 0) + 4095) & ~4095UL;
	syscall(SYS_brk, heap);
	while (fgets(line, sizeof(line), stdin)) {
		a = b = c = d = 0;
		if (sscanf(line, "%15s %lx %lx %lx %lx", op, &a, &b, &c, &d) >= 1)
			run(op, a, b, c, d, pagemap, heap);
	}
	return 0;
}
