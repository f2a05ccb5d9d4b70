"""What the ledger says is what happened, wherever an answer was cut."""

import asyncio
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end import gateway as gateways
from tests.end_to_end import load
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.load import Caller
from tests.end_to_end.rows import (
    TOKENS,
    Row,
    all_rows,
    select,
    settled_rows,
    tokens_in,
    tokens_of,
)
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import Answer, Wire, ask, exchange, frames, request

pytestmark = pytest.mark.processes

Fault = Callable[[int], dict[str, Any]]

# So short that every byte of it can have its turn.
SHORT = {"text": "Hello there"}
# Of cuts that are not tried at each byte, so many bytes lie between two.
SAMPLE = 5
LANES = 4
NOTHING_USED = dict.fromkeys(TOKENS, 0)


@pytest.fixture(scope="module")
def shared_asking_once(
    template: Furnished,
    sandbox_server: SandboxServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    with gateways.running(
        template,
        tmp_path_factory.mktemp("asking-once"),
        upstream_url=sandbox_server.url,
        RETRY_ENABLED="off",
    ) as gateway:
        yield gateway


@pytest.fixture
def asking_once(shared_asking_once: Gateway, sandbox: Sandbox) -> Gateway:
    """A gateway that hands on what the first account says."""
    return shared_asking_once


def cut(offset: int) -> dict[str, Any]:
    return SHORT | {"cut_at_byte": offset}


def reset(offset: int) -> dict[str, Any]:
    return SHORT | {"reset": {"at_byte": offset}}


def question(*, stream: bool) -> dict[str, Any]:
    """One that writes to the cache: then all counts of the usage say something."""
    return ask(
        system=[
            {
                "type": "text",
                "text": "Be brief. " * 20,
                "cache_control": {"type": "ephemeral"},
            }
        ],
        stream=stream,
    )


def in_lanes(work: Callable[[int], Answer], numbers: range) -> list[Answer]:
    with ThreadPoolExecutor(LANES) as lanes:
        return list(lanes.map(work, numbers))


def new_rows(gateway: Gateway, before: dict[str, Row], count: int) -> dict[str, Row]:
    """The rows of so many requests, and there are no more."""
    found = settled_rows(gateway, len(before) + count)
    return {name: row for name, row in found.items() if name not in before}


def assert_row_is_true(row: Row, answer: Answer) -> None:
    """Compare a row with what the caller has."""
    is_complete = row["end_reason"] == "complete"
    assert row["status"] == answer.status
    assert row["answer_bytes"] == len(answer.body)
    assert tokens_of(row) == tokens_in(answer)
    if answer.status == 200:
        assert is_complete == (b"event: error" not in answer.body)
        assert row["is_incomplete"] == (not is_complete)
    else:
        assert not is_complete
        assert row["outcome"] == "failed"
        assert row["is_incomplete"]  # the upstream has said more than the caller got


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole answer"])
@pytest.mark.parametrize(("fault", "step"), [(cut, 1), (reset, SAMPLE)])
def test_rows_say_what_callers_have_wherever_the_upstream_breaks_off(
    asking_once: Gateway, sandbox: Sandbox, fault: Fault, step: int, stream: bool
) -> None:
    data = request(question(stream=stream), key=asking_once.key)
    before = all_rows(asking_once)
    sandbox.script.add("*", SHORT)
    whole = exchange(asking_once.port, data)
    size = len(whole.body)

    def put(offset: int) -> Answer:
        sandbox.script.add("*", fault(offset))
        return exchange(asking_once.port, data)

    answers = [whole, *in_lanes(put, range(0, size + stream, step))]

    rows = new_rows(asking_once, before, len(answers))
    ids = [answer.header("request-id") for answer in answers]
    assert rows.keys() == set(ids)
    for answer in answers:
        assert_row_is_true(rows[str(answer.header("request-id"))], answer)
    used = tokens_of(rows[str(whole.header("request-id"))])
    assert used["input_tokens"] > 0
    assert used["output_tokens"] > 0
    assert used["cache_creation_input_tokens"] > 0


# --- callers who leave


def take(port: int, data: bytes, count: int) -> bytes:
    """Send a request, take so many bytes of the answer, and go."""
    taken = b""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as caller:
        caller.sendall(data)
        while len(taken) < count:
            piece = caller.recv(count - len(taken))
            assert piece, "the gateway ended the answer"
            taken += piece
    return taken


def leave_at(port: int, data: bytes, counts: range) -> list[bytes]:
    with ThreadPoolExecutor(LANES) as lanes:
        return list(lanes.map(lambda count: take(port, data, count), counts))


def request_id_in(taken: bytes) -> str | None:
    """The id that a caller has seen, if it stayed for so long."""
    head, _, _ = taken.partition(b"\r\n\r\n")
    found = re.search(rb"^request-id: (\S+)\r$", head + b"\r", re.MULTILINE)
    return found[1].decode() if found and head != taken else None


def stages(whole: Answer) -> list[dict[str, int]]:
    """What can be known to have been used, from nothing to all of it."""
    parts = frames(whole.body)
    return [
        tokens_in(replace(whole, body=b"".join(parts[:count])))
        for count in (0, 1, len(parts))
    ]


def assert_was_left(row: Row) -> None:
    assert (row["end_reason"], row["status"]) == ("client_gone", 499)
    assert row["is_incomplete"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole answer"])
def test_answers_that_are_all_there_are_left_with_all_they_used_or_marked(
    asking_once: Gateway, sandbox: Sandbox, stream: bool
) -> None:
    data = request(question(stream=stream), key=asking_once.key)
    before = all_rows(asking_once)
    sandbox.script.add("*", SHORT | {"times": "forever"})
    whole = exchange(asking_once.port, data)
    # How a stream is cut into pieces, each with a length of its own, differs a little.
    taken = leave_at(asking_once.port, data, range(0, len(whole.body), SAMPLE))

    rows = new_rows(asking_once, before, 1 + len(taken))
    seen = [found for part in taken if (found := request_id_in(part))]
    assert len(set(seen)) == len(seen) > len(taken) // 3
    assert rows.keys() >= set(seen)
    used = stages(whole) if stream else [NOTHING_USED, tokens_in(whole)]
    for row in rows.values():
        if row["end_reason"] == "complete":
            assert (row["status"], row["is_incomplete"]) == (200, False)
            assert tokens_of(row) == used[-1]
        else:
            assert_was_left(row)
            assert tokens_of(row) in used


def test_streams_that_are_left_before_their_end_have_used_what_was_said_until_then(
    asking_once: Gateway, sandbox: Sandbox
) -> None:
    data = request(question(stream=True), key=asking_once.key)
    before = all_rows(asking_once)
    sandbox.script.add("*", SHORT)
    whole = exchange(asking_once.port, data)
    *_, delta, _ = parts = frames(whole.body)
    # It pauses before the frame that says how much was written.
    paused = len(parts) - 1
    sandbox.script.add("*", SHORT | {"times": "forever", "hang": paused})
    with Wire(asking_once.port) as caller:
        caller.send(data)
        size = len(caller.receive_until(b"event: content_block_stop"))

    # Fewer bytes may be to come: frames that come at once share a chunk of HTTP.
    shortest = size - 8 * len(parts)
    taken = leave_at(asking_once.port, data, range(0, shortest, SAMPLE))

    rows = new_rows(asking_once, before, 2 + len(taken))
    assert delta.startswith(b"event: message_delta\n")
    nothing, started, all_of_it = stages(whole)
    assert started["output_tokens"] < all_of_it["output_tokens"]
    ids = {request_id_in(part): part for part in taken}
    for name, row in rows.items():
        if name == whole.header("request-id"):
            continue
        assert_was_left(row)
        # Once the head is out, so is the first frame on its way.
        assert tokens_of(row) == started or (
            name not in ids and tokens_of(row) == nothing
        )


def test_whole_answers_that_are_left_before_they_came_are_marked(
    asking_once: Gateway, sandbox: Sandbox
) -> None:
    before = all_rows(asking_once)
    sandbox.script.add("*", {"hang": "before_head"}, {"hang": 1})
    for _ in range(2):
        with Wire(asking_once.port) as caller:
            caller.send(request(question(stream=False), key=asking_once.key))
            until(lambda: sandbox.log.in_flight == 1)
        until(lambda: sandbox.log.in_flight == 0)

    for row in new_rows(asking_once, before, 2).values():
        assert_was_left(row)
        assert tokens_of(row) == NOTHING_USED


# --- all kinds of requests

REQUESTS, AT_A_TIME = 2000, 20
# Each account says once that it has had enough.
LIMITED: dict[str, Any] = {"status": 429, "headers": {"retry-after": "2"}}


def get(target: str, key: str) -> bytes:
    return request(method="GET", target=target, key=key)


def message(number: int, key: str, *, stream: bool = False, **fields: Any) -> bytes:
    return request(question(stream=stream) | fields, key=key)


def count_tokens(number: int, key: str) -> bytes:
    return request(ask(), key=key, target="/v1/messages/count_tokens")


def batch(number: int, key: str) -> bytes:
    body = {"requests": [{"custom_id": "one", "params": ask()}]}
    return request(body, key=key, target="/v1/messages/batches")


def listing(number: int, key: str) -> bytes:
    kinds = ("models", "messages/batches", "files", "skills")
    return get(f"/v1/{kinds[number // 20 % len(kinds)]}", key)


def kept(number: int, key: str) -> bytes:
    """On a connection that stays, as most of them."""
    return load.question(f"Question {number}", key=key, stream=bool(number % 2))


MIXTURE: tuple[Callable[[int, str], bytes], ...] = (
    *[kept] * 10,
    partial(message, stream=True),
    message,
    lambda number, key: message(number, "cp_wrong"),
    partial(message, model="claude-nothing"),
    lambda number, key: get("/v1/nothing", key),
    lambda number, key: request(b"{", key=key),
    lambda number, key: get("/v1/messages", key),
    count_tokens,
    batch,
    listing,
)


@pytest.fixture
def own_gateway(
    template: Furnished, sandbox_server: SandboxServer, sandbox: Sandbox, tmp_path: Path
) -> Iterator[Gateway]:
    """A gateway of the test's own, with an empty ledger."""
    with gateways.running(
        template, tmp_path, upstream_url=sandbox_server.url, RETRY_BASE_DELAY="10ms"
    ) as gateway:
        yield gateway


async def leave(port: int, data: bytes, *, at_once: bool) -> None:
    """Send a request and go, at once or as soon as there is an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await writer.drain()
    if not at_once:
        await reader.readuntil(b"\r\n\r\n")
    # Not `abort`: a reset may overtake the request.
    writer.close()
    await writer.wait_closed()


async def test_there_are_as_many_rows_as_requests_and_sums_say_what_rows_say(
    own_gateway: Gateway, sandbox: Sandbox
) -> None:
    gateway = own_gateway
    answers: dict[str, Answer] = {}
    left = 0

    async def put(caller: Caller, number: int) -> None:
        nonlocal left
        if number % 25 == 0:
            sandbox.script.add("*", {"status": 500}, {"cut_at_byte": 100})
        if number == REQUESTS // 2:
            for account in ("ada", "grace", "edsger"):
                sandbox.script.add(account, LIMITED)
        if number % 100 == 50:
            left += 1
            data = message(number, gateway.key, stream=True)
            await leave(gateway.port, data, at_once=bool(left % 2))
            return
        make = MIXTURE[number % len(MIXTURE)]
        answer = await caller.ask(make(number, gateway.key))
        answers[str(answer.header("request-id"))] = answer
        if number % 100 == 0:
            gateway.health()

    await load.crowd(gateway.port, AT_A_TIME, range(REQUESTS), put)

    rows = settled_rows(gateway, REQUESTS)
    assert len(answers) == REQUESTS - left
    for request_id, answer in answers.items():
        row = rows[request_id]
        assert row["status"] == answer.status
        assert tokens_of(row) == tokens_in(answer)
        assert row["key_name"] == "ana" or answer.status in {401, 404, 405}
    gone = [row for row in rows.values() if row["end_reason"] == "client_gone"]
    assert left // 4 <= len(gone) <= left
    statuses = Counter(answer.status for answer in answers.values())
    assert statuses.keys() >= {200, 400, 401, 404, 405, 429}
    hops = sum(row["failed_attempts"] > 0 for row in rows.values())
    assert hops > REQUESTS // 50
    counts = {str(status): count for status, count in sorted(statuses.items())}
    print(load.line(hops=hops, gone=len(gone), **counts))  # noqa: T201  # to measure

    manage(gateway, "assert rollups.roll_up(seconds=60).is_done")
    assert_sums_are_those_of_rows(gateway)
    before = all_sums(gateway)
    manage(gateway, "rollups.rebuild()")
    assert all_sums(gateway) == before


def manage(gateway: Gateway, statement: str) -> None:
    command = f"from usage import rollups\n{statement}"
    gateway.manage("shell", "--verbosity", "0", "--command", command)


SUMMED = (
    *("input_tokens", "write_5m_tokens", "write_1h_tokens", "read_tokens"),
    *("output_tokens", "web_searches", "cost", "failed_attempts", "first_byte_ms"),
    *("duration_ms", "request_bytes", "answer_bytes"),
)
GROUP = "account_id, account_name, key_id, key_name, model, outcome"
OF_ROWS = ", ".join(
    [
        "count(*) AS requests",
        "sum(is_incomplete) AS incomplete",
        "sum(is_unpriced) AS unpriced",
        *(f"coalesce(sum({name}), 0) AS {name}" for name in SUMMED),
    ]
)
OF_SUMS = ", ".join(
    f"sum({name}) AS {name}" for name in ("requests", "incomplete", "unpriced", *SUMMED)
)
SUMS = ("hourlyusage", "dailyusage", "hourlymarginal", "dailymarginal")


def assert_sums_are_those_of_rows(gateway: Gateway) -> None:
    by_group = f"GROUP BY {GROUP} ORDER BY {GROUP}"
    rows = select(gateway, "requestrow", f"{GROUP}, {OF_ROWS}", by_group)
    for table in ("hourlyusage", "dailyusage"):
        assert select(gateway, table, f"{GROUP}, {OF_SUMS}", by_group) == rows
    (total,) = select(gateway, "requestrow", OF_ROWS)
    assert total["requests"] == REQUESTS
    assert min(total["input_tokens"], total["output_tokens"], total["cost"]) > 0
    for table in ("hourlymarginal", "dailymarginal"):
        assert select(gateway, table, OF_SUMS, "GROUP BY dimension") == [total] * 5


def all_sums(gateway: Gateway) -> list[set[tuple[Any, ...]]]:
    return [
        {
            tuple(value for name, value in row.items() if name != "id")
            for row in select(gateway, table)
        }
        for table in SUMS
    ]
