from datetime import timedelta

import pytest

from accounts import quota_display
from accounts.models import QuotaWindow
from tests.factories import NOW

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def row(name="5h", **fields):
    fields.setdefault("seen_at", NOW)
    return QuotaWindow(name=name, **fields)


def bucket(name, *, used, **fields):
    fields = {"limit": 100, "remaining": 100 - round(used * 100), **fields}
    return row(name, utilization=used, **fields)


def only(**fields):
    (reading,) = quota_display.readings([row(**fields)], NOW)
    return reading


def spaced(text):
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("5h", "5 h"),
        ("7d", "7 d"),
        ("30m", "30 min"),
        ("7d_opus", "7 d, Opus"),
        ("7d_oi", "7 d, overage included"),
        ("7d_of_tomorrow", "7 d, Of tomorrow"),
        ("overage", "paid usage"),
        ("grace-5h", "grace 5h"),
        ("input-tokens", "input tokens"),
    ],
)
def test_a_limit_is_named_in_words(name, label):
    assert spaced(only(name=name).label) == label


@pytest.mark.parametrize(
    ("used", "percent", "width"),
    [
        (None, "", 0),
        (0, "0 %", 0),
        (0.001, "under 1 %", 0),
        (0.29, "29 %", 29),
        (0.424, "42 %", 42),
        (0.999, "99 %", 100),
        (1, "100 %", 100),
        (1.07, "107 %", 100),
    ],
)
def test_what_is_used_is_told_in_percent(used, percent, width):
    reading = only(utilization=used)

    assert (spaced(reading.percent), reading.width) == (percent, width)


@pytest.mark.parametrize(
    ("used", "status", "words", "condition"),
    [
        (0.5, "allowed", "allowed", ""),
        (0.5, "", "", ""),
        (0.75, "allowed", "allowed", "close"),
        (0.5, "allowed_warning", "close to its limit", "close"),
        (1.0, "allowed", "allowed", "spent"),
        (0.5, "rejected", "spent", "spent"),
        (None, "rejected", "spent", "spent"),
        (0.5, "of_the_future", "of the future", ""),
    ],
)
def test_a_limit_has_a_status_in_words(used, status, words, condition):
    reading = only(utilization=used, status=status)

    assert (reading.status, reading.condition) == (words, condition)


@pytest.mark.parametrize(("used", "condition"), [(None, ""), (0.5, ""), (1.0, "spent")])
def test_paid_usage_that_is_rejected_is_not_allowed_and_need_not_be_spent(
    used, condition
):
    reading = only(name="overage", utilization=used, status="rejected")

    assert (reading.status, reading.condition) == ("not allowed", condition)


@pytest.mark.parametrize(
    ("fields", "is_over"),
    [
        ({"resets_at": NOW + MINUTE}, False),
        ({"resets_at": NOW}, True),
        ({"resets_at": NOW - MINUTE}, True),
        ({"resets_at": NOW + MINUTE, "seen_at": NOW - 5 * DAY}, False),
        ({}, False),
        ({"seen_at": NOW - DAY}, True),
    ],
)
def test_a_figure_counts_until_its_limit_resets(fields, is_over):
    seen = row(utilization=0.99, status="rejected", limit=9, remaining=1, **fields)
    (quota,) = quota_display.quotas([seen], NOW)

    assert quota.is_over == is_over
    figures = (quota.utilization, quota.remaining, quota.status)
    assert figures == ((None, None, "") if is_over else (0.99, 1, "rejected"))
    assert quota.limit == 9


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"resets_at": NOW + MINUTE}, ""),
        ({"resets_at": NOW}, "reset, not seen since"),
        ({"resets_at": NOW, "limit": 9, "remaining": 1}, "refilled since"),
        ({"seen_at": NOW - DAY}, "not seen lately"),
    ],
)
def test_a_limit_that_was_reset_shows_words_instead_of_the_old_figure(fields, words):
    reading = only(utilization=0.99, status="rejected", **fields)

    assert reading.over == words
    if words:
        assert (reading.percent, reading.left, reading.status) == ("", "", "")
        assert (reading.width, reading.condition) == (0, "")


def test_what_is_left_in_a_bucket_is_told():
    assert only(name="requests", limit=1000, remaining=988).left == "988 of 1,000"


@pytest.mark.parametrize(
    ("ago", "is_old"), [(MINUTE, False), (10 * MINUTE, True), (DAY, True)]
)
def test_what_was_seen_long_ago_says_so(ago, is_old):
    assert only(seen_at=NOW - ago).is_old == is_old


def test_what_was_not_seen_for_a_month_is_not_shown():
    rows = [row("5h", seen_at=NOW - 33 * DAY), row("7d", seen_at=NOW - 31 * DAY)]

    assert [it.name for it in quota_display.quotas(rows, NOW)] == ["7d"]


def test_limits_come_in_one_order():
    names = ["5h", "7d", "7d_opus", "plan", "requests", "tokens", "fast-tokens"]
    rows = [
        row(name, limit=9 if name.endswith(("s", "z")) and name != "7d_opus" else None)
        for name in reversed(names)
    ]

    assert [it.name for it in quota_display.quotas(rows, NOW)] == names


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([], []),
        ([row("7d"), row("5h"), row("7d_opus")], ["5h", "7d", "7d_opus"]),
        ([row("7d", resets_at=NOW), row("5h", resets_at=NOW)], ["5h", "7d"]),
        # An answer that named no window, until its limit resets.
        ([row("plan")], ["plan"]),
        ([row("plan", resets_at=NOW + MINUTE)], ["plan"]),
        ([row("plan", resets_at=NOW), row("5h")], ["5h"]),
        ([row("plan", seen_at=NOW - DAY), row("5h")], ["5h"]),
        # Paid usage, and what has yet no name here, if some of it is used.
        ([row("overage", status="rejected"), row("slow-budget", utilization=0)], []),
        ([row("overage", utilization=0.1)], ["overage"]),
        ([row("overage", utilization=0.1, resets_at=NOW)], []),
        # Of buckets the one with the least left in it, if that still counts.
        (
            [bucket("requests", used=0.1), bucket("tokens", used=0.2)],
            ["tokens"],
        ),
        (
            [
                bucket("requests", used=0.1, resets_at=NOW + MINUTE),
                bucket("tokens", used=0.2, resets_at=NOW),
            ],
            ["requests"],
        ),
        (
            [bucket("tokens", used=0.2, resets_at=NOW), bucket("requests", used=0.0)],
            ["requests"],
        ),
        ([bucket("tokens", used=0.0), bucket("requests", used=0.0)], ["requests"]),
    ],
)
def test_a_list_has_room_for_the_most_important_limits(rows, shown):
    brief = quota_display.brief(rows, NOW)

    assert [reading.quota.name for reading in brief] == shown
