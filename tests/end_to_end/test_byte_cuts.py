"""Wherever an answer is cut, on either side, nobody takes a part for the whole."""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import accumulate
from typing import Any, TypeVar

import anthropic
import pytest
from anthropic.types import Message

from claudeproxy.sandbox.log import Outcome
from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end import gateway as gateways
from tests.end_to_end.breaks import kept_frames
from tests.end_to_end.checks import assert_envelope
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import Answer, ask, exchange, fetch, frames, request

pytestmark = pytest.mark.processes

T = TypeVar("T")
Fault = Callable[[int], dict[str, Any]]

# So short that every byte of it can have its turn.
SHORT = {"text": "Hi"}
# As many requests are under way at a time.
LANES = 4
# The frames after which the gateway has something to show: from here on it must not
# ask anybody else.
PRELUDE = 2


@pytest.fixture(scope="module")
def shared_pair(
    sandbox_server: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    template = gateways.furnish(
        tmp_path_factory.mktemp("pair-template"), accounts=("ada", "grace")
    )
    with gateways.running(
        template,
        tmp_path_factory.mktemp("pair"),
        upstream_url=sandbox_server.url,
        RETRY_BASE_DELAY="0s",
        RETRY_JITTER_MAX="0s",
        # On a busy machine, a cut that comes late is still one before the content.
        RETRY_GATE_SECONDS="1m",
    ) as gateway:
        yield gateway


@pytest.fixture
def pair(shared_pair: Gateway, sandbox: Sandbox) -> Gateway:
    """A gateway with two accounts, of which one will be in trouble."""
    return shared_pair


def cut(offset: int) -> dict[str, Any]:
    return SHORT | {"cut_at_byte": offset}


def reset(offset: int) -> dict[str, Any]:
    return SHORT | {"reset": {"at_byte": offset}}


FAULTS = pytest.mark.parametrize(
    ("fault", "outcome"),
    [(cut, Outcome.CUT), (reset, Outcome.RESET)],
    ids=["cut", "reset"],
)


def whole_body(gateway: Gateway, sandbox: Sandbox, *, stream: bool) -> bytes:
    """The body as it is when nothing goes wrong."""
    sandbox.script.add("*", SHORT)
    body = ask(question(0), stream=stream)
    answer = exchange(gateway.port, request(body, key=gateway.key))
    assert answer.status == 200
    assert answer.is_whole
    sandbox.log.clear()
    return answer.body


def question(number: int) -> str:
    """One of many questions that are all of one length, as are their answers."""
    return f"Question {number:06}"


def bytes_before(whole: list[bytes]) -> list[int]:
    """Where each frame ends, from none of them to the last."""
    return [0, *accumulate(len(frame) for frame in whole)]


async def in_lanes(work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    """Do the work for all items, a few at a time."""
    left = iter(items)

    async def lane() -> None:
        for item in left:
            await work(item)

    await asyncio.gather(*[lane() for _ in range(LANES)])


def answers_while_ada_fails(
    gateway: Gateway, sandbox: Sandbox, faults: list[dict[str, Any]], *, stream: bool
) -> list[Answer]:
    """Send new questions, one by one, until ada has met all faults."""
    for at in range(0, len(faults), 2):
        # An account that fails three times in a row would not be asked for a while.
        sandbox.script.add("ada", *faults[at : at + 2], SHORT)
    sandbox.script.add("*", SHORT | {"times": "forever"})
    answers: list[Answer] = []
    while "ada" in sandbox.script.pending():
        body = ask(question(len(answers)), stream=stream)
        answers.append(exchange(gateway.port, request(body, key=gateway.key)))
    return answers


def offsets_met(sandbox: Sandbox, outcome: Outcome) -> list[int]:
    return sorted(
        entry.bytes_sent for entry in sandbox.log.after() if entry.outcome is outcome
    )


# --- the upstream side: another account steps in


@FAULTS
def test_stream_of_one_account_broken_at_any_byte_is_whole_or_an_error(
    pair: Gateway, sandbox: Sandbox, fault: Fault, outcome: Outcome
) -> None:
    whole = frames(whole_body(pair, sandbox, stream=True))
    ends = bytes_before(whole)
    size = ends[-1]
    faults = [fault(offset) for offset in range(size + 1)]

    answers = answers_while_ada_fails(pair, sandbox, faults, stream=True)

    assert {answer.status for answer in answers} == {200}
    kept = Counter(kept_frames(answer, whole) for answer in answers)
    kept.pop(len(whole))
    if outcome is Outcome.CUT:
        # Nothing before the content was seen, and of the rest every whole frame.
        assert kept == {
            count: ends[count + 1] - ends[count]
            for count in range(PRELUDE, len(whole) - 1)
        } | {len(whole) - 1: ends[-1] - ends[-2]}
    assert offsets_met(sandbox, outcome) == list(range(size + 1))


@FAULTS
def test_whole_answer_of_one_account_broken_at_any_byte_comes_from_another(
    pair: Gateway, sandbox: Sandbox, fault: Fault, outcome: Outcome
) -> None:
    whole = whole_body(pair, sandbox, stream=False)
    faults = [fault(offset) for offset in range(len(whole))]
    answers = answers_while_ada_fails(pair, sandbox, faults, stream=False)
    for answer in answers:
        assert (answer.status, answer.is_whole) == (200, True)
        assert answer.json()["content"] == [{"type": "text", "text": "Hi"}]
    assert offsets_met(sandbox, outcome) == list(range(len(whole)))


# --- the upstream side: nobody steps in


async def answers_to_each(
    gateway: Gateway, sandbox: Sandbox, steps: Iterable[dict[str, Any]], *, stream: bool
) -> list[Answer]:
    """Ask once for each step."""
    data = request(ask(question(0), stream=stream), key=gateway.key)
    answers: list[Answer] = []

    async def send(step: dict[str, Any]) -> None:
        sandbox.script.add("*", step)
        answers.append(await fetch(gateway.port, data))

    await in_lanes(send, steps)
    return answers


@FAULTS
async def test_stream_broken_at_any_byte_is_an_error_or_ends_with_one(
    relaying_gateway: Gateway, sandbox: Sandbox, fault: Fault, outcome: Outcome
) -> None:
    whole = frames(whole_body(relaying_gateway, sandbox, stream=True))
    ends = bytes_before(whole)
    steps = map(fault, range(ends[-1] + 1))
    answers = await answers_to_each(relaying_gateway, sandbox, steps, stream=True)
    kept = Counter(kept_frames(answer, whole) for answer in answers)
    if outcome is Outcome.CUT:
        assert kept[0] == ends[PRELUDE]
        assert kept[len(whole)] == 1  # that had all of it, but for the end of the body
    assert offsets_met(sandbox, outcome) == list(range(ends[-1] + 1))


@FAULTS
async def test_whole_answer_broken_at_any_byte_is_an_error(
    relaying_gateway: Gateway, sandbox: Sandbox, fault: Fault, outcome: Outcome
) -> None:
    size = len(whole_body(relaying_gateway, sandbox, stream=False))
    steps = map(fault, range(size))
    answers = await answers_to_each(relaying_gateway, sandbox, steps, stream=False)
    for answer in answers:
        assert_envelope(answer, 503, "api_error")
    assert offsets_met(sandbox, outcome) == list(range(size))


# --- the upstream side, as SDKs see it

SAMPLE = 25


Got = Message | anthropic.APIStatusError


def assert_all_or_error(got: Got, whole: Message, *, is_nearly_all: bool) -> None:
    if isinstance(got, anthropic.APIStatusError):
        assert got.request_id
    else:
        assert is_nearly_all
        assert got.to_dict() == whole.to_dict()


@FAULTS
def test_sdk_raises_or_gets_all_wherever_a_stream_breaks(
    relaying_gateway: Gateway, sandbox: Sandbox, fault: Fault, outcome: Outcome
) -> None:
    size = len(whole_body(relaying_gateway, sandbox, stream=True))
    with anthropic.Anthropic(
        base_url=relaying_gateway.url, api_key=relaying_gateway.key, max_retries=0
    ) as client:

        def read() -> Got:
            try:
                with client.messages.stream(**ask(question(0))) as events:
                    return events.get_final_message()
            except anthropic.APIStatusError as error:
                return error

        sandbox.script.add("*", SHORT)
        whole = client.messages.create(**ask(question(0)))
        for offset in range(0, size + 1, SAMPLE):
            sandbox.script.add("*", fault(offset))
            assert_all_or_error(read(), whole, is_nearly_all=offset > size - SAMPLE)


@FAULTS
async def test_async_sdk_raises_or_gets_all_wherever_a_stream_breaks(
    relaying_gateway: Gateway, sandbox: Sandbox, fault: Fault, outcome: Outcome
) -> None:
    size = len(whole_body(relaying_gateway, sandbox, stream=True))
    async with anthropic.AsyncAnthropic(
        base_url=relaying_gateway.url, api_key=relaying_gateway.key, max_retries=0
    ) as client:

        async def read() -> Got:
            try:
                async with client.messages.stream(**ask(question(0))) as events:
                    return await events.get_final_message()
            except anthropic.APIStatusError as error:
                return error

        sandbox.script.add("*", SHORT)
        whole = await client.messages.create(**ask(question(0)))
        for offset in range(0, size + 1, SAMPLE):
            sandbox.script.add("*", fault(offset))
            got = await read()
            assert_all_or_error(got, whole, is_nearly_all=offset > size - SAMPLE)


@FAULTS
def test_sdk_raises_wherever_a_whole_answer_breaks(
    relaying_gateway: Gateway, sandbox: Sandbox, fault: Fault, outcome: Outcome
) -> None:
    size = len(whole_body(relaying_gateway, sandbox, stream=False))
    with anthropic.Anthropic(
        base_url=relaying_gateway.url, api_key=relaying_gateway.key, max_retries=0
    ) as client:
        for offset in range(0, size, SAMPLE):
            sandbox.script.add("*", fault(offset))
            with pytest.raises(anthropic.ServiceUnavailableError):
                client.messages.create(**ask(question(0)))


# --- the caller's side


def leave_after(port: int, data: bytes, count: int) -> None:
    """Send a request, take so many bytes of the answer, and go.

    What is under way then meets a closed connection, or one that was reset.
    """
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as caller:
        caller.sendall(data)
        while count > 0:
            taken = caller.recv(count)
            assert taken, "the gateway ended the answer"
            count -= len(taken)


def answer_bytes(port: int, data: bytes) -> int:
    """The length of an answer on the wire, from its first to its last byte."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as caller:
        caller.sendall(data)
        return sum(len(piece) for piece in iter(lambda: caller.recv(65_536), b""))


def leave_at_each_byte(gateway: Gateway, data: bytes, counts: Iterable[int]) -> None:
    with ThreadPoolExecutor(LANES) as lanes:
        # Asked for, so that what a lane raises is raised here.
        list(lanes.map(lambda count: leave_after(gateway.port, data, count), counts))


def assert_nothing_is_left(gateway: Gateway, sandbox: Sandbox, fds: int) -> None:
    until(lambda: sandbox.log.in_flight == 0)
    until(lambda: gateway.worker().num_fds() <= fds + LANES)
    sandbox.script.clear()
    answer = exchange(gateway.port, request(ask(), key=gateway.key))
    assert (answer.status, answer.is_whole) == (200, True)
    assert "request_failed" not in gateway.log_text
    assert "never retrieved" not in gateway.log_text


def test_caller_who_leaves_a_stream_at_any_byte_ends_the_upstream_call(
    pair: Gateway, sandbox: Sandbox
) -> None:
    data = request(ask(question(0), stream=True), key=pair.key)
    *shown, last = frames(whole_body(pair, sandbox, stream=True))
    fds = pair.worker().num_fds()
    sandbox.script.add("*", SHORT | {"times": "forever", "hang": len(shown) + 1})
    # Whatever the pieces, there are so many bytes before the pause.
    with closing(socket.create_connection(("127.0.0.1", pair.port))) as caller:
        caller.sendall(data)
        seen = b""
        while b"event: message_delta" not in seen:
            seen += caller.recv(65_536)
    size = seen.index(b"\r\n\r\n") + 4 + len(b"".join(shown))

    leave_at_each_byte(pair, data, range(1, size))

    until(lambda: sandbox.log.in_flight == 0)
    entries = sandbox.log.after()
    assert len(entries) == size
    assert all(entry.client_gone_after_ms is not None for entry in entries)
    assert all(entry.bytes_sent <= len(b"".join(shown)) for entry in entries)
    assert last.startswith(b"event: message_stop\n")
    assert_nothing_is_left(pair, sandbox, fds)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole answer"])
def test_caller_may_leave_at_any_byte_of_an_answer_that_is_all_there(
    pair: Gateway, sandbox: Sandbox, stream: bool
) -> None:
    data = request(ask(question(0), stream=stream), key=pair.key)
    whole_body(pair, sandbox, stream=stream)
    fds = pair.worker().num_fds()
    sandbox.script.add("*", SHORT | {"times": "forever"})
    size = answer_bytes(pair.port, data)
    # How a stream is cut into pieces, each with a length of its own, differs a little.
    leave_at_each_byte(pair, data, range(size - 60 if stream else size + 1))
    assert_nothing_is_left(pair, sandbox, fds)


def test_caller_who_leaves_before_a_whole_answer_ends_the_upstream_call(
    pair: Gateway, sandbox: Sandbox
) -> None:
    data = request(ask(), key=pair.key)
    size = len(whole_body(pair, sandbox, stream=False))
    fds = pair.worker().num_fds()
    for offset in range(0, size, SAMPLE):
        # The upstream has said so much of it, and then pauses.
        sandbox.log.clear()
        sandbox.script.add(
            "*", SHORT | {"split_every": max(1, offset), "frame_delay_ms": 60_000}
        )
        with closing(socket.create_connection(("127.0.0.1", pair.port))) as caller:
            caller.sendall(data)
            sandbox.log.wait_for(lambda entries: [e.status for e in entries] == [200])
        (entry,) = sandbox.log.wait_for(lambda entries: entries[0].outcome is not None)
        assert entry.outcome is Outcome.CLIENT_GONE
    assert_nothing_is_left(pair, sandbox, fds)
