"""`/api/usage`, as a script uses it."""

import csv
import io
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client
from django.utils import timezone

from clients.models import ClientKeyRole
from tests.factories import make_client_key
from tests.usage.cast import AT, finished
from usage import export, request_log, rollups, rows, shipped, store
from usage.export import REQUEST_COLUMNS
from usage.prices import PriceTable
from usage.request_log import Wanted
from usage.tokens import Tokens, Usage

# Streams are read by threads of their own, which see what is committed.
pytestmark = pytest.mark.django_db(transaction=True)

PRICES = PriceTable(shipped.prices())
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
EVER = {"from": "2026-01-01", "to": "2026-12-31"}


def add(request_id: str = "req_a", at: datetime = AT, **fields: Any) -> None:
    entry = finished(request_id, started_at=at, **fields)
    store.insert([rows.of_finished(entry, PRICES)])


class Api:
    """Calls with an admin key."""

    def __init__(self) -> None:
        key = make_client_key("root", ClientKeyRole.ADMIN).key.reveal()
        self._headers = {"x-api-key": key}
        self._client = Client(headers=self._headers)

    def get(self, path: str = "/api/usage", **asked: Any) -> Any:
        return self._client.get(path, asked)

    def usage(self, **asked: Any) -> dict[str, Any]:
        response = self.get(**{**EVER, **asked})
        assert response.status_code == 200
        found: dict[str, Any] = response.json()
        return found

    def requests(self, **asked: Any) -> list[dict[str, Any]]:
        response = self.get("/api/usage/requests", **{**EVER, **asked})
        assert response.status_code == 200
        found: list[dict[str, Any]] = response.json()["results"]
        return found

    def download(self, **asked: Any) -> str:
        """All requests as CSV, through the asynchronous handler."""

        async def read() -> bytes:
            response: Any = await AsyncClient().get(
                "/api/usage/requests",
                {**EVER, "format": "csv", **asked},
                headers=self._headers,
            )
            assert response.status_code == 200
            assert response.is_async
            return b"".join([part async for part in response])

        return async_to_sync(read)().decode()


@pytest.fixture
def api() -> Api:
    return Api()


def refused_fields(response: Any) -> set[str]:
    assert response.status_code == 400
    return set(response.json()["error"]["fields"])


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


# --- sums


def test_the_total_of_the_last_24_hours_is_what_is_given_unless_asked(api):
    now = timezone.now()
    add("req_a", now - HOUR)
    add("req_b", now - 30 * HOUR)
    found = api.get().json()

    assert found["total"]["requests"] == 1
    assert (found["group_by"], found["groups"]) == (None, [])
    since, until = (datetime.fromisoformat(found[name]) for name in ("from", "to"))
    assert since <= now - DAY < until - DAY
    assert until - since <= 25 * HOUR
    assert since.minute == until.minute == 0


def test_a_total_says_what_was_used_and_what_it_cost(api):
    tokens = Tokens(input=20, output=10, read=5, write_5m=6, write_1h=7)
    add("req_a", usage=Usage(tokens, web_searches=1), account_kind="oauth")
    add("req_b", model_answered="claude-unheard-of")
    total = api.usage()["total"]

    assert total["requests"] == 2
    assert total["input_tokens"] == 40
    assert total["output_tokens"] == 20
    assert total["cache_read_input_tokens"] == 5
    assert total["cache_write_5m_input_tokens"] == 6
    assert total["cache_write_1h_input_tokens"] == 7
    assert total["web_searches"] == 1
    assert total["unpriced"] == 1
    assert total["cost"] == total["notional_cost"]
    assert Decimal(total["cost"]) > Decimal("0.01")
    assert total["first_byte_p50_ms"] == pytest.approx(300, rel=0.16)
    assert total["duration_p99_ms"] == pytest.approx(1234, rel=0.16)


def test_nothing_costs_nothing(api):
    total = api.usage()["total"]

    assert (total["requests"], total["cost"]) == (0, "0")
    assert total["duration_p50_ms"] is None


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("hour", [("2026-11-25T12:00:00Z", 1), ("2026-11-26T12:00:00Z", 1)]),
        ("day", [("2026-11-25", 1), ("2026-11-26", 1)]),
        ("account", [(0, 1), (7, 1)]),
        ("key", [(1, 1), (2, 1)]),
        ("model", [("", 1), ("claude-opus-5-5", 1)]),
        ("outcome", [("refused", 1), ("served", 1)]),
    ],
)
def test_sums_come_by_what_is_asked_for(api, by, groups):
    add("req_a")
    rejected = {"end_reason": "rejected", "status": 429, "model_answered": None}
    nobody = {"account_id": None, "account_name": None, "usage": None}
    add("req_b", AT + DAY, key_id=2, key_name="bob", **rejected, **nobody)
    found = api.usage(group_by=by)
    names = {line["group"]: line["name"] for line in found["groups"]}

    assert [(line["group"], line["requests"]) for line in found["groups"]] == groups
    assert found["total"]["requests"] == 2
    if by == "key":
        assert names == {1: "alice", 2: "bob"}
    if by == "account":
        assert names == {0: None, 7: "ada"}


@pytest.mark.parametrize("path", ["/api/usage", "/api/usage/requests"])
@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        ({"account": "ada"}, {"req_a", "req_c"}),
        ({"account": "7"}, {"req_a", "req_c"}),
        ({"account": "8"}, {"req_b"}),
        ({"key": "bob"}, {"req_b"}),
        ({"key": "1", "outcome": "failed"}, {"req_c"}),
        ({"key": "99"}, set()),
        ({"model": "claude-opus-5-5"}, {"req_a", "req_c"}),
        ({"from": "2026-11-26"}, {"req_b"}),
        ({"to": "2026-11-25"}, {"req_a", "req_c"}),
        ({"to": "2026-11-26T00:00:00+00:00"}, {"req_a", "req_c"}),
        ({"from": "2026-11-25T15:00:00+02:00", "to": "2026-11-25T15:00"}, {"req_c"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_filters_are_the_same_for_sums_and_requests(api, path, asked, ids):
    add("req_a")
    other = {"account_id": 8, "account_name": "bea", "model_answered": "m"}
    add("req_b", AT + DAY, key_id=2, key_name="bob", **other)
    add("req_c", AT + HOUR, end_reason="truncated")
    rollups.roll_up(seconds=60)

    if path == "/api/usage":
        assert api.usage(**asked)["total"]["requests"] == len(ids)
    else:
        assert {row["request_id"] for row in api.requests(**asked)} == ids


@pytest.mark.parametrize("path", ["/api/usage", "/api/usage/requests"])
@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"from": "yesterday"}, "from"),
        ({"from": ""}, "from"),
        ({"to": "2026-13-01"}, "to"),
        ({"to": "0001-01-01"}, "to"),
        ({"to": "9999-12-31"}, "to"),
        ({"to": "9999-12-31T23:59:59-12:00"}, "to"),
        ({"from": "2026-11-25", "to": "2026-11-24"}, "from"),
        ({"account": "nobody of this name"}, "account"),
        ({"account": "9" * 40}, "account"),
        ({"account": "٣"}, "account"),
        ({"key": ""}, "key"),
        ({"key": "a\x00"}, "key"),
        ({"outcome": "lost"}, "outcome"),
        ({"format": "xml"}, "format"),
        ({"form": "csv"}, "form"),
    ],
    ids=str,
)
def test_a_wrong_filter_is_named(api, path, asked, field):
    assert refused_fields(api.get(path, **asked)) == {field}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"cursor": "2"}, "cursor"),
        ({"page_size": "0"}, "page_size"),
        ({"page_size": "501"}, "page_size"),
        ({"group_by": "day"}, "group_by"),
    ],
)
def test_a_wrong_page_is_named(api, asked, field):
    assert refused_fields(api.get("/api/usage/requests", **asked)) == {field}


def test_a_wrong_word_is_answered_with_those_there_are(api):
    response = api.get(group_by="week")

    assert refused_fields(response) == {"group_by"}
    assert "hour, day, account, key, model, outcome" in response.content.decode()


def test_sums_come_as_csv(api):
    add("req_a", key_name="=1+1")
    response = api.get(**EVER, format="csv", group_by="key")
    (line,) = table(response.content.decode())

    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert 'filename="usage.csv"' in response.headers["content-disposition"]
    assert (line["group"], line["name"]) == ("1", "'=1+1")
    assert (line["requests"], line["cost"]) == ("1", "0.00028")
    (total,) = table(api.get(**EVER, format="csv").content.decode())
    assert (total["requests"], "group" in total) == ("1", False)


# --- requests


def test_a_request_has_these_fields(api):
    add("req_a")
    (row,) = api.requests()

    assert list(row) == list(REQUEST_COLUMNS)
    assert row["started_at"] == "2026-11-25T12:30:15.250000Z"
    assert (row["account"], row["key"]) == ("ada", "alice")
    assert (row["status"], row["end_reason"], row["attempts"]) == (200, "complete", 1)
    assert (row["input_tokens"], row["output_tokens"]) == (20, 10)
    assert row["cost"] == "0.00028"
    assert (row["first_byte_ms"], row["duration_ms"], row["bytes"]) == (300, 1234, 900)


def test_pages_follow_each_other_and_hold_each_request_once(api):
    for number in range(5):
        add(f"req_{number}", AT + (number // 2) * HOUR)
    response = api.get("/api/usage/requests", **EVER, page_size=2)
    seen = []
    while True:
        page = response.json()
        seen += [row["request_id"] for row in page["results"]]
        if page["next"] is None:
            break
        # What comes meanwhile is newer, and moves nothing.
        add(f"req_new{len(seen)}", AT + DAY)
        response = api._client.get(page["next"])

    assert seen == [f"req_{number}" for number in reversed(range(5))]


def test_the_next_page_is_of_the_same_span(api):
    now = timezone.now()
    add("req_a", now - HOUR)
    add("req_b", now - 2 * HOUR)
    following = api.get("/api/usage/requests", page_size=1).json()["next"]

    assert "from=" in following
    assert "to=" in following
    (row,) = api._client.get(following).json()["results"]
    assert row["request_id"] == "req_b"


def test_a_request_is_found_by_how_its_id_begins(api):
    add("req_abc")
    add("req_b")

    assert [row["request_id"] for row in api.requests(request_id="req_a")] == [
        "req_abc"
    ]


@pytest.mark.parametrize("count", [1, 40])
def test_a_page_takes_as_many_queries_for_many_requests(
    api, count, django_assert_num_queries
):
    for number in range(count):
        add(f"req_{number}")
    with django_assert_num_queries(2):  # the key, and the page
        api.requests()


def test_all_requests_are_streamed_as_csv(api, monkeypatch):
    monkeypatch.setattr(export, "_STREAM_ROWS", 2)
    for number in range(5):
        add(f"req_{number}")
    text = api.download()
    lines = table(text)

    assert text.startswith(",".join(REQUEST_COLUMNS) + "\r\n")
    assert [line["request_id"] for line in lines] == [
        f"req_{number}" for number in reversed(range(5))
    ]
    (row, *_) = api.requests()
    assert lines[0] == {
        name: "" if value is None else str(value) for name, value in row.items()
    }


def test_a_stream_reads_no_further_than_it_is_taken(api, monkeypatch):
    monkeypatch.setattr(export, "_STREAM_ROWS", 1)
    for number in range(5):
        add(f"req_{number}")
    read: list[int] = []
    chunk = request_log.chunk

    def counted(*args: Any) -> Any:
        read.append(1)
        return chunk(*args)

    monkeypatch.setattr(request_log, "chunk", counted)

    async def take_two_and_leave() -> None:
        stream = export.stream_csv(Wanted())
        await anext(stream)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]

    async_to_sync(take_two_and_leave)()
    assert len(read) == 1


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_no_cell_is_a_formula(api, sign):
    evil = f'{sign}cmd|"/C calc"!A0'
    add("req_a", key_name=evil, account_name=evil, model_answered=evil)
    (line,) = table(api.download())

    assert (line["key"], line["account"], line["model"]) == (f"'{evil}",) * 3


def test_cells_with_commas_quotes_and_line_ends_stay_whole(api):
    name = 'a,"b"\r\nü\n'
    add("req_a", key_name=name)

    assert table(api.download())[0]["key"] == name
