"""Streams pass at once, whole and with back-pressure; who leaves ends the call."""

import json
import threading
from collections.abc import Callable, Iterator

import anthropic
import pytest

from claudeproxy.sandbox.log import Entry, Outcome
from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.waiting import until, until_still
from tests.end_to_end.wire import Wire, ask, exchange, frames, request

pytestmark = pytest.mark.processes

# Longer than any test waits: what comes earlier was not held back until then.
LONG_MS = 60_000
NOTICED_SECONDS = 0.5


def stream(gateway: Gateway) -> bytes:
    return request(ask(stream=True), key=gateway.key)


@pytest.fixture
def wire(gateway: Gateway) -> Iterator[Wire]:
    with Wire(gateway.port) as wire:
        yield wire


def ended(entries: list[Entry]) -> bool:
    return bool(entries) and all(entry.outcome is not None for entry in entries)


@pytest.mark.parametrize("line_ending", ["\n", "\r\n", "\r"])
def test_stream_that_arrives_byte_by_byte_leaves_whole(
    gateway: Gateway, sandbox: Sandbox, sandbox_server: SandboxServer, line_ending: str
) -> None:
    step = {"split_every": 1, "line_ending": line_ending}
    sandbox.script.add("*", step, {"line_ending": line_ending})
    relayed = exchange(gateway.port, stream(gateway))
    (entry,) = sandbox.log.after()
    port = int(sandbox_server.url.rpartition(":")[2])
    direct = exchange(
        port, request(ask(stream=True), key=f"sk-sandbox-{entry.account}")
    )
    assert relayed.is_whole
    assert relayed.body == direct.body


def test_sdk_reads_a_stream_that_arrives_byte_by_byte(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"split_every": 1})
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key) as client:
        whole = client.messages.create(**ask())
        with client.messages.stream(**ask()) as events:
            assert events.get_final_message().to_dict() == whole.to_dict()


def test_first_event_is_out_before_the_second_is_in(
    wire: Wire, gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"frame_delay_ms": LONG_MS})
    wire.send(stream(gateway))
    seen = wire.receive_until(b"\n\n\r\n")
    wire.close()
    (entry,) = sandbox.log.wait_for(ended)
    assert entry.frames_sent == 1
    assert seen.count(b"event: message_start") == 1


def test_pings_pass_at_once(wire: Wire, gateway: Gateway, sandbox: Sandbox) -> None:
    # The third frame of a sandbox stream is a ping; nothing comes after it.
    sandbox.script.add("*", {"hang": 4})
    wire.send(stream(gateway))
    wire.receive_until(b"event: ping\n")


def leave_in_the_stream(wire: Wire) -> None:
    wire.receive_until(b"event: content_block_delta")


def leave_before_the_head(wire: Wire) -> None:
    """The upstream has the request; there is nothing to receive."""


@pytest.mark.parametrize(
    ("step", "wait"),
    [
        ({"hang": 5}, leave_in_the_stream),
        ({"hang": "before_head"}, leave_before_the_head),
        ({"first_frame_delay_ms": LONG_MS}, leave_before_the_head),
        ({"frames": 100_000, "frame_delay_ms": 1}, leave_in_the_stream),
    ],
    ids=["in a pause", "before the head", "before the first event", "in the flow"],
)
def test_caller_who_leaves_ends_the_upstream_call(
    wire: Wire,
    gateway: Gateway,
    sandbox: Sandbox,
    step: dict[str, object],
    wait: Callable[[Wire], None],
) -> None:
    sandbox.script.add("*", step)
    wire.send(stream(gateway))
    sandbox.log.wait_for(lambda entries: any(e.model for e in entries))
    wait(wire)
    wire.close()
    (entry,) = sandbox.log.wait_for(ended, NOTICED_SECONDS)
    assert entry.client_gone_after_ms is not None


def test_caller_who_leaves_is_logged_as_gone(
    wire: Wire, gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"hang": 5})
    wire.send(stream(gateway))
    head = wire.receive_until(b"event: content_block_delta")
    wire.close()
    request_id = head.split(b"request-id: ")[1].split(b"\r\n")[0].decode()
    line = gateway.logged(request_id)
    assert (line["end"], line["status"]) == ("client_gone", 499)


def test_caller_who_shuts_its_side_while_uploading_sends_nothing_upstream(
    wire: Wire, gateway: Gateway, sandbox: Sandbox
) -> None:
    data = request(ask("x" * 100_000), key=gateway.key)
    wire.send(data[:50_000])
    wire.close()
    until(lambda: gateway.requests_logged()[-1]["end"] == "client_gone")
    assert sandbox.log.after() == []


@pytest.fixture
def slow_reader(gateway: Gateway) -> Iterator[Wire]:
    with Wire(gateway.port, receive_buffer_bytes=4_096) as wire:
        yield wire


def is_stuck(gateway: Gateway, seconds: float) -> None:
    """Wait until the gateway takes nothing more in."""
    worker = gateway.worker()
    until_still(
        # It reads a little once a second, from the database.
        lambda: worker.io_counters().read_chars // 100_000,
        for_seconds=seconds,
    )


def test_caller_who_does_not_read_holds_the_upstream_back(
    slow_reader: Wire, gateway: Gateway, sandbox: Sandbox
) -> None:
    # Much more than the kernel's buffers on the way hold, which is up to 16 MB.
    megabytes = 48
    text = " " * megabytes * 1024**2
    sandbox.script.add("*", {"text": text, "frames": megabytes * 10})
    worker = gateway.worker()
    before = worker.memory_info().rss
    slow_reader.send(stream(gateway))
    slow_reader.receive_until(b"event: message_start")
    is_stuck(gateway, 0.4)
    grown = worker.memory_info().rss - before
    slow_reader.close()
    (entry,) = sandbox.log.wait_for(ended)
    assert entry.outcome is Outcome.CLIENT_GONE
    assert entry.bytes_sent < len(text) / 2
    assert grown < 8 * 1024**2


def test_caller_who_reads_again_gets_the_rest(
    slow_reader: Wire, gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"frames": 30_000})
    slow_reader.send(stream(gateway))
    slow_reader.receive_until(b"event: message_start")
    is_stuck(gateway, 0.2)
    data = slow_reader.rest()
    assert data.count(b"event: content_block_delta\n") == 30_000
    assert data.endswith(b'data: {"type":"message_stop"}\n\n\r\n0\r\n\r\n')


def test_one_caller_who_does_not_read_holds_up_nobody_else(
    slow_reader: Wire, gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"frames": 100_000})
    slow_reader.send(stream(gateway))
    slow_reader.receive_until(b"event: message_start")
    assert exchange(gateway.port, stream(gateway)).is_whole


def test_many_streams_at_once_all_arrive_whole(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"frames": 300, "times": 20})
    bodies: list[bytes] = []

    def read() -> None:
        bodies.append(exchange(gateway.port, stream(gateway)).body)

    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bodies) == 20
    for body in bodies:
        last = json.loads(frames(body)[-1].partition(b"data: ")[2])
        assert last == {"type": "message_stop"}
