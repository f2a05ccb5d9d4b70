import asyncio
import gc
import json
import weakref
from datetime import timedelta

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from structlog.testing import capture_logs

from proxy import spool
from proxy.catalogue import Catalogue
from proxy.errors import Stage, UpstreamUnavailableError
from proxy.gateway import Gateway
from proxy.handler import GatewayHandler
from proxy.record import End
from proxy.refresher import Refresher
from proxy.snapshot import Snapshot
from proxy.spool import FileBody
from proxy.upstream import Upstream
from tests.proxy.test_spool import until_none_in
from usage.entries import Finished
from usage.ledger import NoLedger


async def unsendable(request):
    response = HttpResponse(b"ok")
    response.headers["x-odd"] = "a\x7fb"
    return response


async def broken(request):
    async def pieces():
        yield b"begun"
        raise KeyError("sk-ant-secret")

    return StreamingHttpResponse(pieces())


async def unclean(request):
    def fail():
        raise KeyError("sk-ant-secret")

    request.resources.callback(fail)
    return HttpResponse(b"ok")


async def waiting(request):
    request.scope["state"]["is_waiting"].set()
    await asyncio.Event().wait()


async def keeping(request):
    body = await request.read_body(3_000_000, 5, may_spool=True)
    request.scope["state"]["kept"] = body
    return HttpResponse(str(len(body)))


async def watched(request):
    request.scope["state"]["served"] = weakref.ref(request)
    await request.read_body(100, 5)
    return HttpResponse(b"ok")


async def cut_off(request):
    request.scope["state"]["served"] = weakref.ref(request)
    await request.read_body(100, 5)
    error = UpstreamUnavailableError(Stage.PERHAPS_EXECUTED, "cut")
    raise error


async def declared(request):
    state = request.scope["state"]

    async def pieces():
        yield b"al"
        state["told"].append(list(state["gateway"].ledger.ends))
        yield b"l"
        state["told"].append(list(state["gateway"].ledger.ends))

    response = StreamingHttpResponse(pieces())
    response.headers["content-length"] = "3"
    return response


class Told(NoLedger):
    """Remembers how requests ended."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def finish(self, entry: Finished) -> None:
        self.ends.append(entry.end_reason)


urlpatterns = [
    path(f"v1/{view.__name__}", view)
    for view in (
        unsendable,
        broken,
        unclean,
        waiting,
        keeping,
        watched,
        cut_off,
        declared,
    )
]


@pytest.fixture
async def state(settings):
    settings.GATEWAY_URLCONF = __name__
    upstream = Upstream("http://127.0.0.1:9", read_timeout=timedelta(seconds=1))
    snapshot = Snapshot()
    gateway = Gateway(snapshot, upstream, Refresher(snapshot), Catalogue(snapshot))
    yield {"gateway": gateway, "is_waiting": asyncio.Event()}
    await upstream.aclose()


async def serve(state, target, *pieces):
    """Serve a request as the server does; return what is sent."""
    sent = []
    messages = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    scope = {
        "type": "http",
        "method": "GET",
        "path": target,
        "raw_path": target.encode(),
        "query_string": b"",
        "headers": [],
        "state": state,
    }

    async def receive():
        if messages:
            return messages.pop(0)
        if pieces:
            await asyncio.sleep(0)  # the caller is watched by then
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    await GatewayHandler()(scope, receive, send)
    return sent


def ends_of(lines):
    return [
        (line["end"], line["status"]) for line in lines if line["event"] == "request"
    ]


async def test_an_answer_that_cannot_be_sent_becomes_the_apis_envelope(state):
    with capture_logs() as lines:
        start, message = await serve(state, "/v1/unsendable")

    answer = json.loads(message["body"])
    headers = {name.lower(): value for name, value in start["headers"]}
    assert start["status"] == 500
    assert headers[b"content-type"] == b"application/json"
    assert answer["error"]["type"] == "api_error"
    assert answer["request_id"].encode() == headers[b"request-id"]
    assert ends_of(lines) == [(End.FAILED, 500)]


@pytest.mark.parametrize("name", ["unsendable", "broken", "unclean"])
async def test_a_fault_is_logged_once_with_the_id_of_its_request(state, name):
    with capture_logs() as lines:
        await serve(state, f"/v1/{name}")

    (fault,) = [line for line in lines if line["event"] == "request_failed"]
    (line,) = [line for line in lines if line["event"] == "request"]
    assert fault["request_id"] == line["request_id"]
    assert line["end"] is End.FAILED


async def test_an_answer_that_fails_on_its_way_is_left_without_its_end(state):
    with capture_logs() as lines:
        start, *rest = await serve(state, "/v1/broken")

    assert start["status"] == 200
    assert [(m["body"], m["more_body"]) for m in rest] == [(b"begun", True)]
    assert ends_of(lines) == [(End.FAILED, 200)]


async def test_an_answer_that_is_out_is_not_followed_by_another(state):
    start, *rest = await serve(state, "/v1/unclean")

    assert start["status"] == 200
    assert [(m["body"], m["more_body"]) for m in rest] == [(b"ok", False)]


async def test_the_ledger_is_told_of_an_answer_before_its_last_byte_is_out(state):
    state["told"], state["gateway"].ledger = [], Told()
    await serve(state, "/v1/declared")

    assert state["told"] == [[], ["complete"]]
    assert state["gateway"].ledger.ends == ["complete"]


@pytest.mark.parametrize("name", ["watched", "cut_off"])
async def test_a_request_is_gone_without_the_garbage_collector(state, name):
    gc.disable()
    try:
        await serve(state, f"/v1/{name}", b"body")
        await asyncio.sleep(0)  # the end of the task that watched the caller
        assert state["served"]() is None
    finally:
        gc.enable()


async def test_a_request_that_the_server_ends_counts_as_drained(state):
    with capture_logs() as lines:
        task = asyncio.create_task(serve(state, "/v1/waiting"))
        await state["is_waiting"].wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert ends_of(lines) == [(End.DRAINED, 0)]


async def test_a_large_body_is_there_as_long_as_its_request(state, settings, tmp_path):
    settings.DATA_DIR = tmp_path
    with capture_logs() as lines:
        _, message = await serve(state, "/v1/keeping", bytes(1_500_000), bytes(500_000))

    (line,) = [line for line in lines if line["event"] == "request"]
    assert message["body"] == b"2000000"
    assert line["request_bytes"] == 2_000_000
    assert isinstance(state["kept"], FileBody)
    await until_none_in(tmp_path / "bodies")


async def test_a_disk_that_is_full_is_told_in_the_apis_envelope(
    state, settings, tmp_path, monkeypatch
):
    settings.DATA_DIR = tmp_path
    monkeypatch.setattr(spool, "_RESERVE_BYTES", 2**62)
    start, message = await serve(state, "/v1/keeping", bytes(1_500_000), b"x")

    error = json.loads(message["body"])["error"]
    assert start["status"] == 507
    assert error["type"] == "api_error"
    assert "DATA_DIR" in error["message"]
    assert (b"x-should-retry", b"false") in [
        (name.lower(), value) for name, value in start["headers"]
    ]
