"""Reports by days of other zones than UTC say what the requests themselves say."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claudeproxy.dashboard import spans
from tests.usage.test_rollups import add, clear, prune, roll_up
from usage import histogram, reports, sources
from usage.days import Days
from usage.models import RequestRow
from usage.reports import By, Latency, Line, Only

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
ZONES = (
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Auckland",
    "UTC",
)
# Around these, clocks change in some of the zones.
MOMENTS = tuple(
    datetime(2026, month, day, 12, tzinfo=UTC)
    for month, day in ((3, 8), (3, 29), (4, 5), (10, 4), (10, 25), (11, 1))
)


def days_until(noon: datetime, zone: str, name: str = "7d") -> tuple[Days, datetime]:
    """Days of which the last but one is that of *noon*, and when they end."""
    span = spans.choose(name, noon + DAY, ZoneInfo(zone))
    return Days(span.buckets.starts), span.until


def grouped(days: Days, until: datetime, only: Only | None = None) -> list[Line]:
    return reports.grouped(days, days.starts[0], until, only or Only())


# --- which hour is whose


def test_a_moment_is_in_the_day_that_began_last() -> None:
    days = Days(tuple(MOMENTS[0] + number * DAY for number in range(3)))
    minute = timedelta(minutes=1)
    assert days.start_of(MOMENTS[0]) == MOMENTS[0]
    assert days.start_of(MOMENTS[0] + DAY - minute) == MOMENTS[0]
    assert days.start_of(MOMENTS[0] + DAY) == MOMENTS[0] + DAY
    assert days.start_of(MOMENTS[0] + 9 * DAY) == MOMENTS[0] + 2 * DAY


@pytest.mark.parametrize(
    ("zone", "noon", "are_of_utc"),
    [
        ("UTC", MOMENTS[4], True),
        ("Europe/London", datetime(2026, 1, 20, 12, tzinfo=UTC), True),
        ("Europe/London", MOMENTS[4], False),
        ("Europe/Berlin", MOMENTS[4], False),
        # There, midnight is that of UTC until clocks go back on the last day.
        ("Atlantic/Azores", MOMENTS[4] - DAY, False),
        ("Atlantic/Azores", MOMENTS[4] - 2 * DAY, True),
    ],
)
def test_days_that_begin_with_those_of_utc_are_known(
    zone: str, noon: datetime, are_of_utc: bool
) -> None:
    days, until = days_until(noon, zone)
    assert days.are_of_utc(until) is are_of_utc


# --- reports


@pytest.mark.django_db
@pytest.mark.parametrize("is_rolled", [False, True])
def test_the_hour_that_comes_twice_belongs_to_one_long_day(is_rolled: bool) -> None:
    midnight = datetime(2026, 10, 24, 22, tzinfo=UTC)  # of the 25th, in Berlin
    for number in range(-1, 26):
        add(f"r{number}", midnight + number * HOUR + timedelta(minutes=30))
    if is_rolled:
        roll_up()
    days, until = days_until(MOMENTS[4], "Europe/Berlin")
    found = {line.group: line.requests for line in grouped(days, until)}
    assert found == {midnight - DAY: 1, midnight: 25, midnight + 25 * HOUR: 1}


@pytest.mark.django_db
@pytest.mark.parametrize("is_rolled", [False, True])
def test_the_day_without_one_hour_has_23(is_rolled: bool) -> None:
    midnight = datetime(2026, 3, 28, 23, tzinfo=UTC)  # of the 29th, in Berlin
    for number in range(-1, 24):
        add(f"r{number}", midnight + number * HOUR)
    if is_rolled:
        roll_up()
    days, until = days_until(MOMENTS[1], "Europe/Berlin")
    found = {line.group: line.requests for line in grouped(days, until)}
    assert found == {midnight - DAY: 1, midnight: 23, midnight + 23 * HOUR: 1}


@pytest.mark.django_db
def test_days_may_be_told_in_any_zone() -> None:
    for number in range(48):
        add(str(number), MOMENTS[4] - number * HOUR)
    roll_up()
    add("now", MOMENTS[4])
    days, until = days_until(MOMENTS[4], "Europe/Berlin")
    berlin = ZoneInfo("Europe/Berlin")
    told = Days(tuple(start.astimezone(berlin) for start in days.starts))
    assert grouped(told, until.astimezone(berlin)) == grouped(days, until)


@pytest.mark.django_db
def test_an_hour_that_is_not_summed_up_is_named_only_where_it_would_count(
    django_assert_num_queries: Any,
) -> None:
    add("old", MOMENTS[4] - 9 * DAY)
    roll_up()
    add("now", MOMENTS[4])
    days, until = days_until(MOMENTS[4], "Europe/Berlin", "30d")
    with django_assert_num_queries(3) as captured:
        reports.counts_by_outcome(days, days.starts[0], until)
    report = captured.captured_queries[-1]["sql"]
    # Once among requests, and once in the sums of its day.
    assert report.count(f"'{sources.time_value(MOMENTS[4])}'") == 2


@pytest.mark.django_db
def test_days_take_no_more_queries_than_those_of_utc(
    django_assert_num_queries: Any,
) -> None:
    for number in range(30):
        add(str(number), MOMENTS[4] - number * HOUR, key_id=number + 1)
    roll_up()
    add("now", MOMENTS[4])
    days, until = days_until(MOMENTS[4], "Europe/Berlin", "30d")
    with django_assert_num_queries(5):
        grouped(days, until)


def naively(days: Days, until: datetime, only: Only) -> dict[datetime, Any]:
    """The same by looking at each request."""
    rows = list(RequestRow.objects.filter(**only.conditions()))
    found = {}
    for start, end in pairwise([*days.starts, until]):
        within = [row for row in rows if start <= row.started_at < end]
        if within:
            found[start] = (
                len(within),
                sum(row.cost or 0 for row in within),
                sum(row.output_tokens for row in within),
                Latency.of(
                    Counter(
                        histogram.bucket_of(row.first_byte_ms)
                        for row in within
                        if row.first_byte_ms is not None
                    )
                ),
                Counter(row.outcome for row in within),
            )
    return found


def reported(days: Days, until: datetime, only: Only) -> dict[datetime, Any]:
    outcomes = reports.counts_by_outcome(days, days.starts[0], until, only)
    return {
        line.group: (
            line.requests,
            line.cost,
            line.output_tokens,
            line.first_byte,
            outcomes[line.group],
        )
        for line in grouped(days, until, only)
    }


requests = st.tuples(
    st.integers(-9 * 24 * 60, 3 * 24 * 60),
    st.sampled_from([1, 2]),
    st.sampled_from([("complete", 200), ("client_gone", 499), ("rejected", 429)]),
    st.none() | st.integers(0, 10**6),
)


@pytest.mark.django_db
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    noon=st.sampled_from(MOMENTS),
    zone=st.sampled_from(ZONES),
    first=st.lists(requests, max_size=12),
    second=st.lists(requests, max_size=8),
    only=st.sampled_from([Only(), Only(key_id=2)]),
)
def test_days_have_what_their_requests_come_to(
    noon: datetime, zone: str, first: Any, second: Any, only: Only
) -> None:
    clear()
    days, until = days_until(noon, zone)
    for part, made in enumerate((first, second)):
        for number, (minutes, key, (reason, status), ms) in enumerate(made):
            add(
                f"r{part}-{number}",
                noon + timedelta(minutes=minutes),
                key_id=key,
                key_name=f"key {key}",
                end_reason=reason,
                status=status,
                first_byte_ms=ms,
            )
        assert reported(days, until, only) == naively(days, until, only)
        total = reports.total(days.starts[0], until, only)
        assert sum(it.requests for it in grouped(days, until, only)) == total.requests
        roll_up()
        assert reported(days, until, only) == naively(days, until, only)
    expected = reported(days, until, only)
    prune(noon + 88 * DAY)
    assert reported(days, until, only) == expected


@pytest.mark.django_db
def test_days_of_utc_are_the_same_by_either_name() -> None:
    by_day: Counter[date] = Counter()
    for number in range(60):
        at = MOMENTS[4] - number * HOUR
        add(str(number), at)
        by_day[at.date()] += 1
    roll_up()
    days, until = days_until(MOMENTS[4], "UTC")
    of_utc = reports.grouped(By.DAY, days.starts[0], until)
    assert {line.group: line.requests for line in of_utc} == by_day
    for line, other in zip(of_utc, grouped(days, until), strict=True):
        assert other.group.date() == line.group
        other.group = line.group
        assert other == line
