"""Workers go and come while callers are served: on purpose, and by accident."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.end_to_end import gateway as gateways
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.load import (
    Caller,
    LostError,
    crowd,
    line,
    question,
    until_told,
    what_is_wrong,
)
from tests.end_to_end.sandbox_process import SandboxProcess, sandbox_running
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import Answer

pytestmark = pytest.mark.processes

CALLERS = 12
RESTARTS = 3
WORKERS = 2


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxProcess]:
    with sandbox_running(tmp_path) as sandbox:
        # Streams that last, so that each restart meets some.
        sandbox.script("*", {"frames": 20, "frame_delay_ms": 10, "times": "forever"})
        yield sandbox


@pytest.fixture
def gateway(
    template: Furnished, sandbox: SandboxProcess, tmp_path: Path
) -> Iterator[Gateway]:
    with gateways.running(
        template, tmp_path, upstream_url=sandbox.url, workers=WORKERS
    ) as gateway:
        until(lambda: len(gateway.workers()) == WORKERS)
        yield gateway


async def seen(look, *, within_seconds: float = 30):
    """Wait in a thread, so that the callers go on meanwhile."""
    return await asyncio.to_thread(until, look, within_seconds=within_seconds)


async def test_three_rolling_restarts_fail_no_request(gateway: Gateway) -> None:
    wrong: Counter[str] = Counter()
    is_over = False

    async def put(caller: Caller, number: int) -> None:
        stream, keep = bool(number % 2), bool(number % 3)
        data = question(f"Question {number}", key=gateway.key, stream=stream, keep=keep)
        answer = await caller.ask(data)
        wrong[what_is_wrong(answer, stream=stream)] += 1

    async def restart(times: int) -> None:
        nonlocal is_over
        try:
            for _ in range(times):
                before = gateway.workers()
                gateway.process.send_signal(signal.SIGUSR2)
                await seen(lambda before=before: are_replaced(gateway, before))
        finally:
            is_over = True

    callers, _ = await asyncio.gather(
        crowd(gateway.port, CALLERS, until_told(lambda: is_over), put),
        restart(RESTARTS),
    )

    print(  # noqa: T201  # for who measures
        line(
            requests=wrong.total(),
            connections=sum(caller.connections for caller in callers),
            stale=sum(caller.stale for caller in callers),
        )
    )
    assert wrong.keys() == {""}
    # In the instant in which a connection is closed; most are told in time.
    assert sum(caller.stale for caller in callers) <= RESTARTS
    assert gateway.process.poll() is None
    ends = Counter(entry["end"] for entry in gateway.requests_logged())
    assert ends.keys() == {"complete"}


def are_replaced(gateway: Gateway, before: set[psutil.Process]) -> bool:
    now = gateway.workers()
    return len(now) == WORKERS and not now & before


async def test_worker_that_is_killed_takes_only_its_own_answers_with_it(
    gateway: Gateway, sandbox: SandboxProcess
) -> None:
    sandbox.clear_script()
    sandbox.script("*", {"frames": 60, "frame_delay_ms": 50, "times": "forever"})
    victim, other = gateway.workers()
    callers: list[Caller] = []
    answers: dict[psutil.Process, list[asyncio.Task[Answer]]] = {}
    for worker, idle in ((victim, other), (other, victim)):
        # One accepts what comes while the other cannot.
        idle.suspend()
        several = [Caller(gateway.port) for _ in range(CALLERS)]
        answers[worker] = [
            asyncio.create_task(
                caller.ask(question(f"{number}", key=gateway.key, stream=True))
            )
            for number, caller in enumerate(several)
        ]
        await seen(lambda worker=worker: streams(gateway, worker) == CALLERS)
        idle.resume()
        callers += several
    victim.kill()
    killed_at = asyncio.get_running_loop().time()

    # The one that is left, or the new one, answers at once.
    again = Caller(gateway.port)
    data = question("Still there?", key=gateway.key, stream=False, keep=False)
    assert what_is_wrong(await again.ask(data), stream=False) == ""
    answered_after = asyncio.get_running_loop().time() - killed_at

    lost = await asyncio.gather(*answers[victim], return_exceptions=True)
    kept = await asyncio.gather(*answers[other])
    for caller in callers:
        caller.close()
    assert all(is_broken(each) for each in lost)
    assert {what_is_wrong(each, stream=True) for each in kept} == {""}
    await seen(lambda: are_back(gateway, victim))
    print(  # noqa: T201  # for who measures
        line(broken=len(lost), whole=len(kept), answered_after_s=answered_after)
    )


def streams(gateway: Gateway, worker: psutil.Process) -> int:
    """Count the callers that a worker is connected with."""
    return sum(
        each.status == psutil.CONN_ESTABLISHED and each.laddr.port == gateway.port
        for each in worker.net_connections("tcp")
    )


def is_broken(outcome: Answer | BaseException) -> bool:
    if isinstance(outcome, BaseException):
        assert isinstance(outcome, LostError), outcome
        return True
    assert outcome.status == 200
    return not outcome.is_whole


def are_back(gateway: Gateway, victim: psutil.Process) -> bool:
    now = gateway.workers()
    return len(now) == WORKERS and victim not in now
