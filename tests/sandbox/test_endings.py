"""Each field of a step that ends or breaks an answer does what it says."""

import contextlib
import socket
from time import perf_counter

import httpx
import pytest

from claudeproxy.sandbox.log import Outcome
from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.sandbox.wire import (
    ask,
    connect,
    ended,
    exchange,
    read_events,
    streamed_frames,
)

PLAIN = ask()
STREAMED = ask(stream=True)


def test_end_after_frame_ends_cleanly_but_early(
    server: SandboxServer, sandbox: Sandbox
) -> None:
    frames = streamed_frames(server.url)
    sandbox.script.add("ada", {"end_after_frame": 3})
    answer = exchange(server.url, STREAMED)
    assert answer.chunks == [*frames[:3], b""]
    entry = ended(sandbox)
    assert (entry.outcome, entry.frames_sent) == (Outcome.ENDED_EARLY, 3)


def test_end_after_frame_zero_is_an_empty_stream(
    server: SandboxServer, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {"end_after_frame": 0})
    assert exchange(server.url, STREAMED).chunks == [b""]


def test_error_at_frame_ends_the_stream_with_an_error_event(
    ada: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {"error_at_frame": 3, "error_message": "Busy"})
    events = read_events(ada.post("/v1/messages", json=STREAMED).content)
    assert [name for name, _ in events] == [
        "message_start",
        "content_block_start",
        "error",
    ]
    assert events[-1][1]["error"] == {"type": "overloaded_error", "message": "Busy"}
    assert ended(sandbox).outcome is Outcome.ERROR_EVENT


def test_error_at_frame_is_an_error_status_without_a_stream(
    ada: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {"error_at_frame": 3, "error_type": "rate_limit_error"})
    answer = ada.post("/v1/messages", json=PLAIN)
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("number", [1, 2, 5])
def test_cut_before_frame_drops_the_connection_there(
    server: SandboxServer, sandbox: Sandbox, number: int
) -> None:
    frames = streamed_frames(server.url)
    sandbox.script.add("ada", {"cut_before_frame": number})
    answer = exchange(server.url, STREAMED)
    assert not answer.was_reset
    assert answer.chunks == frames[: number - 1]
    entry = ended(sandbox)
    assert (entry.outcome, entry.frames_sent) == (Outcome.CUT, number - 1)


def test_cut_beyond_the_last_frame_leaves_out_the_end_of_the_body(
    server: SandboxServer, sandbox: Sandbox
) -> None:
    frames = streamed_frames(server.url)
    sandbox.script.add("ada", {"cut_before_frame": 1000})
    assert exchange(server.url, STREAMED).chunks == frames


@pytest.mark.parametrize("count", [0, 1, 333])
def test_cut_at_byte_drops_a_stream_there(
    server: SandboxServer, sandbox: Sandbox, count: int
) -> None:
    whole = b"".join(streamed_frames(server.url))
    sandbox.script.add("ada", {"cut_at_byte": count})
    answer = exchange(server.url, STREAMED)
    assert b"".join(answer.chunks) == whole[:count]
    assert ended(sandbox).bytes_sent == count


@pytest.mark.parametrize("count", [0, 10])
def test_cut_at_byte_drops_a_plain_answer_there(
    server: SandboxServer, sandbox: Sandbox, count: int
) -> None:
    whole = exchange(server.url, PLAIN).body
    sandbox.script.add("ada", {"cut_at_byte": count})
    answer = exchange(server.url, PLAIN)
    assert answer.data.startswith(b"HTTP/1.1 200 OK")
    assert answer.body == whole[:count]
    assert ended(sandbox).outcome is Outcome.CUT


def test_cut_before_head_sends_nothing(server: SandboxServer, sandbox: Sandbox) -> None:
    sandbox.script.add("ada", {"cut_at_byte": "before_head"})
    answer = exchange(server.url, PLAIN)
    assert (answer.data, answer.was_reset) == (b"", False)
    entry = ended(sandbox)
    assert (entry.outcome, entry.status) == (Outcome.CUT, None)


def test_cut_works_on_a_scripted_error(server: SandboxServer, sandbox: Sandbox) -> None:
    sandbox.script.add("ada", {"status": 500, "body": "broken", "cut_at_byte": 3})
    answer = exchange(server.url, STREAMED)
    assert answer.data.startswith(b"HTTP/1.1 500")
    assert answer.body == b"bro"


def test_reset_before_head_resets_the_connection(
    server: SandboxServer, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {"reset": "before_head"})
    answer = exchange(server.url, PLAIN)
    assert (answer.data, answer.was_reset) == (b"", True)
    assert ended(sandbox).outcome is Outcome.RESET


@pytest.mark.parametrize("body", [PLAIN, STREAMED])
def test_reset_at_byte_resets_after_that_many_bytes(
    server: SandboxServer, sandbox: Sandbox, body: dict[str, object]
) -> None:
    sandbox.script.add("ada", {"reset": {"at_byte": 40}, "frame_delay_ms": 2})
    answer = exchange(server.url, body)
    assert answer.was_reset
    assert answer.data.startswith(b"HTTP/1.1 200 OK")
    assert ended(sandbox).bytes_sent == 40


def test_hang_before_head_lasts_until_the_client_leaves(
    server: SandboxServer, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {"hang": "before_head"})
    with connect(server.url, PLAIN):
        sandbox.log.wait_for(bool)
    entry = ended(sandbox)
    assert (entry.outcome, entry.status) == (Outcome.HANG, None)
    assert entry.client_gone_after_ms is not None


def test_hang_at_frame_sends_what_comes_before(
    server: SandboxServer, sandbox: Sandbox
) -> None:
    frames = streamed_frames(server.url)
    sandbox.script.add("ada", {"hang": 3})
    data = b""
    with connect(server.url, STREAMED) as sock:
        while frames[1] not in data:
            data += sock.recv(65536)
        sock.settimeout(0.02)
        with contextlib.suppress(TimeoutError):
            data += sock.recv(65536)
    assert frames[2] not in data
    entry = ended(sandbox)
    assert (entry.outcome, entry.frames_sent) == (Outcome.HANG, 2)


def test_a_client_that_leaves_a_stream_is_noticed_at_once(
    server: SandboxServer, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {"frames": 1000, "frame_delay_ms": 5})
    with connect(server.url, STREAMED) as sock:
        sock.recv(1)
        left = perf_counter()
    entry = ended(sandbox)
    assert perf_counter() - left < 0.5
    assert entry.outcome is Outcome.CLIENT_GONE
    assert entry.frames_sent < 1000
    assert entry.client_gone_after_ms is not None


def test_a_client_that_leaves_during_the_delay_is_noticed(
    server: SandboxServer, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {"delay_ms": 3_600_000})
    with connect(server.url, PLAIN):
        sandbox.log.wait_for(bool)
    assert ended(sandbox).outcome is Outcome.CLIENT_GONE


def test_a_client_that_stops_reading_and_leaves_is_noticed(
    server: SandboxServer, sandbox: Sandbox
) -> None:
    # More than the buffers between the two hold.
    sandbox.script.add("ada", {"body": "x" * 20_000_000, "split_every": 65_536})
    with connect(server.url, STREAMED) as sock:
        sock.recv(1)
    assert ended(sandbox).outcome is Outcome.CLIENT_GONE


def test_a_client_that_leaves_before_its_body_is_whole_is_noticed(
    server: SandboxServer, sandbox: Sandbox
) -> None:
    url = httpx.URL(server.url)
    head = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
    with socket.create_connection((url.host, url.port or 0), timeout=5) as sock:
        sock.sendall(head)
        sandbox.log.wait_for(bool)
    assert ended(sandbox).outcome is Outcome.CLIENT_GONE
