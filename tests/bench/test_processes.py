import os
import subprocess
import sys
import time

import pytest

from bench.processes import (
    Process,
    ProcessError,
    ProcessGroup,
    cpu_ns,
    members,
    on_core,
    own_memory_bytes,
)
from bench.targets import ROOT

PARENT = """
import subprocess, sys, time
for session in (False, True):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                     start_new_session=session)
print("ready", flush=True)
time.sleep(60)
"""

STARTER = """
import os, pathlib, sys, time
from bench.processes import ProcessGroup
here = pathlib.Path(sys.argv[1])
group = ProcessGroup(["sleep", "60"], env=os.environ, cwd=here, log=here / "log")
print(group.popen.pid, flush=True)
time.sleep(60)
"""


def process(pid, parent, group):
    return Process(pid=pid, parent=parent, group=group, started=0)


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ([process(1, 0, 1), process(5, 1, 5)], {5}),
        ([process(5, 1, 5), process(6, 5, 5), process(7, 6, 5)], {5, 6, 7}),
        # An orphan stays in the group, a child may have left it.
        ([process(5, 1, 5), process(8, 1, 5), process(9, 5, 9)], {5, 8, 9}),
        # Listed before its parent.
        ([process(4, 6, 4), process(5, 1, 5), process(6, 5, 6)], {4, 5, 6}),
        ([process(1, 0, 1), process(7, 1, 7)], set()),
    ],
)
def test_members_are_the_group_and_all_descendants(processes, expected):
    assert {each.pid for each in members(processes, 5)} == expected


def wait_until(is_true):
    deadline = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.01)


@pytest.fixture
def group(tmp_path):
    log = tmp_path / "log"
    found = ProcessGroup(
        [sys.executable, "-c", PARENT], env=os.environ, cwd=tmp_path, log=log
    )
    try:
        wait_until(lambda: b"ready" in log.read_bytes())
        yield found
    finally:
        found.stop()


def test_stopping_a_group_ends_children_in_other_sessions_too(group):
    started = group.members()
    assert len(started) == 3

    group.stop()

    # A killed process takes a moment to go, and init another to reap an orphan; one
    # that only waits to be reaped has no memory.
    wait_until(lambda: not any(own_memory_bytes(each.pid) for each in started))


def test_a_group_has_cpu_time_and_memory_for_each_process(group):
    assert len(group.cpu()) == 3
    assert all(spent > 0 for spent in group.cpu().values())
    assert group.memory_bytes() > 1_000_000


def test_a_command_that_ends_early_is_reported_with_its_output(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such setting')"]
    group = ProcessGroup(command, env={}, cwd=tmp_path, log=tmp_path / "log")
    group.popen.wait(10)
    try:
        with pytest.raises(ProcessError, match="no such setting"):
            group.check()
    finally:
        group.stop()


def test_cpu_time_grows_with_work():
    before = cpu_ns(os.getpid()) or 0
    sum(range(200_000))

    assert (cpu_ns(os.getpid()) or 0) > before > 0


def test_a_process_that_is_gone_has_no_cpu_time():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    assert cpu_ns(gone.pid) is None
    assert own_memory_bytes(gone.pid) == 0


def test_a_group_ends_when_its_starter_is_killed(tmp_path):
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert own_memory_bytes(pid) > 0

        starter.kill()

    wait_until(lambda: own_memory_bytes(pid) == 0)


def test_the_core_is_given_back():
    before = os.sched_getaffinity(0)
    with on_core(min(before)):
        assert os.sched_getaffinity(0) == {min(before)}

    assert os.sched_getaffinity(0) == before
