"""Ask accounts until one answers: send, judge, charge, and try again where it helps.

As long as the caller has seen nothing, whatever goes wrong with an account or on the
network is answered here. What to think of a failure is decided by `outcomes`, what to
do next by `retry`; this module does it.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from time import monotonic

from accounts.pool import PooledAccount
from accounts.status import AccountKind
from claudeproxy.conf import conf
from claudeproxy.errors import ClaudeProxyError
from proxy import errors, gate, headers, model_groups, outcomes, retry, selection
from proxy.asks import Ask, Failed, Pin, Served
from proxy.errors import Stage, UpstreamError, UpstreamTimeoutError
from proxy.handler import GatewayRequest
from proxy.outcomes import Answer, Blame, Effect, Judgement, Step
from proxy.record import Attempt
from proxy.selection import Decision, lacks_everywhere
from proxy.spool import FileBody
from proxy.sse import FrameReader
from proxy.upstream import UpstreamReply, UpstreamRequest

# An answer that is no stream is complete or an error: it is read whole, up to here.
_WHOLE_BYTES = 32 * 1024**2
# Errors are short; what is longer is judged by its beginning and passed on as it comes.
_ERROR_BYTES = 256 * 1024
# A large upload may take as long as it does on a line of this speed.
_SLOW_BYTES_PER_SECOND = 256 * 1024

_NOT_PERMITTED = Judgement(Blame.MODEL, "not permitted", step=Step.HOP)


@dataclass
class Attempts:
    """The attempts of one request."""

    request: GatewayRequest
    ask: Ask
    started: float = field(default_factory=monotonic)
    attempted: float = field(default_factory=monotonic)
    made: int = 0
    pauses: int = 0
    bursts: int = 0
    tried: set[int] = field(default_factory=set)
    # Accounts that were asked once more after their credential was refused.
    replayed: set[int] = field(default_factory=set)
    # Accounts that failed in a way that may be theirs, or the upstream's.
    troubled: set[int] = field(default_factory=set)
    # Whom an answer is awaited from, on trial or not, and what it has said so far.
    asked: PooledAccount | None = None
    is_trial: bool = False
    is_under_way: bool = False  # the attempt; afterwards others are waited for
    reply: UpstreamReply | None = None
    # Whose answer it became.
    served_by: PooledAccount | None = None

    async def run(self) -> Served:
        """Return the answer for the caller.

        Errors: NoAccountAvailableError, AllLimitedError, RequestRefusedError for a
        model that nobody has, ThreadNotFoundError for a thread whose account is away,
        UpstreamError if the network is what failed last.
        """
        gateway = self.request.gateway
        gateway.budget.note_request(self.started)
        self.request.is_making = self.ask.is_making
        try:
            # It bounds all there is before the answer: tokens, attempts and pauses.
            async with asyncio.timeout(self._most.total_seconds()) as limit:
                return await self._run()
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._too_late() from None
        finally:
            if self.is_trial and self.asked is not None:
                gateway.benches.abandon(self.asked.id)  # without a verdict

    async def _run(self) -> Served:
        gateway = self.request.gateway
        account = await self._choose()
        while True:
            outcome = await self._attempt(account)
            self.is_under_way = False
            self.served_by = account
            if isinstance(outcome, Served):
                self.asked = None
                gateway.benches.succeed(account.id, datetime.now(UTC))
                if self.ask.conversation is not None:
                    gateway.affinity.bind(self.ask.conversation, account.id)
                return outcome
            following = await self._after_failure(account, outcome)
            if isinstance(following, Served):
                return following
            account = following

    def _too_late(self) -> ClaudeProxyError:
        error = UpstreamTimeoutError(Stage.PERHAPS_EXECUTED, "REQUEST_TIMEOUT passed")
        if self.asked is not None and self.is_under_way:
            judgement = outcomes.judge_error(error, is_stream=self.ask.facts.is_stream)
            self._note_failure(self.asked, judgement).may_have_used = True
            self._charge(self.asked, judgement)
            if self.ask.is_making:
                return errors.perhaps_made()
        return error

    # --- one attempt

    async def _attempt(self, account: PooledAccount) -> Served | Failed:
        self.made += 1
        self.attempted = monotonic()
        self.is_under_way = True
        self._note_choice(account)
        try:
            reply = await self._open(account)
            if reply.status >= 400:
                return await self._read_error(reply, account)
            if reply.is_event_stream:
                return await self._read_prelude(reply, account)
            return await self._read_whole(reply)
        except UpstreamError as error:
            return self._broken(error)

    def _broken(self, error: UpstreamError) -> Failed:
        judgement = outcomes.judge_error(error, is_stream=self.ask.facts.is_stream)
        return Failed(
            judgement,
            error=error,
            is_perhaps_executed=error.stage is not Stage.NOT_SENT,
        )

    async def _open(self, account: PooledAccount) -> UpstreamReply:
        scope = self.request.scope
        query: bytes = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        received = self.request.raw_headers
        if self.ask.target is not None:
            received = headers.for_own_question(received)
        outgoing = UpstreamRequest(
            method=self.ask.method or scope["method"],
            target=self.ask.target or target,
            headers=headers.for_upstream(received, account.kind, account.credential),
            body=self.ask.body,
        )
        reply = await self.request.gateway.upstream.open(outgoing)
        self.reply = reply
        self.request.resources.push_async_callback(reply.aclose)
        self._note_quota(account, reply)
        return reply

    async def _read_error(self, reply: UpstreamReply, account: PooledAccount) -> Failed:
        chunks = reply.chunks()
        try:
            start, is_whole = await _read(chunks, _ERROR_BYTES)
        except UpstreamError as error:
            # The status was said; that the words broke off is nobody's fault.
            answer = Answer(reply.status, reply.headers)
            return Failed(
                self._judge(answer, account),
                error=error,
                is_perhaps_executed=outcomes.is_perhaps_executed(answer),
            )
        answer = Answer(reply.status, reply.headers, start)
        return Failed(
            self._judge(answer, account),
            relayed=Served(reply, start, None if is_whole else chunks),
            is_perhaps_executed=outcomes.is_perhaps_executed(answer),
        )

    async def _read_whole(self, reply: UpstreamReply) -> Served:
        chunks = reply.chunks()
        if self.ask.facts.is_stream or self.ask.endpoint.is_download:
            # A stream that nobody here can read, or one that nobody here should hold.
            return Served(reply, rest=chunks)
        start, is_whole = await _read(chunks, _WHOLE_BYTES)
        return Served(reply, start, None if is_whole else chunks)

    async def _read_prelude(
        self, reply: UpstreamReply, account: PooledAccount
    ) -> Served | Failed:
        frames = FrameReader()
        chunks = reply.chunks()
        opened = await gate.hold(chunks, frames, conf.retry_gate.total_seconds())
        if opened.pending is not None:
            # Should the answer never be asked for, nobody else ends the read.
            self.request.resources.push_async_callback(gate.end, opened.pending)
        served = Served(
            reply, opened.held, gate.resumed(opened.pending, chunks), frames
        )
        if not opened.is_failed:
            return served
        if frames.last_event is None:
            error = errors.UpstreamUnavailableError(Stage.ANSWER_BEGUN, "no content")
            return self._broken(error)
        return Failed(self._judge_event(opened.held, reply, account), relayed=served)

    def note_late_error(self, frames: bytes) -> None:
        """An `error` event came after content: the answer is lost, and tells who by."""
        account, reply = self.served_by, self.reply
        if account is None or reply is None:
            return
        judgement = self._judge_event(frames, reply, account)
        self._note_failure(account, judgement)
        # That a credential is refused has to be seen twice, and may be seen again.
        if judgement.effect is not Effect.REFUSE:
            model = self.ask.facts.model
            self.request.gateway.charge(account, judgement, model, is_trial=False)

    def _judge_event(
        self, frames: bytes, reply: UpstreamReply, account: PooledAccount
    ) -> Judgement:
        """Judge an `error` event as the status that it stands for."""
        body = gate.error_body(frames)
        status = outcomes.STATUS_OF_TYPE.get(outcomes.error_type_of(body) or "", 500)
        return self._judge(Answer(status, reply.headers, body), account)

    def _judge(self, answer: Answer, account: PooledAccount) -> Judgement:
        return outcomes.judge_answer(
            answer,
            account.kind,
            now=datetime.now(UTC),
            limit_default=conf.rate_limit_default,
            has_own_limits=self.ask.endpoint.has_own_limits,
        )

    # --- after a failure

    async def _after_failure(
        self, account: PooledAccount, failed: Failed
    ) -> PooledAccount | Served:
        """Return the account to ask next, or what the caller gets after all."""
        judgement = failed.judgement
        attempt = self._note_failure(account, judgement)
        attempt.may_have_used = failed.may_have_used
        if self.ask.is_making and failed.is_perhaps_executed:
            self._charge(account, judgement)
            raise errors.perhaps_made()
        if judgement.effect is Effect.REFUSE and self._is_barred(account):
            judgement = _NOT_PERMITTED
            failed = replace(failed, judgement=judgement)
        elif judgement.effect is Effect.REFUSE and account.id not in self.replayed:
            self.replayed.add(account.id)
            await self._let_go(failed)
            renewed = await self._renew(account)
            if isinstance(renewed, PooledAccount):
                if self._may_repeat:
                    return renewed
                if self._policy.is_enabled:  # too late for this request to find out
                    judgement = replace(judgement, effect=Effect.NOTHING)
            elif not renewed:
                until = datetime.now(UTC) + outcomes.THROTTLE
                judgement = replace(judgement, effect=Effect.COOL, until=until)
        self._charge(account, judgement)
        self.tried.add(account.id)
        plan = self._plan(account, judgement)
        if not plan.tries_again:
            return self._give_up(failed)
        await self._let_go(failed)
        if plan.is_charged:
            self.request.gateway.budget.take(monotonic())
        if plan.wait:
            self.pauses += 1
            attempt.waited = plan.wait
            await asyncio.sleep(plan.wait.total_seconds())
        if self._decide().account is None:
            # Whoever failed may be asked again.
            self.tried.clear()
        return await self._choose()

    async def _let_go(self, failed: Failed) -> None:
        """Close an answer that lost: its connection is not held until the end."""
        if failed.relayed is not None and failed.relayed.rest is not None:
            await failed.relayed.rest.aclose()
        if self.reply is not None:
            await self.reply.aclose()
            self.reply = None

    async def _renew(self, account: PooledAccount) -> PooledAccount | bool:
        """Return the account with another credential, or once more with the same.

        Shape: True if it has none that is accepted, False if that is not known.
        """
        if account.expires_at is None:
            return account  # an API key; one refusal may be the upstream's slip
        return await self.request.gateway.refresher.replace(account)

    def _is_barred(self, account: PooledAccount) -> bool:
        """Is it the path that the account's sign-in is refused for?

        Sign-ins are not good for all that belongs to accounts, and are refused there
        like a token that has ended. One that was renewed just now has not.
        """
        if account.kind != AccountKind.OAUTH or self.ask.endpoint.kind is None:
            return False
        barred, now = self.request.gateway.barred, datetime.now(UTC)
        if account.id in self.replayed:
            barred.set(account.id, now + outcomes.LACK_PERIOD)
        return barred.pending(account.id, now) is not None

    def _note_failure(self, account: PooledAccount, judgement: Judgement) -> Attempt:
        duration_ms = round((monotonic() - self.attempted) * 1000, 1)
        attempt = Attempt(account.name, judgement.blame, judgement.reason, duration_ms)
        self.request.record.attempts.append(attempt)
        return attempt

    def _charge(self, account: PooledAccount, judgement: Judgement) -> None:
        gateway = self.request.gateway
        gateway.charge(account, judgement, self.ask.facts.model, self.is_trial)
        self.asked, self.is_trial = None, False
        self.bursts += judgement.is_burst
        if judgement.effect is Effect.TROUBLE:
            self.troubled.add(account.id)
            if len(self.troubled) > 1:
                # What several accounts fail on is not theirs: the upstream or, who
                # knows, the request itself.
                gateway.benches.forgive(self.troubled)

    def _plan(self, account: PooledAccount, judgement: Judgement) -> retry.Plan:
        gateway = self.request.gateway
        situation = retry.Situation(
            attempts=self.made,
            pauses=self.pauses,
            bursts=self.bursts,
            remaining=self._remaining,
            has_others=self._decide().account is not None,
            has_budget=gateway.budget.has_one(monotonic()),
            others_serve=gateway.benches.others_serve(account.id, datetime.now(UTC)),
        )
        return retry.plan(judgement, situation, self._policy, random.uniform)

    def _give_up(self, failed: Failed) -> Served:
        """Return the upstream's own answer, or raise what fits."""
        if failed.judgement.blame in {Blame.ACCOUNT, Blame.CREDENTIAL}:
            # Its words are about an account of ours, not about the caller.
            if self.ask.pin is not None:
                raise self._owner_gave_up(self.ask.pin, failed.judgement)
            decision = self._decide()
            if decision.account is not None:
                raise _gave_up()
            if failed.judgement.effect is Effect.NOTHING:
                # A limit of this path only, which everybody has reached.
                raise errors.AllLimitedError(
                    failed.judgement.retry_after or outcomes.THROTTLE
                )
            raise self._nobody(decision)
        if failed.relayed is not None:
            return failed.relayed
        if failed.error is not None:
            raise failed.error
        raise _gave_up()

    def _owner_gave_up(self, pin: Pin, judgement: Judgement) -> ClaudeProxyError:
        if pin.is_thread:
            return errors.ThreadNotFoundError(pin.object_id)
        now = datetime.now(UTC)
        wait = judgement.retry_after
        if wait is None and judgement.until is not None:
            wait = judgement.until - now
        if judgement.blame is Blame.CREDENTIAL or wait is None:
            return errors.owner_away(pin.object_id, (), None, now)
        return errors.owner_limited(pin.object_id, wait)

    # --- choosing

    async def _choose(self) -> PooledAccount:
        """Choose an account whose token is good for this request."""
        gateway = self.request.gateway
        while True:
            decision = self._decide()
            if decision.account is None:
                if await self._learns_of_model():
                    continue
                raise self._nobody(decision)
            now = datetime.now(UTC)
            account = await gateway.refresher.fresh(decision.account, now)
            if account is not None:
                if self.ask.endpoint.is_conversation:
                    gateway.take_turn(decision)
                self.asked = account
                self.is_trial = gateway.benches.begin(account.id)
                gateway.activity.note(account.id, now)
                self.request.record.routing = self._how(decision)
                return account
            self.tried.add(decision.account.id)

    def _decide(self) -> Decision:
        gateway, endpoint = self.request.gateway, self.ask.endpoint
        now = datetime.now(UTC)
        if self.ask.pin is not None:
            return gateway.choose_owner(
                self.ask.pin.account_id,
                now,
                model=self.ask.facts.model,
                already_tried=self.tried,
                has_own_limits=endpoint.has_own_limits,
            )
        if endpoint.kind is not None:
            return gateway.choose_home(self.ask.key.id, now, already_tried=self.tried)
        if not endpoint.is_conversation:
            return gateway.choose_for_list(now, already_tried=self.tried)
        return gateway.choose(
            self.ask.conversation,
            now,
            model=self.ask.facts.model,
            already_tried=self.tried,
        )

    def _how(self, decision: Decision) -> str:
        """Say how an account was chosen; a conversation may have to leave its own."""
        conversation = self.ask.conversation
        if decision.how in {"affinity", "owner"} or conversation is None:
            return decision.how
        is_known = self.request.gateway.affinity.find(conversation) is not None
        return "moved" if is_known else decision.how

    async def _learns_of_model(self) -> bool:
        """Read the model lists again, for a model that nobody has; True if one has it.

        Providers add models at any time, and the lists are read once a day.
        """
        gateway, model = self.request.gateway, self.ask.facts.model
        if model is None or not lacks_everywhere(
            gateway.snapshot.contents.accounts, model
        ):
            return False
        await gateway.catalogue.refresh()
        return not lacks_everywhere(gateway.snapshot.contents.accounts, model)

    def _nobody(self, decision: Decision) -> ClaudeProxyError:
        """Say why nobody serves the request."""
        accounts = self.request.gateway.snapshot.contents.accounts
        model, pin = self.ask.facts.model, self.ask.pin
        if pin is not None and pin.is_thread:
            return errors.ThreadNotFoundError(pin.object_id)
        if pin is not None:
            return errors.owner_away(
                pin.object_id, decision.excluded, model, datetime.now(UTC)
            )
        if model is not None and (
            lacks_everywhere(accounts, model) or errors.all_lack(decision.excluded)
        ):
            offered = {
                name
                for account in selection.in_use(accounts)
                for name in account.model_ids
            }
            return errors.model_not_found(model, offered)
        return errors.nobody(decision.excluded, datetime.now(UTC))

    # --- bookkeeping

    @property
    def _policy(self) -> retry.Policy:
        return self.request.gateway.policy

    @property
    def _may_repeat(self) -> bool:
        return self._policy.is_enabled and self.made < self._policy.max_attempts

    @property
    def _remaining(self) -> timedelta:
        passed = timedelta(seconds=monotonic() - self.started)
        return max(timedelta(), self._most - passed)

    @property
    def _most(self) -> timedelta:
        """How long it may all take; each piece of a body has a limit of its own."""
        if not isinstance(self.ask.body, FileBody):
            return conf.request_timeout
        seconds = self.ask.body.size / _SLOW_BYTES_PER_SECOND
        return conf.request_timeout + timedelta(seconds=seconds)

    def _note_choice(self, account: PooledAccount) -> None:
        self.request.record.account = account
        self.request.admission.note_account(account.name)

    def _note_quota(self, account: PooledAccount, reply: UpstreamReply) -> None:
        """Keep what the answer shows of the account's limits."""
        # Other errors need not come from where limits are known.
        if reply.status < 400 or reply.status == HTTPStatus.TOO_MANY_REQUESTS:
            model, group = self.ask.facts.model, None
            if not self.ask.endpoint.has_own_limits:
                group = model_groups.group_of(model) if model else ""
            self.request.gateway.quotas.note(
                account.id, reply.headers, datetime.now(UTC), model_group=group
            )


def _gave_up() -> ClaudeProxyError:
    error = errors.NoAccountAvailableError(
        "The Claude accounts of this gateway that were asked could not serve. "
        "Try again in a moment."
    )
    error.retry_after = timedelta(seconds=1)
    return error


async def _read(chunks: AsyncIterator[bytes], limit: int) -> tuple[bytes, bool]:
    """Read up to *limit* bytes or a little more; True if that is the whole."""
    pieces: list[bytes] = []
    size = 0
    async for chunk in chunks:
        pieces.append(chunk)
        size += len(chunk)
        if size > limit:
            return b"".join(pieces), False
    return b"".join(pieces), True
