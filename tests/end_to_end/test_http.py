"""HTTP itself: what is odd is served right, what is wrong is refused."""

import contextlib
import json
from collections.abc import Sequence

import pytest

from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.checks import assert_envelope
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import (
    Wire,
    ask,
    chunked,
    exchange,
    frames,
    head,
    parse,
    request,
)

pytestmark = pytest.mark.processes

MEBIBYTE = 1024**2


def valid_start(gateway: Gateway) -> list[str]:
    return [
        "POST /v1/messages HTTP/1.1",
        "host: gateway.test",
        "connection: close",
        f"x-api-key: {gateway.key}",
        "anthropic-version: 2023-06-01",
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ["anthropic-beta: a\rx-injected: b"],
        ["anthropic-beta: a\nx-injected: b"],
        ["anthropic-beta: a", " x-injected: folded"],
        ["anthropic-beta: a\0b"],
        ["anthropic-beta : a"],
        ["anthropic\x01beta: a"],
        [": nameless"],
        ["no colon at all"],
        ["content-length: 2", "content-length: 3"],
        ["content-length: -1"],
        ["content-length: 0x2"],
        ["content-length: 2", "transfer-encoding: chunked"],
        ["transfer-encoding: chunked, identity"],
        ["transfer-encoding: \x0bchunked"],
    ],
    ids=range(14),
)
def test_malformed_head_never_becomes_another_request(
    gateway: Gateway, sandbox: Sandbox, lines: Sequence[str]
) -> None:
    first, *rest = valid_start(gateway)
    data = "\r\n".join([first, *rest, *lines, "", "{}"]).encode("latin-1")
    with Wire(gateway.port) as wire:
        wire.send(data)
        answer = parse(wire.rest())
    assert answer.status == 400
    entries = sandbox.log.after()
    assert len(entries) <= 1
    for entry in entries:
        assert "x-injected" not in dict(entry.headers)
        assert not any("\n" in v or "\r" in v for _, v in entry.headers)


def test_second_request_in_a_body_is_never_served(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    inner = request(ask("smuggled"), key=gateway.key)
    exchange(gateway.port, request(inner, key=gateway.key))
    assert [entry.body_bytes for entry in sandbox.log.after()] == [len(inner)]


@pytest.mark.parametrize(
    "line",
    [
        "POST /v1/messages HTTP/3.1",
        "POST /v1/messages x HTTP/1.1",
        "POST /v1/messages?a=b c HTTP/1.1",
        "P\xd6ST /v1/messages HTTP/1.1",
        "BREW /v1/messages HTTP/1.1",
        "GARBAGE",
    ],
)
def test_malformed_request_line_is_refused(
    gateway: Gateway, sandbox: Sandbox, line: str
) -> None:
    pairs = [
        ("host", "gateway.test"),
        ("x-api-key", gateway.key),
        ("connection", "close"),
    ]
    assert exchange(gateway.port, head(line, pairs)).status == 400
    assert sandbox.log.after() == []


def test_absolute_address_in_the_request_line_leads_nowhere_else(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    target = "http://elsewhere.test/v1/messages"
    answer = exchange(gateway.port, request(ask(), key=gateway.key, target=target))
    assert answer.status in {200, 400, 404}
    for entry in sandbox.log.after():
        assert dict(entry.headers)["host"] == gateway.settings[
            "UPSTREAM_BASE_URL"
        ].removeprefix("http://")
        assert entry.path == "/v1/messages"


@pytest.mark.parametrize("target", ["/v1/messages?q=\xe9\xff", "/v1/models/caf\xe9"])
def test_target_beyond_ascii_is_refused_or_passes_verbatim(
    gateway: Gateway, sandbox: Sandbox, target: str
) -> None:
    answer = exchange(gateway.port, request(ask(), key=gateway.key, target=target))
    entries = sandbox.log.after()
    assert [f"{e.path}?{e.query}" for e in entries] == ([target] if entries else [])
    assert answer.status == 200 if entries else answer.status in {400, 404, 405}


@pytest.mark.parametrize(
    "endless",
    [b"x" * MEBIBYTE, b"x-many: some value\r\n" * (MEBIBYTE // 20)],
    ids=["one line", "many lines"],
)
def test_endless_head_is_refused(gateway: Gateway, endless: bytes) -> None:
    with Wire(gateway.port, patience_seconds=2) as wire:
        with contextlib.suppress(ConnectionError):
            wire.send(b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nx-long: ")
            wire.send(endless)
        data = wire.rest()
    assert_envelope(parse(data), 431, "invalid_request_error")


def test_what_is_no_request_is_answered_in_the_apis_envelope(gateway: Gateway) -> None:
    with Wire(gateway.port) as wire:
        wire.send(b"GARBAGE\r\n\r\n")
        # More than both sockets hold: none of it may turn the answer into a reset.
        wire.send(b"x" * 16 * MEBIBYTE)
        answer = parse(wire.rest())
    assert_envelope(answer, 400, "invalid_request_error")


@pytest.mark.parametrize(
    "lines",
    [
        ["transfer-encoding: gzip, chunked"],
        ["transfer-encoding: gzip", "transfer-encoding: chunked"],
    ],
    ids=["one line", "two lines"],
)
def test_body_in_a_coding_we_do_not_know_is_refused_unread(
    gateway: Gateway, sandbox: Sandbox, lines: Sequence[str]
) -> None:
    first, *rest = valid_start(gateway)
    with Wire(gateway.port) as wire:
        wire.send("\r\n".join([first, *rest, *lines, "", ""]).encode())
        wire.receive_until(b'"request_id"')
        wire.send(chunked([b"x"]))
        answer = parse(wire.rest())
    assert_envelope(answer, 501, "invalid_request_error")
    assert sandbox.log.after() == []


def test_http_1_0_gets_a_stream_without_chunks(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    data = request(ask(stream=True), key=gateway.key)
    with Wire(gateway.port) as wire:
        wire.send(data.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1))
        top, _, body = wire.rest().partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in top
    assert b"connection: close" in top
    kinds = [frame.split(b"\n")[0] for frame in frames(body)]
    assert (kinds[0], kinds[-1]) == (b"event: message_start", b"event: message_stop")
    assert all(frame.startswith(b"event: ") for frame in frames(body))


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunks"])
def test_offer_to_upgrade_is_ignored_and_the_body_arrives(
    gateway: Gateway, sandbox: Sandbox, protocol: str, is_chunked: bool
) -> None:
    body = json.dumps(ask()).encode()
    framing = ("content-length", str(len(body)))
    if is_chunked:
        framing = ("transfer-encoding", "chunked")
    pairs = [
        ("host", "localhost"),
        ("connection", "close, Upgrade, HTTP2-Settings"),
        ("upgrade", protocol),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("x-api-key", gateway.key),
        ("anthropic-version", "2023-06-01"),
        framing,
    ]
    sent = chunked([body[:20], body[20:]]) if is_chunked else body
    data = head("POST /v1/messages HTTP/1.1", pairs) + sent
    answer = exchange(gateway.port, data)
    (entry,) = sandbox.log.after()
    assert entry.body_bytes == len(body)
    assert answer.status == 200


def with_trailers(pairs: Sequence[tuple[str, str]], *trailers: str) -> bytes:
    framing = [("host", "localhost"), ("connection", "close")]
    framing.append(("transfer-encoding", "chunked"))
    body = chunked([json.dumps(ask()).encode()])[:-2]
    end = "".join(f"{trailer}\r\n" for trailer in [*trailers, ""])
    return head("POST /v1/messages HTTP/1.1", [*framing, *pairs]) + body + end.encode()


def test_trailer_is_not_taken_for_a_header(gateway: Gateway, sandbox: Sandbox) -> None:
    pairs = [("x-api-key", gateway.key), ("anthropic-version", "2023-06-01")]
    data = with_trailers(pairs, "anthropic-beta: trailing")
    assert exchange(gateway.port, data).status == 200
    (entry,) = sandbox.log.after()
    assert "anthropic-beta" not in dict(entry.headers)


def test_key_in_a_trailer_is_no_key(gateway: Gateway) -> None:
    data = with_trailers([], f"x-api-key: {gateway.key}")
    assert exchange(gateway.port, data).status == 401


def test_body_that_waits_to_be_asked_for_is_asked_for(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    body = json.dumps(ask()).encode()
    data = request(body, key=gateway.key, headers=[("expect", "100-continue")])
    with Wire(gateway.port) as wire:
        wire.send(data.removesuffix(body))
        wire.receive_until(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.received = b""
        wire.send(body)
        assert parse(wire.rest()).status == 200


def test_body_that_waits_to_be_asked_for_is_not_when_the_key_is_wrong(
    gateway: Gateway,
) -> None:
    body = json.dumps(ask()).encode()
    data = request(body, key="wrong", headers=[("expect", "100-continue")])
    with Wire(gateway.port) as wire:
        wire.send(data.removesuffix(body))
        assert parse(wire.receive_until(b"request_id")).status == 401


def test_connection_serves_on_after_a_refusal(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    pairs = [("host", "gateway.test"), ("x-api-key", "wrong"), ("content-length", "2")]
    with Wire(gateway.port) as wire:
        wire.send(head("POST /v1/messages HTTP/1.1", pairs) + b"{}")
        wire.receive_until(b'"request_id"')
        wire.received = b""
        wire.send(request(ask(), key=gateway.key))
        assert parse(_after_first(wire.rest())).status == 200


def _after_first(data: bytes) -> bytes:
    return data[data.index(b"HTTP/1.1 ") :]


def test_caller_who_sends_and_shuts_its_side_is_let_go(gateway: Gateway) -> None:
    before = gateway.worker().num_fds()
    with Wire(gateway.port) as wire:
        wire.send(head("POST /v1/messages HTTP/1.1", [("host", "x")])[:-2])
    until(lambda: gateway.worker().num_fds() <= before)


def test_caller_who_shuts_its_side_counts_as_gone(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"hang": "before_head"})
    with Wire(gateway.port) as wire:
        wire.send(request(ask(), key=gateway.key))
        sandbox.log.wait_for(lambda entries: any(entry.model for entry in entries))
        wire.shut()
        assert wire.rest() == b""
    (entry,) = sandbox.log.wait_for(lambda entries: all(e.outcome for e in entries))
    assert entry.client_gone_after_ms is not None
