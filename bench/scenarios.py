"""What is measured of each target, and for how long.

A scenario measures one target once; rounds, order and medians are the caller's.
"""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from bench import wire
from bench.figures import Figures, percentile
from bench.load import Crowd, LoadError, Measured
from bench.targets import Target

CALLERS = 10
STEADY_PER_SECOND = 200
WARM_UP_REQUESTS = 100
JOINING_PER_SECOND = 250
ALL_ANSWERED_SECONDS = 30.0
NS_PER_US = 1_000
NS_PER_MS = 1_000_000
NS_PER_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything; the defaults are those of the committed report."""

    rounds: int = 3
    seconds: float = 3.0
    concurrency: tuple[int, ...] = (1, 10, 32)
    steady_seconds: float = 5.0
    paced_rounds: int = 1
    paced_seconds: float = 10.0
    # How long streams may take to begin, once the last caller has joined.
    paced_slack_seconds: float = 2.0
    streams: int = 500
    starts: int = 3
    settle_seconds: float = 3.0
    rest_seconds: float = 5.0
    accounts: int = 10


QUICK = Plan(
    rounds=1,
    seconds=0.8,
    concurrency=(1, 10),
    steady_seconds=1.5,
    paced_seconds=1.5,
    paced_slack_seconds=1.0,
    starts=1,
    settle_seconds=1.0,
    rest_seconds=1.0,
    accounts=2,
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One table of the report: how a target is measured for it, and how often."""

    kind: str
    title: str
    rounds: int
    measure: Callable[[Target], Coroutine[Any, Any, Figures]]


def scenarios(plan: Plan, only: set[str]) -> list[Scenario]:
    """List the scenarios under load, in the order of the report."""
    found = []
    if "json" in only:
        for callers in plan.concurrency:
            who = "1 caller" if callers == 1 else f"{callers} callers"
            measure = Closed(wire.JSON, callers, plan.seconds)
            found.append(
                Scenario("json", f"Small JSON, {who} at once", plan.rounds, measure)
            )
        title = f"Small JSON, {CALLERS} callers, {STEADY_PER_SECOND} requests/s in all"
        found.append(
            Scenario("steady", title, plan.rounds, Steady(plan.steady_seconds))
        )
    if "stream" in only:
        title = f"Streams of {wire.STREAM_FRAMES} events, {CALLERS} callers at once"
        measure = Closed(wire.STREAM, CALLERS, plan.seconds)
        found.append(Scenario("stream", title, plan.rounds, measure))
    if "paced" in only:
        title = (
            f"{plan.streams} live streams of {wire.PACED_EVENTS_PER_SECOND} events/s"
        )
        paced = Paced(plan.streams, plan.paced_seconds, plan.paced_slack_seconds)
        found.append(Scenario("paced", title, plan.paced_rounds, paced))
    return found


def crowd_for(target: Target, question: wire.Question, callers: int) -> Crowd:
    return Crowd(
        target.port,
        question,
        callers=callers,
        headers=target.headers,
        is_exact=target.is_exact,
    )


class CpuMeter:
    """CPU time of a target between two readings, the busiest process kept apart.

    With one worker the busiest process is the one that serves requests; the others
    (supervisors, job runners) cost their share even when nobody asks.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.before = target.group.cpu()
        self.started_at = time.perf_counter()

    def read(self) -> tuple[int, int, float]:
        """Return nanoseconds of the busiest, of all others, and seconds gone by."""
        seconds = time.perf_counter() - self.started_at
        spent = [
            now - self.before.get(pid, 0)
            for pid, now in self.target.group.cpu().items()
        ]
        if not spent:
            raise LoadError("the target is gone")
        return max(spent), sum(spent) - max(spent), seconds


def first_byte(measured: Measured) -> Figures:
    milliseconds = [seconds * 1_000 for seconds in measured.first_byte_seconds]
    return {
        "p50_ms": percentile(milliseconds, 50),
        "p99_ms": percentile(milliseconds, 99),
    }


@dataclass(frozen=True, slots=True)
class Closed:
    """Callers that ask again at once: how much the target can do, and at what price."""

    question: wire.Question
    callers: int
    seconds: float

    async def __call__(self, target: Target) -> Figures:
        async with crowd_for(target, self.question, self.callers) as crowd:
            await crowd.ask(requests=WARM_UP_REQUESTS)
            meter = CpuMeter(target)
            measured = await crowd.ask(seconds=self.seconds)
            busiest, others, seconds = meter.read()
        requests = measured.requests
        cpu_us = busiest / NS_PER_US / requests
        figures = {
            "per_second": requests / measured.elapsed_seconds,
            "cpu_us": cpu_us,
            "others_us": others / NS_PER_US / requests,
            "core_percent": 100 * busiest / NS_PER_SECOND / seconds,
        }
        if self.question.is_stream:
            figures["event_us"] = cpu_us / self.question.frames
        return figures | first_byte(measured)


@dataclass(frozen=True, slots=True)
class Steady:
    """Callers that ask at a pace a good target can keep: the time a request takes.

    When callers ask again at once, they wait in each other's queue, and the time to
    the first byte says little more than the rate does.
    """

    seconds: float

    async def __call__(self, target: Target) -> Figures:
        async with crowd_for(target, wire.JSON, CALLERS) as crowd:
            await crowd.ask(requests=WARM_UP_REQUESTS)
            meter = CpuMeter(target)
            measured = await crowd.ask(
                seconds=self.seconds, per_second=STEADY_PER_SECOND
            )
            busiest, _, _ = meter.read()
        figures = {
            "per_second": measured.requests / measured.elapsed_seconds,
            "cpu_us": busiest / NS_PER_US / measured.requests,
        }
        return figures | first_byte(measured)


class Paced:
    """Many streams open at once: how late events arrive and what a stream holds."""

    def __init__(self, streams: int, seconds: float, slack_seconds: float) -> None:
        self.streams = streams
        self.seconds = seconds
        self.slack_seconds = slack_seconds
        self.memory_before: dict[str, int] = {}

    async def __call__(self, target: Target) -> Figures:
        # Memory that a first round took is seldom given back, so all compare with it.
        before = self.memory_before.setdefault(target.name, target.group.memory_bytes())
        joining_seconds = self.streams / JOINING_PER_SECOND
        total_seconds = joining_seconds + self.seconds + self.slack_seconds
        deltas = math.ceil(total_seconds * wire.PACED_EVENTS_PER_SECOND)
        question = wire.Question(wire.MODEL_PACED, deltas)
        async with crowd_for(target, question, self.streams) as crowd:
            asking = asyncio.create_task(
                crowd.ask(
                    requests=self.streams,
                    seconds=total_seconds,
                    spread_seconds=joining_seconds,
                )
            )
            try:
                await self._all_answering(crowd, asking)
                busiest, others, seconds = await self._listen(crowd, asking, target)
                after = target.group.memory_bytes()
                measured = await asking
            finally:
                asking.cancel()
        delays = [delay / NS_PER_MS for delay in measured.event_delay_ns]
        return {
            "delay_p50_ms": percentile(delays, 50),
            "delay_p99_ms": percentile(delays, 99),
            "core_percent": 100 * busiest / NS_PER_SECOND / seconds,
            "others_percent": 100 * others / NS_PER_SECOND / seconds,
            "stream_kb": (after - before) / 1_000 / self.streams,
        }

    async def _all_answering(
        self, crowd: Crowd, asking: "asyncio.Task[Measured]"
    ) -> None:
        deadline = time.monotonic() + ALL_ANSWERED_SECONDS
        while crowd.answering < self.streams and not asking.done():
            if time.monotonic() > deadline:
                raise LoadError(f"only {crowd.answering} streams were answered")
            await asyncio.sleep(0.05)
        if asking.done():
            await asking

    async def _listen(
        self, crowd: Crowd, asking: "asyncio.Task[Measured]", target: Target
    ) -> tuple[int, int, float]:
        meter = CpuMeter(target)
        crowd.is_listening = True
        await asyncio.sleep(self.seconds)
        crowd.is_listening = False
        if crowd.answering < self.streams:
            raise LoadError(f"{self.streams} streams were not open at the same time")
        return meter.read()


def first_answer_seconds(target: Target) -> float:
    """Start a target from nothing and time it until it has answered a message."""
    started_at = time.perf_counter()
    try:
        target.spawn()
        target.wait_for_answer()
        return time.perf_counter() - started_at
    finally:
        target.stop()


def at_rest(targets: list[Target], seconds: float) -> dict[str, Figures]:
    """Measure what running targets cost while nobody asks."""
    meters = {target.name: CpuMeter(target) for target in targets}
    time.sleep(seconds)
    figures = {}
    for target in targets:
        busiest, others, gone = meters[target.name].read()
        figures[target.name] = {
            "rest_percent": 100 * (busiest + others) / NS_PER_SECOND / gone,
            "processes": float(len(target.group.members())),
            "memory_mb": target.group.memory_bytes() / 1_000_000,
        }
    return figures
