"""Claude Code through the gateway, when asked for; its costs are those in the rows.

Set CLAUDE_CODE to 1 or to the path of the program.
"""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end import claude_code
from tests.end_to_end import gateway as gateways
from tests.end_to_end.claude_code import ClaudeCode
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import ask, exchange, request
from tests.usage.claude_code import AGREED, CASES, DIFFERENT, UNPRICED, Case

pytestmark = [pytest.mark.processes, claude_code.on_demand]

_NANO = Decimal("1e-9")
_TOOL = "Read"
_DISCOVERING = {"CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1"}
_ACCOUNTS = ("ada", "grace", "edsger")
_MODELS = sorted({"claude-opus-5-5", *(case.model for case in CASES)})


@pytest.fixture(scope="module")
def program() -> Path:
    return claude_code.find()


@pytest.fixture
def sandbox(sandbox_server: SandboxServer) -> Sandbox:
    """The stand-in for Claude, with accounts that have every model."""
    sandbox = sandbox_server.sandbox
    sandbox.reset()
    for name in _ACCOUNTS:
        sandbox.accounts.revoke(name)
        sandbox.accounts.add(name, f"sk-sandbox-{name}", _MODELS)
    return sandbox


@pytest.fixture(scope="module")
def counting_gateway(
    program: Path,
    template: Furnished,
    sandbox_server: SandboxServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("counting")
    with gateways.running(
        template, directory, upstream_url=sandbox_server.url
    ) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def reports(counting_gateway: Gateway) -> Iterator[httpx.Client]:
    """The REST API, by the key of somebody who may read it."""
    issued = counting_gateway.manage(
        "create_client_key", "reader", "--role", "admin", "--json"
    )
    with httpx.Client(
        base_url=counting_gateway.url,
        headers={"x-api-key": json.loads(issued)["key"]},
        trust_env=False,
        timeout=20,
    ) as client:
        yield client


@pytest.fixture
def claude(
    program: Path, counting_gateway: Gateway, sandbox: Sandbox, tmp_path: Path
) -> ClaudeCode:
    return ClaudeCode(program, tmp_path, counting_gateway)


def messages_logged(gateway: Gateway) -> list[dict[str, Any]]:
    return [
        entry
        for entry in gateway.requests_logged()
        if entry["path"] == "/v1/messages" and entry["method"] == "POST"
    ]


def row(reports: httpx.Client, request_id: str) -> dict[str, Any]:
    """The row of one request, waited for."""

    def look() -> list[dict[str, Any]]:
        answer = reports.get("/api/usage/requests", params={"request_id": request_id})
        return list(answer.json()["results"])

    (found,) = until(look, within_seconds=15)
    return found


def steps(case: Case) -> Iterator[dict[str, Any]]:
    """Answers with the usage of the case, all but the last of which use a tool."""
    *first, last = case.answers
    for usage in first:
        yield {"usage": usage}
    yield {"usage": last, "text": "Done."}


def costs(
    claude: ClaudeCode, sandbox: Sandbox, reports: httpx.Client, case: Case
) -> tuple[Decimal, Decimal | None]:
    """What a run cost, as Claude Code says and as the gateway's rows do."""
    before = len(messages_logged(claude.gateway))
    sandbox.script.add("*", *steps(case))
    result = claude.ask(f"Use {_TOOL}.", "--model", case.model)
    assert not result["is_error"], result["result"]
    assert [entry.model for entry in sandbox.log.after()] == [case.model] * len(
        case.answers
    )

    def look() -> list[dict[str, Any]]:
        new = messages_logged(claude.gateway)[before:]
        return new if len(new) >= len(case.answers) else []

    ids = [entry["request_id"] for entry in until(look)]
    priced = [row(reports, request_id)["cost"] for request_id in ids]
    # It adds up floats, so what is beyond a billionth is noise.
    said = Decimal(result["total_cost_usd"]).quantize(_NANO)
    return said, None if None in priced else sum(map(Decimal, priced), Decimal(0))


@pytest.mark.parametrize("case", AGREED, ids=str)
def test_claude_code_and_the_rows_say_the_same_cost(
    claude: ClaudeCode, sandbox: Sandbox, reports: httpx.Client, case: Case
) -> None:
    said, counted = costs(claude, sandbox, reports, case)
    assert said == counted == Decimal(case.dollars)


@pytest.mark.parametrize("case", DIFFERENT, ids=str)
def test_claude_code_says_another_cost_only_as_written_down(
    claude: ClaudeCode, sandbox: Sandbox, reports: httpx.Client, case: Case
) -> None:
    ours = None if case.ours == UNPRICED else Decimal(case.ours)
    assert costs(claude, sandbox, reports, case) == (Decimal(case.dollars), ours)


# --- how it gets along with the gateway


def test_text_reaches_claude_code_while_it_is_said(
    claude: ClaudeCode, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"frames": 20, "frame_delay_ms": 100})
    said = claude.watch("Hello", "--model", "claude-opus-5-5")

    events = [line["event"] for line in said if line["type"] == "stream_event"]
    assert [event["type"] for event in events][-2:] == ["message_delta", "message_stop"]
    deltas = [event["delta"]["type"] for event in events if "text" in _delta(event)]
    assert deltas == ["text_delta"] * 20
    # All frames together take more than two seconds.
    assert said[-1]["ttft_ms"] + 1_000 < said[-1]["duration_ms"]


def _delta(event: dict[str, Any]) -> dict[str, Any]:
    return event.get("delta", {}) if event["type"] == "content_block_delta" else {}


def test_continued_conversation_stays_with_its_account(
    claude: ClaudeCode, sandbox: Sandbox
) -> None:
    before = len(messages_logged(claude.gateway))
    model = ("--model", "claude-opus-5-5")
    claude.ask("One", *model)
    for word in ("Two", "Three"):
        claude.ask(word, "--continue", *model)

    first, second, third = (entry.account for entry in sandbox.log.after())
    assert first == second == third
    routings = [entry["routing"] for entry in messages_logged(claude.gateway)[before:]]
    assert routings == ["round_robin", "affinity", "affinity"]


def test_conversations_take_turns_on_the_accounts(
    claude: ClaudeCode, sandbox: Sandbox
) -> None:
    for word in ("One", "Two", "Three"):
        claude.ask(word, "--model", "claude-opus-5-5")
    assert {entry.account for entry in sandbox.log.after()} == set(_ACCOUNTS)


@pytest.fixture
def narrow(
    program: Path,
    template: Furnished,
    sandbox_server: SandboxServer,
    sandbox: Sandbox,
    tmp_path: Path,
) -> Iterator[ClaudeCode]:
    """Claude Code at a gateway with room for one client."""
    with gateways.running(
        template,
        tmp_path / "gateway",
        upstream_url=sandbox_server.url,
        SESSION_MAX_CONCURRENT="1",
    ) as gateway:
        yield ClaudeCode(program, tmp_path, gateway)


def other_client(gateway: Gateway) -> int:
    """The status that another client gets."""
    named = (("user-agent", "other"),)
    return exchange(gateway.port, request(ask(), key=gateway.key, headers=named)).status


def test_all_runs_of_claude_code_are_one_client(narrow: ClaudeCode) -> None:
    for word in ("One", "Two"):
        result = narrow.ask(word, "--model", "claude-opus-5-5")
        assert not result["is_error"], result["result"]
    assert other_client(narrow.gateway) == 429


def test_looking_for_models_makes_claude_code_no_second_client(
    narrow: ClaudeCode,
) -> None:
    # It does so under another User-Agent, `claude-code/…` instead of `claude-cli/…`.
    result = narrow.ask("Hello", "--model", "claude-opus-5-5", **_DISCOVERING)
    assert result["api_error_status"] is None


def test_claude_code_finds_the_models_of_the_gateway(
    claude: ClaudeCode, sandbox: Sandbox
) -> None:
    claude.ask("Hello", "--model", "claude-opus-5-5", **_DISCOVERING)
    assert claude.models_found() == set(_MODELS)


def test_claude_code_says_that_there_are_too_many_clients(
    narrow: ClaudeCode, sandbox: Sandbox
) -> None:
    assert other_client(narrow.gateway) == 200
    result = narrow.ask("Hello", "--model", "claude-opus-5-5")

    assert result["api_error_status"] == 429
    assert "SESSION_MAX_CONCURRENT" in result["result"]
    (entry,) = sandbox.log.after()  # the other client's
    assert dict(entry.headers)["user-agent"] == "other"
    # It asked once and did not try again.
    statuses = [line["status"] for line in messages_logged(narrow.gateway)]
    assert statuses == [200, 429]


def test_claude_code_says_that_its_key_is_wrong(claude: ClaudeCode) -> None:
    result = claude.ask("Hello", "--model", "claude-opus-5-5", key="cp_wrong")
    assert result["api_error_status"] == 401
    assert "This key has a typo" in result["result"]
