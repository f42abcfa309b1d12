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
 * Build: cc -static -no-pie -O2 -Wl,-Ttext-segment=0x30000000 *.c, so that nothing of it is where low hints and
 * MAP_32BIT lead. Needs root (namespaces, the place of the heap, page frame numbers).
 *
 *   server.c   main; one image a script         script.c   lines of a script, their answers
 *   process.c  the script's processes           words.c    the operation language's words and expressions
 *   calls.c    operations that are system calls touch.c    operations that touch memory
 *   dump.c     what a dump shows                sysctl.c   numbers in /proc/sys/vm, under a lock
 *   proc.c     reading /proc                    text.c     writing JSON
 */
#ifndef EXECUTOR_H
#define EXECUTOR_H
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

typedef uint64_t u64;
typedef int64_t s64;

#define PAGE 4096ULL
#define BASE 0x1000000000ULL
#define BASE_LEN (64ULL << 30)
#define HEAP 0x800000000ULL
#define HEAP_LEN (4ULL << 30)
#define TOP 0x7ffff7fff000ULL
#define TOP_BELOW (1ULL << 40)
#define TOP_ABOVE (64ULL << 20)
#define LEGACY 0x2aaaaaaab000ULL /* where the kernel places things from, upwards, in the legacy layout */
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

enum {
	MAX_MAP_COUNT, OVERCOMMIT_MEMORY, OVERCOMMIT_RATIO, OVERCOMMIT_KBYTES, MMAP_MIN_ADDR, LEGACY_VA_LAYOUT,
	ADMIN_RESERVE_KBYTES, USER_RESERVE_KBYTES, NSYSCTL
};
enum { SIZE, RSS, RSS_ANON, RSS_FILE, RSS_SHMEM, DATA, LCK, SWAP, HUGETLB, PIN, NSTATUS };

struct shared {
	uint32_t token, ready;
	volatile uint32_t progress;
	int done, lines, nproc, nvar, nown;
	int exiting, exit_line;
	pid_t exit_pid;
	struct { char name[64]; pid_t pid; int alive, locked_all; } proc[MAXPROC];
	struct { char name[24]; u64 value; } var[MAXVAR];
	struct { u64 start, end; int writable; } own[MAXOWN];
	s64 base[NSTATUS];
	u64 as0, data0, want_size;
	/* may sysctls be changed, were they, to what they go back; is the layout of address spaces the legacy one */
	int sysctl, sysctl_changed, legacy;
	s64 standing[NSYSCTL];
	/* a touch: what the handler of the fault finds */
	volatile int sig, code;
	volatile u64 at;
	u64 touched, runs, run_len;
	int run_value;
	int out_len, extra_len, text_pos, text_len;
	char line[1024], last_op[32];
	struct { unsigned pfn; int id; } class[16384]; /* frames below 16 TiB */
	int nclass;
	u64 entries[2048];
	char slurp[32 << 10];
	unsigned char bytes[256 << 10];
	char extra[EXTRA_LEN];
	char out[OUT_LEN];
	char text[64 << 10];
};
static struct shared *const sh = (struct shared *)SHARED;
extern int self; /* our slot */

/* What a system call returned, as the kernel says it: -errno. */
static inline s64 result(s64 value) { return value == -1 ? -errno : value; }
#define CALL(...) result(syscall(__VA_ARGS__))

/* text.c: to_out() and to_extra() say where; a line's own fields (extra) are known before the line is begun */
void to_out(void);
void to_extra(void);
void put(const char *text);
void put_int(s64 value);
void put_hex(u64 value);
void put_address(u64 addr);
void put_escaped(const char *text);
void put_field(const char *name, s64 value);
void put_runs(const char *name, const unsigned char *bytes, u64 n);
int shown(u64 addr);

/* proc.c */
struct lines { int fd, len, pos; };
int lines_open(struct lines *in, pid_t pid, const char *what);
char *lines_next(struct lines *in);
char *vma_head(char *line, u64 *start, u64 *end);

/* dump.c */
enum { WANT_MAPS = 1, WANT_SMAPS = 2, WANT_PAGEMAP = 4, WANT_STATUS = 8, WANT_NUMA = 16 };
void dump_process(int slot, int want, u64 low, u64 high);
void read_status(pid_t pid, s64 *value);

/* words.c */
struct word { const char *name; u64 value; };

enum {
	MMAP, MUNMAP, MPROTECT, MADVISE, PROCESS_MADVISE, MREMAP, BRK, MLOCK, MLOCK2, MUNLOCK, MLOCKALL, MUNLOCKALL, MSYNC,
	MINCORE, MSEAL, REMAP_FILE_PAGES, READ, WRITE, VM_READ, VM_WRITE, ANON_NAME, MERGE, GET_MERGE, THP_DISABLE, MEMFD,
	OPEN, FTRUNCATE, FALLOCATE, FSTAT, PREAD, PWRITE, CLOSE, UNLINK, ADDSEALS, GETSEALS, USERFAULTFD, UFFD_API,
	UFFD_REGISTER, UFFD_UNREGISTER, MBIND, SET_MEMPOLICY, GET_MEMPOLICY, GETRLIMIT, SETRLIMIT, DROPCAP, SYSCTL, MAP_ROOM,
	FORK, EXIT, DUMP, ECHO
};

/* Kinds of arguments: x a number; s a word kept as it is; p a process; a capital letter: a table (table_of). What follows
 * '?' may be missing. result: A an address, I a number, F a file. */
struct op { const char *name; int id; const char *args; char result; };
extern const struct op ops[];
const struct word *table_of(char kind);
const char *errno_name(int number);
int parse_expression(const char *text, int n, u64 *value);
int parse_flags(const char *text, const struct word *table, u64 *value);
int find_process(const char *name);
void set_variable(const char *name, u64 value);

/* touch.c */
s64 touch(u64 addr, u64 len, u64 stride, int value);
void handle_faults(void);

/* calls.c: an operation with its arguments */
struct request { int id; u64 a[8]; int n; char word[64]; };
s64 execute(const struct request *q);

/* process.c */
int drop_capability(int cap);
s64 fork_process(const char *name);
void pass_token(int slot);
void leave(void);
void await_exit(void);
void take_token(void);
int run_script(void);

/* sysctl.c */
int lock_sysctls(const char *path, int change);
void unlock_sysctls(void);
s64 read_sysctl(int i);
void restore_sysctls(void);
const char *sysctl_refused(const struct request *q);
s64 sysctl_call(const struct request *q);
void choose_layout(const char *text);

/* script.c */
void open_answer(int line, int slot, const char *op);
void take_turns(void);
#endif
