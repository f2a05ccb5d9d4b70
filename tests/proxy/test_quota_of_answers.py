"""Which answers are kept for what they say of limits, and whose limits they are."""

import asyncio

import pytest

from accounts.status import AccountKind
from clients.directory import KnownKey
from proxy import endpoints
from proxy.asks import Ask
from proxy.attempts import Attempts
from proxy.facts import RequestFacts
from proxy.gateway import OpenRequest
from proxy.handler import GatewayRequest
from tests.proxy.scripted import MODEL, Pool, Said, error, stream

PLAN = {"anthropic-ratelimit-unified-5h-utilization": "0.42"}
KEY = {
    "anthropic-ratelimit-requests-limit": "100",
    "anthropic-ratelimit-requests-remaining": "58",
}
HTML = b"<html></html>"


def seen(pool):
    """Account, window and models of what was kept."""
    return [
        (sighting.account_id, window.name, window.model_group)
        for sighting in pool.gateway.quotas.take()
        for window in sighting.windows
    ]


@pytest.mark.parametrize(
    ("said", "is_kept"),
    [
        (Said(headers=PLAN), True),
        (Said(), False),
        (Said(429, error("rate_limit_error"), {**PLAN, "retry-after": "300"}), True),
        (Said(400, error("invalid_request_error"), PLAN), False),
        (Said(401, error("authentication_error"), PLAN), False),
        (Said(500, HTML, PLAN), False),
    ],
)
async def test_answers_are_kept_that_come_from_where_limits_are_known(said, is_kept):
    pool = Pool([said])
    await pool.run()

    assert ((1, "5h", "") in seen(pool)) == is_kept


async def test_a_stream_is_seen_by_its_head():
    said = stream(b'event: content_block_start\ndata: {"type": "x"}\n\n')
    pool = Pool([Said(200, said.body, {**said.headers, **PLAN})])
    await pool.run(is_stream=True)

    assert seen(pool) == [(1, "5h", "")]


async def test_each_account_that_was_asked_is_seen():
    limited = Said(429, error("rate_limit_error"), {**PLAN, "retry-after": "300"})
    pool = Pool([limited, Said(headers=PLAN)])
    await pool.run()

    assert seen(pool) == [(1, "5h", ""), (2, "5h", "")]


@pytest.mark.parametrize(
    ("model", "group"),
    [
        ("claude-opus-4-8-20260101", "Opus 4.5 to 4.8"),
        ("claude-haiku-5-5", "claude-haiku-5-5"),
        (None, ""),
    ],
)
async def test_buckets_belong_to_the_models_that_share_them(model, group):
    pool = Pool([Said(headers=KEY)])
    await pool.run(model)

    assert seen(pool) == [(1, "requests", group)]


@pytest.mark.parametrize("kind", AccountKind)
async def test_buckets_of_other_paths_are_none_of_messages(kind):
    pool = Pool([Said(headers={**KEY, **PLAN})], kind)
    endpoint = endpoints.find(b"/v1/messages/count_tokens")
    assert endpoint is not None
    path = "/v1/messages/count_tokens"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        "state": {"gateway": pool.gateway},
    }
    task = asyncio.current_task()
    assert task is not None
    request = GatewayRequest(scope, None, OpenRequest(task))
    key = KnownKey(1, "ana", "user", None, is_revoked=False)
    async with request.resources:
        await Attempts(request, Ask(endpoint, key, RequestFacts(MODEL), b"{}")).run()

    assert seen(pool) == [(1, "5h", "")]
