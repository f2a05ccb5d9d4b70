"""Which hours and days the pages of usage show."""

from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from claudeproxy.charts import Step
from claudeproxy.dashboard import spans

NOW = datetime(2026, 11, 25, 14, 20, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
# Among them some that skip or repeat midnight, and some that are not whole hours off.
ZONES = (
    "UTC",
    "Africa/Cairo",
    "America/Havana",
    "America/New_York",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Auckland",
    "Pacific/Chatham",
)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1)).map(  # noqa: DTZ001  # made aware
    lambda at: at.replace(tzinfo=UTC)
)


@pytest.mark.parametrize(
    ("name", "step", "count", "since", "until"),
    [
        ("24h", Step.HOUR, 24, "2026-11-24T15", "2026-11-25T15"),
        ("7d", Step.DAY, 7, "2026-11-19T00", "2026-11-26T00"),
        ("30d", Step.DAY, 30, "2026-10-27T00", "2026-11-26T00"),
    ],
)
def test_a_span_ends_with_the_hour_or_day_that_runs(
    name: str, step: Step, count: int, since: str, until: str
) -> None:
    span = spans.choose(name, NOW)
    assert span.buckets.step == step
    assert len(span.buckets.starts) == count
    assert f"{span.since:%Y-%m-%dT%H}" == since
    assert f"{span.until:%Y-%m-%dT%H}" == until
    assert span.buckets.starts[0] == span.since
    assert span.since < NOW < span.until


@pytest.mark.parametrize("name", ["", "1y", "24H", "\x00"])
def test_a_name_that_is_not_known_means_a_day(name: str) -> None:
    assert spans.choose(name, NOW).choice.name == "24h"


@pytest.mark.parametrize(
    ("name", "since", "until"),
    [
        ("24h", "2026-11-23T15", "2026-11-24T15"),
        ("7d", "2026-11-12T00", "2026-11-18T15"),
        ("30d", "2026-09-27T00", "2026-10-26T15"),
    ],
)
def test_what_was_before_is_as_long_as_what_has_passed(
    name: str, since: str, until: str
) -> None:
    before = spans.choose(name, NOW).before
    assert [f"{at:%Y-%m-%dT%H}" for at in before] == [since, until]


@pytest.mark.parametrize("offset", [-11, 0, 13])
def test_days_are_those_of_the_zone_wherever_now_is_told(offset: int) -> None:
    told = NOW.astimezone(timezone(timedelta(hours=offset)))
    assert spans.choose("7d", told) == spans.choose("7d", NOW)
    berlin = ZoneInfo("Europe/Berlin")
    assert spans.choose("7d", told, berlin) == spans.choose("7d", NOW, berlin)


def test_buckets_are_equally_long_on_days_on_which_clocks_change() -> None:
    for now in (
        datetime(2026, 3, 29, 12, tzinfo=UTC),
        datetime(2026, 10, 25, 12, tzinfo=UTC),
    ):
        starts = spans.choose("24h", now).buckets.starts
        lengths = {b - a for a, b in pairwise(starts)}
        assert lengths == {timedelta(hours=1)}


def test_a_span_that_begins_on_the_hour_has_that_hour() -> None:
    span = spans.choose("24h", datetime(2026, 11, 25, 14, tzinfo=UTC))
    assert span.buckets.starts[-1] == datetime(2026, 11, 25, 14, tzinfo=UTC)


# --- days of a zone


def lengths(zone: str, day: date) -> dict[date, int]:
    """How many hours each of the 7 days that end with this one has."""
    tz = ZoneInfo(zone)
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=tz)
    span = spans.choose("7d", noon, tz)
    ends = pairwise([*span.buckets.starts, span.until])
    return {
        start.astimezone(tz).date(): int((end - start) / HOUR) for start, end in ends
    }


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", date(2026, 3, 28), 24),
        ("Europe/Berlin", date(2026, 3, 29), 23),
        ("Europe/Berlin", date(2026, 3, 30), 24),
        ("Europe/Berlin", date(2026, 10, 24), 24),
        ("Europe/Berlin", date(2026, 10, 25), 25),
        ("Europe/Berlin", date(2026, 10, 26), 24),
        ("America/New_York", date(2026, 3, 8), 23),
        ("America/New_York", date(2026, 11, 1), 25),
        ("Africa/Cairo", date(2026, 4, 24), 23),  # has no midnight
        ("Africa/Cairo", date(2026, 10, 29), 25),
        ("America/Havana", date(2026, 11, 1), 25),  # has two
        ("Asia/Kolkata", date(2026, 10, 25), 24),
        ("UTC", date(2026, 10, 25), 24),
    ],
)
def test_a_day_has_as_many_hours_as_on_the_clock(
    zone: str, day: date, hours: int
) -> None:
    assert lengths(zone, day)[day] == hours


def test_half_an_hour_of_clock_change_is_rounded_to_whole_hours() -> None:
    zone = "Australia/Lord_Howe"
    autumn = lengths(zone, date(2026, 4, 6))  # 24.5 hours on the 5th
    assert (autumn[date(2026, 4, 5)], autumn[date(2026, 4, 6)]) == (25, 24)
    spring = lengths(zone, date(2026, 10, 5))  # 23.5 hours on the 4th
    assert (spring[date(2026, 10, 4)], spring[date(2026, 10, 5)]) == (23, 24)


@given(st.sampled_from(ZONES), st.sampled_from(["7d", "30d"]), moments)
def test_each_hour_is_in_the_day_in_which_it_begins(
    zone: str, name: str, now: datetime
) -> None:
    tz = ZoneInfo(zone)
    span = spans.choose(name, now, tz)
    days = [start.astimezone(tz).date() for start in span.buckets.starts]
    assert [(b - a).days for a, b in pairwise(days)] == [1] * (span.choice.count - 1)
    for day, (start, end) in zip(
        days, pairwise([*span.buckets.starts, span.until]), strict=True
    ):
        assert start.minute == 0
        assert start < end
        hours = [start + number * HOUR for number in range(int((end - start) / HOUR))]
        assert {at.astimezone(tz).date() for at in hours} == {day}
    running = now.replace(minute=0, second=0, microsecond=0)
    assert span.buckets.starts[-1] <= running < span.until


@given(st.sampled_from(ZONES), moments)
def test_24_hours_are_the_same_ones_in_every_zone(zone: str, now: datetime) -> None:
    span, in_utc = spans.choose("24h", now, ZoneInfo(zone)), spans.choose("24h", now)
    assert span.buckets.starts == in_utc.buckets.starts
    assert (span.until, span.before) == (in_utc.until, in_utc.before)


@given(st.sampled_from(ZONES), st.sampled_from(["24h", "7d", "30d"]), moments)
@example("Australia/Lord_Howe", "7d", datetime(2026, 4, 5, 13, tzinfo=UTC))
@example("Africa/Cairo", "7d", datetime(2026, 4, 23, 21, tzinfo=UTC))
@example("America/Havana", "30d", datetime(2026, 3, 8, 4, tzinfo=UTC))
def test_no_hour_is_in_a_span_and_before_it(
    zone: str, name: str, now: datetime
) -> None:
    span = spans.choose(name, now, ZoneInfo(zone))
    since, until = span.before
    assert since < until <= span.since


@given(st.sampled_from(["24h", "7d", "30d"]), moments)
def test_utc_by_name_is_utc(name: str, now: datetime) -> None:
    named, own = spans.choose(name, now, ZoneInfo("UTC")), spans.choose(name, now)
    assert named.buckets.starts == own.buckets.starts
    assert named.buckets.names == own.buckets.names
    assert (named.until, named.before) == (own.until, own.before)


@pytest.mark.parametrize("now", ["2026-10-28T14:20", "2026-03-31T14:20"])
def test_before_ends_at_the_same_time_of_the_day_though_clocks_changed(
    now: str,
) -> None:
    tz = ZoneInfo("Europe/Berlin")
    at = datetime.fromisoformat(now).replace(tzinfo=tz)
    span = spans.choose("7d", at, tz)
    since, until = (it.astimezone(tz) for it in span.before)
    assert f"{since:%H:%M}" == "00:00"
    assert f"{until:%H:%M}" == "15:00"
    assert since.date() == at.date() - timedelta(days=13)
    assert until.date() == at.date() - timedelta(days=7)
