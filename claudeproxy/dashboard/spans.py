"""Spans of time that the pages show, cut into hours or days of UTC; pure.

UTC, because sums of days are kept by it, and because every other time in the admin is
told in it: a day has 24 hours wherever the operator is, and on every date.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from claudeproxy.charts import Buckets, Step

_HOUR = timedelta(hours=1)
_LENGTHS = {Step.HOUR: _HOUR, Step.DAY: timedelta(days=1)}


@dataclass(frozen=True)
class Choice:
    """A span that one can choose: its name in an address, and in words."""

    name: str
    words: str
    step: Step
    count: int

    @property
    def length(self) -> timedelta:
        return _LENGTHS[self.step] * self.count


CHOICES = (
    Choice("24h", "24 hours", Step.HOUR, 24),
    Choice("7d", "7 days", Step.DAY, 7),
    Choice("30d", "30 days", Step.DAY, 30),
)


@dataclass(frozen=True)
class Span:
    """The buckets that are shown, the last of which is still running."""

    choice: Choice
    since: datetime
    until: datetime  # when the last bucket ends
    asked_at: datetime

    @property
    def buckets(self) -> Buckets:
        length = _LENGTHS[self.choice.step]
        starts = tuple(self.since + length * it for it in range(self.choice.count))
        return Buckets(starts, self.choice.step, UTC)

    @property
    def before(self) -> tuple[datetime, datetime]:
        """As much time as has passed of this span, just as long ago as it is long.

        To the hour: sums are kept by the hour.
        """
        length = self.choice.length
        return self.since - length, _hour_of(self.asked_at) + _HOUR - length


def choose(name: str, now: datetime) -> Span:
    """Return the span of that name; the first one for a name that is not known."""
    choice = next((it for it in CHOICES if it.name == name), CHOICES[0])
    length = _LENGTHS[choice.step]
    now = now.astimezone(UTC)
    start = _hour_of(now)
    if choice.step == Step.DAY:
        start = datetime.combine(now.date(), time(), UTC)
    until = start + length
    return Span(choice, until - choice.length, until, now)


def _hour_of(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)
