"""Days that begin when somebody's do, not with those of UTC; pure.

Sums of days are kept by UTC. A report by other days takes their hours one day after the
other, and needs to know which hours are whose.
"""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Days:
    """Days by the whole hours in which they begin, in order.

    A report by them begins with the first, and ends with the last.
    """

    starts: tuple[datetime, ...]

    def are_of_utc(self, end: datetime) -> bool:
        """Whether they are those of UTC, if the last one ends so."""
        is_short = end - self.starts[-1] <= _DAY
        midnights = (start.astimezone(UTC).time() == time() for start in self.starts)
        return is_short and all(midnights)

    def start_of(self, at: datetime) -> datetime:
        """When the day of this moment began."""
        return self.starts[max(bisect_right(self.starts, at) - 1, 0)]

    def spans(self, end: datetime) -> list[tuple[datetime, datetime]]:
        """When each of them begins and ends, in UTC, in which statements are."""
        return list(pairwise(at.astimezone(UTC) for at in (*self.starts, end)))
