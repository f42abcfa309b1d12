// SPDX-License-Identifier: GPL-2.0-or-later
/* Reading /proc line by line, with no memory of its own. */
#include "executor.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int lines_open(struct lines *in, pid_t pid, const char *what)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", pid, what);
	in->fd = open(path, O_RDONLY | O_CLOEXEC);
	in->len = in->pos = 0;
	return in->fd;
}
/* The next line without its end; NULL behind the last one, and the file is closed. */
char *lines_next(struct lines *in)
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
char *vma_head(char *line, u64 *start, u64 *end)
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
