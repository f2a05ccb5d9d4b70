"""Attempts against an upstream that answers as a script says, account by account."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claudeproxy.errors import ClaudeProxyError
from clients.directory import KnownKey
from proxy import endpoints
from proxy.asks import Ask, Served
from proxy.attempts import Attempts
from proxy.catalogue import Catalogue
from proxy.errors import AllLimitedError, UpstreamTimeoutError
from proxy.facts import RequestFacts
from proxy.gateway import Gateway, OpenRequest
from proxy.handler import GatewayRequest
from proxy.refresher import Refresher
from proxy.retry import Policy
from proxy.snapshot import Contents, Snapshot
from proxy.upstream import Upstream
from tests.factories import pooled

EAGER = Policy(
    max_attempts=5,
    base_delay=timedelta(),
    max_delay=timedelta(),
    jitter_max=timedelta(),
)
MODEL = "claude-opus-5-5"
KINDS = ("ok", "stream", "bad", "down", "overloaded", "burst", "cut", "model", "error")


def error(kind: str, message: str = "Words.") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


class Body(httpx.AsyncByteStream):
    """A body that arrives after its head, as over a network."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    async def __aiter__(self):
        yield self.content


def reply(status: int, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=names, stream=Body(content))


def answer(kind: str) -> httpx.Response:
    stream = {"content_type": "text/event-stream"}
    begin = event("message_start", {})
    match kind:
        case "ok":
            return reply(200, {"type": "message"})
        case "stream":
            whole = begin + event("content_block_start", {}) + event("message_stop", {})
            return reply(200, whole, **stream)
        case "refused":
            return reply(401, error("authentication_error"))
        case "bad":
            return reply(400, error("invalid_request_error"))
        case "down":
            return reply(500, error("api_error"))
        case "gateway timeout":
            return reply(504, error("timeout_error"))
        case "page of an edge":
            return reply(502, b"<html>Bad gateway</html>")
        case "overloaded":
            return reply(529, error("overloaded_error"))
        case "burst":
            return reply(429, error("rate_limit_error"), retry_after_ms="1")
        case "model":
            return reply(404, error("not_found_error", f"model: {MODEL}"))
        case "error at once":
            return reply(200, event("error", error("overloaded_error")), **stream)
        case "error":
            return reply(
                200, begin + event("error", error("overloaded_error")), **stream
            )
    raise httpx.ReadError("cut")


class Case:
    """A gateway with three accounts, and what its upstream was asked."""

    def __init__(self, say: Callable[[int], str], policy: Policy = EAGER) -> None:
        snapshot = Snapshot()
        snapshot.contents = Contents(
            accounts=tuple(pooled(i, credential=str(i)) for i in (1, 2, 3))
        )
        upstream = Upstream(
            "http://upstream.test",
            read_timeout=timedelta(seconds=60),
            transport=httpx.MockTransport(self._answer),
        )
        self.gateway = Gateway(
            *(snapshot, upstream, Refresher(snapshot), Catalogue(snapshot)),
            policy=policy,
        )
        self.asked: list[int] = []
        self.asked_while_benched: list[int] = []
        self._say = say

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        account_id = int(request.headers["x-api-key"])
        if self.why_not(account_id) and not self._is_on_trial(account_id):
            self.asked_while_benched.append(account_id)
        self.asked.append(account_id)
        kind = self._say(account_id)
        if kind == "silent":
            await asyncio.Event().wait()
        return answer(kind)

    def why_not(self, account_id: int, model: str | None = MODEL) -> str | None:
        account = self.gateway.snapshot.find(account_id)
        assert account is not None
        found = self.gateway.benches.why_not(account, model, datetime.now(UTC))
        return found.reason if found else None

    def _is_on_trial(self, account_id: int) -> bool:
        circuit = self.gateway.benches._circuits.get(account_id)
        return circuit is not None and circuit.is_on_trial

    @property
    def trials(self) -> list[int]:
        return [i for i in (1, 2, 3) if self._is_on_trial(i)]

    def request(self) -> GatewayRequest:
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/messages",
            "raw_path": b"/v1/messages",
            "query_string": b"",
            "headers": [],
            "state": {"gateway": self.gateway},
        }
        task = asyncio.current_task()
        assert task is not None
        return GatewayRequest(scope, None, OpenRequest(task))

    async def run(self) -> tuple[int | ClaudeProxyError, GatewayRequest]:
        """Send a request; return the status or the error, and the request."""
        endpoint = endpoints.find(b"/v1/messages")
        assert endpoint is not None
        key = KnownKey(1, "ana", "user", None, is_revoked=False)
        ask = Ask(endpoint, key, RequestFacts(model=MODEL), b"{}")
        request = self.request()
        async with request.resources:
            try:
                served = await Attempts(request, ask).run()
            except ClaudeProxyError as refused:
                return refused, request
            assert isinstance(served, Served)
            return served.reply.status, request


def saying(*kinds: str) -> Callable[[int], str]:
    left = iter(kinds)
    return lambda _: next(left, "ok")


async def outcome(*kinds: str, policy: Policy = EAGER) -> tuple[Any, Case]:
    case = Case(saying(*kinds), policy)
    result, _ = await case.run()
    return result, case


async def test_a_good_answer_takes_one_attempt():
    result, case = await outcome("ok")

    assert (result, case.asked) == (200, [1])


@pytest.mark.parametrize("kind", ["down", "overloaded", "burst", "cut", "model"])
async def test_a_failure_is_answered_by_somebody_else(kind):
    result, case = await outcome(kind)

    assert (result, case.asked) == (200, [1, 2])


async def test_an_error_event_before_content_is_answered_by_somebody_else():
    result, case = await outcome("error", "stream")

    assert (result, case.asked) == (200, [1, 2])


async def test_a_bad_request_is_sent_once():
    result, case = await outcome("bad")

    assert (result, case.asked) == (400, [1])


async def test_attempts_end_with_the_last_answer():
    result, case = await outcome(*["down"] * 9)

    assert (result, case.asked) == (500, [1, 2, 3, 1, 2])


async def test_a_burst_is_passed_on_once_and_then_waited_for():
    case = Case(saying("burst", "burst"))
    result, request = await case.run()

    assert (result, case.asked) == (200, [1, 2, 3])
    first, second = request.record.attempts
    assert first.waited == timedelta()
    assert second.waited >= timedelta(milliseconds=1)


async def test_without_retries_the_first_answer_counts():
    result, case = await outcome("down", policy=Policy(is_enabled=False))

    assert (result, case.asked) == (500, [1])


async def test_a_limit_is_no_reason_to_speak_of_others_that_could_serve():
    result, _ = await outcome("burst", policy=Policy(is_enabled=False))

    assert not isinstance(result, AllLimitedError)
    assert result.http_status == 503
    assert result.retry_after


async def test_what_failed_is_recorded():
    case = Case(saying("down", "cut"))
    _, request = await case.run()

    failed = [(it.blame, it.reason) for it in request.record.attempts]
    assert failed == [("upstream", "status 500"), ("network", "network")]


async def test_an_attempt_that_was_refused_is_not_blamed_for_the_wait_after_it(
    settings, monkeypatch
):
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    settings.REQUEST_TIMEOUT = timedelta(milliseconds=50)
    monkeypatch.setattr(Attempts, "_renew", never)
    _, request = await Case(saying("refused")).run()

    (attempt,) = request.record.attempts
    assert (attempt.reason, attempt.may_have_used) == ("credential refused", False)


@pytest.mark.parametrize(
    ("kind", "may_have_used"),
    [
        ("down", False),
        ("overloaded", False),
        ("burst", False),
        ("cut", True),
        ("error", True),
        ("error at once", False),
        ("gateway timeout", True),
        ("page of an edge", True),
    ],
)
async def test_an_attempt_that_was_not_refused_may_have_used_something(
    kind, may_have_used
):
    _, request = await Case(saying(kind)).run()

    (attempt,) = request.record.attempts
    assert attempt.may_have_used == may_have_used


async def test_an_attempt_that_ran_out_of_time_may_have_used_something(settings):
    settings.REQUEST_TIMEOUT = timedelta(milliseconds=50)
    _, request = await Case(saying("silent")).run()

    assert request.record.attempts[0].may_have_used


async def test_the_time_limit_counts_for_all_attempts_together(settings):
    settings.REQUEST_TIMEOUT = timedelta(milliseconds=50)
    result, case = await outcome("down", "cut", "silent")

    assert isinstance(result, UpstreamTimeoutError)
    assert case.asked == [1, 2, 3]
    assert not case.trials


async def test_a_caller_who_leaves_during_a_trial_leaves_it_to_the_next():
    case = Case(saying("silent"))
    benches, past = case.gateway.benches, datetime.now(UTC) - timedelta(seconds=30)
    benches.succeed(2, past)
    for _ in range(3):
        benches.fail(1, past)
    task = asyncio.create_task(case.run())
    while not case.asked:  # noqa: ASYNC110  # nobody can tell it
        await asyncio.sleep(0)
    assert case.trials == [1]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not case.trials
    assert case.why_not(1) is None


@settings(max_examples=60)
@given(st.lists(st.sampled_from(KINDS), max_size=60))
def test_whatever_comes_back_the_promises_hold(kinds):
    async def run():
        case = Case(saying(*kinds))
        for _ in range(12):
            before = len(case.asked)
            result, request = await case.run()

            assert len(case.asked) - before <= EAGER.max_attempts
            assert case.asked_while_benched == []
            assert case.trials == []
            status = result if isinstance(result, int) else result.http_status
            assert status in {200, 400, 404, 429, 500, 503, 529}
            if status == 200 and request.record.attempts:
                # Each failure was followed by an attempt.
                assert len(request.record.attempts) < len(case.asked) - before + 1

    asyncio.run(run())


@given(st.lists(st.sampled_from(["bad", "ok"]), min_size=1, max_size=30))
def test_bad_requests_set_nobody_aside(kinds):
    async def run():
        case = Case(saying(*kinds))
        for _ in kinds:
            await case.run()

        assert [case.why_not(i) for i in (1, 2, 3)] == [None] * 3

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["down", "overloaded", "cut", "error"])
async def test_what_everybody_fails_on_sets_nobody_aside(kind):
    failing = False
    case = Case(lambda _: kind if failing else "ok")
    for _ in range(20):
        failing = True
        await case.run()
        failing = False
        for _ in range(3):
            assert (await case.run())[0] == 200

    assert [case.why_not(i) for i in (1, 2, 3)] == [None] * 3


async def test_an_outage_is_not_multiplied():
    case = Case(lambda _: "down")
    for _ in range(300):
        await case.run()

    # A tenth of the requests, what was saved up, and one for each second.
    assert len(case.asked) <= 300 * 1.1 + 20 + 5
