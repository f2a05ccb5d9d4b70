"""What answers say of accounts' limits is there to be read, whichever worker saw it."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end import gateway as gateways
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import ask, exchange, request

pytestmark = pytest.mark.processes

PLAN = "anthropic-ratelimit-unified-"


class Reader:
    """Reads the REST API of a gateway as a script of an operator's does."""

    def __init__(self, gateway: Gateway) -> None:
        made = gateway.manage("create_client_key", "reader", "--role=admin", "--json")
        self._port, self._key = gateway.port, json.loads(made)["key"]

    def quota(self, account: str) -> dict[str, dict[str, Any]]:
        answer = exchange(
            self._port,
            request(key=self._key, method="GET", target="/api/accounts"),
        )
        assert answer.status == 200
        (found,) = [row for row in answer.json()["results"] if row["name"] == account]
        return {window["name"]: window for window in found["quota"]}


def serve(gateway: Gateway, text: str, **fields: Any) -> None:
    answer = exchange(gateway.port, request(ask(text, **fields), key=gateway.key))
    assert answer.status == 200


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_what_an_answer_says_of_a_plan_is_shown_within_seconds(
    template: Furnished,
    sandbox_server: SandboxServer,
    sandbox: Sandbox,
    tmp_path: Path,
    is_stream: bool,
) -> None:
    says = {
        "status": "allowed_warning",
        "representative-claim": "seven_day",
        "5h-status": "allowed",
        "5h-utilization": "0.42",
        "7d-status": "allowed_warning",
        "7d-utilization": "0.81",
        "7d-reset": str(int(sandbox.clock.timestamp()) + 3600),
    }
    headers = {f"{PLAN}{name}": value for name, value in says.items()}
    sandbox.script.add("ada", {"headers": headers})
    with gateways.running(
        template, tmp_path, upstream_url=sandbox_server.url
    ) as gateway:
        reader = Reader(gateway)
        serve(gateway, "Hello", stream=is_stream)
        seen = until(lambda: reader.quota("ada"), within_seconds=8)

        assert {name: seen[name]["utilization"] for name in ("5h", "7d")} == {
            "5h": 0.42,
            "7d": 0.81,
        }
        assert seen["7d"]["status"] == "allowed_warning"
        assert seen["7d"]["resets_at"] is not None
        # The sandbox's own counters, which this request has begun to use.
        assert seen["requests"]["limit"] == 1000
        assert seen["requests"]["model_group"] == "claude-opus-5-5"
        assert reader.quota("grace") == {}


@pytest.fixture
def workers(
    template: Furnished, sandbox_server: SandboxServer, sandbox: Sandbox, tmp_path: Path
) -> Iterator[tuple[Gateway, list[psutil.Process]]]:
    with gateways.running(
        template, tmp_path, upstream_url=sandbox_server.url, workers=2
    ) as gateway:
        found = until(lambda: both(gateway))
        try:
            yield gateway, found
        finally:
            for worker in found:
                worker.resume()


def both(gateway: Gateway) -> list[psutil.Process]:
    # Both have answered, so both are there.
    httpx.get(f"{gateway.url}/health", trust_env=False)
    found = sorted(gateway.workers(), key=lambda worker: worker.pid)
    return found if len(found) == 2 else []


def suspend(worker: psutil.Process, gateway: Gateway) -> None:
    """Stop a worker while it holds no lock that others need: the test holds it."""
    path = gateway.data_dir / "claudeproxy.sqlite3"
    with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        worker.suspend()
        database.execute("ROLLBACK")


def test_a_newer_sight_of_another_worker_is_not_overwritten(
    workers: tuple[Gateway, list[psutil.Process]], sandbox: Sandbox
) -> None:
    gateway, (first, second) = workers
    reader = Reader(gateway)
    for account, used in (("ada", "0.1"), ("grace", "0.1"), ("ada", "0.2")):
        sandbox.script.add(account, {"headers": {f"{PLAN}5h-utilization": used}})
    suspend(second, gateway)
    serve(gateway, "one")
    serve(gateway, "two")
    suspend(first, gateway)  # before it has written what it saw, but for rare chance
    second.resume()
    serve(gateway, "three")
    assert [entry.account for entry in sandbox.log.after()] == ["ada", "grace", "ada"]
    until(lambda: used_of(reader, "ada") == 0.2, within_seconds=8)
    first.resume()
    # It writes both at once: when the one is there, the other has been decided.
    until(lambda: used_of(reader, "grace") == 0.1, within_seconds=8)

    assert used_of(reader, "ada") == 0.2


def used_of(reader: Reader, account: str) -> float | None:
    window = reader.quota(account).get("5h")
    return window["utilization"] if window else None
