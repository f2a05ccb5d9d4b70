"""Ten thousand callers that leave, at any moment and in any way, leave nothing."""

import asyncio
import hashlib
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end import gateway as gateways
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.load import line, quantile, question, what_is_wrong
from tests.end_to_end.sandbox_process import SandboxProcess, sandbox_running
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import Wire, exchange

pytestmark = pytest.mark.processes

LEAVERS, AT_A_TIME = 10_000, 50
LONGEST_STAY_SECONDS = 0.3
SAMPLE = 10
NO_LINGER = struct.pack("ii", 1, 0)
# Where callers leave, and what the upstream does meanwhile.
PLACES: dict[str, dict[str, Any]] = {
    "in the request": {},
    "while it waits": {"hang": "before_head"},
    "at the gate": {"hang": 1},
    "in the stream": {"frames": 200, "frame_delay_ms": 2},
}
GROWTH_LIMIT_BYTES = 48 * 1024**2


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxProcess]:
    with sandbox_running(tmp_path) as sandbox:
        yield sandbox


@pytest.fixture
def gateway(
    template: Furnished, sandbox: SandboxProcess, tmp_path: Path
) -> Iterator[Gateway]:
    with gateways.running(template, tmp_path, upstream_url=sandbox.url) as gateway:
        yield gateway


async def leave(
    port: int, data: bytes, chance: random.Random, *, in_request: bool, in_body: bool
) -> None:
    """Send a request, or a part of it, and go away without a word or with a reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data[: chance.randrange(len(data))] if in_request else data)
        await writer.drain()
        if in_body:
            async with asyncio.timeout(20):
                await reader.readexactly(chance.randrange(1, 3_000))
        else:
            await asyncio.sleep(chance.random() * LONGEST_STAY_SECONDS)
        if chance.random() < 0.5:
            end = writer.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    finally:
        writer.transport.abort()


def connections(worker: psutil.Process) -> int:
    return sum(
        each.status == psutil.CONN_ESTABLISHED for each in worker.net_connections("tcp")
    )


def warm(gateway: Gateway) -> None:
    """Ask as many at once as will come, so that all that stays is there."""
    wires = [Wire(gateway.port) for _ in range(AT_A_TIME)]
    for number, wire in enumerate(wires):
        wire.send(question(f"{number}", key=gateway.key, stream=True, keep=False))
    for wire in wires:
        wire.rest()
        wire.close()


async def test_ten_thousand_callers_who_leave_leave_nothing_behind(
    gateway: Gateway, sandbox: SandboxProcess
) -> None:
    worker = gateway.worker()
    warm(gateway)
    connected, open_files = connections(worker), worker.num_fds()
    began, chance = time.monotonic(), random.Random(4)  # noqa: S311  # the same each time
    # What the first thousand make it grow by is reused by the others.
    memory = 0

    for place, step in PLACES.items():
        sandbox.clear_script()
        if step:
            sandbox.script("*", step | {"times": "forever"})
        numbers = iter(range(LEAVERS // len(PLACES)))

        async def leave_on(
            place: str = place, numbers: Iterator[int] = numbers
        ) -> None:
            for number in numbers:
                stream = place == "in the stream" or bool(number % 2)
                data = question(f"{place} {number}", key=gateway.key, stream=stream)
                await leave(
                    gateway.port,
                    data,
                    chance,
                    in_request=place == "in the request",
                    in_body=place == "in the stream",
                )

        await asyncio.gather(*[leave_on() for _ in range(AT_A_TIME)])
        until(lambda: sandbox.in_flight() == 0, within_seconds=10)
        memory = memory or worker.memory_info().rss

    took = time.monotonic() - began
    until(lambda: connections(worker) <= connected, within_seconds=10)
    until(lambda: worker.num_fds() <= open_files + 1)
    grown = worker.memory_info().rss - memory
    lines = gateway.requests_logged()
    ends = Counter((entry["end"], entry["status"]) for entry in lines)
    print(  # noqa: T201  # for who measures
        line(
            seconds=took,
            grown_kb=grown // 1024,
            upstream=len(sandbox.log()),
            **{f"{end}": count for end, count in ends.items()},
        )
    )
    assert grown < GROWTH_LIMIT_BYTES
    assert ends.keys() == {("client_gone", 499), ("complete", 200)}
    # Whoever sent a whole request was waiting for what never came, but for some that
    # left behind the last byte.
    assert ends["client_gone", 499] >= LEAVERS // 2
    assert "never retrieved" not in gateway.log_text
    assert "was destroyed" not in gateway.log_text
    sandbox.clear_script()
    answer = exchange(
        gateway.port, question("Hello", key=gateway.key, stream=True, keep=False)
    )
    assert what_is_wrong(answer, stream=True) == ""


@pytest.mark.parametrize(
    ("place", "stream"),
    [
        ("while it waits", True),
        ("while it waits", False),
        ("at the gate", True),
        ("at the gate", False),  # for its body
        ("in the stream", True),
    ],
)
def test_call_upstream_ends_within_half_a_second_of_its_caller(
    gateway: Gateway, sandbox: SandboxProcess, place: str, stream: bool
) -> None:
    step = PLACES[place] | ({"frame_delay_ms": 50} if place == "in the stream" else {})
    sandbox.script("*", step | {"times": "forever"})
    left_at: dict[str, float] = {}
    for number in range(SAMPLE):
        data = question(f"{place} {number}", key=gateway.key, stream=stream)
        body = data.partition(b"\r\n\r\n")[2]
        with Wire(gateway.port) as wire:
            wire.send(data)
            await_arrivals(sandbox, number + 1)
            if place == "in the stream":
                wire.receive_until(b"content_block_delta")
        left_at[hashlib.sha256(body).hexdigest()] = time.time()

    until(lambda: sandbox.in_flight() == 0, within_seconds=10)
    # By the sandbox's clock, which is this machine's.
    late = [gone_at(entry) - left_at[entry["body_sha256"]] for entry in sandbox.log()]
    assert max(late) < 0.5
    print(  # noqa: T201  # for who measures
        line(p50_ms=quantile(late, 0.5) * 1000, longest_ms=max(late) * 1000)
    )
    until(lambda: len(gateway.requests_logged()) == SAMPLE)
    ends = {(entry["end"], entry["status"]) for entry in gateway.requests_logged()}
    assert ends == {("client_gone", 499)}


def await_arrivals(sandbox: SandboxProcess, count: int) -> None:
    """Wait until so many requests have come whole."""
    until(lambda: sum(bool(entry["body_sha256"]) for entry in sandbox.log()) == count)


def gone_at(entry: dict[str, Any]) -> float:
    came = datetime.fromisoformat(entry["at"]).timestamp()
    return came + float(entry["client_gone_after_ms"]) / 1000
