// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Runs scripts of memory operations on the kernel that is there: the live half of `memtwin verify`.
 *
 * All scripts come on stdin, the answers go to stdout, one JSON object a line. For each script the server starts this
 * same image anew ("run"), without address randomisation, on one CPU, in a mount namespace with an empty tmpfs on /tmp.
 *
 * What a script's processes need lives in one shared mapping (struct shared, at SHARED): the text, the variables, the
 * answers. They take turns: who holds the token executes lines until a line belongs to somebody else. Nothing of this
 * may disturb what is observed: every page of the image is resident before the first line and made so again after each
 * fork, and counters are read directly around the system call.
 *
 * Build: cc -static -no-pie -O2 -Wl,-Ttext-segment=0x30000000 executor.c, so that nothing of it is where low hints and
 * MAP_32BIT lead. Needs root (namespaces, the place of the heap, page frame numbers).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

typedef uint64_t u64;
typedef int64_t s64;
#include "executor_names.c"

#define PAGE 4096ULL
#define BASE 0x1000000000ULL
#define BASE_LEN (64ULL << 30)
#define HEAP 0x800000000ULL
#define HEAP_LEN (4ULL << 30)
#define TOP 0x7ffff7fff000ULL
#define TOP_BELOW (1ULL << 40)
#define TOP_ABOVE (64ULL << 20)
#define FILLER 0x300000000000ULL /* where map_room puts its mappings */
#define PADDING 0x38000000ULL
#define TMP "/tmp"
#define SHARED 0x20000000ULL
#define MAXPROC 8
#define MAXVAR 128
#define MAXOWN 16
#define OUT_LEN (192 << 10)
#define EXTRA_LEN (40 << 10)
#define MAX_COUNT_LIMIT 200000 /* a larger vm.max_map_count can not be reached in reasonable time */

enum { SIZE, RSS, RSS_ANON, RSS_FILE, RSS_SHMEM, DATA, LCK, SWAP, HUGETLB, PIN, NSTATUS };
static const char *const status_keys[NSTATUS] = {
	"VmSize", "VmRSS", "RssAnon", "RssFile", "RssShmem", "VmData", "VmLck", "VmSwap", "HugetlbPages", "VmPin"};

struct shared {
	uint32_t token, ready;
	volatile uint32_t progress;
	int done, lines, nproc, nvar, nown, max_map_count;
	int exiting, exit_line;
	pid_t exit_pid;
	struct { char name[64]; pid_t pid; int alive, locked_all; } proc[MAXPROC];
	struct { char name[24]; u64 value; } var[MAXVAR];
	struct { u64 start, end; int writable; } own[MAXOWN];
	s64 base[NSTATUS];
	u64 as0, data0, want_size;
	/* a touch: what the handler of the fault finds */
	volatile int sig, code;
	volatile u64 at;
	u64 touched, runs, run_len;
	int run_value;
	int out_len, extra_len, text_pos, text_len;
	char line[1024], last_op[32];
	struct { u64 pfn; int id; } class[4096];
	int nclass;
	u64 entries[2048];
	char slurp[32 << 10];
	unsigned char bytes[256 << 10];
	char extra[EXTRA_LEN];
	char out[OUT_LEN];
	char text[64 << 10];
};
static struct shared *const sh = (struct shared *)SHARED;
static int self; /* our slot */
static sigjmp_buf fault_jump;
static char alt_stack[16384] __attribute__((aligned(4096)));

/* ---------------------------------------------------------------------------------------------------- writing text */

static char *buffer;
static int *length;
static int limit;

static void to_out(void) { buffer = sh->out; length = &sh->out_len; limit = OUT_LEN; }
static void to_extra(void) { buffer = sh->extra; length = &sh->extra_len; limit = EXTRA_LEN; }

static void put(const char *text)
{
	int n = strlen(text);
	if (*length + n >= limit) {
		if (buffer != sh->out)
			return;
		if (write(1, sh->out, sh->out_len) < 0)
			_exit(1);
		*length = 0;
	}
	memcpy(buffer + *length, text, n);
	*length += n;
}
static void put_number(u64 value, unsigned base)
{
	char digits[24], *p = digits + sizeof digits - 1;
	*p = 0;
	do
		*--p = "0123456789abcdef"[value % base];
	while (value /= base);
	put(p);
}
static void put_int(s64 value)
{
	if (value < 0)
		put("-");
	put_number(value < 0 ? -(u64)value : (u64)value, 10);
}
static void put_hex(u64 value) { put_number(value, 16); }
static void put_address(u64 addr)
{
	u64 offset = addr;
	if (addr - BASE <= BASE_LEN) {
		put("B+");
		offset = addr - BASE;
	} else if (addr - HEAP < HEAP_LEN) {
		put("K+");
		offset = addr - HEAP;
	} else if (addr <= TOP && TOP - addr <= TOP_BELOW) {
		put("T-");
		offset = TOP - addr;
	} else if (addr > TOP && addr - TOP < TOP_ABOVE) {
		put("T+");
		offset = addr - TOP;
	}
	put("0x");
	put_hex(offset);
}
static void put_escaped(const char *text)
{
	char one[2] = {0, 0};
	for (; *text; text++)
		if (*text != '"' && *text != '\\' && *text >= ' ') {
			one[0] = *text;
			put(one);
		}
}
static void put_field(const char *name, s64 value)
{
	put(",\"");
	put(name);
	put("\":");
	put_int(value);
}
static int shown(u64 addr)
{
	return addr - BASE < BASE_LEN || addr - HEAP < HEAP_LEN || (addr >= TOP - TOP_BELOW && addr < TOP + TOP_ABOVE);
}

/* Runs of equal bytes, 64 at most; behind them a count and a hash (FNV-1a). */
static void put_runs(const char *name, const unsigned char *bytes, u64 n)
{
	u64 runs = 0, hash = 1469598103934665603ULL;
	put(",\"");
	put(name);
	put("\":[");
	for (u64 i = 0, j; i < n; i = j, runs++) {
		for (j = i; j < n && bytes[j] == bytes[i]; j++)
			hash = (hash ^ bytes[j]) * 1099511628211ULL;
		if (runs >= 64)
			continue;
		put(runs ? ",[" : "[");
		put_int(bytes[i]);
		put(",");
		put_int(j - i);
		put("]");
	}
	put("]");
	if (runs > 64) {
		char text[64];
		snprintf(text, sizeof text, ",\"%s_runs\":%llu,\"%s_hash\":\"%016llx\"", name, (unsigned long long)runs, name,
			 (unsigned long long)hash);
		put(text);
	}
}

/* ------------------------------------------------------------------------------------------- reading /proc by lines */

struct lines { int fd, len, pos; };

static int lines_open(struct lines *in, pid_t pid, const char *what)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, what);
	in->fd = open(path, O_RDONLY | O_CLOEXEC);
	in->len = in->pos = 0;
	return in->fd;
}
/* The next line without its end; NULL behind the last one, and the file is closed. */
static char *lines_next(struct lines *in)
{
	for (;;) {
		char *start = sh->slurp + in->pos, *end = memchr(start, '\n', in->len - in->pos);
		if (end) {
			*end = 0;
			in->pos = end + 1 - sh->slurp;
			return start;
		}
		memmove(sh->slurp, start, in->len - in->pos);
		in->len -= in->pos;
		in->pos = 0;
		ssize_t n = in->fd < 0 ? 0 : read(in->fd, sh->slurp + in->len, sizeof sh->slurp - in->len);
		if (n <= 0) {
			if (in->fd >= 0)
				close(in->fd);
			return NULL;
		}
		in->len += n;
	}
}
/* Start and end of a VMA if the line is the head of one; where the rest of the line begins. */
static char *vma_head(char *line, u64 *start, u64 *end)
{
	char *p;
	if (!((*line >= '0' && *line <= '9') || (*line >= 'a' && *line <= 'f')))
		return NULL;
	*start = strtoull(line, &p, 16);
	if (*p != '-')
		return NULL;
	*end = strtoull(p + 1, &p, 16);
	return *p == ' ' ? p + 1 : NULL;
}

/* ------------------------------------------------------------------------------------------------------------ dumps */

static void dump_maps(pid_t pid)
{
	struct lines in;
	u64 start, end;
	const char *sep = "";
	lines_open(&in, pid, "maps");
	put(",\"maps\":[");
	for (char *line; (line = lines_next(&in));) {
		char *rest = vma_head(line, &start, &end);
		if (!rest || !shown(start))
			continue;
		u64 offset = strtoull(rest + 5, NULL, 16);
		rest[4] = 0;
		put(sep);
		put("\"");
		put_address(start);
		put("-");
		put_address(end);
		put(" ");
		put(rest);
		put(" ");
		put_hex(offset);
		char *name = rest + 5;
		for (int field = 0; field < 3; field++) { /* offset, device, inode */
			while (*name && *name != ' ')
				name++;
			while (*name == ' ')
				name++;
		}
		if (*name) {
			put(" ");
			if (!strncmp(name, TMP "/", sizeof TMP)) {
				put("tmpfs:");
				name += sizeof TMP - 1;
			}
			put_escaped(name);
		}
		put("\"");
		sep = ",";
	}
	put("]");
}
static void dump_smaps(pid_t pid)
{
	struct lines in;
	u64 start, end;
	int inside = 0, any = 0;
	lines_open(&in, pid, "smaps");
	put(",\"smaps\":[");
	for (char *line; (line = lines_next(&in));) {
		if (vma_head(line, &start, &end)) {
			if (inside)
				put("}");
			inside = shown(start);
			if (!inside)
				continue;
			put(any ? ",{\"vma\":\"" : "{\"vma\":\"");
			any = 1;
			put_address(start);
			put("-");
			put_address(end);
			put("\"");
			continue;
		}
		char *value = inside ? strchr(line, ':') : NULL;
		if (!value)
			continue;
		*value++ = 0;
		while (*value == ' ' || *value == '\t')
			value++;
		if (!strcmp(line, "VmFlags")) {
			for (int n = strlen(value); n && value[n - 1] == ' '; n--)
				value[n - 1] = 0;
			put(",\"VmFlags\":\"");
			put(value);
			put("\"");
			continue;
		}
		s64 number = strtoll(value, NULL, 10);
		int default_size = number == 4 && (!strcmp(line, "KernelPageSize") || !strcmp(line, "MMUPageSize"));
		if (number && !default_size)
			put_field(line, number);
	}
	put(inside ? "}]" : "]");
}
/* The number of a physical page: by first appearance in the dump. */
static int class_of(u64 pfn)
{
	int size = sizeof sh->class / sizeof sh->class[0];
	for (u64 i = pfn * 0x9E3779B97F4A7C15ULL >> 52;; i = (i + 1) % size) {
		if (!sh->class[i].id) {
			if (sh->nclass > size / 2)
				return -1;
			sh->class[i].pfn = pfn;
			sh->class[i].id = ++sh->nclass;
		}
		if (sh->class[i].pfn == pfn)
			return sh->class[i].id - 1;
	}
}
static void page_flags(u64 entry, int kpageflags, char *flags, int *class)
{
	u64 pfn = entry & ((1ULL << 55) - 1), kernel = 0;
	*class = -1;
	if (entry >> 63) {
		*flags++ = 'P';
		if (pfn && pread(kpageflags, &kernel, 8, pfn * 8) != 8)
			kernel = 0;
		if (kernel >> 24 & 1)
			*flags++ = 'Z';
		else if (pfn)
			*class = class_of(pfn);
		if (kernel >> 17 & 1)
			*flags++ = 'H';
		else if (kernel >> 22 & 1)
			*flags++ = 'T';
		if (kernel >> 21 & 1)
			*flags++ = 'K';
	}
	static const struct { int bit; char flag; } rest[] = {{62, 'S'}, {61, 'F'}, {58, 'G'}, {57, 'W'}, {56, 'X'}};
	for (unsigned i = 0; i < sizeof rest / sizeof rest[0]; i++)
		if (entry >> rest[i].bit & 1)
			*flags++ = rest[i].flag;
	*flags = 0;
}
struct page_run { u64 start, pages; char flags[16]; int class; };

static void put_page_run(const struct page_run *run, int *any)
{
	if (!run->pages || !run->flags[0])
		return;
	put(*any ? ",[\"" : "[\"");
	*any = 1;
	put_address(run->start);
	put("\",");
	put_int(run->pages);
	put(",\"");
	put(run->flags);
	put("\"");
	if (run->class >= 0) {
		put(",");
		put_int(run->class);
	}
	put("]");
}
static void dump_pagemap(pid_t pid, u64 low, u64 high)
{
	static struct { u64 start, end; } vmas[512];
	struct lines in;
	u64 start, end, budget = 1 << 21;
	int n = 0, any = 0;
	char path[64];
	lines_open(&in, pid, "maps");
	for (char *line; (line = lines_next(&in));)
		if (vma_head(line, &start, &end) && shown(start) && n < 512) {
			vmas[n].start = start < low ? low : start;
			vmas[n].end = end > high ? high : end;
			n += vmas[n].start < vmas[n].end;
		}
	snprintf(path, sizeof path, "/proc/%d/pagemap", pid);
	int pagemap = open(path, O_RDONLY | O_CLOEXEC), kpageflags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	put(",\"pagemap\":[");
	for (int i = 0; i < n; i++) {
		struct page_run run = {0};
		for (u64 addr = vmas[i].start; addr < vmas[i].end && budget;) {
			u64 want = (vmas[i].end - addr) / PAGE, most = sizeof sh->entries / 8;
			ssize_t got = pread(pagemap, sh->entries, (want < most ? want : most) * 8, addr / PAGE * 8) / 8;
			if (got <= 0)
				break;
			budget -= budget < (u64)got ? budget : (u64)got;
			for (ssize_t k = 0; k < got; k++, addr += PAGE) {
				char flags[16];
				int class;
				page_flags(sh->entries[k], kpageflags, flags, &class);
				int follows = run.class < 0 ? class < 0 : class == run.class + (int)run.pages;
				if (run.pages && follows && !strcmp(flags, run.flags)) {
					run.pages++;
					continue;
				}
				put_page_run(&run, &any);
				run = (struct page_run){.start = addr, .pages = 1, .class = class};
				strcpy(run.flags, flags);
			}
		}
		put_page_run(&run, &any);
	}
	put(budget ? "]" : "],\"pagemap_truncated\":true");
	close(pagemap);
	close(kpageflags);
}
static void read_status(pid_t pid, s64 *value)
{
	struct lines in;
	memset(value, 0, NSTATUS * sizeof *value);
	lines_open(&in, pid, "status");
	for (char *line; (line = lines_next(&in));) {
		char *colon = strchr(line, ':');
		if (!colon)
			continue;
		*colon = 0;
		for (int i = 0; i < NSTATUS; i++)
			if (!strcmp(line, status_keys[i]))
				value[i] = strtoll(colon + 1, NULL, 10);
	}
}
static int is_own(u64 addr)
{
	for (int i = 0; i < sh->nown; i++)
		if (addr >= sh->own[i].start && addr < sh->own[i].end)
			return 1;
	return addr >= FILLER && addr < FILLER + MAX_COUNT_LIMIT * PAGE;
}
/* kB of our own image that mlockall locked: no matter of the script's. */
static s64 own_locked(pid_t pid)
{
	struct lines in;
	u64 start, end;
	s64 size = 0, total = 0;
	lines_open(&in, pid, "smaps");
	for (char *line; (line = lines_next(&in));) {
		if (vma_head(line, &start, &end))
			size = is_own(start) ? (end - start) / 1024 : 0;
		else if (!strncmp(line, "VmFlags:", 8) && strstr(line, " lo "))
			total += size;
	}
	return total;
}
static void dump_status(int slot)
{
	s64 value[NSTATUS];
	const char *sep = "\"";
	read_status(sh->proc[slot].pid, value);
	if (sh->proc[slot].locked_all)
		value[LCK] -= own_locked(sh->proc[slot].pid);
	put(",\"status\":{");
	for (int i = 0; i < NSTATUS; i++) {
		s64 shown_value = i <= DATA ? value[i] - sh->base[i] : value[i];
		if (!shown_value)
			continue;
		put(sep);
		put(status_keys[i]);
		put("\":");
		put_int(shown_value);
		sep = ",\"";
	}
	put("}");
}
static void dump_numa(pid_t pid)
{
	struct lines in;
	const char *sep = "";
	lines_open(&in, pid, "numa_maps");
	put(",\"numa_maps\":[");
	for (char *line; (line = lines_next(&in));) {
		char *rest;
		u64 start = strtoull(line, &rest, 16);
		if (!shown(start))
			continue;
		put(sep);
		put("\"");
		put_address(start);
		char *file = strstr(rest, "file=" TMP "/");
		if (file) {
			char *name = file + sizeof "file=" TMP - 1;
			file[5] = 0;
			put_escaped(rest);
			put("tmpfs:");
			rest = name;
		}
		put_escaped(rest);
		put("\"");
		sep = ",";
	}
	put("]");
}

enum { WANT_MAPS = 1, WANT_SMAPS = 2, WANT_PAGEMAP = 4, WANT_STATUS = 8, WANT_NUMA = 16 };

static void dump_process(int slot, int want, u64 low, u64 high)
{
	pid_t pid = sh->proc[slot].pid;
	if (want & WANT_MAPS)
		dump_maps(pid);
	if (want & WANT_SMAPS)
		dump_smaps(pid);
	if (want & WANT_PAGEMAP)
		dump_pagemap(pid, low, high);
	if (want & WANT_STATUS)
		dump_status(slot);
	if (want & WANT_NUMA)
		dump_numa(pid);
}

/* -------------------------------------------------------------------------------------------- words and expressions */

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
static int parse_expression(const char *text, int n, u64 *value)
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
static int parse_flags(const char *text, const struct word *table, u64 *value)
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
static int find_process(const char *name)
{
	for (int i = 0; i < sh->nproc; i++)
		if (sh->proc[i].alive && !strcmp(sh->proc[i].name, name))
			return i;
	return -1;
}
static void set_variable(const char *name, u64 value)
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

/* ------------------------------------------------------------------------------------------------------- operations */

static s64 result(s64 value) { return value == -1 ? -errno : value; }
#define CALL(...) result(syscall(__VA_ARGS__))

static void futex(uint32_t *word, int op, uint32_t value) { syscall(SYS_futex, word, op, value, NULL, NULL, 0); }

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	sh->sig = sig;
	sh->code = info->si_code;
	sh->at = (u64)info->si_addr;
	siglongjmp(fault_jump, 1);
}
static void end_run(void)
{
	if (sh->run_len && sh->runs++ < 64) {
		put(sh->runs > 1 ? ",[" : "[");
		put_int(sh->run_value);
		put(",");
		put_int(sh->run_len);
		put("]");
	}
	sh->run_len = 0;
}
static s64 touch(u64 addr, u64 len, const u64 stride, int value)
{
	sh->touched = sh->runs = sh->run_len = 0;
	if (value < 0)
		put(",\"vals\":[");
	if (!sigsetjmp(fault_jump, 0))
		for (u64 x = 0; x < len; x += stride, sh->touched++) {
			volatile unsigned char *p = (volatile unsigned char *)(addr + x);
			if (value >= 0) {
				*p = value;
				continue;
			}
			int seen = *p;
			if (seen != sh->run_value)
				end_run();
			sh->run_value = seen;
			sh->run_len++;
		}
	if (value < 0) {
		end_run();
		put("]");
	}
	return sh->touched;
}
/* Have all pages of our own image present and our own, as before the first line: after a fork they are not. */
static void settle(void)
{
	for (int i = 0; i < sh->nown; i++)
		syscall(SYS_madvise, sh->own[i].start, sh->own[i].end - sh->own[i].start, sh->own[i].writable ? 23 : 22);
}
static int drop_capability(int cap)
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
static s64 fork_process(const char *name)
{
	int slot = sh->nproc;
	if (slot == MAXPROC)
		return -EAGAIN;
	sh->ready = 0;
	/* a sibling: the server reaps everybody */
	s64 pid = CALL(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
	if (pid < 0)
		return pid;
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
/* Leave room for exactly n more VMAs: fill the rest of vm.max_map_count with mappings nobody looks at. */
static s64 map_room(u64 n)
{
	struct lines in;
	u64 start, end;
	s64 count = 0;
	lines_open(&in, getpid(), "maps");
	for (char *line; (line = lines_next(&in));)
		count += vma_head(line, &start, &end) && start < 1ULL << 47;
	s64 missing = sh->max_map_count - (s64)n - count;
	if (sh->max_map_count > MAX_COUNT_LIMIT)
		return -EOPNOTSUPP;
	if (missing <= 0)
		return missing ? -EINVAL : 0;
	s64 r = CALL(SYS_mmap, FILLER, missing * PAGE, PROT_NONE, 0x104022, -1, 0); /* private anon noreserve noreplace */
	if (r < 0)
		return r;
	/* every second page differs from its neighbours */
	for (s64 i = 1; r >= 0 && i < missing; i += 2)
		r = CALL(SYS_madvise, FILLER + i * PAGE, PAGE, MADV_DONTDUMP);
	sh->base[SIZE] += missing * 4;
	sh->as0 += missing * PAGE;
	return r < 0 ? r : 0;
}

struct request { int id; u64 a[8]; int n; char word[64]; };

static s64 file_call(const struct request *q)
{
	const u64 *a = q->a;
	char path[128];
	struct stat st;
	s64 r;
	switch (q->id) {
	case MEMFD:
		return CALL(SYS_memfd_create, q->word, a[1]);
	case OPEN:
		snprintf(path, sizeof path, TMP "/%s", q->word);
		return CALL(SYS_openat, AT_FDCWD, strcmp(q->word, "/dev/zero") ? path : q->word, q->n > 1 ? a[1] : 0102, 0600);
	case UNLINK:
		snprintf(path, sizeof path, TMP "/%s", q->word);
		return CALL(SYS_unlink, path);
	case FTRUNCATE:
		return CALL(SYS_ftruncate, (int)a[0], a[1]);
	case FALLOCATE:
		return CALL(SYS_fallocate, (int)a[0], a[1], a[2], a[3]);
	case FSTAT:
		r = result(fstat(a[0], &st));
		if (!r) {
			put_field("size", st.st_size);
			put_field("blocks", st.st_blocks);
		}
		return r;
	case PREAD:
		if (a[2] > sizeof sh->bytes)
			return -E2BIG;
		r = CALL(SYS_pread64, (int)a[0], sh->bytes, a[2], a[1]);
		if (r > 0)
			put_runs("vals", sh->bytes, r);
		return r;
	case PWRITE:
		if (a[2] > sizeof sh->bytes)
			return -E2BIG;
		memset(sh->bytes, a[3], a[2]);
		return CALL(SYS_pwrite64, (int)a[0], sh->bytes, a[2], a[1]);
	case CLOSE:
		return CALL(SYS_close, (int)a[0]);
	case ADDSEALS:
		return CALL(SYS_fcntl, (int)a[0], 1033, a[1]);
	case GETSEALS:
		return CALL(SYS_fcntl, (int)a[0], 1034);
	}
	return -ENOSYS;
}
static s64 uffd_call(const struct request *q)
{
	const u64 *a = q->a;
	u64 x[4] = {0};
	s64 r;
	switch (q->id) {
	case USERFAULTFD:
		return CALL(SYS_userfaultfd, q->n ? a[0] : O_CLOEXEC | O_NONBLOCK);
	case UFFD_API:
		x[0] = 0xAA;
		x[1] = a[1];
		r = result(ioctl(a[0], _IOC(3, 0xAA, 0x3F, 24), x));
		put(",\"features\":\"0x");
		put_hex(x[1]);
		put("\",\"ioctls\":\"0x");
		put_hex(x[2]);
		put("\"");
		return r;
	case UFFD_REGISTER:
		memcpy(x, a + 1, 24);
		r = result(ioctl(a[0], _IOC(3, 0xAA, 0x00, 32), x));
		if (!r) {
			put(",\"ioctls\":\"0x");
			put_hex(x[3]);
			put("\"");
		}
		return r;
	case UFFD_UNREGISTER:
		memcpy(x, a + 1, 16);
		return result(ioctl(a[0], _IOC(2, 0xAA, 0x01, 16), x));
	}
	return -ENOSYS;
}
static void put_limit(const char *name, rlim_t value) { put_field(name, value == RLIM_INFINITY ? -1 : (s64)value); }

static s64 policy_or_limit_call(const struct request *q)
{
	const u64 *a = q->a;
	u64 mask[32] = {0};
	struct rlimit rl;
	int mode = 0;
	s64 r;
	switch (q->id) {
	case MBIND:
		mask[0] = a[3];
		return CALL(SYS_mbind, a[0], a[1], a[2], mask, 64, a[4]);
	case SET_MEMPOLICY:
		mask[0] = a[1];
		return CALL(SYS_set_mempolicy, a[0], a[1] ? mask : NULL, a[1] ? 64 : 0);
	case GET_MEMPOLICY:
		r = CALL(SYS_get_mempolicy, &mode, mask, 2048, q->n ? a[0] : 0, q->n ? 2 : 0);
		if (!r) {
			put_field("mode", mode);
			put_field("nodes", mask[0]);
		}
		return r;
	case GETRLIMIT:
		r = result(getrlimit(a[0], &rl));
		if (!r) {
			put_limit("cur", rl.rlim_cur);
			put_limit("max", rl.rlim_max);
		}
		return r;
	case SETRLIMIT:
		getrlimit(a[0], &rl);
		rl.rlim_cur = a[1];
		if (q->n > 2)
			rl.rlim_max = a[2];
		return result(setrlimit(a[0], &rl));
	}
	return -ENOSYS;
}
static s64 memory_call(const struct request *q)
{
	const u64 *a = q->a;
	struct iovec local = {sh->bytes, a[1]}, remote = {(void *)a[0], a[1]};
	s64 r;
	switch (q->id) {
	case MMAP:
		return CALL(SYS_mmap, a[0], a[1], a[2], a[3], q->n > 4 ? (long)(int)a[4] : -1L, q->n > 5 ? a[5] : 0);
	case MUNMAP: return CALL(SYS_munmap, a[0], a[1]);
	case MPROTECT: return CALL(SYS_mprotect, a[0], a[1], a[2]);
	case MADVISE: return CALL(SYS_madvise, a[0], a[1], a[2]);
	case PROCESS_MADVISE:
		r = CALL(SYS_pidfd_open, getpid(), 0);
		if (r >= 0) {
			int fd = r;
			r = CALL(SYS_process_madvise, fd, &remote, 1, a[2], 0);
			close(fd);
		}
		return r;
	case MREMAP: return CALL(SYS_mremap, a[0], a[1], a[2], a[3], q->n > 4 ? a[4] : 0);
	case BRK: return syscall(SYS_brk, a[0]);
	case MLOCK: return CALL(SYS_mlock, a[0], a[1]);
	case MLOCK2: return CALL(SYS_mlock2, a[0], a[1], a[2]);
	case MUNLOCK: return CALL(SYS_munlock, a[0], a[1]);
	case MLOCKALL:
		r = CALL(SYS_mlockall, a[0]);
		if (!r && a[0] & 1)
			sh->proc[self].locked_all = 1;
		return r;
	case MUNLOCKALL: return CALL(SYS_munlockall);
	case MSYNC: return CALL(SYS_msync, a[0], a[1], a[2]);
	case MINCORE:
		if (a[1] > sizeof sh->bytes * PAGE)
			return -E2BIG;
		r = CALL(SYS_mincore, a[0], a[1], sh->bytes);
		if (!r) {
			u64 n = (a[1] + PAGE - 1) / PAGE;
			for (u64 i = 0; i < n; i++)
				sh->bytes[i] &= 1;
			put_runs("vec", sh->bytes, n);
		}
		return r;
	case MSEAL: return CALL(462, a[0], a[1], q->n > 2 ? a[2] : 0);
	case REMAP_FILE_PAGES: return CALL(SYS_remap_file_pages, a[0], a[1], a[2], a[3], a[4]);
	case READ: return touch(a[0], a[1], q->n > 2 && a[2] ? a[2] : PAGE, -1);
	case WRITE: return touch(a[0], a[1], q->n > 3 && a[3] ? a[3] : PAGE, a[2] & 255);
	case VM_READ:
	case VM_WRITE: {
		int to = q->id == VM_WRITE, at = to ? 3 : 2;
		if (a[1] > sizeof sh->bytes)
			return -E2BIG;
		memset(sh->bytes, to ? (int)a[2] : 0, a[1]);
		pid_t pid = sh->proc[q->n > at ? (int)a[at] : self].pid;
		r = CALL(to ? SYS_process_vm_writev : SYS_process_vm_readv, pid, &local, 1, &remote, 1, 0);
		if (!to && r > 0)
			put_runs("vals", sh->bytes, r);
		return r;
	}
	case ANON_NAME: return CALL(SYS_prctl, 0x53564d41, 0, a[0], a[1], q->n > 2 ? q->word : NULL);
	case MERGE: return CALL(SYS_prctl, 67, a[0], 0, 0, 0);
	case GET_MERGE: return CALL(SYS_prctl, 68, 0, 0, 0, 0);
	case THP_DISABLE: return CALL(SYS_prctl, 41, a[0], 0, 0, 0);
	}
	return -ENOSYS;
}
static s64 execute(const struct request *q)
{
	switch (q->id) {
	case MEMFD: case OPEN: case UNLINK: case FTRUNCATE: case FALLOCATE: case FSTAT: case PREAD: case PWRITE: case CLOSE:
	case ADDSEALS: case GETSEALS:
		return file_call(q);
	case USERFAULTFD: case UFFD_API: case UFFD_REGISTER: case UFFD_UNREGISTER:
		return uffd_call(q);
	case MBIND: case SET_MEMPOLICY: case GET_MEMPOLICY: case GETRLIMIT: case SETRLIMIT:
		return policy_or_limit_call(q);
	case DROPCAP:
		return result(drop_capability(q->a[0]));
	case MAP_ROOM:
		return map_room(q->a[0]);
	}
	return memory_call(q);
}

/* ------------------------------------------------------------------------------------------------- lines and answers */

static void open_answer(int line, int slot, const char *op)
{
	to_out();
	put("{\"i\":");
	put_int(line);
	if (slot) {
		put(",\"proc\":\"");
		put(slot < 0 ? "*" : sh->proc[slot].name);
		put("\"");
	}
	put(",\"op\":\"");
	put(op);
	put("\"");
}
static void put_result(char kind, s64 ret)
{
	if (kind == 'A' && !(ret < 0 && ret >= -4095)) {
		put(",\"ret\":\"");
		put_address(ret);
		put("\"");
		return;
	}
	put_field("ret", kind == 'F' && ret >= 0 ? 0 : ret);
	if (ret >= 0 || ret < -4095)
		return;
	const char *name = -ret < (s64)(sizeof errno_names / sizeof *errno_names) ? errno_names[-ret] : NULL;
	char number[16];
	snprintf(number, sizeof number, "E%d", (int)-ret);
	put(",\"err\":\"");
	put(name ? name : number);
	put("\"");
}
static void put_signal(void)
{
	static const char *const segv[] = {"SEGV_MAPERR", "SEGV_ACCERR", "SEGV_BNDERR", "SEGV_PKUERR"};
	static const char *const bus[] = {"BUS_ADRALN", "BUS_ADRERR", "BUS_OBJERR", "BUS_MCEERR_AR", "BUS_MCEERR_AO"};
	int code = sh->code - 1, is_segv = sh->sig == SIGSEGV, known = code >= 0 && code < (is_segv ? 4 : 5);
	char number[16];
	snprintf(number, sizeof number, "%d", sh->code);
	put(is_segv ? ",\"sig\":\"SIGSEGV\",\"code\":\"" : ",\"sig\":\"SIGBUS\",\"code\":\"");
	put(sh->code == SI_KERNEL ? "SI_KERNEL" : !known ? number : is_segv ? segv[code] : bus[code]);
	put("\",\"at\":\"");
	put_address(sh->at);
	put("\"");
}
static void put_extra(void)
{
	memcpy(sh->out + sh->out_len, sh->extra, sh->extra_len);
	sh->out_len += sh->extra_len;
}
static void answer_error(const char *text)
{
	to_out();
	put("{\"i\":");
	put_int(sh->lines);
	put(",\"line\":\"");
	put_escaped(sh->line);
	put("\",\"error\":\"");
	put(text);
	put("\"}\n");
}
static void dump(char **words, int n, int slot)
{
	static const struct word parts[] = {
		{"maps", WANT_MAPS}, {"smaps", WANT_SMAPS}, {"pagemap", WANT_PAGEMAP}, {"status", WANT_STATUS}, {"numa", WANT_NUMA}, {0, 0}};
	u64 range[2] = {0, 0};
	int want = 0, ranges = 0;
	for (int i = 0; i < n; i++) {
		const struct word *w = parts;
		while (w->name && strcmp(w->name, words[i]))
			w++;
		if (w->name)
			want |= w->value;
		else if (ranges == 2 || parse_expression(words[i], strlen(words[i]), &range[ranges++]))
			return answer_error("bad argument of dump");
	}
	want = want ? want : WANT_MAPS | WANT_SMAPS | WANT_PAGEMAP | WANT_STATUS;
	u64 high = ranges == 2 ? range[0] + range[1] : ~0ULL;
	memset(sh->class, 0, sizeof sh->class);
	sh->nclass = 0;
	if (sh->out_len > OUT_LEN / 2) {
		if (write(1, sh->out, sh->out_len) < 0)
			_exit(1);
		sh->out_len = 0;
	}
	open_answer(sh->lines, slot, "dump");
	if (slot >= 0) {
		dump_process(slot, want, range[0], high);
	} else {
		const char *sep = "\"";
		put(",\"procs\":{");
		for (int i = 0; i < sh->nproc; i++) {
			if (!sh->proc[i].alive)
				continue;
			put(sep);
			put(sh->proc[i].name);
			put("\":{\"p\":0");
			dump_process(i, want, range[0], high);
			put("}");
			sep = ",\"";
		}
		put("}");
	}
	put("}\n");
}
static int parse_arguments(const struct op *op, char **words, int n, struct request *q)
{
	const char *kind = op->args;
	int optional = 0;
	q->id = op->id;
	q->n = n;
	for (int i = 0; i < n; i++, kind++) {
		if (*kind == '?')
			kind++, optional = 1;
		if (!*kind || i == 8)
			return -1;
		const struct word *table = table_of(*kind);
		int bad = 0;
		if (*kind == 's')
			snprintf(q->word, sizeof q->word, "%s", words[i]);
		else if (*kind == 'p')
			bad = (int)(q->a[i] = find_process(words[i])) < 0;
		else if (table)
			bad = parse_flags(words[i], table, &q->a[i]);
		else
			bad = parse_expression(words[i], strlen(words[i]), &q->a[i]);
		if (bad)
			return -1;
	}
	return *kind && *kind != '?' && !optional ? -1 : 0;
}
static void pass_token(int slot)
{
	__atomic_store_n(&sh->token, slot, __ATOMIC_SEQ_CST);
	futex(&sh->token, FUTEX_WAKE, MAXPROC);
}
static void leave(void)
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
static void await_exit(void)
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
static int run_line(const struct op *op, const char *variable, char **words, int n)
{
	struct request q = {0};
	struct rusage before, after;
	if (parse_arguments(op, words, n, &q))
		return answer_error("bad arguments"), 0;
	if (op->id == EXIT)
		leave();
	sh->sig = 0;
	sh->extra_len = 0;
	to_extra();
	s64 ret;
	if (op->id == FORK) {
		ret = fork_process(q.word);
		if (ret == 1)
			return 1; /* the child: its turn comes */
		before = after = (struct rusage){0};
	} else {
		getrusage(RUSAGE_SELF, &before);
		ret = execute(&q);
		getrusage(RUSAGE_SELF, &after);
	}
	if (variable) {
		int failed = ret < 0 && ret >= -4095;
		set_variable(variable, !failed ? (u64)ret : op->result == 'F' ? ~0ULL : BASE + (32ULL << 30));
	}
	open_answer(sh->lines, self, op->name);
	put_result(op->result, ret);
	if (sh->sig)
		put_signal();
	put_extra();
	if (after.ru_minflt != before.ru_minflt)
		put_field("min", after.ru_minflt - before.ru_minflt);
	if (after.ru_majflt != before.ru_majflt)
		put_field("maj", after.ru_majflt - before.ru_majflt);
	put("}\n");
	return 0;
}
/* One line of the script. True if it is another process's turn now. */
static int step(void)
{
	char *line = sh->text + sh->text_pos, *words[24], *variable = NULL, *op_word;
	int n = 0, slot = 0, len = strcspn(line, "\n");
	char copy[1024];
	snprintf(copy, sizeof copy, "%.*s", len, line);
	for (char *word = strtok(copy, " \t\r"); word && n < 24; word = strtok(NULL, " \t\r"))
		words[n++] = word;
	char **word = words;
	if (!n || **word == '#') {
		sh->text_pos += len + 1;
		return 0;
	}
	if (**word == '@') {
		slot = !strcmp(*word, "@*") ? -1 : find_process(*word + 1);
		if (slot < 0 && strcmp(*word, "@*"))
			slot = MAXPROC;
		word++, n--;
	} else if (!sh->proc[0].alive) {
		slot = MAXPROC;
	}
	if (slot >= 0 && slot < MAXPROC && slot != self) {
		pass_token(slot);
		return 1;
	}
	sh->text_pos += len + 1;
	sh->lines++;
	sh->progress++;
	snprintf(sh->line, sizeof sh->line, "%.*s", len, line);
	if (slot == MAXPROC || !n)
		return answer_error(n ? "no such process" : "no operation"), 0;
	op_word = *word++;
	n--;
	char *equals = strchr(op_word, '=');
	if (equals) {
		variable = op_word;
		*equals = 0;
		op_word = equals + 1;
	}
	snprintf(sh->last_op, sizeof sh->last_op, "%s", op_word);
	if (!strcmp(op_word, "dump"))
		return dump(word, n, slot), 0;
	if (slot < 0)
		return answer_error("only dump is for all processes"), 0;
	if (!strcmp(op_word, "echo")) {
		open_answer(sh->lines, self, "echo");
		put(",\"text\":\"");
		put_escaped(strstr(sh->line, "echo") + 4 + (n > 0));
		put("\"}\n");
		return 0;
	}
	const struct op *op = ops;
	while (op->name && strcmp(op->name, op_word))
		op++;
	if (!op->name)
		return answer_error("unknown operation"), 0;
	return run_line(op, variable, word, n);
}
static void take_turns(void)
{
	for (;;) {
		uint32_t token;
		while ((token = __atomic_load_n(&sh->token, __ATOMIC_SEQ_CST)) != (uint32_t)self)
			futex(&sh->token, FUTEX_WAIT, token);
		if (sh->exiting >= 0)
			await_exit();
		/* once the token is passed, nothing of the shared state is ours to look at */
		int passed = 0;
		while (!passed && sh->text_pos < sh->text_len)
			passed = step();
		if (!passed) {
			sh->done = 1;
			_exit(0);
		}
	}
}

/* ----------------------------------------------------------------------------------------- a script's first process */

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
static int run_script(void)
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
	stack_t alt = {.ss_sp = alt_stack, .ss_size = sizeof alt_stack};
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	sigaltstack(&alt, NULL);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
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

/* ----------------------------------------------------------------------------------------------------------- server */

static int timeout_ms = 10000;

static int read_number(const char *path)
{
	char text[32] = "0";
	int fd = open(path, O_RDONLY);
	if (fd >= 0) {
		ssize_t n = read(fd, text, sizeof text - 1);
		text[n > 0 ? n : 0] = 0;
		close(fd);
	}
	return atoi(text);
}
static void print_env(void)
{
	struct utsname name;
	uname(&name);
	printf("{\"env\":{\"release\":\"%s\",\"overcommit_memory\":%d,\"max_map_count\":%d}}\n", name.release,
	       read_number("/proc/sys/vm/overcommit_memory"), read_number("/proc/sys/vm/max_map_count"));
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
	pid_t pid = vfork();
	if (!pid) {
		execveat(exe, "", argv, envp, AT_EMPTY_PATH);
		_exit(127);
	}
	if (pid < 0) {
		perror("executor: fork");
		exit(1);
	}
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
static int prepare(int cpu)
{
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
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -1;
	if (mount("tmpfs", TMP, "tmpfs", 0, "size=1g"))
		return -1;
	sh->max_map_count = read_number("/proc/sys/vm/max_map_count");
	return exe;
}
int main(int argc, char **argv)
{
	int cpu = -1;
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
	}
	int exe = prepare(cpu);
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
