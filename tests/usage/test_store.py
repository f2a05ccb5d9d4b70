"""Rows as they come to stand in the table."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.usage.cast import AT, begun, finished
from usage import rows, shipped, store
from usage.entries import Attempt
from usage.models import RequestRow
from usage.outcome import EndReason, Outcome
from usage.prices import PriceTable
from usage.rows import NOBODY
from usage.tokens import Part, Tokens, Usage

pytestmark = pytest.mark.django_db

PRICES = PriceTable(shipped.prices())


def stored(entry) -> RequestRow:
    assert store.insert([rows.of_finished(entry, PRICES)]) == 0
    return RequestRow.objects.get(request_id=entry.request_id)


def test_a_row_says_all_there_is_to_say():
    usage = Usage(
        Tokens(input=1, write_5m=2, write_1h=3, read=4, output=5),
        web_searches=1,
        web_fetches=2,
        service_tier="standard",
        speed="fast",
        inference_geo="us",
    )
    attempt = Attempt("grace", "account", "rate limited", 12.5, 500)
    row = stored(
        finished(
            usage=usage,
            attempts=(attempt,),
            is_stream=True,
            routing="moved",
            stop_reason="end_turn",
            session_digest="5e55",
            organization_uuid="0a",
            account_kind="oauth",
            model_answered="claude-opus-5-5-20261021",
            is_incomplete=True,
        )
    )

    shown = {
        field.name: getattr(row, field.name)
        for field in RequestRow._meta.concrete_fields
        if not field.primary_key
    }
    of_tokens = Decimal(1 * 8 + 2 * 10 + 3 * 16 + 5 * 40) + 4 * Decimal("0.40")
    assert shown == {
        "request_id": "req_1",
        "started_at": AT,
        "hour": datetime(2026, 11, 25, 12, tzinfo=UTC),
        "endpoint": "/v1/messages",
        "is_stream": True,
        "key_id": 1,
        "key_name": "alice",
        "account_id": 7,
        "account_name": "ada",
        "account_kind": "oauth",
        "organization_uuid": "0a",
        "session_digest": "5e55",
        "routing": "moved",
        "model_asked": "claude-opus-5-5",
        "model": "claude-opus-5-5-20261021",
        "status": 200,
        "end_reason": EndReason.COMPLETE,
        "outcome": Outcome.SERVED,
        "stop_reason": "end_turn",
        "attempts": [
            {
                "account": "grace",
                "blame": "account",
                "reason": "rate limited",
                "duration_ms": 12.5,
                "waited_ms": 500,
            }
        ],
        "failed_attempts": 1,
        "first_byte_ms": 300,
        "first_byte_bucket": 41,
        "duration_ms": 1234,
        "duration_bucket": 51,
        "request_bytes": 4000,
        "answer_bytes": 900,
        "input_tokens": 1,
        "write_5m_tokens": 2,
        "write_1h_tokens": 3,
        "read_tokens": 4,
        "output_tokens": 5,
        "web_searches": 1,
        "web_fetches": 2,
        "service_tier": "standard",
        "speed": "fast",
        "inference_geo": "us",
        "is_incomplete": True,
        "cost": round(of_tokens * Decimal("1.1") / 10**6 + Decimal("0.01"), 9),
        "price_date": date(2026, 1, 1),
        "is_notional": True,
        "is_unpriced": False,
    }


def test_a_row_has_a_field_for_every_column():
    columns = {field.name for field in RequestRow._meta.concrete_fields} - {"id"}

    assert set(rows.Row.__struct_fields__) == columns


def test_a_request_is_stored_once():
    first = rows.of_finished(finished(), PRICES)
    again = rows.of_finished(finished(status=500), PRICES)
    store.insert([first, again])
    store.insert([again])

    assert RequestRow.objects.get().status == 200


def test_a_time_of_another_zone_is_the_same_time():
    row = stored(finished(started_at=AT.astimezone(timezone(timedelta(hours=-9)))))

    assert (row.started_at, row.hour.hour) == (AT, 12)
    assert RequestRow.objects.filter(started_at=AT, hour__lte=AT).exists()


def test_what_a_crash_left_is_a_row():
    store.insert([rows.of_crashed(begun(request_bytes=5))])

    row = RequestRow.objects.get()
    assert (row.end_reason, row.outcome) == ("crashed", "failed")
    assert (row.account_id, row.duration_ms, row.cost) == (NOBODY, None, None)
    assert row.is_incomplete
    assert row.request_bytes == 5


@pytest.mark.parametrize(
    ("fields", "model"),
    [
        ({}, "claude-opus-5-5"),
        ({"model_answered": "claude-x"}, "claude-x"),
        ({"model_answered": None}, "claude-opus-5-5"),
        ({"model_answered": None, "status": 404}, ""),
        ({"model_answered": None, "account_id": None, "status": 503}, ""),
    ],
)
def test_only_models_that_an_account_was_asked_for_are_counted_by(fields, model):
    assert stored(finished(**fields)).model == model


@pytest.mark.parametrize("usage", [None, Usage(Tokens()), Usage(Tokens(input=1))])
def test_only_what_was_used_can_lack_a_price(usage):
    row = stored(finished(usage=usage, model_answered="claude-x"))

    assert row.cost is None
    assert row.is_unpriced == (usage == Usage(Tokens(input=1)))


def test_usage_that_could_not_be_read_lacks_a_price():
    row = stored(finished(usage=Usage(Tokens(), is_unreadable=True)))

    assert (row.cost, row.is_unpriced) == (None, True)


def test_the_runs_of_a_request_are_summed_up():
    runs = (Part(Tokens(input=5)), Part(Tokens(input=7), kind="compaction"))

    assert stored(finished(usage=Usage(Tokens(input=5), runs))).input_tokens == 12


def test_what_does_not_fit_is_made_to_fit():
    row = stored(
        finished(
            endpoint="/v1/\x00" + "x" * 500,
            key_name="\x00",
            attempts=(Attempt("a\x00", "b", "c"),),
            duration_ms=1e300,
            first_byte_ms=-4.0,
            answer_bytes=2**62,
            usage=Usage(Tokens(), service_tier="\x00" * 300),
        )
    )

    assert len(row.endpoint) == 200
    assert "\x00" not in row.endpoint + row.key_name + row.service_tier
    assert row.attempts[0]["account"] == "a\ufffd"
    assert row.first_byte_ms == 0


def test_a_row_that_the_table_refuses_holds_up_nobody():
    good = [rows.of_finished(finished(str(number)), PRICES) for number in range(3)]
    bad = rows.of_finished(finished("bad"), PRICES)
    bad.outcome = None  # type: ignore[assignment]  # what no code of ours would make

    assert store.insert([good[0], bad, *good[1:]]) == 1
    assert RequestRow.objects.count() == 3


def test_no_rows_are_no_statement(django_assert_num_queries):
    with django_assert_num_queries(0):
        assert store.insert([]) == 0


def test_a_number_that_no_column_takes_holds_up_no_other_row():
    good, bad = (rows.of_finished(finished(it), PRICES) for it in ("good", "bad"))
    bad.cost = 2**63

    assert store.insert([bad, good]) == 1
    assert [row.request_id for row in RequestRow.objects.all()] == ["good"]


@contextlib.contextmanager
def statements() -> Iterator[list[str]]:
    """What is said to the database, also past Django."""
    seen: list[str] = []
    if connection.vendor == "postgresql":
        with CaptureQueriesContext(connection) as captured:
            yield seen
        seen += [query["sql"] for query in captured.captured_queries]
        return
    connection.connection.set_trace_callback(seen.append)
    try:
        yield seen
    finally:
        connection.connection.set_trace_callback(None)


def test_many_rows_are_few_statements():
    batch = [rows.of_finished(finished(str(number)), PRICES) for number in range(500)]
    with statements() as seen:
        store.insert(batch)
    # For SQLite fifteen of 32 rows, one of 16 and one of 4.
    expected = 1 if connection.vendor == "postgresql" else 17
    assert sum(each.startswith("INSERT") for each in seen) == expected
    assert RequestRow.objects.count() == 500
