"""CPU time per request of HTTP clients that the gateway could use upstream.

`python -m bench.client_compare` gives the figures behind the choice of a transport.
Each client sends the same small request, in this process, to the stand-in upstream;
the gateway itself has no part in it.
"""

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import httpx2
import uvloop

from bench import wire
from bench.figures import Figures, median_of_rounds
from bench.processes import choose_cores, end_cleanly_when_told, on_core
from bench.report import markdown_table, number
from bench.targets import Direct
from proxy.transport import AiohttpTransport

PARALLEL = (20, 300)
ACCOUNTS = 10
WARM_UP_SECONDS = 0.5
HEADERS = {
    "content-type": "application/json",
    "accept": "application/json",
    "anthropic-version": "2023-06-01",
    "x-api-key": "sk-ant-api03-bench",
}
TIMEOUT = {"connect": 10.0, "read": 60.0, "write": 60.0, "pool": 10.0}

Send = Callable[[], Awaitable[bytes]]
Contender = Callable[[str], AbstractAsyncContextManager[Send]]


def httpx_send(library: Any, clients: list[Any], url: str) -> Send:
    """Return a sender that takes *clients* in turn; *library* is httpx or httpx2."""
    body = wire.JSON.body()
    turn = itertools.cycle(clients)

    async def send() -> bytes:
        request = library.Request(
            "POST", url, headers=HEADERS, content=body, extensions={"timeout": TIMEOUT}
        )
        response = await next(turn).send(request, stream=True)
        try:
            return b"".join([part async for part in response.aiter_raw()])
        finally:
            await response.aclose()

    return send


def httpx_clients(library: Any, count: int) -> Contender:
    """Return a contender with so many clients, each with the library's own pool."""

    @asynccontextmanager
    async def contender(url: str) -> AsyncIterator[Send]:
        async with AsyncExitStack() as stack:
            # As one would run it: no ceiling, and not 300 idle connections to scan.
            limits = library.Limits(max_connections=None, max_keepalive_connections=64)
            clients = [
                await stack.enter_async_context(
                    # No TLS here, and loading certificates would cost start-up time.
                    library.AsyncClient(limits=limits, trust_env=False, verify=False)
                )
                for _ in range(count)
            ]
            yield httpx_send(library, clients, url)

    return contender


@asynccontextmanager
async def httpx_over_aiohttp(url: str) -> AsyncIterator[Send]:
    transport = AiohttpTransport()
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        yield httpx_send(httpx, [client], url)


@asynccontextmanager
async def bare_aiohttp(url: str) -> AsyncIterator[Send]:
    body = wire.JSON.body()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as session:

        async def send() -> bytes:
            async with session.post(url, data=body, headers=HEADERS) as response:
                return await response.read()

        yield send


CONTENDERS: dict[str, Contender] = {
    f"httpx {httpx.__version__}, one client": httpx_clients(httpx, 1),
    f"httpx, {ACCOUNTS} clients": httpx_clients(httpx, ACCOUNTS),
    f"httpx2 {httpx2.__version__}, one client": httpx_clients(httpx2, 1),
    f"httpx2, {ACCOUNTS} clients": httpx_clients(httpx2, ACCOUNTS),
    "httpx over our aiohttp transport": httpx_over_aiohttp,
    f"aiohttp {aiohttp.__version__}, bare": bare_aiohttp,
}


async def send_until(send: Send, parallel: int, seconds: float) -> int:
    """Keep *parallel* requests in flight for *seconds*; return how many were made."""
    deadline = time.perf_counter() + seconds
    made = 0

    async def worker() -> None:
        nonlocal made
        while time.perf_counter() < deadline:
            if await send() != wire.ANSWER:
                raise ValueError("the answer is not the one that was sent")
            made += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(parallel):
            group.create_task(worker())
    return made


async def cpu_ms(contender: Contender, url: str, seconds: float) -> Figures:
    """Measure one client at each parallelism, in CPU milliseconds per request."""
    figures = {}
    for parallel in PARALLEL:
        async with contender(url) as send:
            await send_until(send, parallel, WARM_UP_SECONDS)
            before = time.process_time()
            made = await send_until(send, parallel, seconds)
            figures[str(parallel)] = (time.process_time() - before) / made * 1_000
    return figures


def in_turns(url: str, rounds: int, seconds: float) -> dict[str, Figures]:
    """Measure all clients in turns and return the median of the rounds."""
    found: dict[str, list[Figures]] = {name: [] for name in CONTENDERS}
    for _ in range(rounds):
        for name, contender in CONTENDERS.items():
            print(name, file=sys.stderr, flush=True)
            found[name].append(uvloop.run(cpu_ms(contender, url, seconds)))
    return {name: median_of_rounds(each) for name, each in found.items()}


def compare(rounds: int, seconds: float) -> dict[str, Figures]:
    """Measure all clients on one core, with the upstream on another."""
    cores = choose_cores()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        upstream = Direct(Path(directory), core=cores.load)
        try:
            upstream.start()
            url = f"http://127.0.0.1:{upstream.port}/v1/messages"
            with on_core(cores.target):
                return in_turns(url, rounds, seconds)
        finally:
            upstream.stop()


def render(found: dict[str, Figures]) -> str:
    head = ["CPU ms per request", *(f"{parallel} parallel" for parallel in PARALLEL)]
    rows = [
        [name, *(number(figures[str(parallel)], 2) for parallel in PARALLEL)]
        for name, figures in found.items()
    ]
    return markdown_table(head, rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.client_compare")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    end_cleanly_when_told()
    try:
        found = compare(options.rounds, options.seconds)
    except KeyboardInterrupt:
        return 130
    print(render(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
