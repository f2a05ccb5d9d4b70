"""Pure: who has how many requests of one session running, by worker.

Shape: worker → [running, until when the report counts (ms), its sequence], as it is
kept in JSON.
"""

from collections.abc import Mapping
from datetime import datetime

from sessions_limit.backends.base import HOLD, Hold

Holds = dict[str, list[int]]


def milliseconds(at: datetime) -> int:
    """Return a time as it is kept: in milliseconds since 1970."""
    return int(at.timestamp() * 1000)


def fresh(holds: Mapping[str, list[int]], now: datetime) -> Holds:
    """Return the reports that count: a worker that died says no more."""
    now_ms = milliseconds(now)
    # None reaches further than one made now: else the clock was set back since.
    latest = milliseconds(now + HOLD)
    return {
        worker: [running, min(until, latest), sequence]
        for worker, (running, until, sequence) in holds.items()
        if until > now_ms
    }


def reported(holds: Mapping[str, list[int]], hold: Hold, now: datetime) -> Holds:
    """Return the reports with one more; one that was overtaken changes no number."""
    running, _, sequence = holds.get(hold.worker, [0, 0, -1])
    if hold.sequence > sequence:
        running, sequence = hold.running, hold.sequence
    until = milliseconds(now + HOLD)
    return {**holds, hold.worker: [running, until, sequence]}


def running(holds: Mapping[str, list[int]], *, without: str | None = None) -> int:
    """Count the requests of all workers, or of all but one."""
    return sum(count for worker, (count, _, _) in holds.items() if worker != without)
