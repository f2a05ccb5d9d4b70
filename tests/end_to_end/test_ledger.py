"""Every request leaves one row, and the row says what the upstream says."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end import gateway as gateways
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import Wire, ask, exchange, parse, request

pytestmark = pytest.mark.processes

_ROWS = (
    "import json\n"
    "from usage.models import RequestRow\n"
    "print(json.dumps(list(RequestRow.objects.order_by('id').values()), default=str))"
)


@pytest.fixture
def gateway(
    template: Furnished, sandbox_server: SandboxServer, sandbox: Sandbox, tmp_path: Path
) -> Iterator[Gateway]:
    """A gateway of the test's own, with an empty ledger."""
    with gateways.running(
        template, tmp_path, upstream_url=sandbox_server.url
    ) as gateway:
        yield gateway


def rows(gateway: Gateway) -> list[dict[str, Any]]:
    printed = gateway.manage("shell", "--verbosity", "0", "--command", _ROWS)
    found: list[dict[str, Any]] = json.loads(printed)
    return found


def rows_of(gateway: Gateway, count: int) -> list[dict[str, Any]]:
    """All rows, waited for until there are so many."""
    found = until(
        lambda: found if len(found := rows(gateway)) >= count else [], within_seconds=15
    )
    assert len(found) == count
    return found


def test_whole_and_streamed_answers_cost_the_same_and_say_what_was_used(
    gateway: Gateway,
) -> None:
    whole = exchange(gateway.port, request(ask(), key=gateway.key)).json()["usage"]
    exchange(gateway.port, request(ask(stream=True), key=gateway.key))
    first, second = rows_of(gateway, 2)

    assert first["input_tokens"] == whole["input_tokens"] > 0
    assert first["output_tokens"] == whole["output_tokens"] > 0
    assert first["cost"] == second["cost"]
    assert float(first["cost"]) > 0
    assert second["is_stream"]
    for row in (first, second):
        assert (row["end_reason"], row["outcome"]) == ("complete", "served")
        assert row["model"] == "claude-opus-5-5"
        assert row["key_name"] == "ana"
        assert row["account_name"] in {"ada", "grace", "edsger"}
        assert row["session_digest"]
        assert not row["is_incomplete"]
        assert row["answer_bytes"] > 100
        assert 0 < row["first_byte_ms"] <= row["duration_ms"]


def test_refused_requests_leave_their_row_and_health_checks_none(
    gateway: Gateway,
) -> None:
    httpx.get(f"{gateway.url}/health", trust_env=False)
    for key in ("", "cp_wrong"):
        assert exchange(gateway.port, request(ask(), key=key)).status == 401
    unknown = request(ask(model="claude-nothing"), key=gateway.key)
    assert exchange(gateway.port, unknown).status == 404
    found = rows_of(gateway, 3)

    assert [row["status"] for row in found] == [401, 401, 404]
    assert {row["outcome"] for row in found} == {"refused"}
    # The last one has an answer of the upstream's, and all of it.
    assert [row["end_reason"] for row in found] == ["rejected", "rejected", "complete"]
    assert {row["cost"] for row in found} == {None}
    assert found[2]["model_asked"] == "claude-nothing"


def test_a_request_that_its_headers_condemn_is_still_of_its_key(
    gateway: Gateway,
) -> None:
    headers = [("anthropic-workspace-id", "wrkspc_1")]
    data = request(ask(), key=gateway.key, headers=headers)
    assert exchange(gateway.port, data).status == 400
    (row,) = rows_of(gateway, 1)

    assert (row["key_name"], row["outcome"]) == ("ana", "refused")


def test_attempts_that_failed_are_in_the_row(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"status": 500})
    exchange(gateway.port, request(ask(), key=gateway.key))
    (row,) = rows_of(gateway, 1)

    (attempt,) = row["attempts"]
    assert attempt["blame"] == "upstream"
    assert attempt["reason"] == "status 500"
    assert attempt["duration_ms"] > 0
    assert row["failed_attempts"] == 1
    assert row["outcome"] == "served"


def test_stream_that_breaks_keeps_what_was_seen_and_is_incomplete(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"frames": 50, "cut_before_frame": 20})
    answer = exchange(gateway.port, request(ask(stream=True), key=gateway.key))
    assert b"event: error" in answer.body
    (row,) = rows_of(gateway, 1)

    assert row["end_reason"] == "upstream_error"
    assert row["is_incomplete"]
    assert row["input_tokens"] > 0


def test_caller_who_leaves_is_recorded_with_what_it_has_used(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"hang": 6})
    with Wire(gateway.port) as wire:
        wire.send(request(ask(stream=True), key=gateway.key))
        wire.receive_until(b"event: content_block_delta")
    (row,) = rows_of(gateway, 1)

    assert (row["end_reason"], row["status"]) == ("client_gone", 499)
    assert row["is_incomplete"]
    assert row["input_tokens"] > 0


def test_caller_who_leaves_with_the_whole_answer_has_it(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    with Wire(gateway.port) as wire:
        wire.send(request(ask(stream=True), key=gateway.key))
        wire.receive_until(b"event: message_stop")
    (row,) = rows_of(gateway, 1)

    assert row["end_reason"] == "complete"
    assert not row["is_incomplete"]


def test_killed_worker_loses_nothing_and_counts_nothing_twice(
    template: Furnished, sandbox_server: SandboxServer, sandbox: Sandbox, tmp_path: Path
) -> None:
    with gateways.running(
        template, tmp_path, upstream_url=sandbox_server.url
    ) as gateway:
        served = [
            exchange(gateway.port, request(ask(), key=gateway.key)) for _ in range(5)
        ]
        sandbox.script.add("*", {"hang": 6})
        with Wire(gateway.port) as wire:
            wire.send(request(ask(stream=True), key=gateway.key))
            wire.receive_until(b"event: content_block_delta")
            gateway.worker().send_signal(signal.SIGKILL)
            assert not parse(wire.rest()).is_whole
        found = rows_of(gateway, 6)

    ids = [answer.header("request-id") for answer in served]
    complete = [row for row in found if row["end_reason"] == "complete"]
    assert sorted(row["request_id"] for row in complete) == sorted(map(str, ids))
    (crashed,) = [row for row in found if row["end_reason"] == "crashed"]
    assert crashed["key_name"] == "ana"
    assert crashed["model_asked"] == "claude-opus-5-5"


def test_batches_and_files_leave_rows_without_usage(gateway: Gateway) -> None:
    body = {"requests": [{"custom_id": "one", "params": ask()}]}
    made = request(body, key=gateway.key, target="/v1/messages/batches")
    assert exchange(gateway.port, made).status == 200
    (row,) = rows_of(gateway, 1)

    assert row["endpoint"] == "batches"
    assert row["cost"] is None
