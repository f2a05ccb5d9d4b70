"""Tells whether the job cluster still finishes jobs.

Its processes being alive proves nothing: when one of them dies at a bad moment, the
others wait for ever on a lock that it held. So the watchdog looks at the newest success
in the database; the heartbeat job makes sure that there is one every minute or two.
"""

import os
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog
from django.db import Error as DatabaseError
from django_q.models import Success

from claudeproxy import process

_log = structlog.get_logger(__name__)

# The heartbeat comes every 60 to 90 seconds, after at most one job that takes 60.
LIMIT = timedelta(seconds=180)
_LOOKS = 12  # within that limit
_LONGEST_LOOK = 20.0  # seconds until a database that does not answer is given up


class Pulse:
    """Judges, look by look, whether anything has happened since.

    Looks are counted, not seconds: however long this machine or this process was
    suspended, only what was looked at for the whole limit is judged.
    """

    def __init__(self, looks: int) -> None:
        self._looks = looks
        self._newest: str | None = None
        self._unchanged = 0

    def restart(self) -> None:
        """Grant the whole limit again."""
        self._unchanged = 0

    def has_stopped(self, newest: str) -> bool:
        """Take in what a look found; True if it has been the same for too long."""
        if newest != self._newest:
            self._newest = newest
            self._unchanged = 0
            return False
        self._unchanged += 1
        return self._unchanged >= self._looks


@dataclass(frozen=True)
class _Look:
    """A look under way: the process that takes it, and where its finding arrives."""

    pid: int
    finding: int
    deadline: float


class Watchdog:
    """Looks at the database every now and then, each time in a process of its own.

    So the supervisor can neither hang on a database that does not answer, nor does it
    ever hold a connection or a thread that its next child would inherit.
    """

    def __init__(self, limit: timedelta = LIMIT) -> None:
        self._interval = limit.total_seconds() / _LOOKS
        self._pulse = Pulse(_LOOKS)
        self._look: _Look | None = None
        self._next_at = 0.0
        self._is_blind = False

    def restart(self, now: float) -> None:
        """Begin to watch a cluster that was started just now."""
        self._pulse.restart()
        self._next_at = now + self._interval

    def seconds_until_next(self, now: float) -> float:
        """Say when `watch` wants to be called again."""
        return (self._look.deadline if self._look else self._next_at) - now

    def watch(self, now: float) -> None:
        """Start the next look if it is due; give up one that takes too long."""
        if self._look and now >= self._look.deadline:
            process.kill(self._look.pid)
            self._look = replace(self._look, deadline=now + _LONGEST_LOOK)
        elif not self._look and now >= self._next_at:
            self._next_at = now + self._interval
            try:
                self._look = _start_look(now + _LONGEST_LOOK)
            except OSError:  # no memory, process or file to be had just now
                self._note_sight(is_blind=True)

    def has_found_hang(self, pid: int, exit_code: int) -> bool:
        """Take in that child *pid* ended; True if it was a look that found a hang."""
        if self._look is None or pid != self._look.pid:
            return False
        with open(self._look.finding, "rb") as pipe:
            finding = pipe.read().decode()
        self._look = None
        is_blind = exit_code != 0
        self._note_sight(is_blind=is_blind)
        return not is_blind and self._pulse.has_stopped(finding)

    def _note_sight(self, *, is_blind: bool) -> None:
        if is_blind:
            # Without the database no job can succeed, so nothing is said about the
            # cluster, and it needs some time again once the database is back.
            self._pulse.restart()
        if is_blind != self._is_blind:
            self._is_blind = is_blind
            if is_blind:
                _log.warning("watchdog_blind", reason="the database did not answer")
            else:
                _log.info("watchdog_sees_again")


def _start_look(deadline: float) -> _Look:
    finding, answer = os.pipe()
    try:
        pid = process.fork("gateway-look", lambda: _answer(answer))
    except OSError:
        os.close(finding)
        raise
    finally:
        os.close(answer)
    return _Look(pid, finding, deadline)


def _answer(answer: int) -> int:
    """Write into *answer* when the newest success ended; nothing if there is none."""
    try:
        with process.forkable_database():
            ends = Success.objects.order_by("-stopped").values_list(
                "stopped", flat=True
            )
            newest = ends.first()
    except DatabaseError:
        return 1
    os.write(answer, str(newest or "").encode())
    return 0
