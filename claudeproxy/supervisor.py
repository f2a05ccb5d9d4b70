"""Keeps the gateway's processes running, and ends them together.

The supervisor starts its children, starts again what dies, replaces a job cluster that
hangs, and on SIGUSR2 replaces everything, itself included, by what is installed now. It
never handles a request and never asks the database: it has one thread and no
connection, and is therefore free to fork at any time.

A rolling restart goes like this. A child does all of a start but serving. If that went
well, this process becomes the new program; the children stay and go on serving. The
new program starts children of its own, and each of the old ones is told to end when
the new one of its name is ready. If none ever is, the old ones go on.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from claudeproxy import handover, process
from claudeproxy.handover import Predecessor
from claudeproxy.process import Beacon
from claudeproxy.watchdog import Watchdog

_log = structlog.get_logger(__name__)

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 30.0
# A child that lived this long was well: when it dies, the delay starts over.
_LIVED_WELL = 10.0
# After SIGKILL; only a process that the kernel itself holds up takes longer.
_SECONDS_TO_DIE = 3.0

# Waits so many seconds at most; returns the signals that came.
_Wait: TypeAlias = Callable[[float], set[int]]


def delay_before_restart(failures: int) -> float:
    """Say how many seconds to wait after so many failures in a row."""
    return min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(failures - 1, 10))


@dataclass(frozen=True)
class Role:
    """Something a child process does; `run` returns its exit code."""

    name: str
    run: Callable[[], int]
    is_watched: bool = False  # by the watchdog
    beacon: Beacon | None = None  # without one, it is ready as soon as it is started


@dataclass
class Child:
    """The one process of a role, or the time at which it is due; clock: monotonic."""

    role: Role
    pid: int | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    failures: int = 0
    is_ready: bool = False

    def note_end(self, now: float) -> float:
        """Take in that the process is gone; return the delay until the next."""
        if now - self.started_at >= _LIVED_WELL:
            self.failures = 0
        self.failures += 1
        delay = delay_before_restart(self.failures)
        self.pid, self.due_at, self.is_ready = None, now + delay, False
        return delay


@dataclass
class Retiree:
    """A child of the program before this one; `deadline` is set once it was told."""

    name: str
    pid: int
    deadline: float | None = None


class Supervisor:
    """Runs one process for each role until it is told to stop."""

    def __init__(
        self,
        roles: Sequence[Role],
        *,
        listener: socket.socket,
        seconds_to_stop: float,
        watchdog: Watchdog,
        predecessors: Iterable[Predecessor] = (),
    ) -> None:
        self._children = [Child(role) for role in roles]
        self._listener = listener
        self._seconds_to_stop = seconds_to_stop
        self._watchdog = watchdog
        self._is_watching = any(role.is_watched for role in roles)
        self._retirees = [Retiree(each.name, each.pid) for each in predecessors]
        self._rehearsal: int | None = None  # its pid

    def run(self) -> None:
        """Supervise until a signal to stop, then until the last child is gone."""
        wait = _listen_for_signals(
            [role.beacon for role in self._roles() if role.beacon]
        )
        received: set[int] = set()
        while not received & process.STOP_SIGNALS:
            self._start_due(time.monotonic())
            self._retire(time.monotonic())
            if self._is_watching:
                self._watchdog.watch(time.monotonic())
            received = wait(self._seconds_until_next(time.monotonic()))
            self._reap(time.monotonic())
            if process.RESTART_SIGNAL in received:
                self._rehearse()
        self._stop(wait)

    def _roles(self) -> list[Role]:
        return [child.role for child in self._children]

    def _running(self) -> list[tuple[str, int]]:
        """List the name and the pid of each process that serves or did."""
        own = [(child.role.name, child.pid) for child in self._children if child.pid]
        return own + [(retiree.name, retiree.pid) for retiree in self._retirees]

    def _start_due(self, now: float) -> None:
        for child in self._children:
            if child.pid is None and now >= child.due_at:
                self._start(child, now)

    def _start(self, child: Child, now: float) -> None:
        child.started_at = now
        try:
            child.pid = process.fork(child.role.name, child.role.run)
        except OSError as error:  # no memory or no process to be had just now
            delay = child.note_end(now)
            _log.error(
                "fork_failed",
                process=child.role.name,
                error=error.strerror,
                retry_in_seconds=delay,
            )
            return
        _log.info("process_started", process=child.role.name, pid=child.pid)
        if child.role.is_watched:
            self._watchdog.restart(now)

    def _seconds_until_next(self, now: float) -> float:
        waits = [child.due_at - now for child in self._children if child.pid is None]
        if self._is_watching:
            waits.append(self._watchdog.seconds_until_next(now))
        waits += [each.deadline - now for each in self._retirees if each.deadline]
        return max(0.0, min(waits, default=_LONGEST_DELAY))

    def _reap(self, now: float, *, is_stopping: bool = False) -> None:
        for pid, exit_code in _ended_children():
            child = next((c for c in self._children if c.pid == pid), None)
            if child is None:
                if pid == self._rehearsal:
                    self._rehearsal = None
                    if not is_stopping:
                        self._restart(exit_code)
                elif any(each.pid == pid for each in self._retirees):
                    process.kill_group(pid)
                    self._retirees = [e for e in self._retirees if e.pid != pid]
                if self._watchdog.has_found_hang(pid, exit_code) and not is_stopping:
                    self._replace_watched()
                continue
            process.kill_group(pid)
            delay = child.note_end(now)
            if not is_stopping:
                _log.warning(
                    "process_ended",
                    process=child.role.name,
                    pid=pid,
                    exit_code=exit_code,
                    restart_in_seconds=delay,
                )

    def _replace_watched(self) -> None:
        for child in self._children:
            if child.role.is_watched and child.pid:
                _log.error("process_hangs", process=child.role.name, pid=child.pid)
                process.kill(child.pid)  # it is started again like any that died

    # --- a rolling restart ------------------------------------------------------------

    def _rehearse(self) -> None:
        """Find out whether the program that is installed now could start."""
        if self._rehearsal is not None:
            return  # that one will do for both
        _log.info("restart_rehearsed")
        try:
            self._rehearsal = process.fork("gateway-check", handover.rehearse)
        except OSError as error:
            _log.error("restart_refused", error=error.strerror)

    def _restart(self, exit_code: int) -> None:
        """Become the program that is installed now, if its rehearsal went well."""
        if exit_code != 0:
            _log.error("restart_refused", exit_code=exit_code)
            return
        running = [Predecessor(name, pid) for name, pid in self._running()]
        _log.info("restarting", processes=len(running))
        # What is sent from here on waits until the new program listens.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, process.SUPERVISOR_SIGNALS)
        try:
            handover.hand_over(self._listener, running)
        except OSError as error:
            _log.error("restart_refused", error=error.strerror)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _retire(self, now: float) -> None:
        """Tell each predecessor whose successor is ready to end."""
        for child in self._children:
            beacon = child.role.beacon
            if (beacon is None and child.pid) or (beacon and beacon.was_lit()):
                child.is_ready = True
        for retiree in self._retirees:
            if retiree.deadline is None:
                if self._has_successor(retiree):
                    _log.info("process_retired", process=retiree.name, pid=retiree.pid)
                    os.kill(retiree.pid, signal.SIGTERM)
                    retiree.deadline = now + self._seconds_to_stop
            elif now >= retiree.deadline:
                _log.warning("process_killed", process=retiree.name, pid=retiree.pid)
                process.kill(retiree.pid)
                retiree.deadline = now + _SECONDS_TO_DIE

    def _has_successor(self, retiree: Retiree) -> bool:
        ready = {child.role.name for child in self._children if child.is_ready}
        names = {role.name for role in self._roles()}
        # With fewer workers than before, some have none of their name.
        return retiree.name in ready or (retiree.name not in names and ready == names)

    # --- the end ----------------------------------------------------------------------

    def _stop(self, wait: _Wait) -> None:
        self._listener.close()
        _log.info("stopping", within_seconds=self._seconds_to_stop)
        for _, pid in self._running():
            # Only the main processes: each knows in which order its own can end.
            os.kill(pid, signal.SIGTERM)
        self._wait_for_ends(wait, self._seconds_to_stop)
        for name, pid in self._running():
            _log.warning("process_killed", process=name, pid=pid)
            process.kill(pid)
        self._wait_for_ends(wait, _SECONDS_TO_DIE)

    def _wait_for_ends(self, wait: _Wait, seconds: float) -> None:
        """Wait until all children are gone; no longer than that, or until SIGINT."""
        deadline = time.monotonic() + seconds
        received: set[int] = set()
        while self._running() and signal.SIGINT not in received:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            received = wait(left)
            self._reap(time.monotonic(), is_stopping=True)


def _ended_children() -> Iterator[tuple[int, int]]:
    """Collect the pids and exit codes of those that ended.

    Any child, not only ours: as the first process of a container, this one is also
    handed what others left behind.
    """
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def _listen_for_signals(beacons: Sequence[Beacon]) -> _Wait:
    """Take over the signals; return a function that waits for them, or for a beacon.

    For the rest of this process's life: no handler is ever interrupted by another, or
    interrupts anything, and one that comes between two waits is not lost.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in process.SUPERVISOR_SIGNALS:
        signal.signal(number, lambda *_: None)
    # Blocked by the program before this one, if there was one.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, process.SUPERVISOR_SIGNALS)

    watched: list[int | Beacon] = [reader, *beacons]

    def wait(seconds: float) -> set[int]:
        select.select(watched, [], [], seconds)
        try:
            return set(os.read(reader, 512))
        except BlockingIOError:
            return set()

    return wait
