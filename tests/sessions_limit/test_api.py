"""`/api/sessions` and `/api/admin/sessions`, as a script uses them."""

from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.dateparse import parse_datetime
from structlog.testing import capture_logs

from clients import issuing
from clients.models import ClientKey, ClientKeyRole
from sessions_limit import references
from sessions_limit.keys import SessionId
from tests.factories import make_client_key
from tests.sessions_limit import visits

pytestmark = pytest.mark.django_db

PATHS = ["/api/sessions", "/api/admin/sessions"]
FIELDS = {
    "id",
    "client",
    "scope",
    "limit",
    "first_seen_at",
    "last_seen_at",
    "expires_at",
    "is_alive",
    "blocked_until",
    "requests",
    "in_flight",
    "accounts",
}


@pytest.fixture
def api() -> Client:
    """Calls with an admin key."""
    issued = make_client_key("root", ClientKeyRole.ADMIN)
    return Client(headers={"x-api-key": issued.key.reveal()})


@pytest.fixture
def alice() -> ClientKey:
    return make_client_key("alice").row


def visit(last: int, key: ClientKey, **fields: Any) -> SessionId:
    return visits.visit(ip_address(f"192.0.2.{last}"), key=key, **fields)


def path(session: SessionId) -> str:
    return f"/api/sessions/{references.write(session)}"


def shown(api: Client, query: str = "") -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = api.get(f"/api/sessions{query}").json()["results"]
    return results


def refusal(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status
    error: dict[str, Any] = response.json()["error"]
    return error


@pytest.mark.parametrize("address", PATHS)
def test_the_list_tells_all_of_a_session(
    api: Client, alice: ClientKey, address: str
) -> None:
    session = visit(1, alice, running=2, requests=42, account_names=("ada",))
    body = api.get(address).json()
    (row,) = body["results"]

    assert set(body) == {"count", "next", "previous", "results"}
    assert set(row) == FIELDS
    assert row["id"] == f"global.{session.digest}"
    assert row["client"] == {
        "ip": "192.0.2.1",
        "user_agent": "claude-cli/2.1",
        "key_id": alice.pk,
        "key_name": "alice",
    }
    assert (row["scope"], row["limit"]) == ("global", 3)
    assert (row["is_alive"], row["blocked_until"]) == (True, None)
    assert (row["requests"], row["in_flight"]) == (42, 2)
    assert row["accounts"] == ["ada"]
    seen, expires = (
        parse_datetime(row[name]) for name in ("last_seen_at", "expires_at")
    )
    assert seen is not None
    assert expires is not None
    assert expires - seen == timedelta(minutes=5)


def test_what_is_not_known_is_null(api: Client, alice: ClientKey) -> None:
    visits.visit(None, key=alice, user_agent="")  # type: ignore[arg-type]
    (row,) = shown(api)

    assert (row["client"]["ip"], row["client"]["user_agent"]) == (None, None)


def test_a_limit_is_that_of_the_key_as_it_is_now(api: Client) -> None:
    own = issuing.issue("own", ClientKeyRole.USER, session_limit=5).row
    visit(1, own)
    (row,) = shown(api)
    assert (row["scope"], row["limit"]) == (f"key:{own.pk}", 5)
    assert row["id"].startswith(f"key-{own.pk}.")

    issuing.limit_sessions(own, None)
    (row,) = shown(api)
    assert (row["scope"], row["limit"]) == (f"key:{own.pk}", None)


def test_a_list_comes_in_pages_and_takes_no_more_queries(
    api: Client, alice: ClientKey
) -> None:
    def page(number: int) -> tuple[int, int]:
        with CaptureQueriesContext(connection) as queries:
            body = api.get(f"/api/sessions?page_size=2&page={number}").json()
        return len(body["results"]), len(queries)

    visit(0, alice, account_names=("gone",))
    (_, few) = page(1)
    for last in range(1, 5):
        visit(last, make_client_key(f"key {last}").row, account_names=(f"a {last}",))

    assert [page(number) for number in (1, 2, 3)] == [(2, few), (2, few), (1, few)]
    assert api.get("/api/sessions?page=2").status_code == 404


def test_a_list_is_narrowed(api: Client, alice: ClientKey) -> None:
    own = issuing.issue("own", ClientKeyRole.USER, session_limit=5).row
    visit(1, alice)
    visit(2, own)
    blocked = visit(3, own, user_agent="curl/8")
    api.delete(f"{path(blocked)}?block=1h")

    def found(query: str) -> str:
        return "".join(sorted(row["client"]["ip"][-1] for row in shown(api, query)))

    assert found("") == "123"
    assert found("?state=alive") == "12"
    assert found("?state=blocked") == "3"
    assert found("?scope=shared") == "1"
    assert found(f"?scope=own&key_id={own.pk}") == "23"
    assert found("?search=OWN+curl") == "3"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=dead", "state"),
        ("scope=global", "scope"),
        ("key_id=alice", "key_id"),
        (f"search={'x' * 201}", "search"),
    ],
)
def test_a_filter_that_is_none_is_named(api: Client, query: str, field: str) -> None:
    error = refusal(api.get(f"/api/sessions?{query}"), 400)

    assert set(error["fields"]) == {field}


def test_a_session_is_ended(api: Client, alice: ClientKey) -> None:
    session, other = visit(1, alice), visit(2, alice)
    with capture_logs() as lines:
        response = api.delete(path(session))

    assert (response.status_code, response.content) == (204, b"")
    assert [row["id"] for row in shown(api)] == [references.write(other)]
    (line,) = [line for line in lines if line["event"] == "session_ended"]
    assert (line["session"], line["actor"]) == (session.digest, "key root")
    assert "GET /api/sessions" in refusal(api.delete(path(session)), 404)["message"]


def test_a_session_is_blocked_and_let_in_again(api: Client, alice: ClientKey) -> None:
    session = visit(1, alice)
    assert api.delete(f"{path(session)}?block=1h").status_code == 204
    (row,) = shown(api)
    assert row["is_alive"] is False
    assert row["blocked_until"] is not None

    assert api.delete(path(session)).status_code == 204
    assert shown(api) == []
    assert api.delete(path(session)).status_code == 404


def test_who_has_ended_already_can_be_blocked(api: Client, alice: ClientKey) -> None:
    session = visit(1, alice)
    api.delete(path(session))

    assert api.delete(f"{path(session)}?block=30m").status_code == 204
    assert [row["is_alive"] for row in shown(api)] == [False]


@pytest.mark.parametrize("name", ["1", "ada", f"global.{'0' * 32}", "key-7.x", "%00"])
@pytest.mark.parametrize("query", ["", "?block=1h"])
def test_who_was_never_here_is_not_found(api: Client, name: str, query: str) -> None:
    error = refusal(api.delete(f"/api/sessions/{name}{query}"), 404)

    assert error["type"] == "not_found_error"
    assert error["message"].startswith("No session with this id")


@pytest.mark.parametrize("block", ["soon", "", "0s", "9d9", "1000d", "-1h", "9" * 400])
def test_a_block_that_is_none_is_named(
    api: Client, alice: ClientKey, block: str
) -> None:
    session = visit(1, alice)
    error = refusal(api.delete(f"{path(session)}?block={block}"), 400)

    assert set(error["fields"]) == {"block"}
    assert [row["is_alive"] for row in shown(api)] == [True]


def test_a_store_that_is_away_is_said_in_words(api: Client, settings: Any) -> None:
    settings.REDIS_URL = visits.NOBODY_THERE
    for response in (
        api.get("/api/sessions"),
        api.delete(f"/api/sessions/global.{'0' * 32}"),
    ):
        error = refusal(response, 503)
        assert error["type"] == "api_error"
        assert "The store of sessions does not answer" in error["message"]


def test_there_is_no_page_of_one_session(api: Client, alice: ClientKey) -> None:
    assert api.get(path(visit(1, alice))).status_code == 405


def test_a_slash_at_the_end_makes_no_difference(api: Client, alice: ClientKey) -> None:
    session = visit(1, alice)

    assert api.get("/api/sessions/").json() == api.get("/api/sessions").json()
    assert api.delete(f"{path(session)}/").status_code == 204
