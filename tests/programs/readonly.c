// SPDX-License-Identifier: GPL-2.0-or-later
// Calls that would change files: natively on a read-only mount, and on the twin, where everything is read-only.
// Run in a directory with: file, link -> file, dangling -> nowhere, dir/, dir/inner.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void show(const char *what, long result) {
	printf("%s = %ld %s\n", what, result, result == -1 ? strerrorname_np(errno) : "");
}
#define TRY(call) (errno = 0, show(#call, (long)(call)))

int main(void) {
	TRY(open("file", O_WRONLY));
	TRY(open("file", O_RDWR));
	TRY(open("link", O_RDWR));
	TRY(open("link", O_RDWR | O_NOFOLLOW));
	TRY(open("file", O_RDONLY | O_TRUNC));
	TRY(open("file", O_WRONLY | O_PATH));
	TRY(open("dir", O_WRONLY));
	TRY(open("dir", O_RDONLY | O_TRUNC));
	TRY(open("missing", O_WRONLY | O_CREAT, 0600));
	TRY(open("missing", O_RDONLY | O_CREAT, 0600));
	TRY(open("missing", O_RDONLY | O_CREAT | O_EXCL, 0600));
	TRY(open("missing/", O_RDONLY | O_CREAT, 0600));
	TRY(open("missing/x", O_RDONLY | O_CREAT, 0600));
	TRY(open("dangling", O_RDONLY | O_CREAT, 0600));
	TRY(open("dangling", O_RDONLY | O_CREAT | O_EXCL, 0600));
	TRY(open("file", O_RDONLY | O_CREAT, 0600));
	TRY(open("file", O_RDWR | O_CREAT, 0600));
	TRY(open("file", O_RDWR | O_CREAT | O_EXCL, 0600));
	TRY(open(".", O_RDWR | O_TMPFILE, 0600));
	TRY(open("file", O_RDWR | O_TMPFILE, 0600));
	TRY(open("missing", O_RDWR | O_TMPFILE, 0600));
	TRY(open(".", O_RDONLY | O_TMPFILE, 0600));
	TRY(open("dir", O_RDONLY | O_CREAT, 0600));
	TRY(open("dir/", O_RDONLY | O_CREAT, 0600));
	TRY(open("dir/.", O_RDONLY | O_CREAT, 0600));
	TRY(creat("file", 0600));
	TRY(creat("missing", 0600));
	TRY(access("file", W_OK));
	TRY(access("dir", W_OK));
	TRY(access("missing", W_OK));
	TRY(access("dangling", W_OK));
	TRY(mkdir("missing", 0700));
	TRY(mkdir("dir", 0700));
	TRY(mkdir("dir/", 0700));
	TRY(mkdir(".", 0700));
	TRY(mkdir("missing/x", 0700));
	TRY(mkdir("file/x", 0700));
	TRY(mkdir("dangling", 0700));
	TRY(rmdir("dir"));
	TRY(rmdir("missing"));
	TRY(rmdir("."));
	TRY(rmdir("file"));
	TRY(unlink("file"));
	TRY(unlink("link"));
	TRY(unlink("missing"));
	TRY(unlink("dir"));
	TRY(unlink("."));
	TRY(unlink("file/x"));
	TRY(unlinkat(AT_FDCWD, "dir", AT_REMOVEDIR));
	TRY(unlinkat(AT_FDCWD, "file", 0x1234));
	TRY(unlinkat(99, "file", 0));
	TRY(rename("file", "other"));
	TRY(rename("missing", "other"));
	TRY(rename("file", "missing/other"));
	TRY(symlink("x", "missing"));
	TRY(symlink("x", "file"));
	TRY(symlink("", "missing"));
	TRY(truncate("file", 3));
	TRY(truncate("dir", 3));
	TRY(truncate("missing", 3));
	TRY(truncate("file", -1));
	TRY(chmod("file", 0600));
	TRY(chmod("link", 0600));
	TRY(chmod("missing", 0600));
	int fd = open("file", O_RDONLY);
	TRY(ftruncate(fd, 3));
	TRY(fchmod(fd, 0600));
	TRY(write(fd, "x", 1));
	return 0;
}
