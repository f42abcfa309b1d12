// SPDX-License-Identifier: GPL-2.0-or-later
/* Starts a fresh image for every script and takes its answers. */
#include "executor.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

static int timeout_ms = 10000;
static volatile pid_t first; /* the script's first process */

/* However we end: nobody is left, and sysctls are what they were. */
static void finish(void)
{
	if (first > 0)
		kill(first, SIGKILL);
	for (int i = 0; i < MAXPROC; i++)
		if (sh->proc[i].pid > 0)
			kill(sh->proc[i].pid, SIGKILL);
	if (first > 0)
		waitpid(first, NULL, __WALL);
	for (int i = 0; i < MAXPROC; i++)
		if (sh->proc[i].pid > 0)
			waitpid(sh->proc[i].pid, NULL, __WALL);
	restore_sysctls();
	unlock_sysctls();
}
static void stop(int sig)
{
	finish();
	_exit(128 + sig);
}

static void print_env(void)
{
	struct utsname name;
	uname(&name);
	printf("{\"env\":{\"release\":\"%s\",\"overcommit_memory\":%lld,\"max_map_count\":%lld}}\n", name.release,
	       (long long)sh->standing[OVERCOMMIT_MEMORY], (long long)sh->standing[MAX_MAP_COUNT]);
	fflush(stdout);
}
static int tmp_used;

static void empty_tmp(void)
{
	if (!tmp_used)
		return;
	umount2(TMP, MNT_DETACH);
	mount("tmpfs", TMP, "tmpfs", 0, "size=1g");
	tmp_used = 0;
}
static void flush_out(void)
{
	for (int at = 0; at < sh->out_len;) {
		ssize_t n = write(1, sh->out + at, sh->out_len - at);
		if (n <= 0)
			exit(1);
		at += n;
	}
	sh->out_len = 0;
}
static void serve(const char *name, const char *text, size_t len, int exe)
{
	static char *const argv[] = {"executor", "run", NULL}, *const envp[] = {NULL};
	sh->done = sh->lines = sh->nproc = sh->nvar = sh->nown = sh->out_len = sh->text_pos = 0;
	sh->token = 0;
	sh->progress = 0;
	sh->exiting = -1;
	sh->last_op[0] = 0;
	memset(sh->proc, 0, sizeof sh->proc);
	sh->text_len = len < sizeof sh->text ? len : sizeof sh->text - 1;
	memcpy(sh->text, text, sh->text_len);
	sh->text[sh->text_len] = '\n';
	tmp_used = !!memmem(text, len, "open ", 5);
	if (name) {
		to_out();
		put("{\"script\":\"");
		put_escaped(name);
		put("\"}\n");
	}
	choose_layout(text);
	pid_t pid = vfork();
	if (!pid) {
		execveat(exe, "", argv, envp, AT_EMPTY_PATH);
		_exit(127);
	}
	if (pid < 0) {
		perror("executor: fork");
		exit(1);
	}
	first = pid;
	/* SIGCHLD is blocked: it wakes us here; without one for the time limit of an operation, nobody gets on. */
	sigset_t chld;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	int died = 0, late = 0;
	while (!sh->done && !died && !late) {
		struct timespec wait = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
		uint32_t seen = sh->progress;
		if (sigtimedwait(&chld, NULL, &wait) < 0 && errno == EAGAIN)
			late = sh->progress == seen;
		int status;
		for (pid_t gone; !sh->done && (gone = waitpid(-1, &status, WNOHANG)) > 0;) {
			if (WIFSIGNALED(status) || WEXITSTATUS(status))
				died = 1;
		}
	}
	for (int i = 0; i < sh->nproc; i++)
		if (sh->proc[i].pid > 0)
			kill(sh->proc[i].pid, SIGKILL);
	kill(pid, SIGKILL);
	while (waitpid(-1, NULL, __WALL) > 0)
		;
	first = 0;
	memset(sh->proc, 0, sizeof sh->proc);
	restore_sysctls();
	if (died || late) /* what it had begun to answer is no line */
		while (sh->out_len && sh->out[sh->out_len - 1] != '\n')
			sh->out_len--;
	flush_out();
	if (died || late) {
		to_out();
		put("{\"i\":");
		put_int(sh->lines);
		put(",\"op\":\"");
		put_escaped(sh->last_op);
		put(late ? "\",\"timeout\":true}\n" : "\",\"died\":true}\n");
		flush_out();
	}
	empty_tmp();
}
static char *read_all(size_t *len)
{
	size_t size = 1 << 20, used = 0;
	char *text = malloc(size + 1);
	for (ssize_t n; text && (n = read(0, text + used, size - used)) > 0;) {
		used += n;
		if (used == size)
			text = realloc(text, (size *= 2) + 1);
	}
	if (text)
		text[used] = 0;
	*len = used;
	return text;
}
/* The line at p is `script NAME`: the name, else NULL. */
static char *script_name(const char *p, char *name, int size)
{
	if (strncmp(p, "script", 6) || (p[6] != ' ' && p[6] != '\t'))
		return NULL;
	p += 6 + strspn(p + 6, " \t");
	snprintf(name, size, "%.*s", (int)strcspn(p, " \t\r\n"), p);
	return name;
}
static int prepare(int cpu, const char *lock, int change)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGQUIT};
	sigset_t chld;
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	if (cpu >= 0) {
		cpu_set_t set;
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		sched_setaffinity(0, sizeof set, &set);
	}
	personality(ADDR_NO_RANDOMIZE);
	int exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int memory = memfd_create("executor", 0);
	if (exe < 0 || memory < 0 || ftruncate(memory, sizeof *sh))
		return -1;
	if (mmap((void *)SHARED, sizeof *sh, 3, MAP_SHARED | MAP_FIXED, memory, 0) == MAP_FAILED)
		return -1;
	if (memory != 3 && (exe = fcntl(exe, F_DUPFD_CLOEXEC, 5), dup2(memory, 3) < 0))
		return -1;
	for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
		signal(signals[i], stop);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	atexit(finish);
	if (lock && lock_sysctls(lock, change)) {
		fprintf(stderr, "executor: lock file %s: %s\n", lock, strerror(errno));
		exit(1);
	}
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -1;
	if (mount("tmpfs", TMP, "tmpfs", 0, "size=1g"))
		return -1;
	return exe;
}
int main(int argc, char **argv)
{
	int cpu = -1, change = 0;
	const char *lock = NULL;
	u64 size = 0;
	if (argc == 2 && !strcmp(argv[1], "run"))
		return run_script();
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--cpu"))
			cpu = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--timeout"))
			timeout_ms = atoi(argv[i + 1]);
		else if (!strcmp(argv[i], "--size"))
			size = strtoull(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--lock"))
			lock = argv[i + 1];
		else if (!strcmp(argv[i], "--change"))
			lock = argv[i + 1], change = 1;
	}
	int exe = prepare(cpu, lock, change);
	if (exe < 0) {
		perror("executor: needs root");
		return 1;
	}
	sh->want_size = size;
	print_env();
	size_t len;
	char *text = read_all(&len), name[64];
	if (!text)
		return 1;
	for (char *p = text; *p;) {
		char *title = script_name(p, name, sizeof name), *body = p, *end;
		if (title)
			body = p + strcspn(p, "\n"), body += *body == '\n';
		for (end = body; *end && !(script_name(end, (char[2]){0}, 2)); end += *end == '\n')
			end += strcspn(end, "\n");
		serve(title, body, end - body, exe);
		p = end;
	}
	return 0;
}
