"""Process groups: started on one core, looked at through /proc, always ended.

Linux only, for the clock of another process and for proportional memory.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

STOP_SECONDS = 10.0
LOG_TAIL_BYTES = 2_000
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class ProcessError(Exception):
    """A process that we need did not start, or ended too early."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc shows it; the start time tells it from a later namesake."""

    pid: int
    parent: int
    group: int
    started: int


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the target and where everything else runs; None leaves it to the system."""

    target: int | None = None
    load: int | None = None

    def describe(self) -> str:
        if self.target is None:
            return "Nothing was bound to a core: the machine has one only."
        return (
            f"Targets ran on core {self.target}, the load generator and the stand-in "
            f"upstream on core {self.load}."
        )


def choose_cores() -> Cores:
    usable = sorted(os.sched_getaffinity(0))
    return Cores(usable[0], usable[1]) if len(usable) > 1 else Cores()


def end_cleanly_when_told() -> None:
    """Treat SIGTERM as Ctrl-C, which the event loop turns into a cancellation.

    An exception raised by a handler of our own could surface inside a parser's
    callback and be taken for a wrong answer. A background job starts with SIGINT
    ignored, so that is put right first.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def end_with_parent() -> None:
    """Ask Linux to end this new process when its parent dies, even of SIGKILL."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Run the block, and let its children be born, on one core.

    Set on ourselves before the fork, as a child that is moved after its start may
    already have children elsewhere.
    """
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def read_processes() -> list[Process]:
    """List all processes; those that end meanwhile are left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in brackets, may itself hold spaces and brackets.
            fields = path.read_text().rpartition(")")[2].split()
            found.append(
                Process(
                    pid=int(path.parent.name),
                    parent=int(fields[1]),
                    group=int(fields[2]),
                    started=int(fields[19]),
                )
            )
    return found


def members(processes: Sequence[Process], root: int) -> list[Process]:
    """Pick the group that *root* leads and all descendants, whatever their group."""
    wanted = {root}
    size = 0
    while size != len(wanted):
        size = len(wanted)
        wanted |= {
            process.pid
            for process in processes
            if process.parent in wanted or process.group == root
        }
    return [process for process in processes if process.pid in wanted]


def cpu_ns(pid: int) -> int | None:
    """Read the CPU time of a process, user and system; None if it is gone.

    The clock id is what clock_getcpuclockid(3) computes. /proc/PID/stat counts in
    ticks of 10 ms, too coarse for a cheap target.
    """
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return None


def own_memory_bytes(pid: int) -> int:
    """Read the memory that would be free without this process (its USS)."""
    with suppress(OSError):
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(
            int(row.split()[1]) * 1024 for row in rows if row.startswith("Private_")
        )
    return 0


class ProcessGroup:
    """A command and everything it starts."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        core: int | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output, on_core(core):
            self.popen = self._spawn(command, env, cwd, output)

    @staticmethod
    def _spawn(
        command: Sequence[str], env: Mapping[str, str], cwd: Path, output: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C reaches us alone, and we end the group.
        return subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_parent,
        )

    def members(self) -> list[Process]:
        return members(read_processes(), self.popen.pid)

    def cpu(self) -> dict[int, int]:
        """Read the CPU time so far in nanoseconds, by process id."""
        times = {process.pid: cpu_ns(process.pid) for process in self.members()}
        return {pid: spent for pid, spent in times.items() if spent is not None}

    def memory_bytes(self) -> int:
        return sum(own_memory_bytes(process.pid) for process in self.members())

    def log_tail(self) -> str:
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    def check(self) -> None:
        """Raise ProcessError if the command has ended."""
        code = self.popen.poll()
        if code is not None:
            raise ProcessError(f"it ended with code {code}:\n{self.log_tail()}")

    def stop(self) -> None:
        """Ask the group to end, wait a little, then kill what is left of it."""
        started = {process.pid: process.started for process in self.members()}
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(STOP_SECONDS)
        self._signal(signal.SIGKILL)
        self.popen.wait()
        for process in read_processes():
            if started.get(process.pid) == process.started:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, number)
