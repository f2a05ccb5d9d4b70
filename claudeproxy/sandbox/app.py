"""The ASGI application: reads requests, and lets their answers play out."""

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import Final

import msgspec

from claudeproxy.sandbox import api, calls, control, delivery
from claudeproxy.sandbox.accounts import EVERYONE, Account, Caller
from claudeproxy.sandbox.calls import Call
from claudeproxy.sandbox.delivery import Plan, Reply
from claudeproxy.sandbox.errors import ClientGoneError, GrantError
from claudeproxy.sandbox.log import Entry, Outcome
from claudeproxy.sandbox.oauth import authorize, endpoints, requests
from claudeproxy.sandbox.objects import routes
from claudeproxy.sandbox.script import NOTHING, Step
from claudeproxy.sandbox.state import Sandbox
from claudeproxy.sandbox.wire import Exchange, Receive, Scope, Send

BODY_LIMIT_BYTES: Final = 32 * 1024 * 1024
# A query with a code or a token in it stays out of the log.
SECRET_QUERY_PATHS: Final = (authorize.CALLBACK_PATH, *endpoints.TOKEN_PATHS)


class SandboxApp:
    """Serves one sandbox over ASGI."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        exchange = Exchange(scope, receive, send)
        path = scope["path"]
        try:
            if path == control.PREFIX or path.startswith(f"{control.PREFIX}/"):
                await self._control(exchange)
            else:
                await self._api(exchange)
        finally:
            await exchange.close()

    async def _control(self, exchange: Exchange) -> None:
        scope = exchange.scope
        try:
            body = await exchange.read_body(BODY_LIMIT_BYTES)
        except ClientGoneError:
            return
        query = scope["query_string"].decode("latin-1")
        status, value = control.handle(
            self.sandbox, scope["method"], scope["path"], query, body or b""
        )
        content = msgspec.json.encode(value)
        length = (b"content-length", str(len(content)).encode())
        await exchange.start(status, [calls.LABEL, calls.JSON, length])
        await exchange.end(content)

    async def _api(self, exchange: Exchange) -> None:
        scope = exchange.scope
        caller = self.sandbox.identify(scope["headers"])
        query = scope["query_string"].decode("latin-1")
        entry = self.sandbox.log.arrive(
            caller,
            request_id=f"req_{secrets.token_hex(12)}",
            method=scope["method"],
            path=scope["path"],
            query="" if scope["path"] in SECRET_QUERY_PATHS else query,
        )
        outcome: Outcome | None = None
        try:
            outcome = await self._serve(exchange, entry, caller)
        except ClientGoneError:
            outcome = Outcome.CLIENT_GONE
        except asyncio.CancelledError:
            # How other servers tell that the client has left.
            outcome = Outcome.CLIENT_GONE
            raise
        finally:
            entry.body_bytes = exchange.body_bytes
            entry.bytes_sent = exchange.bytes_sent
            entry.client_gone_after_ms = exchange.gone_after_ms
            self.sandbox.log.finish(entry, outcome)
        if outcome in (Outcome.CUT, Outcome.RESET):
            await exchange.abort(reset=outcome is Outcome.RESET)

    async def _serve(self, exchange: Exchange, entry: Entry, caller: Caller) -> Outcome:
        limit = routes.upload_limit(entry.method, entry.path)
        if limit is None:
            body = await exchange.read_body(BODY_LIMIT_BYTES)
            return await self._answer(exchange, entry, caller, body)
        with self.sandbox.objects.disk.temporary() as file:
            body = b"" if await exchange.save_body(limit, file) else None
            upload = Path(file.name)
            return await self._answer(exchange, entry, caller, body, upload)

    async def _answer(
        self,
        exchange: Exchange,
        entry: Entry,
        caller: Caller,
        body: bytes | None,
        upload: Path | None = None,
    ) -> Outcome:
        entry.body_sha256 = exchange.body_sha256
        head = None
        if entry.path in endpoints.TOKEN_PATHS:
            self._note_grant(exchange, entry, body)
        else:
            head = api.peek(body)
        account = caller.accepted_account
        step = self._take_step(entry, account)
        latency_ms = account.latency_ms if account else 0.0
        if head is not None:
            entry.model, entry.stream = head.model, bool(head.stream)
        call = Call(
            sandbox=self.sandbox,
            method=entry.method,
            path=entry.path,
            query=exchange.scope["query_string"].decode("latin-1"),
            headers=exchange.scope["headers"],
            body=body,
            head=head,
            account=account,
            request_id=entry.request_id,
            scope=caller.scope,
            refusal=caller.refusal,
            step=step,
            upload=upload,
        )
        reply = api.respond(call)
        entry.token_outcome = reply.token_outcome
        plan = delivery.plan(reply, step, entry.request_id)
        if len(reply.frames) > 1 or latency_ms or step is not NOTHING:
            exchange.watch()
        if latency_ms:
            await exchange.pause(latency_ms)
        try:
            return await _play(exchange, entry, reply, plan, step)
        finally:
            entry.frames_sent = plan.frames_in(exchange.bytes_sent)

    def _note_grant(self, exchange: Exchange, entry: Entry, body: bytes | None) -> None:
        with contextlib.suppress(GrantError):
            asked = requests.read(exchange.scope["headers"], body)
            self.sandbox.oauth.note(asked, entry)

    def _take_step(self, entry: Entry, account: Account | None) -> Step:
        name = account.name if account else None
        if entry.path in endpoints.TOKEN_PATHS:
            name = entry.account or EVERYONE
        if name is None:
            return NOTHING
        return self.sandbox.script.take(name, entry.path) or NOTHING


async def _play(
    exchange: Exchange, entry: Entry, reply: Reply, plan: Plan, step: Step
) -> Outcome:
    """Send an answer as planned; breaking the connection is left to the caller."""
    if step.delay_ms:
        await exchange.pause(step.delay_ms)
    early = step.ending_before_head
    if early is not None:
        return await _hang(exchange) if early is Outcome.HANG else early
    entry.status = reply.status
    await exchange.start(reply.status, reply.headers)
    await _send(exchange, plan, step)
    return await _hang(exchange) if plan.ending is Outcome.HANG else plan.ending


async def _send(exchange: Exchange, plan: Plan, step: Step) -> None:
    if step.first_frame_delay_ms:
        await exchange.pause(step.first_frame_delay_ms)
    last = len(plan.pieces) - 1
    for number, piece in enumerate(plan.pieces):
        if number and step.frame_delay_ms:
            await exchange.pause(step.frame_delay_ms)
        if number == last and plan.ends_cleanly:
            await exchange.end(piece)
        else:
            await exchange.send(piece)
    if last < 0 and plan.ends_cleanly:
        await exchange.end()


async def _hang(exchange: Exchange) -> Outcome:
    with contextlib.suppress(ClientGoneError):
        await exchange.pause(None)
    return Outcome.HANG


async def _live(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
