"""An answer that breaks off never looks whole: the caller always learns of it."""

from typing import Any

import anthropic
import pytest

from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.breaks import error_in
from tests.end_to_end.checks import assert_envelope
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.wire import Answer, ask, exchange, frames, request

pytestmark = pytest.mark.processes


@pytest.fixture
def gateway(relaying_gateway: Gateway) -> Gateway:
    """Nobody else steps in, so that the break itself can be seen."""
    return relaying_gateway


def stream(gateway: Gateway) -> Answer:
    return exchange(gateway.port, request(ask(stream=True), key=gateway.key))


@pytest.fixture
def whole(gateway: Gateway) -> list[bytes]:
    """The frames of the stream as it is when nothing goes wrong."""
    answer = stream(gateway)
    assert answer.is_whole
    return frames(answer.body)


def test_stream_that_ends_cleanly_too_early_gets_an_error(
    gateway: Gateway, sandbox: Sandbox, whole: list[bytes]
) -> None:
    for count in range(2):
        sandbox.script.add("*", {"end_after_frame": count})
        assert_envelope(stream(gateway), 503, "api_error")
    for count in range(2, len(whole)):
        sandbox.script.add("*", {"end_after_frame": count})
        got = frames(stream(gateway).body)
        assert got[:-1] == whole[:count]
        error_in(got[-1])


def test_error_event_of_the_upstream_passes_and_gets_no_second_one(
    gateway: Gateway, sandbox: Sandbox, whole: list[bytes]
) -> None:
    sandbox.script.add("*", {"error_at_frame": 4, "error_message": "Too much today"})
    answer = stream(gateway)
    *kept, last = frames(answer.body)
    assert answer.is_whole
    assert kept == whole[:3]
    assert error_in(last)["error"]["message"] == "Too much today"


BREAKS: dict[str, dict[str, Any]] = {
    "cut": {"cut_before_frame": 6},
    "cut at once": {"cut_at_byte": 0},
    "cut in a frame": {"cut_at_byte": 1_000},
    "reset": {"reset": {"at_byte": 1_000}},
    "ended early": {"end_after_frame": 6},
    "without the last event": {"end_after_frame": -1},
    "error event": {"error_at_frame": 6},
}


@pytest.fixture(params=BREAKS)
def step(request: pytest.FixtureRequest, whole: list[bytes]) -> dict[str, Any]:
    step = BREAKS[request.param]
    if step == {"end_after_frame": -1}:
        return {"end_after_frame": len(whole) - 1}
    return step


def test_sdk_raises_when_a_stream_breaks(
    gateway: Gateway, sandbox: Sandbox, step: dict[str, Any]
) -> None:
    sandbox.script.add("*", step)
    with (
        anthropic.Anthropic(
            base_url=gateway.url, api_key=gateway.key, max_retries=0
        ) as client,
        pytest.raises(anthropic.APIStatusError),
        client.messages.stream(**ask()) as events,
    ):
        events.get_final_message()


async def test_async_sdk_raises_when_a_stream_breaks(
    gateway: Gateway, sandbox: Sandbox, step: dict[str, Any]
) -> None:
    sandbox.script.add("*", step)
    async with anthropic.AsyncAnthropic(
        base_url=gateway.url, api_key=gateway.key, max_retries=0
    ) as client:
        with pytest.raises(anthropic.APIStatusError):
            async with client.messages.stream(**ask()) as events:
                await events.get_final_message()


@pytest.mark.parametrize(
    ("step", "end"),
    [
        ({"cut_before_frame": 6}, "upstream_error"),
        ({"reset": {"at_byte": 1_000}}, "upstream_error"),
        ({"end_after_frame": 6}, "truncated"),
        ({}, "complete"),
    ],
)
def test_log_says_how_a_stream_ended(
    gateway: Gateway, sandbox: Sandbox, step: dict[str, Any], end: str
) -> None:
    sandbox.script.add("*", step)
    answer = stream(gateway)
    line = gateway.logged(answer.header("request-id") or "")
    assert (line["end"], line["status"]) == (end, 200)
    assert line["answer_bytes"] == len(answer.body)


@pytest.mark.parametrize(
    "step",
    [{"cut_at_byte": 100}, {"cut_at_byte": 0}, {"reset": {"at_byte": 100}}],
    ids=["cut", "cut at once", "reset"],
)
def test_sdk_raises_when_a_whole_answer_breaks(
    gateway: Gateway, sandbox: Sandbox, step: dict[str, Any]
) -> None:
    sandbox.script.add("*", step)
    with (
        anthropic.Anthropic(
            base_url=gateway.url, api_key=gateway.key, max_retries=0
        ) as client,
        pytest.raises(anthropic.InternalServerError),
    ):
        client.messages.create(**ask())


def test_answer_too_long_to_be_held_that_breaks_is_incomplete_for_http(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    offset = 36 * 1024**2
    sandbox.script.add("*", {"text": " " * (offset + 1024**2), "cut_at_byte": offset})
    answer = exchange(gateway.port, request(ask(), key=gateway.key))
    assert answer.status == 200
    assert not answer.is_whole
    assert len(answer.body) <= offset


@pytest.mark.parametrize(
    "step", [{"cut_at_byte": "before_head"}, {"reset": "before_head"}]
)
def test_upstream_that_breaks_off_before_its_answer_gives_503(
    gateway: Gateway, sandbox: Sandbox, step: dict[str, Any]
) -> None:
    sandbox.script.add("*", step)
    answer = exchange(gateway.port, request(ask(), key=gateway.key))
    assert_envelope(answer, 503, "api_error")
