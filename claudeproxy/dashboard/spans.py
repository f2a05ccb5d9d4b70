"""Spans of time that the pages show, cut into hours, or days of a time zone; pure.

Sums are kept by the hours of UTC, so a day has whole ones of these: those that begin in
it. In a zone whose midnight is half an hour off them, days begin half an hour late.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from claudeproxy.charts import Buckets, Step

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Choice:
    """A span that one can choose: its name in an address, and in words."""

    name: str
    words: str
    step: Step
    count: int


CHOICES = (
    Choice("24h", "24 hours", Step.HOUR, 24),
    Choice("7d", "7 days", Step.DAY, 7),
    Choice("30d", "30 days", Step.DAY, 30),
)


@dataclass(frozen=True)
class Span:
    """The buckets that are shown, the last of which is still running.

    `before` is as much time as has passed of this span, just as long ago as it is long,
    and to the hour. Days ago are counted by the calendar: it ends at the same time of
    the day, also where clocks were changed since, but never within this span.
    """

    choice: Choice
    buckets: Buckets
    until: datetime  # when the last bucket ends
    before: tuple[datetime, datetime]

    @property
    def since(self) -> datetime:
        return self.buckets.starts[0]


def choose(name: str, now: datetime, tz: tzinfo = UTC) -> Span:
    """Return the span of that name; the first one for a name that is not known."""
    choice = next((it for it in CHOICES if it.name == name), CHOICES[0])
    running = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    cut = _cut_hours if choice.step == Step.HOUR else _cut_days
    return cut(choice, running, tz)


def _cut_hours(choice: Choice, running: datetime, tz: tzinfo) -> Span:
    until = running + _HOUR
    length = choice.count * _HOUR
    since = until - length
    starts = tuple(since + number * _HOUR for number in range(choice.count))
    buckets = Buckets(starts, choice.step, tz)
    return Span(choice, buckets, until, before=(since - length, since))


def _cut_days(choice: Choice, running: datetime, tz: tzinfo) -> Span:
    today = running.astimezone(tz).date()
    length = choice.count * _DAY
    first = today + _DAY - length
    starts = tuple(
        _start_of(first + number * _DAY, tz) for number in range(choice.count)
    )
    # An aware time of a zone is moved by its clock on the wall.
    before_until = (running + _HOUR).astimezone(tz) - length
    return Span(
        choice,
        Buckets(starts, choice.step, tz),
        until=_start_of(today + _DAY, tz),
        before=(
            _start_of(first - length, tz),
            min(_next_hour(before_until), starts[0]),
        ),
    )


def _start_of(day: date, tz: tzinfo) -> datetime:
    """The first hour that begins in a day.

    Where clocks skip midnight, Python takes it for the moment in which they do.
    """
    return _next_hour(datetime.combine(day, time(), tz))


def _next_hour(at: datetime) -> datetime:
    at = at.astimezone(UTC)
    hour = at.replace(minute=0, second=0, microsecond=0)
    return hour if hour == at else hour + _HOUR
