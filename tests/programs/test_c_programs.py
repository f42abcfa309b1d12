# SPDX-License-Identifier: GPL-2.0-or-later
"""Static C programs on the twin: output, status, page-table bits, signals, and errors as on the live kernel."""

from __future__ import annotations

import gc
import os
import re
import subprocess

import pytest

from memtwin.cpu.loop import Program
from memtwin.errors import BadInput
from memtwin.hw.paging import ACCESSED, DIRTY, PRESENT, RW
from memtwin.machine import Machine

HELLO = '#include <stdio.h>\nint main(int c, char **v) { printf("hello %d %s\\n", c, v[c - 1]); return 42; }'


@pytest.mark.parametrize("flags", [(), ("-static-pie",), ("-nostartfiles",)], ids=["static", "static-pie", "no libc"])
def test_hello(cc, twin, native, flags):
    source = HELLO
    if "-nostartfiles" in flags:
        source = (
            'void _start(void) { __asm__("syscall" :: "a"(1), "D"(1), "S"("raw\\n"), "d"(4) : "rcx", "r11");'
            '__asm__("syscall" :: "a"(60), "D"(42)); }'
        )
    hello = cc("hello", source, *flags)
    ran, expected = twin([hello, "world"]), native([hello, "world"])
    assert (ran.status, ran.out, ran.err) == (42, expected.out, b"")
    assert expected.status == 42 and ran.out


def test_pie_is_placed_below_the_top_of_the_mmap_area(cc, twin):
    seen = []
    hello = cc("hello", HELLO, "-static-pie")
    twin([hello], on_exit=lambda task: seen.extend((v.end, v.file.path) for v in task.mm.areas() if v.file))
    assert max(end for end, _ in seen) <= 0x7FFFF7FFF000
    assert {path for _, path in seen} == {hello}


@pytest.mark.slow  # 100,000 page faults in Python
def test_touch_100000_pages_and_read_them_back(cc, twin, native):
    touch = cc("touch")
    peak = []
    ran = twin([touch, "100000"], memory="1G", on_exit=lambda task: peak.append(task.mm.rss_anon))
    assert (ran.status, ran.out) == (0, native([touch, "100000"]).out)
    assert peak[0] >= 100000
    assert ran.program.task.min_flt >= 100000


def test_accessed_and_dirty_bits_are_what_the_program_did(cc, twin):
    bits = {}

    def look(task):
        q = task.mm.ctx.ram.q
        for vma in task.mm.areas():
            for addr in range(vma.start, vma.end, 4096):
                base = task.mm.pte_tables.get(addr >> 21)
                bits[addr] = q[base + (addr >> 12 & 511)] if base is not None else 0

    ran = twin([cc("pattern")], on_exit=look)
    start = int(ran.out, 16)
    for page in range(64):
        entry = bits[start + page * 4096]
        kind = page % 4
        if kind == 0 or page >= 60:
            assert entry == 0, page
        elif kind == 1:
            assert entry & (PRESENT | ACCESSED | DIRTY | RW) == PRESENT | ACCESSED, page
        else:
            assert entry & (PRESENT | ACCESSED | DIRTY | RW) == PRESENT | ACCESSED | DIRTY | RW, page


def test_a_clean_mapping_of_a_file_stays_clean(cc, twin, tmp_path):
    (tmp_path / "data").write_bytes(bytes(range(256)) * 64)
    source = """
    #include <fcntl.h>
    #include <stdio.h>
    #include <sys/mman.h>
    int main(void) {
        volatile unsigned char *m = mmap(0, 16384, 3, MAP_PRIVATE, open("data", O_RDONLY), 0);
        m[8192 + 5] = 9;
        printf("%d %d %d\\n", m[1], m[8192 + 5], m[8192 + 6]);
        return 0;
    }"""
    bits = []

    def look(task):
        for vma in task.mm.areas():
            if vma.file is not None and vma.file.path.endswith("/data"):
                base = task.mm.pte_tables[vma.start >> 21]
                index = base + (vma.start >> 12 & 511)
                bits.extend(task.mm.ctx.ram.q[index : index + 4])

    ran = twin([cc("mapfile", source)], cwd=tmp_path, on_exit=look)
    assert ran.out == b"1 9 6\n"
    assert [bool(entry & ACCESSED) for entry in bits] == [True, False, True, False]
    assert [bool(entry & DIRTY) for entry in bits] == [False, False, True, False]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("return 7;", 7),
        ("return 300;", 300 & 255),
        ("*(volatile int *)0 = 1;", 128 + 11),
        ("*(volatile char *)main = 1;", 128 + 11),
        ("((void (*)(void))0x1234)();", 128 + 11),
        ("volatile int x = 0, y = 5; y = y / x;", 128 + 8),
        ('__asm__("ud2");', 128 + 4),
        ('__asm__("int3");', 128 + 5),
        ('__asm__("hlt");', 128 + 11),
        ("abort();", 128 + 6),
        ("raise(SIGTERM);", 128 + 15),
        ("kill(getpid(), SIGKILL);", 128 + 9),
        ("signal(SIGTERM, SIG_IGN); raise(SIGTERM); return 3;", 3),
        ("raise(SIGCHLD); return 4;", 4),
        ("signal(SIGSEGV, SIG_IGN); *(volatile int *)0 = 1;", 128 + 11),
        (
            "sigset_t s; sigfillset(&s); sigprocmask(SIG_BLOCK, &s, 0); raise(SIGHUP);"
            " sigprocmask(SIG_UNBLOCK, &s, 0); return 5;",
            128 + 1,
        ),
    ],
)
def test_ends(cc, twin, native, body, status):
    source = f"#include <signal.h>\n#include <stdlib.h>\n#include <unistd.h>\nint main(void) {{ {body} }}"
    program = cc("ends", source)
    assert twin([program]).status == status
    assert native([program]).status == status


def test_a_handler_is_told_as_not_modelled(cc, twin):
    source = "#include <signal.h>\nvoid h(int s) {}\nint main(void) { signal(SIGUSR1, h); raise(SIGUSR1); return 0; }"
    ran = twin([cc("handler", source)])
    assert ran.status == 128 + 10
    assert list(ran.program.sys.unmodelled)[-1] == "calling a signal handler (SIGUSR1)"


def test_an_unmodelled_call_is_enosys_and_told_once(cc, twin):
    source = """
    #include <errno.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    int main(void) {
        int bad = 0;
        for (int i = 0; i < 3; i++)
            bad |= syscall(SYS_io_uring_setup, 0, 0) != -1 || errno != ENOSYS;
        return bad;
    }"""
    ran = twin([cc("uring", source)])
    assert ran.status == 0
    assert ran.program.sys.unmodelled["io_uring_setup"] == 3
    assert [line for line in ran.program.kernel.log if "io_uring" in line] == ["io_uring_setup: not modelled"]


def test_the_stack_grows_to_its_limit_and_no_further(cc, twin):
    source = """
    #include <stdlib.h>
    #include <string.h>
    __attribute__((noinline)) int down(int kb) {
        volatile char block[1024];
        memset((void *)block, kb, sizeof block);
        return kb ? down(kb - 1) + block[5] : 0;
    }
    int main(int c, char **v) { return down(atoi(v[1])) == 12345; }"""
    deep = cc("deep", source)
    ran = twin([deep, "6000"])
    assert ran.status == 0
    assert ran.program.kernel.mm_ctx.fault_stats.stack_growth > 1000
    assert twin([deep, "9000"]).status == 128 + 11


def test_out_of_memory_kills_and_everything_comes_back(cc, twin):
    source = """
    #include <sys/mman.h>
    int main(void) {
        for (int i = 0; i < 10; i++) {
            char *m = mmap(0, 4 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            for (int j = 0; m != MAP_FAILED && j < 4 << 20; j += 4096) m[j] = 1;
        }
        return 0;
    }"""
    ran = twin([cc("hungry", source)], memory="32M")
    assert ran.status == 128 + 9
    assert any("Out of memory" in line for line in ran.program.kernel.log)


def test_programs_of_one_machine_share_its_random_stream_but_not_their_counts(cc, tmp_path):
    source = """
    #include <sys/syscall.h>
    #include <unistd.h>
    int main(void) { char b[16]; syscall(SYS_getrandom, b, 16, 0); return write(1, b, 16) != 16; }"""
    program = cc("random", source)
    outputs = []
    with Machine("64M") as machine:
        for i in range(2):
            fd = os.open(tmp_path / f"out{i}", os.O_WRONLY | os.O_CREAT)
            p = Program(machine.kernel, [program], stdio=(fd, fd, fd))
            assert p.run() == 0
            os.close(fd)
            outputs.append((tmp_path / f"out{i}").read_bytes())
            assert p.counts[1] == 1 and p.counts[318] == 2
        with pytest.raises(BadInput, match="booted already"):
            Program(machine.kernel, [program], epoch=5)
        machine.check()
        machine.kernel.check_no_leak()
    assert outputs[0] != outputs[1]


def test_poll_waits_for_what_the_host_gives(cc, tmp_path):
    source = """
    #include <poll.h>
    #include <stdio.h>
    int main(void) {
        struct pollfd p = {0, POLLIN, 0};
        int n = poll(&p, 1, 20);
        printf("%d %d\\n", n, p.revents);
        return 0;
    }"""
    program = cc("poll", source)
    for prepare, expected in ((lambda fd: None, b"0 0"), (lambda fd: os.write(fd, b"x"), b"1 1"), (os.close, b"1 16")):
        read_end, write_end = os.pipe()
        prepare(write_end)
        out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with Machine("64M") as machine:
            assert Program(machine.kernel, [program], stdio=(read_end, out, out)).run() == 0
        assert (tmp_path / "out").read_bytes().strip() == expected


def test_sleeping_takes_virtual_time_only(cc, twin):
    source = """
    #include <stdio.h>
    #include <time.h>
    int main(void) {
        struct timespec a, b, cpu, nap = {3600, 5};
        clock_gettime(CLOCK_MONOTONIC, &a);
        nanosleep(&nap, 0);
        clock_gettime(CLOCK_MONOTONIC, &b);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
        printf("%ld %ld %ld\\n", b.tv_sec - a.tv_sec, cpu.tv_sec, (long)time(0));
        return 0;
    }"""
    ran = twin([cc("nap", source)])
    assert ran.out == b"3600 0 %d\n" % (1_699_747_200 + 3600)


@pytest.fixture
def tree(tmp_path):
    """What errnos.c and readonly.c expect."""
    root = tmp_path / "tree"
    (root / "dir").mkdir(parents=True)
    (root / "dir" / "inner").write_bytes(b"abc")
    (root / "file").write_bytes(bytes(i * 7 % 251 for i in range(5000)))
    (root / "file").chmod(0o644)
    for name, target in (("link", "file"), ("dangling", "nowhere"), ("loop", "loop")):
        (root / name).symlink_to(target)
    return root


@pytest.mark.live
def test_errors_are_those_of_the_live_kernel(cc, twin, native, tree):
    program = cc("errnos")
    ran, expected = twin([program], cwd=tree), native([program], cwd=tree)
    assert ran.out.decode().splitlines() == expected.out.decode().splitlines()
    assert ran.status == expected.status == 0


@pytest.mark.live
def test_a_read_only_mount_answers_the_same(cc, twin, tree, tmp_path):
    program = cc("readonly")
    mount = tmp_path / "mount"
    mount.mkdir()
    script = f"mount --bind {tree} {mount} && mount -o remount,bind,ro {mount} && cd {mount} && {program}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True)
    if done.returncode:
        pytest.skip(f"no read-only mount possible: {done.stderr.decode().strip()}")
    before = {path: path.lstat() for path in tree.rglob("*")}
    ran = twin([program], cwd=tree)
    assert ran.out.decode().splitlines() == done.stdout.decode().splitlines()
    assert {path: path.lstat().st_mtime_ns for path in tree.rglob("*")} == {
        path: st.st_mtime_ns for path, st in before.items()
    }


STACK = r"""
#include <elf.h>
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv, char **envp) {
    printf("argc %d\n", argc);
    for (int i = 0; i <= argc; i++) printf("argv %p %s\n", argv[i], argv[i] ? argv[i] : "");
    char **e = envp;
    for (; *e; e++) printf("env %p %s\n", *e, *e);
    for (Elf64_auxv_t *a = (void *)(e + 1); a->a_type; a++) {
        unsigned long v = a->a_un.a_val;
        switch (a->a_type) {
        case AT_SYSINFO_EHDR: case AT_HWCAP: case AT_HWCAP2: case AT_MINSIGSTKSZ: case 27: break;
        case AT_UID: case AT_EUID: case AT_GID: case AT_EGID: break;
        case AT_EXECFN: case AT_PLATFORM: printf("aux %ld %lx %s\n", a->a_type, v, (char *)v); break;
        default: printf("aux %ld %lx\n", a->a_type, v);
        }
    }
    printf("argv is 16-aligned %d\n", (int)((unsigned long)(argv - 1) % 16));
    return 0;
}"""


@pytest.mark.live
@pytest.mark.parametrize("arguments", [[], ["x", "yy", "", "zzzzzzzzzzzzzzz"], ["a" * 5000] * 3])
def test_the_first_stack_is_laid_out_as_linux_does(cc, twin, native, arguments):
    program = cc("stack", STACK)
    probe = native(["setarch", "-R", "true"])
    if probe.status:
        pytest.skip("address randomisation can not be switched off here")
    ran, expected = twin([program, *arguments]), native(["setarch", "-R", program, *arguments])
    assert ran.out.decode().splitlines() == expected.out.decode().splitlines()


MAPS = r"""
#include <stdio.h>
#include <stdlib.h>
int main(void) {
    free(malloc(100));
    char line[300];
    FILE *f = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, f)) fputs(line, stdout);
    return 0;
}"""


@pytest.mark.live
def test_maps_look_as_natively(cc, twin, native):
    program = cc("maps", MAPS)
    if native(["setarch", "-R", "true"]).status:
        pytest.skip("address randomisation can not be switched off here")

    def lines(text: bytes) -> list[str]:
        # No vDSO here. 6.7 lets the heap grow out of the bss; the live kernel keeps two areas.
        kept = [line for line in text.decode().splitlines() if not re.search(r"\[v(dso|var|var_vclock)\]$", line)]
        return [line for line in kept if not line.endswith("[heap]") and " 00:00 0 " not in line + " "]

    ours, theirs = lines(twin([program]).out), lines(native(["setarch", "-R", program]).out)
    assert ours == theirs
    assert len(ours) >= 5


BREAK = r"""
static char bss[5000];
int data = 7;
void _start(void) {
    long brk, value;
    __asm__ volatile("syscall" : "=a"(brk) : "a"(12), "D"(0) : "rcx", "r11", "memory");
    char text[18];
    for (int i = 0; i < 16; i++)
        text[15 - i] = "0123456789abcdef"[brk >> 4 * i & 15];
    text[16] = '\\n', text[17] = bss[data];
    __asm__ volatile("syscall" : "=a"(value) : "a"(1), "D"(1), "S"(text), "d"(17) : "rcx", "r11", "memory");
    __asm__ volatile("syscall" : "=a"(value) : "a"(231), "D"(0));
}"""


@pytest.mark.live
def test_the_heap_begins_where_linux_lets_it_begin(cc, twin, native):
    program = cc("break", BREAK, "-nostartfiles")
    if native(["setarch", "-R", "true"]).status:
        pytest.skip("address randomisation can not be switched off here")
    ran, expected = twin([program]), native(["setarch", "-R", program])
    assert ran.out == expected.out and len(ran.out) == 17


def test_one_read_takes_megabytes(cc, twin, tmp_path):
    (tmp_path / "big").write_bytes(bytes(i % 251 for i in range(3_500_000)))
    source = """
    #include <fcntl.h>
    #include <stdio.h>
    static unsigned char buf[4000000];
    int main(void) {
        int fd = open("big", O_RDONLY), bad = 0;
        long n = read(fd, buf, sizeof buf);
        for (long i = 0; i < n; i++) bad += buf[i] != i % 251;
        printf("%ld %d %ld\\n", n, bad, (long)read(fd, buf, 1));
        return 0;
    }"""
    assert twin([cc("big", source)], cwd=tmp_path).out == b"3500000 0 0\n"


def test_exit_closes_what_the_program_left_open(cc, twin):
    source = """
    #include <fcntl.h>
    #include <sys/mman.h>
    int main(void) {
        for (int i = 0; i < 50; i++)
            mmap(0, 4096, 1, MAP_PRIVATE, open("/etc/passwd", O_RDONLY), 0);
        return open("/", O_RDONLY) != 53;
    }"""
    program = cc("leave", source)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    ran = twin([program])
    assert ran.status == 0
    assert not ran.program.task.files.fds
    gc.collect()  # a dead address space is a cycle of its areas, which hold the mapped files
    assert len(os.listdir("/proc/self/fd")) == before


ESCAPES = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        char buf[200] = "";
        int fd = open(argv[i], O_RDONLY);
        int n = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);
        printf("%s: %d %s\n", argv[i], n, n < 0 ? strerror(errno) : "");
    }
    return 0;
}"""


def test_nothing_leads_into_the_hosts_proc_sys_or_dev(cc, twin, tmp_path):
    (tmp_path / "l1").symlink_to("/proc/1/cmdline")
    (tmp_path / "l2").symlink_to("/sys/kernel")
    (tmp_path / "l3").symlink_to("../../../../../../../../../../../../proc/sys/kernel/hostname")
    (tmp_path / "l4").symlink_to("/dev/kmsg")
    (tmp_path / "l5").symlink_to(f"/proc/{os.getpid()}/root/proc/cpuinfo")
    (tmp_path / "l6").symlink_to("/proc/self/root/proc/version")
    os.mkfifo(tmp_path / "fifo")
    names = [
        "l1",
        "l2/debug",
        "l3",
        "l4",
        "l5",
        "l6",
        "fifo",
        "/proc/cpuinfo",
        "/sys/kernel/mm/ksm/run",
        "/dev/mem",
        "/dev/tty",
    ]
    ran = twin([cc("escapes", ESCAPES), *names], cwd=tmp_path)
    answers = dict(line.split(": ", 1) for line in ran.out.decode().splitlines())
    assert answers.pop("l1") != "-1"  # the twin's own process 1
    assert answers.pop("l3") == f"{len('memtwin') + 1} "
    assert answers.pop("l6").startswith(f"{len(ran.program.sys.vfs.text('/proc/version'))} ")
    for name in ("fifo", "/dev/tty"):
        assert answers.pop(name) == "-1 No such device or address"
    assert set(answers.values()) == {"-1 No such file or directory"}, answers
