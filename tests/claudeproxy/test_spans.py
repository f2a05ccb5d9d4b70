"""Which hours and days the pages of usage show."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest

from claudeproxy.charts import Step
from claudeproxy.dashboard import spans

NOW = datetime(2026, 11, 25, 14, 20, 5, tzinfo=UTC)


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
def test_days_are_those_of_utc_wherever_now_is_told(offset: int) -> None:
    told = NOW.astimezone(timezone(timedelta(hours=offset)))
    assert spans.choose("7d", told) == spans.choose("7d", NOW)


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
