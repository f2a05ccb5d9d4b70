"""What one account or the network does before an answer, no caller ever sees."""

import asyncio
import socket
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anthropic
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end import gateway as gateways
from tests.end_to_end.checks import assert_envelope
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import (
    Answer,
    Wire,
    ask,
    exchange,
    fetch,
    frames,
    parse,
    request,
)

pytestmark = pytest.mark.processes

AT_ONCE: dict[str, Any] = {"RETRY_BASE_DELAY": "0s", "RETRY_JITTER_MAX": "0s"}
ACTIVE = {"ada": "active", "grace": "active", "edsger": "active"}


@pytest.fixture
def gateway(
    template: Furnished, sandbox_server: SandboxServer, sandbox: Sandbox, tmp_path: Path
) -> Iterator[Gateway]:
    """A gateway of the test's own: what happens to its accounts stays here."""
    with gateways.running(
        template, tmp_path, upstream_url=sandbox_server.url, web_only=True, **AT_ONCE
    ) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def shared(
    template: Furnished,
    sandbox_server: SandboxServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("failover")
    with gateways.running(
        template, directory, upstream_url=sandbox_server.url, web_only=True, **AT_ONCE
    ) as gateway:
        yield gateway


@pytest.fixture
def steady_gateway(shared: Gateway, sandbox: Sandbox) -> Gateway:
    """A gateway for what leaves no trace on any account."""
    # So many requests pay for one repeat, if everything fails.
    for _ in range(10):
        assert_coherent(say(shared))
    sandbox.log.restart()
    return shared


def say(gateway: Gateway, *, stream: bool = True, **rest: Any) -> Answer:
    """Send a message of a new conversation."""
    body = ask(str(uuid.uuid4()), stream=stream, **rest)
    return exchange(gateway.port, request(body, key=gateway.key))


def assert_coherent(answer: Answer, *, stream: bool = True) -> None:
    assert (answer.status, answer.is_whole) == (200, True), answer.body
    if not stream:
        assert answer.json()["type"] == "message"
        return
    names = [frame.split(b"\n")[0] for frame in frames(answer.body)]
    assert names[0] == b"event: message_start"
    assert names[-1] == b"event: message_stop"
    assert names.count(b"event: message_start") == 1
    assert b"event: error" not in names


def states(gateway: Gateway) -> dict[str, str]:
    path = f"file:{gateway.data_dir / 'claudeproxy.sqlite3'}?mode=ro"
    with closing(sqlite3.connect(path, uri=True)) as connection:
        rows = connection.execute("SELECT name, status FROM accounts_account")
        return dict(rows.fetchall())


def failed(gateway: Gateway, answer: Answer) -> list[tuple[str, str]]:
    """Whom and what the log blames for what the caller did not see."""
    line = gateway.logged(answer.header("request-id") or "")
    return [(each["blame"], each["reason"]) for each in line.get("failed", [])]


def error(message: str, kind: str = "invalid_request_error", code: str = "") -> Any:
    details = {"details": {"error_code": code}} if code else {}
    return {"type": "error", "error": {"type": kind, "message": message} | details}


PAGE = "<html><body>Bad gateway</body></html>"
UPSTREAM_STATUSES = (500, 501, 502, 503, 504, 529)
# What the first attempt meets, and what the log says of it.
SLIPS: dict[str, tuple[dict[str, Any], str, str]] = {
    **{
        f"{status}": ({"status": status}, "upstream", f"status {status}")
        for status in UPSTREAM_STATUSES
        if status != 529
    },
    "529": ({"status": 529}, "upstream", "overloaded"),
    "a page instead": ({"status": 502, "body": PAGE}, "upstream", "status 502"),
    "a page instead of a limit": (
        *({"status": 429, "body": PAGE}, "network", "429 that is not the API's"),
    ),
    "compaction": (
        {"status": 529, "body": error("Words.", "x", "compaction_unavailable")},
        *("upstream", "compaction unavailable"),
    ),
    "organization not ready": (
        {"status": 503, "body": error("Words.", "api_error", "cmek_unavailable")},
        *("account", "organization not ready"),
    ),
    "a filter": ({"status": 403, "body": PAGE}, "network", "403 that is not the API's"),
    "401 once": ({"status": 401}, "credential", "credential refused"),
    "403": ({"status": 403}, "model", "not permitted"),
    "reset": ({"reset": "before_head"}, "network", "network"),
    "cut": ({"cut_at_byte": "before_head"}, "network", "network"),
    "cut at once": ({"cut_at_byte": 0}, "network", "network"),
}
STREAM_SLIPS: dict[str, tuple[dict[str, Any], str, str]] = {
    "cut before content": ({"cut_before_frame": 2}, "network", "network"),
    "cut in the first frame": ({"cut_at_byte": 30}, "network", "network"),
    "reset before content": ({"reset": {"at_byte": 100}}, "network", "network"),
    "nothing": ({"end_after_frame": 0}, "network", "network"),
    "ended before content": ({"end_after_frame": 1}, "network", "network"),
    "no JSON before content": (
        {
            "headers": {"content-type": "text/event-stream"},
            "body": "event: message_start\ndata: oops\n\n",
        },
        *("network", "network"),
    ),
    "error at once": ({"error_at_frame": 1}, "upstream", "overloaded"),
    "error before content": ({"error_at_frame": 2}, "upstream", "overloaded"),
    "fault before content": (
        {"error_at_frame": 2, "error_type": "api_error"},
        "upstream",
        "status 500",
    ),
}


@pytest.mark.parametrize("slip", [*SLIPS, *STREAM_SLIPS])
def test_slip_is_not_seen_in_a_stream_and_costs_no_account(
    steady_gateway: Gateway, sandbox: Sandbox, slip: str
) -> None:
    step, blame, reason = (SLIPS | STREAM_SLIPS)[slip]
    sandbox.script.add("*", step)
    answer = say(steady_gateway)
    assert_coherent(answer)
    assert failed(steady_gateway, answer) == [(blame, reason)]
    assert len(sandbox.log.after()) == 2
    assert states(steady_gateway) == ACTIVE


@pytest.mark.parametrize("slip", [*SLIPS, "cut in the middle"])
def test_slip_is_not_seen_in_a_whole_answer_and_costs_no_account(
    steady_gateway: Gateway, sandbox: Sandbox, slip: str
) -> None:
    cut = ({"cut_at_byte": 200}, "network", "network")
    step, blame, reason = (SLIPS | {"cut in the middle": cut})[slip]
    sandbox.script.add("*", step)
    answer = say(steady_gateway, stream=False)
    assert_coherent(answer, stream=False)
    assert failed(steady_gateway, answer) == [(blame, reason)]
    assert states(steady_gateway) == ACTIVE


RESET_AT = str(int(time.time()) + 7200)
UNIFIED = "anthropic-ratelimit-unified-"
# What the first account says each time, its status afterwards, what the log says.
FAULTS: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "401": ({"status": 401}, "invalid", ["credential refused"] * 2),
    "revoked": (
        {"status": 403, "error_message": "OAuth token has been revoked."},
        "invalid",
        ["credential refused"] * 2,
    ),
    "on hold": (
        {"status": 400, "body": error("On hold.", code="organization_on_hold")},
        "invalid",
        ["organization on hold"] * 2,
    ),
    "retry-after": (
        {"status": 429, "headers": {"retry-after": "600"}},
        "rate_limited",
        ["rate limited"],
    ),
    "unified reset": (
        {
            "status": 429,
            "headers": {f"{UNIFIED}status": "rejected", f"{UNIFIED}reset": RESET_AT},
        },
        "rate_limited",
        ["plan limit spent"],
    ),
    "without headers": ({"status": 429}, "rate_limited", ["rate limited"]),
    "bucket": (
        {"status": 429, "headers": {"retry-after": "60"}},
        "active",
        ["rate limited for this model"],
    ),
    "burst": (
        {"status": 429, "headers": {"retry-after": "8"}},
        "active",
        ["burst"],
    ),
    "growth": (
        {
            "status": 429,
            "body": error("No.", "rate_limit_error", "ramp_limit_exceeded"),
        },
        "active",
        ["throttled"],
    ),
    "linked organization": (
        {
            "status": 402,
            "body": error("No.", "billing_error", "linked_organization_past_due"),
        },
        "rate_limited",
        ["billing problem"],
    ),
    "billing": ({"status": 402}, "rate_limited", ["billing problem"]),
    "spend limit": (
        {"status": 400, "body": error("No.", code="enforced_spend_limit_reached")},
        "rate_limited",
        ["credit or spend limit used up"],
    ),
    "monthly cap": (
        {
            "status": 429,
            "body": error("No.", "rate_limit_error", "contract_spend_limit_reached"),
        },
        "rate_limited",
        ["spend limit reached"],
    ),
    "model": (
        {"status": 404, "body": error("model: claude-opus-5-5", "not_found_error")},
        "active",
        ["model unknown to the account"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_an_account_is_not_seen_and_is_its_own(
    gateway: Gateway, sandbox: Sandbox, fault: str
) -> None:
    step, status, reasons = FAULTS[fault]
    sandbox.script.add("ada", step | {"times": "forever"})
    answers = [say(gateway, stream=bool(number % 2)) for number in range(7)]
    for number, answer in enumerate(answers):
        assert_coherent(answer, stream=bool(number % 2))
    until(lambda: states(gateway) == ACTIVE | {"ada": status})
    # It is asked once, and the others share what it would have had.
    line = gateway.logged(answers[0].header("request-id") or "")
    assert [each["reason"] for each in line["failed"]] == reasons
    assert {each["account"] for each in line["failed"]} == {"ada"}
    asked = Counter(entry.account for entry in sandbox.log.after())
    assert asked["ada"] == len(reasons)
    assert asked["grace"] + asked["edsger"] == 7


def test_limit_lasts_until_the_upstream_says_it_ends(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    for name, seconds in (("ada", 700), ("grace", 600), ("edsger", 800)):
        limit = {"status": 429, "headers": {"retry-after": str(seconds)}}
        sandbox.script.add(name, limit | {"times": "forever"})
    for _ in range(3):
        answer = say(gateway)
        assert_envelope(answer, 429, "rate_limit_error")
        assert 590 <= int(answer.header("retry-after") or 0) <= 600
        # SDKs would sleep for all of it.
        assert answer.header("x-should-retry") == "false"
    assert len(sandbox.log.after()) == 3
    until(lambda: set(states(gateway).values()) == {"rate_limited"})
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key) as client,
        pytest.raises(anthropic.RateLimitError, match="first is back in"),
    ):
        client.messages.create(**ask())


def test_limit_that_is_told_within_an_answer_counts_for_the_next(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    late = {"error_at_frame": 20, "frame_delay_ms": 5, "frames": 30}
    sandbox.script.add("ada", late | {"error_type": "rate_limit_error"})
    answer = say(gateway, stream=True)

    assert frames(answer.body)[-1].startswith(b"event: error\n")
    until(lambda: states(gateway) == ACTIVE | {"ada": "rate_limited"})
    line = gateway.logged(answer.header("request-id") or "")
    assert [each["reason"] for each in line["failed"]] == ["rate limited"]


def test_limit_of_a_group_of_models_leaves_the_other_groups(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    limit = {"status": 429, "headers": {"retry-after": "50"}}
    sandbox.script.add("*", limit | {"times": 3})
    for model in ("claude-opus-5-5", "claude-opus-5-5"):
        answer = say(gateway, model=model)
        assert_envelope(answer, 429, "rate_limit_error")
        assert 40 <= int(answer.header("retry-after") or 0) <= 50
        assert answer.header("x-should-retry") is None
    asked = sandbox.log.after()
    assert {entry.account for entry in asked} == set(ACTIVE)
    assert len(asked) == 3
    for _ in range(3):
        assert_coherent(say(gateway, model="claude-haiku-5-5"))
    assert {entry.account for entry in sandbox.log.after(asked[-1].seq)} == set(ACTIVE)
    assert states(gateway) == ACTIVE


def test_limit_for_counting_tokens_is_none_for_messages(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    path = "/v1/messages/count_tokens"
    limit = {"status": 429, "headers": {"retry-after": "40"}, "times": "forever"}
    sandbox.script.add("*", limit | {"path": path})
    data = request(ask(), key=gateway.key, target=path)
    answer = exchange(gateway.port, data)
    assert_envelope(answer, 429, "rate_limit_error")
    assert answer.header("retry-after") == "40"
    for _ in range(3):
        assert_coherent(say(gateway))
    assert states(gateway) == ACTIVE


def test_short_limit_of_all_may_be_waited_for(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    limit = {"status": 429, "headers": {"retry-after": "30"}, "times": "forever"}
    sandbox.script.add("*", limit)
    answer = say(gateway)
    assert_envelope(answer, 429, "rate_limit_error")
    assert 25 <= int(answer.header("retry-after") or 0) <= 30
    assert answer.header("x-should-retry") is None


def test_without_an_account_that_serves_the_answer_is_503(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"status": 401, "times": "forever"})
    answer = say(gateway)
    assert_envelope(answer, 503, "api_error")
    until(lambda: "active" not in states(gateway).values() or say(gateway) is None)
    assert_envelope(say(gateway), 503, "api_error")


def test_outage_is_told_as_the_upstream_tells_it(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"status": 529, "times": "forever"})
    answer = say(gateway)
    assert_envelope_of_upstream(answer, 529, "overloaded_error")
    assert len(sandbox.log.after()) == 5
    sandbox.script.clear()
    assert_coherent(say(gateway))
    assert states(gateway) == ACTIVE


def assert_envelope_of_upstream(answer: Answer, status: int, kind: str) -> None:
    assert answer.status == status
    assert answer.json()["error"]["type"] == kind


def test_last_account_that_fails_too_is_told_cleanly_and_comes_back_by_itself(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    limit = {"status": 429, "headers": {"retry-after": "600"}, "times": "forever"}
    sandbox.script.add("ada", limit)
    sandbox.script.add("grace", {"status": 500, "times": "forever"})
    for _ in range(8):
        assert_coherent(say(gateway))
    sandbox.script.add("edsger", {"reset": "before_head", "times": "forever"})
    for _ in range(10):
        answer = say(gateway)
        assert answer.is_whole
        assert answer.status in {500, 503}
        assert answer.json()["error"]["type"] == "api_error"
    sandbox.script.clear("grace")
    sandbox.script.clear("edsger")
    for _ in range(8):
        assert_coherent(say(gateway))
    assert states(gateway) == ACTIVE | {"ada": "rate_limited"}


@pytest.mark.parametrize(
    "step",
    [
        {"status": 400},
        {"status": 404},
        {"status": 413},
        {"status": 422},
        {"status": 403},
        {"status": 500},
        {"reset": "before_head"},
        {
            "status": 400,
            "body": error("Your credit balance is too low: Extra inputs"),
        },
    ],
    ids=lambda step: str(step.get("status", "reset")),
)
def test_request_that_is_bad_lowers_nobody_however_often_it_is_sent(
    steady_gateway: Gateway, sandbox: Sandbox, step: dict[str, Any]
) -> None:
    sandbox.script.add("*", step | {"times": "forever"})
    for _ in range(50):
        assert say(steady_gateway).status >= 400
    sandbox.script.clear()
    before = sandbox.log.last_seq
    for _ in range(3):
        assert_coherent(say(steady_gateway))
    served = {entry.account for entry in sandbox.log.after(before)}
    assert served == {"ada", "grace", "edsger"}
    assert states(steady_gateway) == ACTIVE
    assert steady_gateway.health()["status"] == "healthy"


def test_model_nobody_has_stays_unknown_and_costs_nobody(
    steady_gateway: Gateway, sandbox: Sandbox
) -> None:
    for _ in range(5):
        answer = say(steady_gateway, model="claude-none")
        assert answer.status == 404
        assert answer.json()["error"]["type"] == "not_found_error"
    assert_coherent(say(steady_gateway))
    assert states(steady_gateway) == ACTIVE


def test_conversation_moves_with_its_failure_and_stays_moved(
    steady_gateway: Gateway, sandbox: Sandbox
) -> None:
    def go_on() -> str | None:
        data = request(
            ask(stream=True),
            key=steady_gateway.key,
            headers=[("x-claude-code-session-id", session)],
        )
        answer = exchange(steady_gateway.port, data)
        assert_coherent(answer)
        return str(steady_gateway.logged(answer.header("request-id") or "")["routing"])

    session = str(uuid.uuid4())
    go_on()
    sandbox.script.add("*", {"status": 500})
    assert [go_on(), go_on()] == ["moved", "affinity"]
    first, refused, moved, last = [entry.account for entry in sandbox.log.after()]
    assert first == refused != moved == last


def test_gate_does_not_hold_back_what_is_content(
    template: Furnished, sandbox_server: SandboxServer, sandbox: Sandbox, tmp_path: Path
) -> None:
    with gateways.running(
        template,
        tmp_path,
        upstream_url=sandbox_server.url,
        RETRY_GATE_SECONDS="1h",
    ) as gateway:
        sandbox.script.add("*", {"hang": 3})
        with Wire(gateway.port) as wire:
            wire.send(request(ask(stream=True), key=gateway.key))
            seen = wire.receive_until(b"event: content_block_start")
    assert seen.count(b"event: message_start") == 1


PATIENT: dict[str, Any] = {"RETRY_BASE_DELAY": "60s", "RETRY_JITTER_MAX": "0s"}


@pytest.fixture
def patient_gateway(
    template: Furnished, sandbox_server: SandboxServer, sandbox: Sandbox, tmp_path: Path
) -> Iterator[Gateway]:
    """A gateway that makes long pauses."""
    with gateways.running(
        template,
        tmp_path,
        upstream_url=sandbox_server.url,
        web_only=True,
        DRAIN_TIMEOUT="200ms",
        **PATIENT,
    ) as gateway:
        yield gateway


def in_a_pause(gateway: Gateway, sandbox: Sandbox, wire: Wire) -> None:
    """Send a request and wait until its first attempt has failed."""
    sandbox.script.add("*", {"status": 500})
    wire.send(request(ask(), key=gateway.key))
    sandbox.log.wait_for(lambda entries: any(e.outcome for e in entries))


def test_caller_who_leaves_in_a_pause_is_not_waited_for(
    patient_gateway: Gateway, sandbox: Sandbox
) -> None:
    with Wire(patient_gateway.port) as wire:
        in_a_pause(patient_gateway, sandbox, wire)
    (line,) = until(patient_gateway.requests_logged, within_seconds=5)
    assert (line["status"], line["end"]) == (499, "client_gone")
    assert [each["reason"] for each in line["failed"]] == ["status 500"]
    assert len(sandbox.log.after()) == 1


def test_request_in_a_pause_is_told_of_a_restart(
    patient_gateway: Gateway, sandbox: Sandbox
) -> None:
    with Wire(patient_gateway.port) as wire:
        in_a_pause(patient_gateway, sandbox, wire)
        patient_gateway.process.terminate()
        answer = parse(wire.rest())
    assert_envelope(answer, 503, "overloaded_error")


def test_pause_never_outlasts_the_time_limit(
    template: Furnished, sandbox_server: SandboxServer, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.script.add("*", {"status": 500, "times": "forever"})
    with gateways.running(
        template,
        tmp_path,
        upstream_url=sandbox_server.url,
        web_only=True,
        REQUEST_TIMEOUT="5s",
        **PATIENT,
    ) as gateway:
        began = time.monotonic()
        assert say(gateway).status == 500
    assert time.monotonic() - began < 5


def test_upstream_that_is_away_for_a_moment_is_waited_for(
    template: Furnished, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as away:
        port = away.getsockname()[1]
        with (
            gateways.running(
                template,
                tmp_path,
                upstream_url=f"http://127.0.0.1:{port}",
                RETRY_BASE_DELAY="1s",
                RETRY_JITTER_MAX="0s",
            ) as gateway,
            Wire(gateway.port) as wire,
        ):
            wire.send(request(ask(stream=True), key=gateway.key))
            away.accept()[0].close()
            away.close()
            with SandboxServer(port=port):
                answer = parse(wire.rest())
            assert_coherent(answer)
            assert set(failed(gateway, answer)) == {("network", "network")}
            assert states(gateway) == ACTIVE


def test_answers_that_lost_are_let_go_of(
    steady_gateway: Gateway, sandbox: Sandbox
) -> None:
    def open_files() -> int:
        return int(steady_gateway.worker().num_fds())

    before = open_files()
    # Each holds a connection that would stay open for as long as the winner streams.
    sandbox.script.add("*", {"error_at_frame": 2}, {"hang": 6})
    with Wire(steady_gateway.port) as wire:
        wire.send(request(ask(stream=True), key=steady_gateway.key))
        wire.receive_until(b"event: content_block_delta")
        lost, won = sandbox.log.after()
        assert lost.outcome is not None
        assert won.outcome is None
        until(lambda: open_files() <= before + 2)
    until(lambda: open_files() <= before)


def test_callers_who_leave_at_the_gate_leave_nothing_behind(
    steady_gateway: Gateway, sandbox: Sandbox
) -> None:
    before = steady_gateway.worker().num_fds()
    for step in ({"hang": 1}, {"hang": 2}):
        sandbox.script.add("*", step | {"times": 20})
        wires = [Wire(steady_gateway.port) for _ in range(20)]
        for number, wire in enumerate(wires):
            wire.send(request(ask(f"{number}", stream=True), key=steady_gateway.key))
        sandbox.log.wait_for(lambda entries: sum(bool(e.model) for e in entries) >= 20)
        for wire in wires:
            wire.close()
        sandbox.log.wait_for(lambda entries: all(e.outcome for e in entries), 5)
        sandbox.log.restart()
    until(lambda: steady_gateway.worker().num_fds() <= before)
    assert "never retrieved" not in steady_gateway.log_text
    assert "was destroyed" not in steady_gateway.log_text


# --- access tokens that are refused


ADD_DOROTHY = """
from datetime import timedelta
from accounts import registration
from accounts.oauth import Identity, TokenSet
from claudeproxy.crypto import Secret
tokens = TokenSet(
    Secret({access!r}), Secret({refresh!r}), timezone.now() + timedelta(hours=8)
)
identity = Identity("11111111-1111-4111-8111-111111111111", "Orbits", "dorothy", "d@x")
registration.add_oauth("dorothy", tokens, identity, actor="test", now=timezone.now())
"""


@pytest.fixture
def signed_in_gateway(
    template: Furnished, sandbox_server: SandboxServer, sandbox: Sandbox, tmp_path: Path
) -> Iterator[Gateway]:
    """A gateway whose newest account, dorothy, has tokens."""
    settings: dict[str, Any] = {
        "OAUTH_CLIENT_ID": sandbox.oauth.client_id,
        "OAUTH_AUTHORIZE_URL": f"{sandbox_server.url}/oauth/authorize",
        "OAUTH_TOKEN_URL": f"{sandbox_server.url}/v1/oauth/token",
    }
    with gateways.running(
        template,
        tmp_path,
        upstream_url=sandbox_server.url,
        web_only=True,
        **AT_ONCE,
        **settings,
    ) as gateway:
        pair = sandbox.oauth.issue("dorothy")
        gateway.operate(
            ADD_DOROTHY.format(access=pair.access_token, refresh=pair.refresh_token)
        )
        yield gateway


def ask_dorothy(gateway: Gateway, sandbox: Sandbox) -> Answer:
    """Ask new things until it is dorothy's turn; return that answer."""

    def turn() -> Answer | None:
        before = sandbox.log.last_seq
        answer = say(gateway)
        assert_coherent(answer)
        asked = {entry.account for entry in sandbox.log.after(before)}
        return answer if "dorothy" in asked else None

    return until(turn)


def test_access_token_that_is_refused_is_refreshed_and_the_request_sent_again(
    signed_in_gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.oauth.expire_access_tokens("dorothy")
    answer = ask_dorothy(signed_in_gateway, sandbox)
    line = signed_in_gateway.logged(answer.header("request-id") or "")
    assert line["account"] == "dorothy"
    assert failed(signed_in_gateway, answer) == [("credential", "credential refused")]
    assert len(sandbox.oauth.token_requests()) == 1
    assert states(signed_in_gateway) == ACTIVE | {"dorothy": "active"}


def test_grant_that_is_revoked_makes_its_account_invalid_and_another_serves(
    signed_in_gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.oauth.revoke("dorothy")
    answer = ask_dorothy(signed_in_gateway, sandbox)
    assert failed(signed_in_gateway, answer) == [("credential", "credential refused")]
    until(lambda: states(signed_in_gateway) == ACTIVE | {"dorothy": "invalid"})


def test_token_that_cannot_be_renewed_for_now_costs_nobody_the_account(
    signed_in_gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.oauth.expire_access_tokens("dorothy")
    trouble = {"path": "/v1/oauth/token", "status": 503, "times": "forever"}
    sandbox.script.add("dorothy", trouble)
    ask_dorothy(signed_in_gateway, sandbox)
    for _ in range(4):
        assert_coherent(say(signed_in_gateway))
    assert states(signed_in_gateway) == ACTIVE | {"dorothy": "active"}


# --- all at once

REQUESTS, AT_A_TIME = 2000, 50


@pytest.fixture
def busy_gateway(
    template: Furnished, sandbox_server: SandboxServer, sandbox: Sandbox, tmp_path: Path
) -> Iterator[Gateway]:
    with gateways.running(
        template,
        tmp_path,
        upstream_url=sandbox_server.url,
        RETRY_BASE_DELAY="100ms",
        RETRY_JITTER_MAX="50ms",
    ) as gateway:
        yield gateway


async def test_two_of_three_accounts_fail_all_the_time_and_no_caller_sees_it(
    busy_gateway: Gateway, sandbox: Sandbox
) -> None:
    limit = {"status": 429, "headers": {"retry-after": "600"}, "times": "forever"}
    sandbox.script.add("ada", limit)
    trouble: list[dict[str, Any]] = [{"status": 500}, {"reset": "before_head"}]
    sandbox.script.add("grace", *trouble * REQUESTS)
    numbers = iter(range(REQUESTS))
    statuses: Counter[int] = Counter()

    async def call_on() -> None:
        for number in numbers:
            stream = bool(number % 2)
            body = ask(f"Question {number}", stream=stream)
            data = request(body, key=busy_gateway.key)
            answer = await fetch(busy_gateway.port, data)
            statuses[answer.status] += 1
            assert_coherent(answer, stream=stream)

    await asyncio.gather(*[call_on() for _ in range(AT_A_TIME)])

    assert statuses == {200: REQUESTS}
    until(lambda: states(busy_gateway) == ACTIVE | {"ada": "rate_limited"})
    asked = Counter(entry.account for entry in sandbox.log.after())
    assert asked["ada"] <= AT_A_TIME
    assert asked["grace"] <= 2 * AT_A_TIME
