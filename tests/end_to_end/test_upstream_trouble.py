"""What the caller learns when the upstream is away, silent or misleading."""

import socket
from collections.abc import Iterator
from pathlib import Path

import anthropic
import httpx
import pytest

from claudeproxy.sandbox.log import Outcome
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end import gateway as gateways
from tests.end_to_end.checks import assert_envelope
from tests.end_to_end.conftest import caller
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import ask, exchange, frames, request

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def cut_off_gateway(
    template: Furnished, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway whose upstream refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    directory: Path = tmp_path_factory.mktemp("cut-off")
    url = f"http://127.0.0.1:{port}"
    with gateways.running(template, directory, upstream_url=url) as gateway:
        yield gateway


def test_unreachable_upstream_gives_503(cut_off_gateway: Gateway) -> None:
    data = request(ask(), key=cut_off_gateway.key)
    answer = exchange(cut_off_gateway.port, data)
    assert_envelope(answer, 503, "api_error")
    line = cut_off_gateway.logged(answer.header("request-id") or "")
    assert line["end"] == "upstream_error"
    assert line["cause"].startswith("not sent")


def test_sdk_raises_when_the_upstream_is_unreachable(cut_off_gateway: Gateway) -> None:
    with (
        anthropic.Anthropic(
            base_url=cut_off_gateway.url, api_key=cut_off_gateway.key, max_retries=0
        ) as client,
        pytest.raises(anthropic.InternalServerError) as caught,
    ):
        client.messages.create(**ask())
    assert caught.value.status_code == 503
    assert caught.value.request_id


def test_silent_upstream_gives_408(hasty_gateway: Gateway, sandbox: Sandbox) -> None:
    sandbox.script.add("*", {"hang": "before_head"})
    answer = exchange(hasty_gateway.port, request(ask(), key=hasty_gateway.key))
    assert_envelope(answer, 408, "timeout_error")
    assert hasty_gateway.logged(answer.header("request-id") or "")["end"] == "timeout"


def test_silent_upstream_is_hung_up_on(
    hasty_gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"hang": "before_head"})
    exchange(hasty_gateway.port, request(ask(), key=hasty_gateway.key))
    sandbox.log.wait_for(lambda entries: entries[-1].outcome is Outcome.HANG, 5)


def test_stream_that_falls_silent_ends_with_an_error(
    hasty_gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"hang": 6})
    data = request(ask(stream=True), key=hasty_gateway.key)
    answer = exchange(hasty_gateway.port, data)
    *kept, last = frames(answer.body)
    assert len(kept) == 5
    assert last.startswith(b"event: error\n")
    assert b"timeout_error" in last
    assert hasty_gateway.logged(answer.header("request-id") or "")["end"] == "timeout"


def test_stream_may_last_longer_than_the_time_limit_for_silence(
    hasty_gateway: Gateway, sandbox: Sandbox
) -> None:
    # Forty frames with pauses of 20 ms: more than twice the limit of 300 ms.
    sandbox.script.add("*", {"frames": 40, "frame_delay_ms": 20})
    data = request(ask(stream=True), key=hasty_gateway.key)
    answer = exchange(hasty_gateway.port, data)
    assert frames(answer.body)[-1].startswith(b"event: message_stop\n")


@pytest.mark.parametrize("delay_ms", [60_000, 100])
def test_whole_answer_that_is_not_there_in_time_gives_408(
    hasty_gateway: Gateway, sandbox: Sandbox, delay_ms: int
) -> None:
    # Whether it falls silent, or just takes too long with never a long silence.
    sandbox.script.add("*", {"split_every": 100, "frame_delay_ms": delay_ms})
    answer = exchange(hasty_gateway.port, request(ask(), key=hasty_gateway.key))
    assert_envelope(answer, 408, "timeout_error")


def test_stream_that_falls_silent_before_its_content_gives_408(
    hasty_gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"first_frame_delay_ms": 60_000})
    data = request(ask(stream=True), key=hasty_gateway.key)
    answer = exchange(hasty_gateway.port, data)
    assert_envelope(answer, 408, "timeout_error")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_neither_followed_nor_passed(
    ana: httpx.Client, sandbox: Sandbox, status: int
) -> None:
    headers = {"location": "/v1/messages?redirected"}
    sandbox.script.add("*", {"status": status, "headers": headers, "body": "moved"})
    answer = ana.post("/v1/messages", json=ask())
    assert answer.status_code == 503
    assert "location" not in answer.headers
    assert len(sandbox.log.after()) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422, 500, 504, 529])
def test_error_of_the_upstream_passes_as_it_is(
    relaying_gateway: Gateway, sandbox: Sandbox, status: int
) -> None:
    said = {
        "type": "error",
        "error": {"type": "some_error", "message": "Wörter.", "details": {"x": [1]}},
        "request_id": "req_theirs",
    }
    sandbox.script.add("*", {"status": status, "body": said})
    with caller(relaying_gateway) as client:
        answer = client.post("/v1/messages", json=ask())
    assert answer.status_code == status
    assert answer.json() == said


def test_upstream_connections_are_used_again(
    ana: httpx.Client, gateway: Gateway, sandbox: Sandbox
) -> None:
    ana.post("/v1/messages", json=ask())
    before = gateway.worker().num_fds()
    for _ in range(20):
        ana.post("/v1/messages", json=ask())
    # What the ledger and the snapshot have open at this moment comes and goes.
    until(lambda: gateway.worker().num_fds() <= before + 1)
