"""A pool of three accounts whose upstream says what a test wants, attempt by attempt.

The attempts, the judgement, the benches and the budget are the real ones; what would be
written to the database goes to the snapshot directly.
"""

import asyncio
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import httpx

from accounts import verdicts
from accounts.status import AccountKind, AccountStatus
from claudeproxy.errors import ClaudeProxyError
from clients.directory import KnownKey
from proxy import endpoints
from proxy.asks import Ask
from proxy.attempts import Attempts
from proxy.catalogue import Catalogue
from proxy.errors import LACKS_MODEL
from proxy.facts import RequestFacts
from proxy.gateway import Gateway, OpenRequest
from proxy.handler import GatewayRequest
from proxy.refresher import Refresher
from proxy.retry import Budget, Policy
from proxy.snapshot import Contents, Snapshot
from proxy.upstream import Upstream
from tests.factories import pooled

EAGER = Policy(
    max_attempts=5,
    base_delay=timedelta(),
    max_delay=timedelta(),
    jitter_max=timedelta(),
)
IDS = (1, 2, 3)
# Two groups of models that are one line.
MODEL, OF_ITS_LINE, OF_NEITHER = (
    *("claude-opus-4-8", "claude-opus-5-5"),
    "claude-haiku-5-5",
)


@dataclass(frozen=True)
class Said:
    """What the upstream does with one attempt."""

    status: int = 200
    body: bytes = b'{"type": "message"}'
    headers: dict[str, str] = field(default_factory=dict)
    raises: type[Exception] | None = None
    is_silent: bool = False


class Body(httpx.AsyncByteStream):
    """A body that arrives after its head, as over a network."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    async def __aiter__(self):
        yield self.content


def error(kind: str = "some_error", message: str = "Words.", code: str = "") -> bytes:
    said: dict[str, Any] = {"type": kind, "message": message}
    if code:
        said["details"] = {"error_code": code}
    return json.dumps({"type": "error", "error": said}).encode()


def stream(*frames: bytes) -> Said:
    begun = b'event: message_start\ndata: {"type": "message_start"}\n\n'
    body = begun + b"".join(frames)
    return Said(body=body, headers={"content-type": "text/event-stream"})


class WrittenAtOnce(Gateway):
    """A gateway whose verdicts are in its snapshot as soon as they are given."""

    def _write(self, work: Callable[[], object]) -> None:
        verdict = cast("partial[object]", work)
        account_id = verdict.args[0]
        if verdict.func is verdicts.limit:
            changes = {
                "status": AccountStatus.RATE_LIMITED,
                "rate_limited_until": verdict.args[1],
            }
        else:
            changes = {"status": AccountStatus.INVALID}
        contents = self.snapshot.contents
        self.snapshot.contents = replace(
            contents,
            accounts=tuple(
                replace(each, **changes) if each.id == account_id else each
                for each in contents.accounts
            ),
        )


class CountingBudget(Budget):
    """A budget that knows what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0

    def take(self, now: float) -> None:
        assert self.has_one(now)
        self.taken += 1
        super().take(now)


class Pool:
    """The gateway, what its upstream was asked, and what became of its accounts."""

    def __init__(
        self, says: Iterable[Said], kind: AccountKind = AccountKind.API_KEY
    ) -> None:
        snapshot = Snapshot()
        snapshot.contents = Contents(
            accounts=tuple(pooled(i, kind=kind, credential=f"key-{i}") for i in IDS)
        )
        upstream = Upstream(
            "http://upstream.test",
            read_timeout=timedelta(seconds=60),
            transport=httpx.MockTransport(self._answer),
        )
        self.budget = CountingBudget()
        self.gateway = WrittenAtOnce(
            *(snapshot, upstream, Refresher(snapshot), Catalogue(snapshot)),
            policy=EAGER,
            budget=self.budget,
        )
        self.asked: list[int] = []
        self.said: list[Said] = []
        self.asked_while_benched: list[int] = []
        self._says = iter(says)
        self._model: str | None = MODEL

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        sent = request.headers.get("x-api-key") or request.headers["authorization"]
        account_id = int(sent.rpartition("-")[2])
        if self._is_benched(account_id):
            self.asked_while_benched.append(account_id)
        said = next(self._says, Said())
        self.asked.append(account_id)
        self.said.append(said)
        if said.raises is not None:
            raise said.raises("broken")
        if said.is_silent:
            await asyncio.Event().wait()
        return httpx.Response(said.status, headers=said.headers, stream=Body(said.body))

    def _is_benched(self, account_id: int) -> bool:
        circuit = self.gateway.benches._circuits.get(account_id)
        if circuit is not None and circuit.is_on_trial:
            return False
        return self._why_not(account_id, self._model) is not None

    def _why_not(self, account_id: int, model: str | None) -> str | None:
        account = self.gateway.snapshot.find(account_id)
        assert account is not None
        if account.status != AccountStatus.ACTIVE:
            return str(account.status)
        found = self.gateway.benches.why_not(account, model, datetime.now(UTC))
        return found.reason if found else None

    @property
    def effects(self) -> list[str]:
        """What each account is after what happened."""
        return [self._effect(account_id) for account_id in IDS]

    def _effect(self, account_id: int) -> str:
        account = self.gateway.snapshot.find(account_id)
        assert account is not None
        if account.status != AccountStatus.ACTIVE:
            return str(account.status)
        if self._why_not(account_id, None):
            return "set aside"
        why = self._why_not(account_id, MODEL)
        if why is None:
            return "active"
        if why == LACKS_MODEL:
            return "lacks model"
        is_line = self._why_not(account_id, OF_ITS_LINE) is not None
        assert self._why_not(account_id, OF_NEITHER) in {None, LACKS_MODEL}
        return "line limited" if is_line else "group limited"

    async def run(self, model: str | None = MODEL, *, is_stream: bool = False) -> int:
        """Send a request; return the status that the caller gets."""
        self._model = model
        endpoint = endpoints.find(b"/v1/messages")
        assert endpoint is not None
        key = KnownKey(1, "ana", "user", None, is_revoked=False)
        facts = RequestFacts(model=model, is_stream=is_stream)
        task = asyncio.current_task()
        assert task is not None
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/messages",
            "raw_path": b"/v1/messages",
            "query_string": b"",
            "headers": [],
            "state": {"gateway": self.gateway},
        }
        request = GatewayRequest(scope, None, OpenRequest(task))
        async with request.resources:
            try:
                served = await Attempts(request, Ask(endpoint, key, facts, b"{}")).run()
            except ClaudeProxyError as refused:
                return refused.http_status
            return served.reply.status
