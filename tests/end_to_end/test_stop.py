"""A gateway that is told to stop lets its streams end, one way or another."""

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anthropic
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end import gateway as gateways
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.load import Caller, question
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import Answer, Wire, ask, frames, parse, request

pytestmark = pytest.mark.processes


@contextmanager
def draining(
    template: Furnished, directory: Path, upstream: SandboxServer, timeout: str
) -> Iterator[Gateway]:
    upstream.sandbox.reset()
    with gateways.running(
        template,
        directory,
        upstream_url=upstream.url,
        web_only=False,
        DRAIN_TIMEOUT=timeout,
    ) as gateway:
        yield gateway


def stop_during_stream(gateway: Gateway, wire: Wire) -> bytes:
    """Tell the gateway to stop while a stream runs; return the stream's body."""
    wire.send(request(ask(stream=True), key=gateway.key))
    wire.receive_until(b"event: content_block_delta")
    gateway.process.send_signal(signal.SIGTERM)
    answer = parse(wire.rest())
    assert answer.is_whole
    return answer.body


def test_stream_completes_within_the_time_for_draining(
    template: Furnished, tmp_path: Path, sandbox_server: SandboxServer
) -> None:
    with draining(template, tmp_path, sandbox_server, "20s") as gateway:
        sandbox_server.sandbox.script.add("*", {"frames": 50, "frame_delay_ms": 10})
        with Wire(gateway.port) as wire:
            body = stop_during_stream(gateway, wire)
        assert frames(body)[-1].startswith(b"event: message_stop\n")
        assert body.count(b"event: content_block_delta\n") == 50
        assert gateway.process.wait(15) == 0
        assert gateway.requests_logged()[-1]["end"] == "complete"


def test_stream_ends_with_an_error_when_the_time_for_draining_is_over(
    template: Furnished, tmp_path: Path, sandbox_server: SandboxServer
) -> None:
    with draining(template, tmp_path, sandbox_server, "200ms") as gateway:
        sandbox_server.sandbox.script.add("*", {"hang": 6})
        with Wire(gateway.port) as wire:
            body = stop_during_stream(gateway, wire)
        last = frames(body)[-1]
        assert last.startswith(b"event: error\n")
        assert b"overloaded_error" in last
        assert gateway.process.wait(15) == 0
        assert gateway.requests_logged()[-1]["end"] == "drained"


def test_request_that_waits_for_its_answer_is_told_when_the_time_is_over(
    template: Furnished, tmp_path: Path, sandbox_server: SandboxServer
) -> None:
    with draining(template, tmp_path, sandbox_server, "200ms") as gateway:
        sandbox: Sandbox = sandbox_server.sandbox
        sandbox.script.add("*", {"hang": "before_head"})
        with Wire(gateway.port) as wire:
            wire.send(request(ask(), key=gateway.key))
            sandbox.log.wait_for(lambda entries: any(e.model for e in entries))
            gateway.process.send_signal(signal.SIGTERM)
            answer = parse(wire.rest())
        assert answer.status == 503
        assert answer.json()["error"]["type"] == "overloaded_error"
        assert gateway.process.wait(15) == 0


def test_idle_connection_holds_up_no_stop(
    template: Furnished, tmp_path: Path, sandbox_server: SandboxServer
) -> None:
    with (
        draining(template, tmp_path, sandbox_server, "20s") as gateway,
        anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key) as client,
    ):
        client.messages.create(**ask())
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: gateway.process.poll() is not None, within_seconds=5)
        assert gateway.process.returncode == 0


# --- many at once

COUNT = 100


def stop_during_streams(gateway: Gateway) -> list[Answer]:
    """Tell the gateway to stop while many streams run; return what came of them."""
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(gateway.port)) for _ in range(COUNT)]
        for number, wire in enumerate(wires):
            body = ask(f"Stream {number}", stream=True)
            wire.send(request(body, key=gateway.key))
        for wire in wires:
            wire.receive_until(b"event: content_block_delta")
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: not accepts(gateway.port))
        return [parse(wire.rest()) for wire in wires]


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionError:
        return False
    return True


def test_a_hundred_streams_complete_after_the_signal(
    template: Furnished, tmp_path: Path, sandbox_server: SandboxServer
) -> None:
    with draining(template, tmp_path, sandbox_server, "30s") as gateway:
        step = {"frames": 60, "frame_delay_ms": 50, "times": COUNT}
        sandbox_server.sandbox.script.add("*", step)
        answers = stop_during_streams(gateway)
        assert gateway.process.wait(15) == 0
    for answer in answers:
        assert answer.is_whole
        assert answer.body.count(b"event: content_block_delta\n") == 60
        assert frames(answer.body)[-1].startswith(b"event: message_stop\n")
    assert {entry["end"] for entry in gateway.requests_logged()} == {"complete"}


def test_a_hundred_streams_end_with_an_error_when_the_time_is_over(
    template: Furnished, tmp_path: Path, sandbox_server: SandboxServer
) -> None:
    with draining(template, tmp_path, sandbox_server, "1s") as gateway:
        step = {"frames": 2_000, "frame_delay_ms": 50, "times": COUNT}
        sandbox_server.sandbox.script.add("*", step)
        answers = stop_during_streams(gateway)
        assert gateway.process.wait(15) == 0
    for answer in answers:
        *_, last = frames(answer.body)
        assert last.startswith(b"event: error\n")
        assert b"overloaded_error" in last
        assert b"event: message_stop" not in answer.body
    assert {entry["end"] for entry in gateway.requests_logged()} == {"drained"}


# --- connections that are kept


async def test_next_answer_on_a_kept_connection_says_that_it_is_the_last(
    template: Furnished, tmp_path: Path, sandbox_server: SandboxServer
) -> None:
    with draining(template, tmp_path, sandbox_server, "20s") as gateway:
        data = question("Hello", key=gateway.key, stream=False)
        caller = Caller(gateway.port)
        assert (await caller.ask(data)).header("connection") is None
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: not accepts(gateway.port))
        last = await caller.ask(data)
        assert last.status == 200
        assert last.header("connection") == "close"
        assert (caller.connections, caller.stale) == (1, 0)
        assert gateway.process.wait(15) == 0


def test_request_whose_head_has_begun_to_arrive_is_served(
    template: Furnished, tmp_path: Path, sandbox_server: SandboxServer
) -> None:
    with (
        draining(template, tmp_path, sandbox_server, "20s") as gateway,
        Wire(gateway.port) as begun,
        Wire(gateway.port) as idle,
    ):
        data = question("Hello", key=gateway.key, stream=False)
        begun.send(data[:20])
        gateway.health()  # by now that was read
        gateway.process.send_signal(signal.SIGTERM)
        assert idle.rest() == b""  # by now all were told
        begun.send(data[20:])
        answer = parse(begun.rest())
        assert answer.status == 200
        assert answer.header("connection") == "close"
        assert gateway.process.wait(15) == 0
