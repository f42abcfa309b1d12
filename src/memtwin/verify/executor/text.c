// SPDX-License-Identifier: GPL-2.0-or-later
/* The answers, as they are written. */
#include "executor.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char *buffer;
static int *length;
static int limit;

void to_out(void) { buffer = sh->out; length = &sh->out_len; limit = OUT_LEN; }
void to_extra(void) { buffer = sh->extra; length = &sh->extra_len; limit = EXTRA_LEN; }

void put(const char *text)
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
void put_int(s64 value)
{
	if (value < 0)
		put("-");
	put_number(value < 0 ? -(u64)value : (u64)value, 10);
}
void put_hex(u64 value) { put_number(value, 16); }
void put_address(u64 addr)
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
void put_escaped(const char *text)
{
	char one[2] = {0, 0};
	for (; *text; text++)
		if (*text != '"' && *text != '\\' && *text >= ' ') {
			one[0] = *text;
			put(one);
		}
}
void put_field(const char *name, s64 value)
{
	put(",\"");
	put(name);
	put("\":");
	put_int(value);
}
int shown(u64 addr)
{
	return addr - BASE < BASE_LEN || addr - HEAP < HEAP_LEN || (addr >= TOP - TOP_BELOW && addr < TOP + TOP_ABOVE) ||
	       (sh->legacy && addr - LEGACY < TOP_BELOW);
}

/* Runs of equal bytes, 64 at most; behind them a count and a hash (FNV-1a). */
void put_runs(const char *name, const unsigned char *bytes, u64 n)
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
