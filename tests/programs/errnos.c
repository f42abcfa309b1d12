// SPDX-License-Identifier: GPL-2.0-or-later
// Many system calls with good and bad arguments, one line each: what they answer must be the same natively and on the twin.
// Run in a directory with: file (5000 bytes), link -> file, dangling -> nowhere, loop -> loop, dir/, dir/inner (3 bytes).
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define BAD ((void *)0x10000000000)
static char buf[20000];

static void show(const char *what, long result) {
	if (result < 0 && result > -4096)
		result = -1;
	printf("%s = %ld %s\n", what, result, result == -1 ? strerrorname_np(errno) : "");
}
#define TRY(call) (errno = 0, show(#call, (long)(call)))
#define TRY_ADDRESS(call) (errno = 0, show(#call, (long)(call) == -1 ? -1 : 0))
#define SYS(name, ...) syscall(SYS_##name, ##__VA_ARGS__)

int main(void) {
	struct stat st;
	struct timespec ts = {0, 1000}, bad_ts = {0, 1000000000};
	struct rlimit rl;
	struct sigaction sa;
	stack_t stack = {.ss_sp = buf, .ss_size = sizeof buf};
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);

	// paths
	TRY(open("missing", O_RDONLY));
	TRY(open("", O_RDONLY));
	TRY(open("file/", O_RDONLY));
	TRY(open("file/x", O_RDONLY));
	TRY(open("dangling", O_RDONLY));
	TRY(open("loop", O_RDONLY));
	TRY(open("link", O_RDONLY | O_NOFOLLOW));
	TRY(open("link", O_RDONLY | O_DIRECTORY));
	TRY(open("dir", O_WRONLY));
	TRY(open("dir", O_RDWR));
	TRY(open("file", O_CREAT | O_EXCL | O_RDONLY, 0600));
	TRY(open("link", O_CREAT | O_EXCL | O_RDONLY, 0600));
	TRY(open("dir", O_CREAT | O_RDONLY, 0600));
	TRY(open("file", O_CREAT | O_DIRECTORY, 0600));
	TRY(open("missing/x", O_CREAT | O_WRONLY, 0600));
	TRY(open("file/x", O_CREAT | O_WRONLY, 0600));
	TRY(SYS(open, BAD, O_RDONLY, 0));
	memset(buf, 'a', 300), buf[300] = 0;
	TRY(open(buf, O_RDONLY));
	memset(buf, 'a', 5000), buf[5000] = 0;
	TRY(open(buf, O_RDONLY));
	memset(buf, '/', 4095), buf[4095] = 0;
	TRY(access(buf, F_OK));
	memset(buf, '/', 4096), buf[4096] = 0;
	TRY(access(buf, F_OK));
	TRY(open("./dir/../dir/./inner", O_RDONLY)); // 3
	TRY(open("file", O_RDONLY));                 // 4
	TRY(open("dir", O_RDONLY | O_DIRECTORY));    // 5
	TRY(open("link", O_PATH | O_NOFOLLOW));      // 6
	TRY(open("file", O_PATH));                   // 7
	TRY(openat(5, "inner", O_RDONLY));           // 8
	TRY(openat(4, "inner", O_RDONLY));
	TRY(openat(99, "inner", O_RDONLY));
	TRY(openat(99, "/", O_RDONLY | O_DIRECTORY)); // 9
	TRY(stat("link", &st));
	show("mode", st.st_mode & S_IFMT);
	TRY(lstat("link", &st));
	show("mode", st.st_mode & S_IFMT);
	TRY(lstat("link/", &st));
	TRY(lstat("dangling/", &st));
	TRY(stat("dir/.", &st));
	TRY(stat("dir/inner/.", &st));
	TRY(stat("dir/inner/..", &st));
	TRY(fstatat(6, "", &st, AT_EMPTY_PATH));
	show("mode", st.st_mode & S_IFMT);
	TRY(fstatat(5, "inner", &st, 0));
	show("size", st.st_size);
	TRY(fstatat(AT_FDCWD, "", &st, AT_EMPTY_PATH));
	show("mode", st.st_mode & S_IFMT);
	TRY(fstatat(AT_FDCWD, "", &st, 0));
	TRY(fstatat(AT_FDCWD, "file", &st, 0x4));
	TRY(SYS(newfstatat, AT_FDCWD, "file", BAD, 0));
	TRY(SYS(statx, AT_FDCWD, "file", 0, 0x7ff, BAD));
	TRY(SYS(statx, AT_FDCWD, "file", 0, 1u << 31, buf));
	TRY(SYS(statx, AT_FDCWD, "missing", 0, 0x7ff, buf));
	TRY(readlink("link", buf, 100));
	TRY(readlink("link", buf, 2));
	TRY(readlink("link", buf, 0));
	TRY(readlink("file", buf, 100));
	TRY(readlink("missing", buf, 100));
	TRY(readlink("", buf, 100));
	TRY(readlinkat(6, "", buf, 100));
	TRY(readlinkat(7, "", buf, 100));
	TRY(access("file", R_OK));
	TRY(access("file", X_OK));
	TRY(access("dir", X_OK));
	TRY(access("file", 8));
	TRY(access("missing", F_OK));
	TRY(faccessat(AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW));
	TRY(SYS(faccessat2, AT_FDCWD, "file", R_OK, 0x4000));
	TRY(chdir("file"));
	TRY(chdir("missing"));
	TRY(fchdir(4));
	TRY(fchdir(5));
	TRY(access("inner", R_OK));
	TRY(chdir(".."));
	TRY(SYS(getcwd, buf, 2));
	TRY(SYS(getcwd, BAD, 4096));
	TRY(mkdir("dir", 0700));
	TRY(mkdir("file/x", 0700));
	TRY(mkdir("missing/x", 0700));
	TRY(rmdir("missing/x"));

	// reading and seeking
	TRY(read(4, buf, 100));
	TRY(lseek(4, 0, SEEK_CUR));
	TRY(lseek(4, -1, SEEK_SET));
	TRY(lseek(4, -5001, SEEK_END));
	TRY(lseek(4, -5000, SEEK_END));
	TRY(lseek(4, 1L << 62, SEEK_SET));
	TRY(read(4, buf, 100));
	TRY(lseek(4, 0, 99));
	TRY(lseek(4, 0, SEEK_SET));
	TRY(lseek(4, 5000, SEEK_DATA));
	TRY(lseek(4, 100, SEEK_HOLE));
	TRY(lseek(4, 0, SEEK_SET));
	TRY(read(4, BAD, 100));
	TRY(read(4, (void *)-8L, 100));
	TRY(read(4, buf, -1));
	TRY(lseek(4, 0, SEEK_CUR));
	TRY(read(4, BAD, 0));
	TRY(read(99, buf, 1));
	TRY(read(7, buf, 1));
	TRY(read(5, buf, 1));
	TRY(write(4, buf, 1));
	TRY(write(7, buf, 1));
	TRY(write(99, buf, 1));
	TRY(write(1, BAD, 1));
	TRY(pread(4, buf, 100, 4990));
	TRY(pread(4, buf, 100, -1));
	TRY(pread(5, buf, 100, 0));
	TRY(lseek(7, 0, SEEK_SET));
	TRY(lseek(99, 0, SEEK_SET));
	struct iovec iov[3] = {{buf, 10}, {BAD, 10}, {buf, 10}};
	TRY(lseek(4, 0, SEEK_SET));
	TRY(readv(4, iov, 1));
	TRY(readv(4, iov, 2));
	TRY(lseek(4, 0, SEEK_CUR));
	TRY(readv(4, iov, 2000));
	TRY(readv(4, iov, -1));
	TRY(readv(4, BAD, 1));
	TRY(readv(4, iov, 0));
	iov[0].iov_len = -1;
	TRY(readv(4, iov, 1));
	// a buffer that ends at a page that is not there
	char *edge = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(edge + 4096, 4096);
	TRY(lseek(4, 0, SEEK_SET));
	TRY(read(4, edge + 4000, 1000));
	TRY(lseek(4, 0, SEEK_CUR));
	TRY(SYS(getdents64, 4, buf, 1000));
	TRY(SYS(getdents64, 5, buf, 1));
	TRY(SYS(getdents64, 5, BAD, 1000));
	TRY(SYS(getdents64, 5, buf, 1000));
	TRY(SYS(getdents64, 5, buf, 1000));

	// descriptors
	TRY(dup(99));
	TRY(dup(4)); // 10
	TRY(dup2(4, 4));
	TRY(dup2(99, 99));
	TRY(dup2(4, -1));
	TRY(dup2(4, 1 << 20));
	TRY(dup2(99, 20));
	TRY(dup3(4, 4, 0));
	TRY(dup3(4, 20, 4));
	TRY(dup3(4, 20, O_CLOEXEC));
	TRY(fcntl(20, F_GETFD));
	TRY(fcntl(4, F_GETFD));
	TRY(fcntl(4, F_GETFL));
	TRY(fcntl(5, F_GETFL));
	TRY(fcntl(4, F_SETFL, O_NONBLOCK | O_WRONLY));
	TRY(fcntl(10, F_GETFL));
	TRY(fcntl(7, F_GETFL));
	TRY(fcntl(7, F_SETFL, 0));
	TRY(fcntl(4, F_DUPFD, 30));
	TRY(fcntl(4, F_DUPFD, -1));
	TRY(fcntl(4, F_DUPFD, 1 << 30));
	TRY(fcntl(4, 9999));
	TRY(fcntl(99, F_GETFD));
	TRY(close(99));
	TRY(close(20));
	TRY(close(20));
	TRY(ioctl(4, TCGETS, buf));
	TRY(ioctl(99, TCGETS, buf));
	TRY(ioctl(5, TIOCGWINSZ, buf));
	struct pollfd fds[3] = {{4, POLLIN | POLLOUT, 0}, {99, POLLIN, 0}, {-1, POLLIN, 0}};
	TRY(poll(fds, 3, 0));
	show("revents", fds[1].revents);
	fds[1].fd = 1, fds[1].events = POLLOUT;
	TRY(poll(fds, 3, -1));
	show("revents", fds[0].revents);
	show("revents", fds[1].revents);
	TRY(poll(fds + 2, 1, 1));
	TRY(poll(BAD, 1, 1));
	TRY(poll(fds, -1, 1));
	TRY(fsync(4));
	TRY(fsync(99));
	TRY(posix_fadvise(4, 0, 0, POSIX_FADV_SEQUENTIAL));
	TRY(posix_fadvise(4, 0, 0, 77));

	// memory
	TRY_ADDRESS(mmap(0, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	TRY_ADDRESS(mmap(0, 4096, PROT_READ, MAP_ANONYMOUS, -1, 0));
	TRY_ADDRESS(mmap(0, 4096, PROT_READ, MAP_PRIVATE, 99, 0));
	TRY_ADDRESS(mmap(0, 4096, PROT_READ, MAP_PRIVATE, 7, 0));
	TRY_ADDRESS(mmap(0, 4096, PROT_READ, MAP_PRIVATE, 5, 0));
	TRY_ADDRESS(mmap(0, 4096, PROT_READ, MAP_PRIVATE, 4, 1));
	TRY_ADDRESS(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, 4, 0));
	TRY_ADDRESS(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, 4, 4096));
	TRY_ADDRESS(mmap((void *)1, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	TRY_ADDRESS(mmap(0, 1L << 60, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	char *m = mmap(0, 5 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, 4, 0);
	show("content", memcmp(m, edge + 4000, 96));
	m[4999] = 1;
	show("tail is zero", m[5000] | m[8191]);
	char *copy = mmap(0, 5 * 4096, PROT_READ, MAP_PRIVATE, 4, 0);
	show("private", copy[4999] != 1);
	TRY(munmap(m + 1, 4096));
	TRY(munmap(m, 0));
	TRY(munmap(m + 4096 * 3, 4096));
	TRY(munmap(m + 4096 * 3, 4096));
	TRY(mprotect(m, 4096, PROT_READ));
	TRY(read(4, m, 10));
	TRY(mprotect(m, 4096 * 5, PROT_READ));
	TRY(mprotect(m + 1, 4096, PROT_READ));
	TRY(mprotect(m, 4096, 0x40));
	char *a = mmap(0, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(a, 7, 4 * 4096);
	TRY(madvise(a + 4096, 4096, MADV_DONTNEED));
	show("dropped", a[0] + a[4096] + a[8192]);
	TRY(madvise(a, 4 * 4096, MADV_WILLNEED));
	TRY(madvise(a + 1, 4096, MADV_DONTNEED));
	TRY(madvise(a, 4096, 12345));
	munmap(a + 8192, 4096);
	TRY(madvise(a, 4 * 4096, MADV_DONTNEED));
	show("dropped", a[0] + a[3 * 4096]);

	// processes, signals, limits, time
	TRY(SYS(rt_sigaction, 0, 0, 0, 8));
	TRY(SYS(rt_sigaction, SIGKILL, &sa, 0, 8));
	TRY(SYS(rt_sigaction, SIGKILL, 0, buf, 8));
	TRY(SYS(rt_sigaction, 65, 0, 0, 8));
	TRY(SYS(rt_sigaction, SIGUSR1, 0, 0, 4));
	TRY(SYS(rt_sigaction, SIGUSR1, BAD, 0, 8));
	TRY(SYS(rt_sigprocmask, 7, buf, 0, 8));
	TRY(SYS(rt_sigprocmask, 7, 0, 0, 8));
	TRY(SYS(rt_sigprocmask, SIG_BLOCK, BAD, 0, 8));
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGUSR1), sigaddset(&set, SIGKILL);
	TRY(sigprocmask(SIG_BLOCK, &set, 0));
	TRY(kill(getpid(), SIGUSR1));
	TRY(sigpending(&set));
	show("pending", sigismember(&set, SIGUSR1));
	signal(SIGUSR1, SIG_IGN);
	TRY(sigpending(&set));
	show("pending", sigismember(&set, SIGUSR1));
	TRY(kill(getpid(), 0));
	TRY(kill(getpid(), 65));
	TRY(kill(getpid(), SIGCHLD));
	TRY(SYS(tgkill, getpid(), 0, 1));
	TRY(SYS(tkill, -1, 1));
	stack.ss_size = 100;
	TRY(sigaltstack(&stack, 0));
	stack.ss_size = 16384;
	TRY(sigaltstack(&stack, 0));
	TRY(sigaltstack(0, &stack));
	show("size", stack.ss_size);
	stack.ss_flags = 77;
	TRY(sigaltstack(&stack, 0));
	TRY(getrlimit(99, &rl));
	TRY(SYS(prlimit64, 0, 99, 0, buf));
	TRY(SYS(prlimit64, 0, RLIMIT_STACK, 0, BAD));
	rl.rlim_cur = 2, rl.rlim_max = 1;
	TRY(setrlimit(RLIMIT_CORE, &rl));
	TRY(getrusage(77, (void *)buf));
	TRY(clock_gettime(77, &ts));
	TRY(SYS(clock_gettime, CLOCK_MONOTONIC, BAD));
	TRY(clock_getres(CLOCK_MONOTONIC, &ts));
	show("ns", ts.tv_nsec);
	TRY(nanosleep(&bad_ts, 0));
	TRY(nanosleep(&ts, 0));
	TRY(SYS(clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, 0));
	TRY(SYS(clock_nanosleep, 77, 0, &ts, 0));
	TRY(SYS(clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &ts, 0));
	TRY(SYS(getrandom, buf, 16, 0));
	TRY(SYS(getrandom, buf, 16, 0x100));
	TRY(SYS(getrandom, buf, 16, 6));
	TRY(SYS(getrandom, BAD, 16, 0));
	int word = 1;
	TRY(SYS(futex, &word, 1, 1, 0, 0, 0));
	TRY(SYS(futex, &word, 0, 2, 0, 0, 0));
	TRY(SYS(futex, &word, 0, 1, &ts, 0, 0));
	TRY(SYS(futex, 1, 0, 1, 0, 0, 0));
	TRY(SYS(futex, BAD, 0, 1, 0, 0, 0));
	TRY(SYS(set_robust_list, buf, 23));
	TRY(SYS(rseq, buf, 32, 0, 0));
	TRY(SYS(rseq, buf, 32, 1, 0));
	TRY(SYS(rseq, buf, 32, 2, 0));
	TRY(SYS(arch_prctl, 0x1002, -1L));
	TRY(SYS(arch_prctl, 0x9999, 0));
	TRY(SYS(getgroups, -1, 0));
	TRY(SYS(uname, BAD));
	TRY(SYS(sched_getaffinity, 0, 1, buf));
	TRY(SYS(umask, 0777));
	TRY(SYS(umask, 022));
	TRY(SYS(getpgid, 99999999));
	TRY(syscall(1000, 0));
	TRY(sched_yield());
	return 0;
}
