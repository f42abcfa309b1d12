// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The numbers in /proc/sys/vm that scripts may change, and how they come back.
 *
 * They are everybody's: one lock file of the machine keeps those who change them (exclusive) from those who run scripts
 * meanwhile (shared). Who changes them writes the standing values into the lock file first; whoever finds values there
 * when he has the lock knows that somebody died without putting them back, and does it. Values that would hurt other
 * programs are refused.
 */
#include "executor.h"
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[NSYSCTL] = {
	"max_map_count", "overcommit_memory", "overcommit_ratio", "overcommit_kbytes", "mmap_min_addr", "legacy_va_layout",
	"admin_reserve_kbytes", "user_reserve_kbytes"};
static int lock = -1, exclusive;

static int find(const char *name)
{
	int i = 0;
	while (i < NSYSCTL && strcmp(names[i], name))
		i++;
	return i < NSYSCTL ? i : -1;
}
static int open_sysctl(int i, int flags)
{
	char path[64] = "/proc/sys/vm/";
	return open(strcat(path, names[i]), flags | O_CLOEXEC);
}
s64 read_sysctl(int i)
{
	char text[32] = "";
	int fd = open_sysctl(i, O_RDONLY);
	if (fd >= 0) {
		ssize_t n = read(fd, text, sizeof text - 1);
		text[n > 0 ? n : 0] = 0;
		close(fd);
	}
	return strtoll(text, NULL, 10);
}
/* No stdio: the server's signal handler comes here too. */
static s64 write_sysctl(int i, s64 value)
{
	char text[32], *p = text + sizeof text;
	u64 rest = value < 0 ? -(u64)value : (u64)value;
	int fd = open_sysctl(i, O_WRONLY);
	if (fd < 0)
		return -errno;
	do
		*--p = '0' + rest % 10;
	while (rest /= 10);
	if (value < 0)
		*--p = '-';
	s64 r = result(write(fd, p, text + sizeof text - p));
	close(fd);
	return r < 0 ? r : 0;
}
static void put_back(const s64 *value)
{
	/* overcommit_ratio and overcommit_kbytes unset each other; mode 2 must not see both unset */
	int limit = value[OVERCOMMIT_KBYTES] ? OVERCOMMIT_KBYTES : OVERCOMMIT_RATIO;
	if (value[OVERCOMMIT_MEMORY] != 2)
		write_sysctl(OVERCOMMIT_MEMORY, value[OVERCOMMIT_MEMORY]);
	for (int i = 0; i < NSYSCTL; i++)
		if (i == limit || (i != OVERCOMMIT_MEMORY && i != OVERCOMMIT_RATIO && i != OVERCOMMIT_KBYTES))
			write_sysctl(i, value[i]);
	write_sysctl(OVERCOMMIT_MEMORY, value[OVERCOMMIT_MEMORY]);
}
void restore_sysctls(void)
{
	if (!sh->sysctl_changed)
		return;
	put_back(sh->standing);
	sh->sysctl_changed = 0;
}
void unlock_sysctls(void)
{
	if (exclusive && !ftruncate(lock, 0))
		exclusive = 0;
}
/* Put back what is written down in the lock file. */
static int recover(void)
{
	char text[1024];
	s64 value[NSYSCTL];
	ssize_t n = pread(lock, text, sizeof text - 1, 0);
	if (n <= 0)
		return 0;
	text[n] = 0;
	for (int i = 0; i < NSYSCTL; i++) {
		char *at = strstr(text, names[i]);
		if (!at) /* it ends in the middle: nothing was changed yet */
			return ftruncate(lock, 0);
		value[i] = strtoll(at + strlen(names[i]), NULL, 10);
	}
	put_back(value);
	return ftruncate(lock, 0);
}
/* Wait for the lock; the standing values are then known. */
int lock_sysctls(const char *path, int change)
{
	struct stat st;
	lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (lock < 0 || fstat(lock, &st))
		return -1;
	if (st.st_uid != geteuid() || !S_ISREG(st.st_mode))
		return errno = EPERM, -1;
	if (flock(lock, change ? LOCK_EX : LOCK_SH) || fstat(lock, &st))
		return -1;
	if (st.st_size && (flock(lock, LOCK_EX) || recover() || flock(lock, change ? LOCK_EX : LOCK_SH)))
		return -1;
	for (int i = 0; i < NSYSCTL; i++)
		sh->standing[i] = read_sysctl(i);
	if (!change)
		return 0;
	for (int i = 0; i < NSYSCTL; i++)
		if (dprintf(lock, "%s %lld\n", names[i], (long long)sh->standing[i]) < 0)
			return ftruncate(lock, 0), -1;
	exclusive = sh->sysctl = 1;
	return 0;
}
/* Why this may not be done, or NULL. */
const char *sysctl_refused(const struct request *q)
{
	const s64 plenty = 64LL << 30; /* kB: a limit that nobody's memory comes near to */
	int i = find(q->word);
	s64 value = q->a[1];
	if (i < 0)
		return "no such sysctl here";
	if (q->n < 2)
		return NULL;
	if (!sh->sysctl)
		return "sysctls are not changed in this run";
	int strict = read_sysctl(OVERCOMMIT_MEMORY) == 2;
	switch (i) {
	case MAX_MAP_COUNT:
		return value >= 0 && value < sh->standing[i] - 1000 ? "refused: others may have as many areas" : NULL;
	case OVERCOMMIT_MEMORY:
		return value == 2 && read_sysctl(OVERCOMMIT_KBYTES) < plenty ? "refused: overcommit_kbytes is not 64g" : NULL;
	case OVERCOMMIT_KBYTES:
		return strict && value < plenty ? "refused: the limit holds for everybody" : NULL;
	case OVERCOMMIT_RATIO:
		return strict ? "refused: the limit holds for everybody" : NULL;
	case MMAP_MIN_ADDR:
		return (u64)value > 2 << 20 ? "refused: programs lie from 4 MiB on" : NULL;
	case LEGACY_VA_LAYOUT:
		return NULL;
	}
	return (u64)value > 1 << 30 ? "refused: the reserve is everybody's" : NULL;
}
s64 sysctl_call(const struct request *q)
{
	int i = find(q->word);
	if (q->n < 2) {
		put_field("value", read_sysctl(i));
		return 0;
	}
	sh->sysctl_changed = 1;
	return write_sysctl(i, q->a[1]);
}
/* Which way a script's processes are laid out is decided when the first one starts: what its first line says. */
void choose_layout(const char *text)
{
	static const char line[] = "sysctl legacy_va_layout ";
	u64 value;
	if (sh->sysctl && !strncmp(text, line, sizeof line - 1)) {
		text += sizeof line - 1;
		if (!parse_expression(text, strcspn(text, " \t\r\n"), &value) && value <= INT_MAX) {
			sh->sysctl_changed = 1;
			write_sysctl(LEGACY_VA_LAYOUT, value);
		}
	}
	sh->legacy = read_sysctl(LEGACY_VA_LAYOUT) != 0;
}
