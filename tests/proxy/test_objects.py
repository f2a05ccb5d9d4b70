"""Which account a request is bound to, and when what an answer shows is stored."""

import json
from datetime import timedelta

import pytest

from accounts.status import ObjectKind
from claudeproxy.errors import ClaudeProxyError, RequestRefusedError
from clients.directory import KnownKey
from proxy import endpoints, objects
from proxy.asks import Pin, Served
from proxy.errors import ThreadNotFoundError
from proxy.handler import GatewayRequest
from proxy.owners import Owners
from proxy.sse import FrameReader
from tests.proxy.test_attempts import Case, event, saying

KEY = KnownKey(1, "ana", "user", None, is_revoked=False)


class Remembered(Owners):
    """A memory without a database, which says what it was asked and told."""

    def __init__(self, known=()):
        super().__init__()
        self.known = dict(known)
        self.looked_up = []
        self.told = []

    async def find(self, object_ids, pool):
        self.looked_up += object_ids
        return {i: self.known[i] for i in object_ids if i in self.known}

    async def remember(self, seen):
        self.told += [possession.object_id for possession in seen]


def request_with(**known: int) -> tuple[GatewayRequest, Remembered]:
    case = Case(saying())
    case.gateway.owners = owners = Remembered(known)
    return case.request(), owners


@pytest.mark.parametrize(
    ("ids", "thread", "pin"),
    [
        ([], None, None),
        (["unknown"], None, None),
        (["unknown", "b", "c"], None, Pin(2, "b")),
        (["a"], "msg_1", Pin(1, "a")),
        ([], "msg_1", Pin(1, "msg_1", is_thread=True)),
        (["unknown"], "msg_unknown", None),
    ],
)
async def test_what_a_request_names_says_where_it_goes(ids, thread, pin):
    request, _ = request_with(a=1, msg_1=1, b=2, c=2)

    assert await objects.pin_of(request, ids, thread) == pin


async def test_objects_of_two_accounts_are_named_to_the_caller():
    request, _ = request_with(a=1, b=2)
    with pytest.raises(RequestRefusedError, match="a and b belong") as caught:
        await objects.pin_of(request, ["a", "unknown", "b"])

    assert caught.value.http_status == 400
    assert "one client key" in str(caught.value)


async def test_a_thread_elsewhere_gives_way_to_files():
    request, _ = request_with(a=1, msg_2=2)

    with pytest.raises(ThreadNotFoundError):
        await objects.pin_of(request, ["a"], "msg_2")


@pytest.mark.parametrize("text", ["\0", "a\0b", "", "x" * 201, "a/b", "' or 1=1", "é"])
async def test_what_cannot_be_an_id_is_not_looked_up(text):
    request, owners = request_with()

    assert await objects.pin_of(request, [text], text) is None
    assert owners.looked_up == []


async def test_a_batch_may_not_name_more_than_can_be_looked_up():
    request, owners = request_with()
    names = [{"file_id": f"file_{i}"} for i in range(objects.MOST_REFERENCES + 1)]
    endpoint = endpoints.find(b"/v1/messages/batches")
    assert endpoint is not None

    with pytest.raises(RequestRefusedError, match="more than 5000"):
        await objects.make(request, endpoint, KEY, json.dumps(names).encode())
    assert owners.looked_up == []


async def test_a_search_takes_no_longer_than_a_request_may(settings):
    settings.REQUEST_TIMEOUT = timedelta(milliseconds=50)
    case = Case(lambda _: "silent")
    case.gateway.owners = Remembered()
    request = case.request()
    request.scope = {**request.scope, "method": "GET", "raw_path": b"/v1/files/file_1"}
    endpoint = endpoints.find(b"/v1/files/file_1")
    assert endpoint is not None

    async with request.resources:
        with pytest.raises(ClaudeProxyError, match="not all of them could be asked"):
            await objects.by_id(request, endpoint, KEY, b"")
    assert case.asked == [1]


async def test_what_a_stream_shows_is_stored_before_it_leaves():
    owners = Remembered()
    start = event(
        "message_start", {"message": {"id": "msg_1"}, "type": "message_start"}
    )
    end = event("message_delta", {"delta": {"container": {"id": "container_1"}}})
    served = Served(None, frames=FrameReader())  # type: ignore[arg-type]  # not read

    async def content():
        yield start
        assert owners.told == ["msg_1"]
        yield end

    watched = await objects.watched(content(), served, owners, 1, is_thread=True)
    seen = []
    async for frames in watched:
        seen.append(frames)
        assert len(owners.told) == len(seen)
    assert seen == [start, end]
    assert owners.told == ["msg_1", "container_1"]


async def test_a_stream_that_is_left_ends_what_it_came_from():
    has_ended = False

    async def content():
        nonlocal has_ended
        try:
            yield b"frames"
            yield b"more"
        finally:
            has_ended = True

    served = Served(None, frames=FrameReader())  # type: ignore[arg-type]  # not read
    watched = await objects.watched(content(), served, Remembered(), 1, is_thread=True)
    async for _ in watched:
        break
    await watched.aclose()  # type: ignore[attr-defined]  # it is a generator

    assert has_ended


def test_every_kind_that_is_made_here_is_listed():
    made = {e.kind for e in endpoints.ENDPOINTS if e.is_collection}

    assert made == {ObjectKind.BATCH, ObjectKind.FILE, ObjectKind.SKILL}
