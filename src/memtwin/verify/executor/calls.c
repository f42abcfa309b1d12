// SPDX-License-Identifier: GPL-2.0-or-later
/* The operations that are system calls. */
#include "executor.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Leave room for exactly n more VMAs: fill the rest of vm.max_map_count with mappings nobody looks at. */
static s64 map_room(u64 n)
{
	struct lines in;
	u64 start, end;
	s64 count = 0;
	lines_open(&in, getpid(), "maps");
	for (char *line; (line = lines_next(&in));)
		count += vma_head(line, &start, &end) && start < 1ULL << 47;
	s64 most = read_sysctl(MAX_MAP_COUNT), missing = most - (s64)n - count;
	if (most > MAX_COUNT_LIMIT)
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
s64 execute(const struct request *q)
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
	case SYSCTL:
		return sysctl_call(q);
	case MAP_ROOM:
		return map_room(q->a[0]);
	}
	return memory_call(q);
}
