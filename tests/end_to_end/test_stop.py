"""A gateway that is told to stop lets its streams end, one way or another."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anthropic
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end import gateway as gateways
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import Wire, ask, frames, parse, request

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
