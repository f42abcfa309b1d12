# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that change sysctls of the live kernel: what they may, that they are alone, and that everything is put back,
however the executor or the campaign ends.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from memtwin.machine import host_sysctls
from memtwin.verify.live import Live, executor, why_not
from memtwin.verify.sysctls import changes_sysctls, lock_file, settings_held, why_no_sysctls

REASON = why_not() or why_no_sysctls()
pytestmark = [pytest.mark.live, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

#: Changes a setting and then takes its time: tens of thousands of areas are counted again and again.
SLOW = ["sysctl admin_reserve_kbytes 4321", "map_room 0", *["map_room 0"] * 2000]
CHANGED = Path("/proc/sys/vm/admin_reserve_kbytes")
WAIT = 60


@pytest.fixture(scope="module")
def live():
    found = Live(executor())
    if not found.map_room:
        pytest.skip("vm.max_map_count is too large to be filled")
    return found


def standing():
    with settings_held():
        return host_sysctls()


def until(true):
    """Wait for something that happens within a minute."""
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def changed():
    return CHANGED.read_text() == "4321\n"


def start_executor():
    command = [str(executor()), "--timeout", "60000", "--change", str(lock_file())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    process.stdin.write(("script slow\n" + "\n".join(SLOW) + "\n").encode())
    process.stdin.close()
    until(changed)
    return process


def executors_of(session):
    """Executors, and their programs, that live in a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if os.getsid(int(entry.name)) == session and "executor-" in os.readlink(entry / "exe"):
                    found.append(int(entry.name))
    return found


def test_which_programs_change_something():
    assert changes_sysctls(["brk K", "@c sysctl overcommit_memory 1"])
    assert changes_sysctls(["x=sysctl overcommit_memory 1"]) and changes_sysctls(["@c x=sysctl overcommit_memory 1"])
    assert not changes_sysctls(["sysctl overcommit_memory", "echo sysctl overcommit_memory 1", "brk K"])


def test_everything_is_put_back_between_programs(live):
    before = standing()
    first, second = live.run(
        [
            [
                "sysctl overcommit_kbytes 64g",
                "sysctl overcommit_memory 2",
                "sysctl max_map_count MAPS0-7",
                "sysctl mmap_min_addr 0x20000",
                "sysctl legacy_va_layout 1",
                "sysctl admin_reserve_kbytes 5",
                "sysctl user_reserve_kbytes 6",
                "sysctl max_map_count",
                "sysctl overcommit_ratio",
            ],
            ["sysctl overcommit_memory 1", "munmap 0x30000000 64m", "brk K"],
        ]
    )
    assert [answer["ret"] for answer in first] == [0] * 9
    assert (first[7]["value"], first[8]["value"]) == (before["max_map_count"] - 7, 0)
    assert "died" in second[-1]
    assert standing() == before


@pytest.mark.parametrize(
    "line",
    [
        "sysctl max_map_count 100",
        "sysctl overcommit_memory 2",
        "sysctl mmap_min_addr 4m",
        "sysctl admin_reserve_kbytes 0-1",
        "sysctl swappiness 5",
        "sysctl ../kernel/panic 5",
    ],
)
def test_what_would_hurt_others_is_refused(live, line):
    before = standing()
    assert "error" in live.run([[line]])[0][0]
    assert standing() == before


def test_a_commit_limit_that_holds_for_everybody_stays_high(live):
    lines = ["sysctl overcommit_kbytes 64g", "sysctl overcommit_memory 2"]
    answers = live.run([[*lines, "sysctl overcommit_kbytes 1g"], [*lines, "sysctl overcommit_ratio 50"]])
    assert all("error" in answer[2] for answer in answers)


def test_who_only_holds_the_lock_shared_changes_nothing():
    command = [str(executor()), "--lock", str(lock_file())]
    done = subprocess.run(command, input=b"sysctl overcommit_memory 1\n", capture_output=True, check=True)
    assert b"sysctls are not changed in this run" in done.stdout


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_executor_that_is_ended_puts_back_what_it_changed(live, how):
    before = standing()
    process = start_executor()
    process.send_signal(how)
    assert process.wait(WAIT) == 128 + how
    assert standing() == before


def test_who_comes_after_an_executor_that_was_killed_puts_back_what_it_changed(live):
    before = standing()
    process = start_executor()
    process.kill()
    process.wait(WAIT)
    assert changed() and lock_file().stat().st_size
    assert live.run([["brk K"]]) == [[{"i": 1, "op": "brk", "ret": "K+0x0"}]]
    assert (standing(), lock_file().stat().st_size) == (before, 0)


def test_nobody_changes_anything_while_somebody_holds_the_lock(live):
    command = [str(executor()), "--change", str(lock_file())]
    with settings_held():
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdin.write(b"sysctl admin_reserve_kbytes 4321\n")
        process.stdin.close()  # it begins when it has read all
        time.sleep(0.3)
        assert not changed() and process.poll() is None
    assert b'"ret":0' in process.stdout.read()
    assert process.wait(WAIT) == 0


def verify(*arguments):
    """A campaign in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "memtwin", "verify", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def interrupted(process):
    """What a campaign says after Ctrl-C; nothing of it may be left."""
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=WAIT)
    assert (process.returncode, out, "Traceback" in err) == (130, "", False), err
    until(lambda: not executors_of(process.pid))
    return err


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_campaign_that_is_interrupted(live, jobs):
    before = standing()
    process = verify("--profile", "vma", "--programs", "1000000", "--seed", "3", "--jobs", jobs)
    until(lambda: executors_of(process.pid))
    time.sleep(0.5)
    interrupted(process)
    assert standing() == before


@pytest.mark.parametrize("how", ["Ctrl-C", "killed"])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_campaign_that_is_ended_while_a_sysctl_is_changed(live, jobs, how, tmp_path):
    before = standing()
    path = tmp_path / "slow.mmo"
    path.write_text("\n".join(SLOW) + "\n")
    process = verify(str(path), "--jobs", jobs)
    until(changed)
    if how == "killed":
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=WAIT)
        until(lambda: not executors_of(process.pid))
    else:
        interrupted(process)
    assert standing() == before
