"""Keeps the gateway's processes running, and ends them together.

The supervisor starts its children, starts again what dies, and replaces a job cluster
that hangs. It never handles a request and never asks the database: it has one thread
and no connection, and is therefore free to fork at any time.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from types import FrameType

import structlog

from claudeproxy import process
from claudeproxy.watchdog import Watchdog

_log = structlog.get_logger(__name__)

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 30.0
# A child that lived this long was well: when it dies, the delay starts over.
_LIVED_WELL = 60.0


def delay_before_restart(failures: int) -> float:
    """Say how many seconds to wait after so many failures in a row."""
    return float(min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (failures - 1)))


@dataclass(frozen=True)
class Role:
    """Something a child process does; `run` returns its exit code."""

    name: str
    run: Callable[[], int]
    is_watched: bool = False  # by the watchdog


@dataclass
class Child:
    """The one process of a role, or the time at which it is due; clock: monotonic."""

    role: Role
    pid: int | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    failures: int = field(default=0)

    def has_ended(self, now: float) -> float:
        """Take in that the process is gone; return the delay until the next."""
        if now - self.started_at >= _LIVED_WELL:
            self.failures = 0
        self.failures += 1
        delay = delay_before_restart(self.failures)
        self.pid, self.due_at = None, now + delay
        return delay


class Supervisor:
    """Runs one process for each role until it is told to stop."""

    def __init__(
        self,
        roles: Sequence[Role],
        *,
        listener: socket.socket,
        seconds_to_stop: float,
        watchdog: Watchdog,
    ) -> None:
        self._children = [Child(role) for role in roles]
        self._listener = listener
        self._seconds_to_stop = seconds_to_stop
        self._watchdog = watchdog
        self._is_watching = any(role.is_watched for role in roles)

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT, then until the last child is gone."""
        with _wakeups() as wait:
            received: set[int] = set()
            while not received & {signal.SIGTERM, signal.SIGINT}:
                self._start_due(time.monotonic())
                if self._is_watching:
                    self._watchdog.watch(time.monotonic())
                received = wait(self._seconds_until_next(time.monotonic()))
                self._reap(time.monotonic())
            self._stop(wait)

    def _start_due(self, now: float) -> None:
        for child in self._children:
            if child.pid is None and now >= child.due_at:
                self._start(child, now)

    def _start(self, child: Child, now: float) -> None:
        child.started_at = now
        try:
            child.pid = process.fork(child.role.name, child.role.run)
        except OSError as error:  # no memory or no process to be had just now
            delay = child.has_ended(now)
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
        return max(0.0, min(waits, default=_LONGEST_DELAY))

    def _reap(self, now: float, *, is_stopping: bool = False) -> None:
        for pid, exit_code in _ended_children():
            child = next((c for c in self._children if c.pid == pid), None)
            if child is None:
                if self._watchdog.has_found_hang(pid, exit_code) and not is_stopping:
                    self._replace_watched()
                continue
            process.kill_group(pid)
            delay = child.has_ended(now)
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
            if child.role.is_watched and child.pid is not None:
                _log.error("process_hangs", process=child.role.name, pid=child.pid)
                process.kill(child.pid)  # the next reaping starts it again

    def _stop(self, wait: "_Wait") -> None:
        self._listener.close()
        _log.info("stopping", within_seconds=self._seconds_to_stop)
        deadline = time.monotonic() + self._seconds_to_stop
        # Only the main processes: they know in which order theirs can end.
        self._signal_all(signal.SIGTERM)
        is_hurried = False
        while self._running() and not is_hurried:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            is_hurried = signal.SIGINT in wait(left)
            self._reap(time.monotonic(), is_stopping=True)
        for child in self._running():
            _log.warning("process_killed", process=child.role.name, pid=child.pid)
            process.kill(child.pid)
