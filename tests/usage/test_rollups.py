"""Sums of hours and days say what their requests say, at any moment."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claudeproxy.leases import lease
from tests.usage.cast import finished
from usage import histogram, reports, rollups, rows, shipped, store, tasks
from usage.models import (
    DailyMarginal,
    DailyUsage,
    HourlyMarginal,
    HourlyUsage,
    RequestRow,
    RollupState,
    Totals,
)
from usage.prices import PriceTable
from usage.reports import By, Only
from usage.tokens import Tokens, Usage

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
PRICES = PriceTable(shipped.prices())
EVER = (NOON - 100 * DAY, NOON + 100 * DAY)


def add(request_id: str = "a", at: datetime = NOON, **fields: Any) -> None:
    entry = finished(request_id, started_at=at, **fields)
    store.insert([rows.of_finished(entry, PRICES)])


def roll_up() -> None:
    assert rollups.roll_up(seconds=60).is_done


def prune(now: datetime, days: int = 90) -> int:
    return rollups.prune(now=now, retention=days * DAY, seconds=60).rows


def shown(model: type[Totals]) -> list[dict[str, Any]]:
    """All sums, without what differs when they are made anew."""
    found: Any = model._default_manager.values()
    return sorted(
        ({name: it[name] for name in it if name != "id"} for it in found), key=str
    )


def all_sums() -> list[list[dict[str, Any]]]:
    tables = HourlyUsage, DailyUsage, HourlyMarginal, DailyMarginal
    return [shown(table) for table in tables]


def everything() -> list[Any]:
    """Every report there is."""
    return [
        reports.total(*EVER),
        reports.total(NOON - 3 * HOUR, NOON + 5 * HOUR),
        *(reports.grouped(by, *EVER) for by in By),
        *(reports.grouped(by, *EVER, Only(key_id=2)) for by in By),
        *(reports.grouped(by, *EVER, Only(account_id=3, outcome="gone")) for by in By),
        *(reports.grouped(by, *EVER, Only(account_ids=(3, 5))) for by in By),
        *(reports.counts_by_outcome(by, *EVER) for by in By),
    ]


# --- sums


def test_requests_of_an_hour_become_one_row_for_each_group():
    add("a")
    add("b", NOON + timedelta(minutes=59), first_byte_ms=None)
    add("c", key_id=2, key_name="bob")
    add("d", NOON + HOUR)
    roll_up()

    both = HourlyUsage.objects.get(hour=NOON, key_id=1)
    assert HourlyUsage.objects.count() == 3
    assert (both.requests, both.input_tokens, both.output_tokens) == (2, 40, 20)
    assert both.cost == Decimal("0.00056")
    assert both.first_byte_counts == {str(histogram.bucket_of(300)): 1}
    assert both.duration_counts == {str(histogram.bucket_of(1234)): 2}
    assert both.duration_ms == 2468


def test_hours_of_a_day_become_its_rows():
    add("a")
    add("b", NOON + HOUR)
    add("c", NOON + 12 * HOUR)
    roll_up()

    first, second = DailyUsage.objects.order_by("day")
    assert (str(first.day), first.requests) == ("2026-11-20", 2)
    assert (str(second.day), second.requests) == ("2026-11-21", 1)
    assert first.duration_counts == {str(histogram.bucket_of(1234)): 2}


def test_plans_and_unpriced_requests_are_told_apart():
    add("a", account_kind="oauth")
    add("b")
    add("c", model_answered="claude-unheard-of")
    add("d", usage=None)
    roll_up()

    line = reports.total(*EVER)
    assert line.cost == Decimal("0.00056")
    assert line.notional_cost == Decimal("0.00028")
    assert line.unpriced == 1
    assert RequestRow.objects.get(request_id="c").cost is None


def test_a_second_run_changes_nothing():
    add("a")
    roll_up()
    before = all_sums()

    roll_up()
    RollupState.objects.update(rolled_to=0)
    roll_up()

    assert all_sums() == before


def test_a_run_that_was_interrupted_is_made_up_for(monkeypatch):
    add("a")
    add("b", NOON + DAY)
    recompute = rollups._recompute

    def die_on_second(day: Any, *args: Any) -> None:
        recompute(day, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rollups, "_recompute", die_on_second)
        with pytest.raises(KeyboardInterrupt):
            rollups.roll_up(seconds=60)
    assert reports.total(*EVER).requests == 2
    roll_up()

    assert reports.total(*EVER).requests == 2
    assert sum(it.requests for it in DailyUsage.objects.all()) == 2


def test_what_is_too_much_for_a_run_is_left_to_the_next(monkeypatch):
    monkeypatch.setattr(rollups, "_STEP_ROWS", 1)
    for number in range(3):
        add(str(number))
    assert not rollups.roll_up(seconds=-1).is_done
    roll_up()

    assert HourlyUsage.objects.get().requests == 3


# --- any history

moments = st.integers(-60, 60).map(lambda hours: NOON + hours * HOUR)
requests = st.tuples(
    moments,
    st.sampled_from(["ada", "grace"]),
    st.sampled_from(["alice", "bob", "bobby"]),
    st.sampled_from(["claude-opus-5-5", "claude-unheard-of", None]),
    st.sampled_from([("complete", 200), ("client_gone", 499), ("rejected", 429)]),
    st.integers(0, 10**9),
    st.none() | st.floats(0, 10**6),
)
KEYS = {"alice": 1, "bob": 2, "bobby": 2}


def add_all(history: Any, start: int = 0) -> None:
    for number, it in enumerate(history, start):
        at, account, key, model, (reason, status), tokens, ms = it
        add(
            f"r{number}",
            at,
            account_id=len(account),
            account_name=account,
            account_kind="oauth" if account == "ada" else "api_key",
            key_id=KEYS[key],
            key_name=key,
            model_answered=model,
            end_reason=reason,
            status=status,
            usage=model and Usage(Tokens(input=tokens, output=3)),
            first_byte_ms=ms,
            duration_ms=ms or 5.0,
        )


def clear() -> None:
    for model in (
        RequestRow,
        HourlyUsage,
        DailyUsage,
        HourlyMarginal,
        DailyMarginal,
        RollupState,
    ):
        model.objects.all().delete()


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.lists(requests, max_size=12),
    second=st.lists(requests, max_size=8),
    pruned_at=moments,
    third=st.lists(requests, max_size=6),
)
def test_reports_are_the_same_before_and_after_roll_up_and_pruning(
    first, second, pruned_at, third
):
    clear()
    add_all([*first, *second, *third])
    expected = everything()
    roll_up()
    assert everything() == expected
    rolled = all_sums()
    rollups.rebuild()
    assert all_sums() == rolled

    clear()
    add_all(first)
    roll_up()
    add_all(second, len(first))
    roll_up()
    prune(pruned_at + 90 * DAY)
    add_all(third, len(first) + len(second))
    assert everything() == expected
    roll_up()
    assert everything() == expected
    assert all_sums() == rolled
    prune(pruned_at + 90 * DAY)
    assert not RequestRow.objects.filter(hour__lt=pruned_at).exists()
    rollups.rebuild()
    assert all_sums() == rolled


# --- reports


def test_requests_of_this_minute_are_in_the_report():
    add("a")
    roll_up()
    add("b")

    assert reports.total(NOON, NOON + HOUR).requests == 2


def test_a_span_is_widened_to_whole_hours():
    add("a", NOON + timedelta(minutes=50))
    minute = timedelta(minutes=1)

    assert reports.total(NOON + minute, NOON + 2 * minute).requests == 1
    assert reports.total(NOON + HOUR, NOON + 2 * HOUR).requests == 0
    assert reports.total(NOON - HOUR, NOON).requests == 0


@pytest.mark.parametrize("is_rolled", [False, True])
def test_lines_stand_for_their_groups(is_rolled):
    add("a", key_id=1, key_name="alice")
    add("b", key_id=1, key_name="alice-2", at=NOON + DAY)
    add("c", key_id=2, key_name="bob", status=404, model_answered=None)
    if is_rolled:
        roll_up()

    def lines(by: By) -> dict[Any, int]:
        return {line.group: line.requests for line in reports.grouped(by, *EVER)}

    assert lines(By.HOUR) == {NOON: 2, NOON + DAY: 1}
    assert lines(By.DAY) == {NOON.date(): 2, (NOON + DAY).date(): 1}
    assert lines(By.KEY) == {1: 2, 2: 1}
    assert lines(By.ACCOUNT) == {7: 3}
    assert lines(By.MODEL) == {"": 1, "claude-opus-5-5": 2}
    assert lines(By.OUTCOME) == {"refused": 1, "served": 2}
    assert [it.name for it in reports.grouped(By.KEY, *EVER)] == ["alice-2", "bob"]


@pytest.mark.parametrize("is_rolled", [False, True])
@pytest.mark.parametrize(
    ("only", "requests"),
    [
        (Only(key_id=1), 2),
        (Only(account_id=0), 1),
        (Only(model="claude-opus-5-5"), 1),
        (Only(outcome="served"), 1),
        (Only(key_id=1, outcome="failed"), 1),
        (Only(key_id=9), 0),
    ],
    ids=str,
)
def test_reports_cover_only_what_was_asked_for(is_rolled, only, requests):
    add("a")
    add("b", status=500, model_answered=None, model_asked="m")
    add("c", key_id=2, account_id=None, account_name=None, status=429, usage=None)
    add("d", status=404, key_id=3, model_answered=None)
    RequestRow.objects.filter(request_id="c").update(outcome="gone", model="")
    if is_rolled:
        roll_up()

    assert reports.total(*EVER, only).requests == requests


def test_percentiles_come_from_sums():
    for number in range(100):
        add(str(number), NOON + number * HOUR, duration_ms=10.0 * (number + 1))
    expected = reports.total(*EVER).duration
    roll_up()

    found = reports.total(*EVER).duration
    assert found == expected
    assert found.p50 == pytest.approx(500, rel=0.16)
    assert found.p99 == pytest.approx(990, rel=0.16)
    assert reports.total(NOON - DAY, NOON - HOUR).duration.p50 is None


@pytest.mark.parametrize("by", By)
def test_a_report_is_five_queries(by, django_assert_num_queries):
    for number in range(30):
        add(str(number), NOON + number * HOUR, key_id=number + 1)
    roll_up()
    add("now")
    with django_assert_num_queries(5):
        reports.grouped(by, *EVER)


# --- pruning


def test_old_requests_go_and_their_sums_stay():
    add("old", NOON - 91 * DAY)
    add("new", NOON)
    roll_up()

    assert prune(NOON) == 1
    assert [row.request_id for row in RequestRow.objects.all()] == ["new"]
    assert reports.total(*EVER).requests == 2


def test_what_is_not_summed_up_is_not_pruned():
    add("old", NOON - 91 * DAY)

    assert prune(NOON) == 0
    assert reports.total(*EVER).requests == 1
    roll_up()
    assert reports.total(*EVER).requests == 1
    assert not RequestRow.objects.exists()


def test_pruning_goes_in_small_steps(monkeypatch):
    monkeypatch.setattr(rollups, "_PRUNE_ROWS", 2)
    for number in range(5):
        add(str(number), NOON - 91 * DAY)
    roll_up()

    first = rollups.prune(now=NOON, retention=90 * DAY, seconds=-1)
    assert (first.rows, first.is_done) == (2, False)
    assert prune(NOON) == 3


def test_a_clock_that_goes_back_brings_no_hour_back():
    add("a", NOON - 91 * DAY)
    roll_up()
    prune(NOON)

    prune(NOON - 30 * DAY)
    add("late", NOON - 91 * DAY)
    roll_up()

    assert reports.total(*EVER).requests == 2


# --- jobs


def test_the_jobs_do_both(settings):
    settings.USAGE_RETENTION = DAY
    add("a")

    assert tasks.roll_up() == "1 requests"
    assert tasks.prune() in {"0 requests", "1 requests"}


@pytest.mark.parametrize("job", [tasks.roll_up, tasks.prune])
def test_one_job_at_a_time_is_at_it(job):
    with lease("usage_sums", lasts=HOUR):
        assert job() == "another job is at it"
