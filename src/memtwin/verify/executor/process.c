// SPDX-License-Identifier: GPL-2.0-or-later
/* A script's processes: the first one as it is before the first line, forks, turns, exits. */
#include "executor.h"
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int self;

static void futex(uint32_t *word, int op, uint32_t value) { syscall(SYS_futex, word, op, value, NULL, NULL, 0); }

/* Have all pages of our own image present and our own, as before the first line: after a fork they are not. */
static void settle(void)
{
	for (int i = 0; i < sh->nown; i++)
		syscall(SYS_madvise, sh->own[i].start, sh->own[i].end - sh->own[i].start, sh->own[i].writable ? 23 : 22);
}
int drop_capability(int cap)
{
	struct { uint32_t version; int pid; } head = {0x20080522, 0};
	struct { uint32_t effective, permitted, inheritable; } data[2];
	if (syscall(SYS_capget, &head, data))
		return -1;
	uint32_t mask = ~(1u << cap % 32);
	data[cap / 32].effective &= mask;
	data[cap / 32].permitted &= mask;
	data[cap / 32].inheritable &= mask;
	if (syscall(SYS_capset, &head, data))
		return -1;
	return prctl(PR_SET_DUMPABLE, 1);
}
s64 fork_process(const char *name)
{
	int slot = sh->nproc;
	if (slot == MAXPROC)
		return -EAGAIN;
	sh->ready = 0;
	/* a sibling: the server reaps everybody */
	s64 pid = CALL(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
	if (pid < 0) { /* what it copied before it failed is read-only now */
		settle();
		return pid;
	}
	if (!pid) {
		self = slot;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		settle();
		__atomic_store_n(&sh->ready, 1, __ATOMIC_SEQ_CST);
		futex(&sh->ready, FUTEX_WAKE, 1);
		return 1;
	}
	while (!__atomic_load_n(&sh->ready, __ATOMIC_SEQ_CST))
		futex(&sh->ready, FUTEX_WAIT, 0);
	snprintf(sh->proc[slot].name, sizeof sh->proc[slot].name, "%s", name);
	sh->proc[slot].pid = pid;
	sh->proc[slot].alive = 1;
	sh->proc[slot].locked_all = 0;
	sh->nproc++;
	settle();
	return 0;
}
/* Wait for our turn. */
void take_token(void)
{
	uint32_t token;
	while ((token = __atomic_load_n(&sh->token, __ATOMIC_SEQ_CST)) != (uint32_t)self)
		futex(&sh->token, FUTEX_WAIT, token);
}
void pass_token(int slot)
{
	__atomic_store_n(&sh->token, slot, __ATOMIC_SEQ_CST);
	futex(&sh->token, FUTEX_WAKE, MAXPROC);
}
void leave(void)
{
	int next = 0;
	sh->proc[self].alive = 0;
	while (next < sh->nproc && !sh->proc[next].alive)
		next++;
	sh->exit_line = sh->lines;
	if (next == sh->nproc) {
		open_answer(sh->lines, self, "exit");
		put(",\"ret\":0}\n");
		sh->done = 1;
		_exit(0);
	}
	sh->exiting = self;
	sh->exit_pid = getpid();
	pass_token(next);
	_exit(0);
}
/* Somebody's exit is answered when it is gone. */
void await_exit(void)
{
	int fd = syscall(SYS_pidfd_open, sh->exit_pid, 0);
	struct pollfd wait = {fd, POLLIN, 0};
	if (fd >= 0) {
		poll(&wait, 1, 10000);
		close(fd);
	}
	open_answer(sh->exit_line, sh->exiting, "exit");
	put(",\"ret\":0}\n");
	sh->exiting = -1;
}
static void move_heap(void)
{
	struct prctl_mm_map {
		u64 start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end;
		u64 auxv;
		uint32_t auxv_size, exe_fd;
	} map = {0};
	u64 field[64] = {0};
	struct lines in;
	int i = 3;
	lines_open(&in, getpid(), "stat");
	char *line = lines_next(&in), *p = line ? strrchr(line, ')') : NULL;
	close(in.fd);
	if (!p)
		return;
	for (p = strchr(p + 2, ' '); p && i < 63; p = strchr(p + 1, ' '))
		field[++i] = strtoull(p + 1, NULL, 10);
	map.start_code = field[26];
	map.end_code = field[27];
	map.start_stack = field[28];
	map.start_data = map.end_data = field[45]; /* RLIMIT_DATA then counts the heap only */
	map.start_brk = map.brk = HEAP;
	map.arg_start = field[48];
	map.arg_end = field[49];
	map.env_start = field[50];
	map.env_end = field[51];
	map.exe_fd = -1;
	if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0)) {
		dprintf(2, "executor: the heap can not be moved: %s\n", strerror(errno));
		_exit(1);
	}
}
/* Unmap what a real program has and the twin's process has not; remember the rest. */
static void know_own_areas(void)
{
	struct lines in;
	u64 start, end;
	lines_open(&in, getpid(), "maps");
	for (char *line; (line = lines_next(&in));) {
		char *rest = vma_head(line, &start, &end);
		if (!rest || strstr(rest, "[vsyscall]"))
			continue;
		if (strstr(rest, "[vdso]") || strstr(rest, "[vvar") || shown(start)) {
			munmap((void *)start, end - start);
			continue;
		}
		if (sh->nown < MAXOWN - 1) {
			sh->own[sh->nown].start = start;
			sh->own[sh->nown].end = end;
			sh->own[sh->nown++].writable = rest[1] == 'w';
		}
	}
}
static void __attribute__((noinline)) grow_stack(void)
{
	volatile char room[96 << 10];
	for (unsigned i = 0; i < sizeof room; i += 512)
		room[i] = 1;
}
/* Make VmSize what was asked for, so that limits on all of it (mlockall) mean the same on both halves. */
static void pad(void)
{
	s64 status[NSTATUS];
	read_status(getpid(), status);
	s64 missing = (s64)sh->want_size - status[SIZE] * 1024;
	if (missing <= 0)
		return;
	mmap((void *)PADDING, missing, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	sh->own[sh->nown].start = PADDING;
	sh->own[sh->nown].end = PADDING + missing;
	sh->own[sh->nown++].writable = 0;
}
int run_script(void)
{
	if (mmap((void *)SHARED, sizeof *sh, 3, MAP_SHARED | MAP_FIXED | MAP_POPULATE, 3, 0) == MAP_FAILED)
		return 1;
	close(3);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	struct rlimit memlock = {8 << 20, 8 << 20}, stack = {8 << 20, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
	setrlimit(RLIMIT_AS, &none);
	setrlimit(RLIMIT_DATA, &none);
	setrlimit(RLIMIT_STACK, &stack);
	setrlimit(RLIMIT_MEMLOCK, &memlock);
	handle_faults();
	grow_stack();
	sh->proc[0].pid = getpid();
	sh->proc[0].alive = 1;
	strcpy(sh->proc[0].name, "main");
	sh->nproc = 1;
	know_own_areas();
	move_heap();
	pad();
	drop_capability(24);
	settle();
	read_status(getpid(), sh->base);
	sh->as0 = sh->base[SIZE] * 1024;
	sh->data0 = sh->base[DATA] * 1024;
	take_turns();
	return 0;
}
