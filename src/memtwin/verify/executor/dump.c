// SPDX-License-Identifier: GPL-2.0-or-later
/* What a dump shows of a process. */
#include "executor.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const status_keys[NSTATUS] = {
	"VmSize", "VmRSS", "RssAnon", "RssFile", "RssShmem", "VmData", "VmLck", "VmSwap", "HugetlbPages", "VmPin"};

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
	for (u64 i = pfn * 0x9E3779B97F4A7C15ULL >> 50;; i = (i + 1) % size) {
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
void read_status(pid_t pid, s64 *value)
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

void dump_process(int slot, int want, u64 low, u64 high)
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
