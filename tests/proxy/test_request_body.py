import asyncio

import pytest

from claudeproxy.errors import RequestRefusedError
from proxy import request_body
from proxy.errors import CallerGoneError
from proxy.request_body import RequestBody

CHUNKED = [(b"transfer-encoding", b"chunked")]


def body_of(*pieces, headers=()):
    """A body that comes in these pieces, and then no further."""
    messages = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    if messages:
        messages[-1]["more_body"] = False
    return RequestBody(list(headers), playing(messages))


def playing(messages):
    left = iter(messages)

    async def receive():
        return next(left, None) or await asyncio.Event().wait()

    return receive


async def test_a_body_is_taken_in_whole():
    body = body_of(b"ab", b"", b"cd")

    assert await body.take(4, 5) == b"abcd"
    assert body.is_complete


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (body_of(b"ab", b"cde", headers=CHUNKED), 413),
        (body_of(b"abcde", headers=[(b"content-length", b"5")]), 413),
        (body_of(), 408),
        (body_of(b"ab", headers=[(b"transfer-encoding", b"gzip, chunked")]), 501),
        (body_of(b"ab", headers=[(b"transfer-encoding", b"gzip"), *CHUNKED]), 501),
        (body_of(b"ab", headers=[*CHUNKED, *CHUNKED]), 501),
    ],
    ids=["large", "said to be large", "slow", "coded", "coded in two lines", "twice"],
)
async def test_a_body_that_cannot_be_taken_is_refused(body, status):
    with pytest.raises(RequestRefusedError) as caught:
        await body.take(4, 0.01)

    assert caught.value.http_status == status


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b" chunked "])
async def test_chunked_is_understood_however_it_is_written(value):
    body = body_of(b"ab", headers=[(b"transfer-encoding", value)])

    assert await body.take(4, 5) == b"ab"


async def test_a_caller_who_leaves_ends_the_taking():
    body = RequestBody([], playing([{"type": "http.disconnect"}]))

    with pytest.raises(CallerGoneError):
        await body.take(4, 5)


@pytest.mark.parametrize(
    ("headers", "must_be"),
    [
        ([], False),
        ([(b"content-length", b"1000")], False),
        ([(b"content-length", b"2000000")], True),
        (CHUNKED, True),
    ],
    ids=["none", "small", "large", "unknown"],
)
async def test_only_what_the_server_should_not_read_is_awaited(headers, must_be):
    assert body_of(headers=headers).must_be_awaited is must_be


async def test_a_body_that_has_come_is_not_awaited():
    body = body_of(b"ab", headers=CHUNKED)
    await body.take(4, 5)

    assert not body.must_be_awaited


@pytest.mark.parametrize("limit", ["_LINGER_BYTES", "_LINGER_SECONDS", None])
async def test_a_caller_is_listened_to_until_its_end_or_a_limit(monkeypatch, limit):
    if limit is not None:
        monkeypatch.setattr(request_body, limit, 0.01)
    pieces = [b"ab"] * 10
    body = body_of(*pieces) if limit != "_LINGER_SECONDS" else body_of()
    async with asyncio.timeout(5):
        await body.linger()

    assert body.is_complete is (limit is None)


async def test_a_caller_who_leaves_is_listened_to_no_longer():
    body = RequestBody(CHUNKED, playing([{"type": "http.disconnect"}]))
    await body.linger()

    assert not body.is_complete
