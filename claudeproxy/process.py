"""Child processes that cannot outlive the process that started them.

A child is forked, leads a session and a process group of its own, and is killed by the
kernel when its parent ends, however that ends. What the children do, and when they are
started again, is for the callers. The kernel's part is Linux only: elsewhere a parent
that is killed leaves its children behind.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import structlog
from django.db import connections

_log = structlog.get_logger(__name__)

# What asks the gateway to end. A terminal that closes sends SIGHUP; who started it with
# nohup, which has that ignored, wants it to stay.
STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP}) - (
    {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
)
# What the processes of the gateway handle or wait for.
SIGNALS = STOP_SIGNALS | {signal.SIGCHLD}
# What asks the supervisor, and it alone, for a rolling restart.
RESTART_SIGNAL = signal.SIGUSR2
SUPERVISOR_SIGNALS = SIGNALS | {RESTART_SIGNAL}

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def fork(name: str, run: Callable[[], int]) -> int:
    """Start *run* in a child process and return the child's pid.

    The process that calls this has no second thread and no open database connection:
    neither survives a fork. *run* returns the child's exit code.
    """
    _flush()  # or parent and child would both write what is buffered
    parent = os.getpid()
    # No signal may reach the child while it still has the handlers of its parent.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SUPERVISOR_SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _become_child(name, run, parent, before)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _become_child(
    name: str, run: Callable[[], int], parent: int, mask: set[signal.Signals | int]
) -> NoReturn:
    code = 1
    try:
        os.setsid()
        die_with(parent)
        set_name(name)
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        # Its default would end the child, if all processes are sent it by mistake.
        signal.signal(RESTART_SIGNAL, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = run()
    except SystemExit as stop:
        # As the interpreter reads it: nothing is success, a message is not.
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001  # the outer edge of the process
        _log.exception("process_failed", process=name)
    finally:
        # Returning would carry on with the parent's work in the child.
        _flush()
        os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a full disk, a closed pipe
            stream.flush()


def die_with(parent: int) -> None:
    """Have the kernel kill this process as soon as *parent*, its parent, ends."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # It may have ended before the kernel was asked; then nobody would tell.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def set_name(name: str) -> None:
    """Show *name*, of at most 15 bytes, in `top` and `ps -o comm`."""
    if _libc is not None:
        _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


class Beacon:
    """Lit by a child that has become ready; its parent can wait for that.

    Made before the fork, and good for all children that are forked after each other.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)

    def fileno(self) -> int:
        """Return what becomes readable."""
        return self._reader

    def light(self) -> None:
        os.write(self._writer, b".")

    def was_lit(self) -> bool:
        """Tell whether it was lit since this was asked last."""
        try:
            return bool(os.read(self._reader, 512))
        except BlockingIOError:
            return False


def tie_descendants() -> None:
    """Tie what this process and its descendants fork from now on to its parent.

    For children that a library forks.
    """
    parent = 0

    def note_parent() -> None:
        nonlocal parent
        parent = os.getpid()

    os.register_at_fork(before=note_parent, after_in_child=lambda: die_with(parent))


def kill(pid: int) -> None:
    """Kill the child *pid*, not yet waited for, and every process of its group."""
    os.kill(pid, signal.SIGKILL)  # by itself: it may not have come to lead a group yet
    kill_group(pid)


def kill_group(pid: int) -> None:
    """Kill what is left of the process group that the child *pid* led."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@contextlib.contextmanager
def forkable_database() -> Iterator[None]:
    """Use the database without connection pools, and leave no connection open.

    A pool is run by threads, and a fork copies none of them: a child would wait for
    ever on a pool that was opened before it. Pools are allowed again afterwards.
    """
    options = {
        alias: connections[alias].settings_dict["OPTIONS"] for alias in connections
    }
    pools = {
        alias: option.pop("pool")
        for alias, option in options.items()
        if "pool" in option
    }
    try:
        yield
    finally:
        connections.close_all()
        for alias, pool in pools.items():
            options[alias]["pool"] = pool


def raise_open_file_limit() -> None:
    """Allow this process and its children as many open files as the system lets them.

    The usual 1,024 is spent by some 500 streams: each holds two connections.
    """
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
