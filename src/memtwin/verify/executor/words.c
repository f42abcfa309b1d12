// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The words of the operation language, what they are as numbers (the numeric values of user space's headers), and the
 * expressions made of them. The twin has its own table in memtwin.script: both are written down separately, so that a
 * wrong number shows up as a difference.
 */
#include "executor.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct word w_prot[] = {
	{"none", 0}, {"r", 1}, {"w", 2}, {"x", 4}, {"rw", 3}, {"rx", 5}, {"wx", 6}, {"rwx", 7},
	{"sem", 8}, {"growsdown", 1 << 24}, {"growsup", 1 << 25}, {0, 0}};
static const struct word w_map[] = {
	{"shared", 1}, {"private", 2}, {"shared_validate", 3}, {"droppable", 8}, {"fixed", 0x10}, {"anon", 0x20},
	{"32bit", 0x40}, {"growsdown", 0x100}, {"denywrite", 0x800}, {"locked", 0x2000}, {"noreserve", 0x4000},
	{"populate", 0x8000}, {"nonblock", 0x10000}, {"stack", 0x20000}, {"hugetlb", 0x40000}, {"sync", 0x80000},
	{"fixed_noreplace", 0x100000}, {"uninitialized", 0x4000000}, {"huge_64kb", 16u << 26},
	{"huge_2mb", 21u << 26}, {"huge_1gb", 30u << 26}, {0, 0}};
static const struct word w_advice[] = {
	{"normal", 0}, {"random", 1}, {"sequential", 2}, {"willneed", 3}, {"dontneed", 4}, {"free", 8}, {"remove", 9},
	{"dontfork", 10}, {"dofork", 11}, {"mergeable", 12}, {"unmergeable", 13}, {"hugepage", 14}, {"nohugepage", 15},
	{"dontdump", 16}, {"dodump", 17}, {"wipeonfork", 18}, {"keeponfork", 19}, {"cold", 20}, {"pageout", 21},
	{"populate_read", 22}, {"populate_write", 23}, {"dontneed_locked", 24}, {"collapse", 25},
	{"guard_install", 102}, {"guard_remove", 103}, {0, 0}};
static const struct word w_mremap[] = {{"maymove", 1}, {"fixed", 2}, {"dontunmap", 4}, {0, 0}};
static const struct word w_mlock2[] = {{"onfault", 1}, {0, 0}};
static const struct word w_mlockall[] = {{"current", 1}, {"future", 2}, {"onfault", 4}, {0, 0}};
static const struct word w_msync[] = {{"async", 1}, {"invalidate", 2}, {"sync", 4}, {0, 0}};
static const struct word w_memfd[] = {
	{"cloexec", 1}, {"sealing", 2}, {"hugetlb", 4}, {"noexec_seal", 8}, {"exec", 16}, {"huge_2mb", 21u << 26}, {0, 0}};
static const struct word w_open[] = {
	{"rdonly", 0}, {"wronly", 1}, {"rdwr", 2}, {"creat", 0100}, {"trunc", 01000}, {"append", 02000}, {0, 0}};
static const struct word w_fallocate[] = {
	{"keep_size", 1}, {"punch_hole", 2}, {"collapse_range", 8}, {"zero_range", 0x10}, {"insert_range", 0x20},
	{"unshare_range", 0x40}, {0, 0}};
static const struct word w_seal[] = {
	{"seal", 1}, {"shrink", 2}, {"grow", 4}, {"write", 8}, {"future_write", 0x10}, {"exec", 0x20}, {0, 0}};
static const struct word w_uffd[] = {{"user_mode_only", 1}, {"nonblock", 04000}, {"cloexec", 02000000}, {0, 0}};
static const struct word w_feature[] = {
	{"pagefault_flag_wp", 1 << 0}, {"event_fork", 1 << 1}, {"event_remap", 1 << 2}, {"event_remove", 1 << 3},
	{"missing_hugetlbfs", 1 << 4}, {"missing_shmem", 1 << 5}, {"event_unmap", 1 << 6}, {"sigbus", 1 << 7},
	{"thread_id", 1 << 8}, {"minor_hugetlbfs", 1 << 9}, {"minor_shmem", 1 << 10}, {"exact_address", 1 << 11},
	{"wp_hugetlbfs_shmem", 1 << 12}, {"wp_unpopulated", 1 << 13}, {"poison", 1 << 14}, {"wp_async", 1 << 15},
	{"move", 1 << 16}, {0, 0}};
static const struct word w_register[] = {{"missing", 1}, {"wp", 2}, {"minor", 4}, {0, 0}};
static const struct word w_policy[] = {
	{"default", 0}, {"preferred", 1}, {"bind", 2}, {"interleave", 3}, {"local", 4}, {"preferred_many", 5},
	{"weighted_interleave", 6}, {"numa_balancing", 1 << 13}, {"relative_nodes", 1 << 14}, {"static_nodes", 1 << 15},
	{0, 0}};
static const struct word w_mbind[] = {{"strict", 1}, {"move", 2}, {"move_all", 4}, {0, 0}};
static const struct word w_limit[] = {
	{"fsize", 1}, {"data", 2}, {"stack", 3}, {"nofile", 7}, {"memlock", 8}, {"as", 9}, {0, 0}};
static const struct word w_cap[] = {
	{"ipc_lock", 14}, {"sys_ptrace", 19}, {"sys_rawio", 17}, {"sys_admin", 21}, {"sys_nice", 23}, {"sys_resource", 24}, {0, 0}};

const struct op ops[] = {
	{"mmap", MMAP, "xxPM?xx", 'A'}, {"munmap", MUNMAP, "xx", 'I'}, {"mprotect", MPROTECT, "xxP", 'I'},
	{"madvise", MADVISE, "xxA", 'I'}, {"process_madvise", PROCESS_MADVISE, "xxA", 'I'}, {"mremap", MREMAP, "xxxR?x", 'A'},
	{"brk", BRK, "x", 'A'}, {"mlock", MLOCK, "xx", 'I'}, {"mlock2", MLOCK2, "xxO", 'I'}, {"munlock", MUNLOCK, "xx", 'I'},
	{"mlockall", MLOCKALL, "L", 'I'}, {"munlockall", MUNLOCKALL, "", 'I'}, {"msync", MSYNC, "xxY", 'I'},
	{"mincore", MINCORE, "xx", 'I'}, {"mseal", MSEAL, "xx?x", 'I'}, {"remap_file_pages", REMAP_FILE_PAGES, "xxxxM", 'I'},
	{"read", READ, "xx?x", 'I'}, {"write", WRITE, "xxx?x", 'I'}, {"vm_read", VM_READ, "xx?p", 'I'},
	{"vm_write", VM_WRITE, "xxx?p", 'I'}, {"anon_name", ANON_NAME, "xx?s", 'I'}, {"merge", MERGE, "x", 'I'},
	{"get_merge", GET_MERGE, "", 'I'}, {"thp_disable", THP_DISABLE, "x", 'I'}, {"memfd", MEMFD, "s?F", 'F'},
	{"open", OPEN, "s?N", 'F'}, {"ftruncate", FTRUNCATE, "xx", 'I'}, {"fallocate", FALLOCATE, "xZxx", 'I'},
	{"fstat", FSTAT, "x", 'I'}, {"pread", PREAD, "xxx", 'I'}, {"pwrite", PWRITE, "xxxx", 'I'}, {"close", CLOSE, "x", 'I'},
	{"unlink", UNLINK, "s", 'I'}, {"addseals", ADDSEALS, "xS", 'I'}, {"getseals", GETSEALS, "x", 'I'},
	{"userfaultfd", USERFAULTFD, "?U", 'F'}, {"uffd_api", UFFD_API, "xE", 'I'}, {"uffd_register", UFFD_REGISTER, "xxxG", 'I'},
	{"uffd_unregister", UFFD_UNREGISTER, "xxx", 'I'}, {"mbind", MBIND, "xxKxB", 'I'},
	{"set_mempolicy", SET_MEMPOLICY, "Kx", 'I'}, {"get_mempolicy", GET_MEMPOLICY, "?x", 'I'},
	{"getrlimit", GETRLIMIT, "T", 'I'}, {"setrlimit", SETRLIMIT, "Tx?x", 'I'}, {"dropcap", DROPCAP, "C", 'I'},
	{"sysctl", SYSCTL, "s?x", 'I'}, {"map_room", MAP_ROOM, "x", 'I'}, {"fork", FORK, "s", 'I'}, {"exit", EXIT, "", 'I'}, {0, 0, 0, 0}};

const struct word *table_of(char kind)
{
	switch (kind) {
	case 'P': return w_prot;
	case 'M': return w_map;
	case 'A': return w_advice;
	case 'R': return w_mremap;
	case 'O': return w_mlock2;
	case 'L': return w_mlockall;
	case 'Y': return w_msync;
	case 'F': return w_memfd;
	case 'N': return w_open;
	case 'Z': return w_fallocate;
	case 'S': return w_seal;
	case 'U': return w_uffd;
	case 'E': return w_feature;
	case 'G': return w_register;
	case 'K': return w_policy;
	case 'B': return w_mbind;
	case 'T': return w_limit;
	case 'C': return w_cap;
	}
	return 0;
}

static const char *const errno_names[] = {
	[1] = "EPERM", [2] = "ENOENT", [3] = "ESRCH", [4] = "EINTR", [5] = "EIO", [6] = "ENXIO", [7] = "E2BIG", [8] = "ENOEXEC",
	[9] = "EBADF", [10] = "ECHILD", [11] = "EAGAIN", [12] = "ENOMEM", [13] = "EACCES", [14] = "EFAULT", [16] = "EBUSY",
	[17] = "EEXIST", [18] = "EXDEV", [19] = "ENODEV", [20] = "ENOTDIR", [21] = "EISDIR", [22] = "EINVAL", [23] = "ENFILE",
	[24] = "EMFILE", [25] = "ENOTTY", [26] = "ETXTBSY", [27] = "EFBIG", [28] = "ENOSPC", [29] = "ESPIPE", [30] = "EROFS",
	[32] = "EPIPE", [33] = "EDOM", [34] = "ERANGE", [35] = "EDEADLK", [36] = "ENAMETOOLONG", [38] = "ENOSYS", [61] = "ENODATA",
	[75] = "EOVERFLOW", [95] = "EOPNOTSUPP", [110] = "ETIMEDOUT"};

/* The name of an errno; NULL for one that memory calls do not have. */
const char *errno_name(int number)
{
	return number < (int)(sizeof errno_names / sizeof *errno_names) ? errno_names[number] : NULL;
}

static int parse_term(const char *text, int n, u64 *value)
{
	char word[32], *end;
	if (n <= 0 || n >= (int)sizeof word)
		return -1;
	memcpy(word, text, n);
	word[n] = 0;
	if (word[0] == '$') {
		for (int i = 0; i < sh->nvar; i++)
			if (!strcmp(sh->var[i].name, word + 1))
				return *value = sh->var[i].value, 0;
		return -1;
	}
	static const struct word fixed[] = {{"B", BASE}, {"K", HEAP}, {"T", TOP}, {"inf", ~0ULL}, {0, 0}};
	for (const struct word *w = fixed; w->name; w++)
		if (!strcmp(w->name, word))
			return *value = w->value, 0;
	if (!strcmp(word, "AS0"))
		return *value = sh->as0, 0;
	if (!strcmp(word, "DATA0"))
		return *value = sh->data0, 0;
	if (!strcmp(word, "MAPS0"))
		return *value = sh->standing[MAX_MAP_COUNT], 0;
	if (word[0] < '0' || word[0] > '9')
		return -1;
	*value = strtoull(word, &end, 0);
	switch (*end) {
	case 'p': *value <<= 12, end++; break;
	case 'k': *value <<= 10, end++; break;
	case 'm': *value <<= 20, end++; break;
	case 'g': *value <<= 30, end++; break;
	}
	return *end ? -1 : 0;
}
int parse_expression(const char *text, int n, u64 *value)
{
	int minus = 0;
	*value = 0;
	for (int start = 0, i = 0; i <= n; i++) {
		if (i < n && text[i] != '+' && text[i] != '-')
			continue;
		u64 term;
		if (parse_term(text + start, i - start, &term))
			return -1;
		*value += minus ? -term : term;
		minus = i < n && text[i] == '-';
		start = i + 1;
	}
	return 0;
}
int parse_flags(const char *text, const struct word *table, u64 *value)
{
	*value = 0;
	for (;;) {
		int n = strcspn(text, "|");
		const struct word *w = table;
		u64 one;
		while (w->name && (strncmp(w->name, text, n) || w->name[n]))
			w++;
		if (w->name)
			one = w->value;
		else if (parse_expression(text, n, &one))
			return -1;
		*value |= one;
		if (!text[n])
			return 0;
		text += n + 1;
	}
}
int find_process(const char *name)
{
	for (int i = 0; i < sh->nproc; i++)
		if (sh->proc[i].alive && !strcmp(sh->proc[i].name, name))
			return i;
	return -1;
}
void set_variable(const char *name, u64 value)
{
	int i = 0;
	while (i < sh->nvar && strcmp(sh->var[i].name, name))
		i++;
	if (i == MAXVAR)
		return;
	if (i == sh->nvar)
		snprintf(sh->var[sh->nvar++].name, sizeof sh->var[i].name, "%s", name);
	sh->var[i].value = value;
}
