"""Lists of a pool whose accounts answer as a test says."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from claudeproxy.errors import ClaudeProxyError, RequestRefusedError
from clients.directory import KnownKey
from proxy import endpoints, lists
from proxy.listing import Place
from proxy.lists import PoolList, Query, RelayedError
from proxy.retry import Policy
from proxy.snapshot import Contents
from tests.factories import NOW
from tests.proxy.test_attempts import EAGER, Case, error, reply, saying

KEY = KnownKey(1, "ana", "user", None, is_revoked=False)


@pytest.mark.parametrize(
    ("raw", "query"),
    [
        (b"", Query(b"")),
        (b"limit=5&beta=true", Query(b"beta=true", 5)),
        (b"after_id=a%2Bb&x=%20", Query(b"x=%20", after_id="a+b")),
        (b"before_id=b&limit=1000", Query(b"", 1000, before_id="b")),
        (b"page=&after_id=", Query(b"")),
        (b"%6Cimit=7", Query(b"", 7)),
    ],
)
def test_a_query_is_read_and_the_rest_passes_as_it_came(raw, query):
    assert lists.read_query(raw, pages_by_id=True) == query


@pytest.mark.parametrize("raw", [b"ids=a&ids=b&page=x", b"ids%5B%5D=a&limit=0"])
def test_a_list_of_named_files_passes_untouched(raw):
    assert lists.read_query(raw, pages_by_id=False) == Query(raw, has_ids=True)


@pytest.mark.parametrize(
    "limit",
    [
        *("0", "1001", "-1", "x", "", "1.5", "9" * 5000, "%C2%B2", "1_0"),
        *("0000000011111", "000000001" + "0" * 5000),
    ],
)
def test_a_limit_out_of_range_is_refused(limit):
    with pytest.raises(RequestRefusedError, match="limit: must be a number") as caught:
        lists.read_query(f"limit={limit}".encode(), pages_by_id=True)
    assert caught.value.http_status == 400


def test_a_list_has_one_direction():
    with pytest.raises(RequestRefusedError, match="cannot be used with after_id"):
        lists.read_query(b"before_id=a&after_id=b", pages_by_id=True)


class Accounts(Case):
    """Three accounts with files of their own, and what they were asked."""

    def __init__(self, policy: Policy = EAGER) -> None:
        super().__init__(saying(), policy)
        self.answers: dict[int, Callable[[], httpx.Response]] = {}
        self.files: dict[int, list[dict[str, Any]]] = {1: [], 2: [], 3: []}
        self.queries: list[dict[str, list[str]]] = []
        self.headers: list[httpx.Headers] = []
        self.given_headers: list[tuple[bytes, bytes]] = []

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        account_id = int(request.headers["x-api-key"])
        self.asked.append(account_id)
        target = request.extensions["target"].decode()
        query = parse_qs(target.partition("?")[2])
        self.queries.append(query)
        self.headers.append(request.headers)
        if account_id in self.answers:
            return self.answers[account_id]()
        files, limit = self.files[account_id], int(query["limit"][0])
        start = int(query.get("page", ["0"])[0])
        following = start + limit if start + limit < len(files) else None
        page = {
            "data": files[start : start + limit],
            "next_page": None if following is None else str(following),
            "new_field": 1,
        }
        return reply(200, page)

    def add(self, account_id: int, name: str, second: int) -> None:
        at = (NOW + timedelta(seconds=second)).isoformat()
        self.files[account_id].insert(
            0, {"id": name, "created_at": at, "more": {"kept": 1.50}}
        )

    async def page(self, **query: Any) -> dict[str, Any]:
        endpoint = endpoints.find(b"/v1/files")
        assert endpoint is not None
        request = self.request()
        scope = {**request.scope, "method": "GET", "raw_path": b"/v1/files"}
        scope["headers"] = [*scope["headers"], *self.given_headers]
        request.scope = scope

        async def locate(_: str) -> Place:
            raise AssertionError("no cursor is an id here")

        async with request.resources:
            asked = Query(query.pop("rest", b""), **query)
            made = PoolList(request, endpoint, KEY, asked, "http://gateway")
            body, _ = await made.answer(locate)
        assert (request.record.account, request.record.routing) == (None, "pool")
        return dict(json.loads(body))


@pytest.fixture
def accounts() -> Accounts:
    accounts = Accounts()
    for number in range(7):
        accounts.add(number % 3 + 1, f"file_{number}", number)
    return accounts


async def test_pages_follow_one_another(accounts):
    seen, token = [], None
    while True:
        page = await accounts.page(limit=2, page=token)
        seen += [found["id"] for found in page["data"]]
        token = page["next_page"]
        if token is None:
            break

    assert seen == [f"file_{number}" for number in range(7)][::-1]


async def test_what_is_listed_stays_as_it_was(accounts):
    (first, *_) = (await accounts.page(limit=1))["data"]

    assert first["more"] == {"kept": 1.5}


async def test_other_parameters_go_to_every_account(accounts):
    await accounts.page(rest=b"scope_id=s&beta=true")

    assert sorted(accounts.asked) == [1, 2, 3]
    for query in accounts.queries:
        assert query == {"scope_id": ["s"], "beta": ["true"], "limit": ["20"]}


async def test_an_account_that_fails_once_is_asked_again(accounts):
    trouble = iter([reply(500, error("api_error"))])
    real = accounts.answers

    def once() -> httpx.Response:
        del real[2]
        return next(trouble)

    real[2] = once
    assert len((await accounts.page())["data"]) == 7


@pytest.mark.parametrize("status", [429, 500, 529])
async def test_a_list_without_an_account_is_no_list(accounts, status):
    accounts.answers[2] = lambda: reply(status, error("x_error"))

    with pytest.raises(ClaudeProxyError, match="incomplete") as caught:
        await accounts.page()
    assert caught.value.http_status == 503
    assert caught.value.retry_after


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data": [{"id": 1}]}', b"[]"])
async def test_an_answer_that_is_no_list_is_not_taken_for_an_empty_one(accounts, body):
    accounts.answers[3] = lambda: reply(200, body)

    with pytest.raises(ClaudeProxyError):
        await accounts.page()


@pytest.mark.parametrize("data", [[], [{"id": "a", "created_at": "2026-01-01"}]])
async def test_a_list_that_leads_back_is_not_followed_in_circles(accounts, data):
    accounts.answers[2] = lambda: reply(200, {"data": data, "next_page": "again"})

    with pytest.raises(ClaudeProxyError):
        await accounts.page()
    assert accounts.asked.count(2) <= 2


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00", "9999-12-31T23:59:59"])
async def test_a_time_without_a_zone_is_in_utc(accounts, at):
    accounts.files[2] = [{"id": "odd", "created_at": at}]
    shown = [found["id"] for found in (await accounts.page())["data"]]

    assert shown.index("odd") == (0 if at.startswith("9") else len(shown) - 1)


async def test_what_accounts_of_one_workspace_list_is_shown_once(accounts):
    accounts.files = dict.fromkeys((1, 2, 3), accounts.files[1])
    seen, token = [], None
    while True:
        page = await accounts.page(limit=1, page=token)
        seen += [found["id"] for found in page["data"]]
        token = page["next_page"]
        if token is None:
            break

    assert seen == ["file_6", "file_3", "file_0"]


async def test_an_accounts_question_is_not_for_a_part_of_an_answer(accounts):
    accounts.given_headers = [(b"range", b"bytes=0-9"), (b"anthropic-beta", b"b")]
    await accounts.page()

    for headers in accounts.headers:
        assert "range" not in headers
        assert headers["anthropic-beta"] == "b"


@pytest.mark.parametrize("status", [403, 404])
async def test_an_account_that_may_have_none_has_none(accounts, status):
    accounts.answers[2] = lambda: reply(status, error("permission_error"))
    page = await accounts.page()

    shown = [found["id"] for found in page["data"]]
    assert shown == ["file_6", "file_5", "file_3", "file_2", "file_0"]


async def test_if_nobody_may_list_the_caller_reads_why(accounts):
    for number in (1, 2, 3):
        accounts.answers[number] = lambda: reply(403, error("permission_error"))

    with pytest.raises(RelayedError) as caught:
        await accounts.page()
    assert caught.value.served.reply.status == 403


async def test_what_the_upstream_says_of_the_request_is_the_answer(accounts):
    accounts.answers[1] = lambda: reply(400, error("invalid_request_error"))

    with pytest.raises(RelayedError) as caught:
        await accounts.page(rest=b"source=nonsense")
    assert caught.value.served.reply.status == 400


@pytest.mark.parametrize("token", ["x", "page_", "page_e30", "page_" + "a" * 20_000])
async def test_a_foreign_token_is_refused_clearly(accounts, token):
    with pytest.raises(RequestRefusedError, match="page: must be the next_page"):
        await accounts.page(page=token)
    assert accounts.asked == []


async def test_without_accounts_there_is_no_list(accounts):
    accounts.gateway.snapshot.contents = Contents()

    with pytest.raises(ClaudeProxyError, match="no Claude account yet"):
        await accounts.page()
