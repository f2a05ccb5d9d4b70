"""The sandbox's clock: real time, until somebody moves it."""

import math
import time
from datetime import UTC, datetime, timedelta
from typing import Final

from claudeproxy.sandbox.errors import ControlError

# The years that a datetime can hold in every time zone.
FIRST: Final = datetime(2, 1, 1, tzinfo=UTC).timestamp()
LAST: Final = datetime(9998, 1, 1, tzinfo=UTC).timestamp()


class Clock:
    """Runs at the pace of real time, ahead of it or behind by what it was moved."""

    def __init__(self) -> None:
        self._offset_seconds = 0.0

    def timestamp(self) -> float:
        """Tell the time in seconds since the epoch."""
        return time.time() + self._offset_seconds

    def now(self) -> datetime:
        """Tell the time, in UTC."""
        return datetime.fromtimestamp(self.timestamp(), UTC)

    def advance(self, by: float | timedelta) -> None:
        """Move the clock on by some seconds, or back if they are negative.

        Errors: ControlError 400 if that leaves the years that there are.
        """
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        self._move(self._offset_seconds + seconds)

    def set(self, moment: datetime) -> None:
        """Move the clock to an aware *moment*, from where it runs on.

        Errors: ControlError 400 if *moment* has no time zone.
        """
        if moment.tzinfo is None:
            raise ControlError(400, "the clock needs a moment with a time zone")
        self._move(moment.timestamp() - time.time())

    def restore(self) -> None:
        """Go back to real time."""
        self._offset_seconds = 0.0

    def _move(self, offset_seconds: float) -> None:
        reached = time.time() + offset_seconds
        if not math.isfinite(reached) or not FIRST < reached < LAST:
            raise ControlError(400, "advance_seconds: the clock cannot go that far")
        self._offset_seconds = offset_seconds
