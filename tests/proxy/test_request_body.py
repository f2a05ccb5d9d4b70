import asyncio
from typing import Any

import pytest

from claudeproxy.errors import RequestRefusedError
from proxy import request_body, spool
from proxy.errors import CallerGoneError
from proxy.request_body import RequestBody
from proxy.spool import PIECE_BYTES, FileBody, SpoolError
from tests.proxy.test_spool import files_in, until_none_in

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


# --- bodies that may be too large for memory


@pytest.fixture
def folder(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    return tmp_path / "bodies"


def large(pieces, *, headers=CHUNKED, end=None):
    """A body of so many pieces of 100 KB, each of another letter, and what follows."""
    letters = [bytes([97 + number % 26]) for number in range(pieces)]
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": letter * 100_000, "more_body": True}
        for letter in letters
    ]
    if end is not None:
        messages.append(end)
    else:
        messages[-1]["more_body"] = False
    whole = b"".join(letter * 100_000 for letter in letters)
    return RequestBody(list(headers), playing(messages)), whole


@pytest.mark.parametrize("pieces", [11, 21, 22, 50])
async def test_a_large_body_is_kept_in_a_file(folder, pieces):
    body, sent = large(pieces)
    taken = await body.take_spooled(2**30, 5)
    assert isinstance(taken, FileBody)
    read = b"".join([piece async for piece in taken.pieces()])
    taken.close()

    assert read == sent
    assert body.is_complete


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES])
async def test_a_small_body_stays_in_memory(folder, size):
    body = body_of(bytes(size), headers=CHUNKED)

    assert await body.take_spooled(2**30, 5) == bytes(size)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("pieces", "headers"),
    [(20, CHUNKED), (31, CHUNKED), (1, [(b"content-length", b"3000001")])],
    ids=["large", "much larger", "said to be large"],
)
async def test_no_more_than_the_limit_is_kept(folder, pieces, headers):
    body, _ = large(pieces, headers=headers)
    with pytest.raises(RequestRefusedError) as caught:
        await body.take_spooled(1_900_000 if pieces == 20 else 3_000_000, 5)

    assert caught.value.http_status == 413
    await until_none_in(folder)


@pytest.mark.parametrize("pieces", [3, 15])
async def test_a_caller_who_leaves_in_between_leaves_no_file(folder, pieces):
    body, _ = large(pieces, end={"type": "http.disconnect"})
    with pytest.raises(CallerGoneError):
        await body.take_spooled(2**30, 5)

    await until_none_in(folder)


async def test_a_request_that_is_ended_in_between_leaves_no_file(folder):
    body, _ = large(15, end={"type": "http.request", "more_body": True})
    taking = asyncio.create_task(body.take_spooled(2**30, 60))
    async with asyncio.timeout(10):
        while not files_in(folder):  # noqa: ASYNC110  # nobody can tell it
            await asyncio.sleep(0.01)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking

    await until_none_in(folder)


async def test_silence_ends_the_taking_of_a_large_body(folder):
    body, _ = large(15, end={"type": "http.request", "more_body": True})
    with pytest.raises(RequestRefusedError) as caught:
        await body.take_spooled(2**30, 0.1)

    assert caught.value.http_status == 408
    await until_none_in(folder)


async def test_a_large_body_may_take_longer_than_one_silence(folder):
    async def receive():
        await asyncio.sleep(0.05)
        return next(messages)

    messages = iter(
        {"type": "http.request", "body": b"x", "more_body": left > 0}
        for left in reversed(range(30))
    )
    async with asyncio.timeout(10):
        taken = await RequestBody(CHUNKED, receive).take_spooled(2**30, 1)

    assert taken == b"x" * 30


async def test_a_body_the_disk_does_not_take_is_refused(folder, monkeypatch):
    monkeypatch.setattr(spool, "_RESERVE_BYTES", 2**62)
    body, _ = large(15)
    with pytest.raises(SpoolError):
        await body.take_spooled(2**30, 5)

    await until_none_in(folder)


async def test_a_body_that_will_not_fit_is_refused_before_it_has_come(folder):
    declared = 2**50
    body, _ = large(15, headers=[(b"content-length", str(declared).encode())])
    with pytest.raises(SpoolError):
        await body.take_spooled(2**60, 5)

    assert not body.is_complete
    await until_none_in(folder)


async def test_a_foreign_coding_is_refused_of_large_bodies_too():
    body = body_of(b"ab", headers=[(b"transfer-encoding", b"gzip, chunked")])
    with pytest.raises(RequestRefusedError) as caught:
        await body.take_spooled(4, 5)

    assert caught.value.http_status == 501
