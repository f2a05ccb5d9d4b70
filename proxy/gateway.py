"""What a worker keeps between requests, opened and closed with it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeAlias, cast

import structlog
from django.db import Error, InterfaceError, OperationalError

from accounts import activity as activity_store
from accounts import quota_sightings, verdicts
from accounts.activity import Activity
from accounts.pool import PooledAccount
from accounts.quota_sightings import Sightings
from claudeproxy import db
from claudeproxy.conf import conf
from proxy import selection
from proxy.affinity import Affinity, Conversation
from proxy.background import repeated
from proxy.benches import RATE_LIMITED, Benches, Deadlines
from proxy.catalogue import Catalogue
from proxy.errors import DrainingError, RevokedError
from proxy.outcomes import Blame, Effect, Judgement
from proxy.owners import Owners
from proxy.refresher import Refresher
from proxy.retry import Budget, Policy
from proxy.selection import Decision
from proxy.snapshot import Snapshot
from proxy.upstream import Upstream
from sessions_limit import limiter
from sessions_limit.limiter import Limiter, Unlimited
from usage import ledger
from usage.ledger import Ledger, NoLedger

_log = structlog.get_logger(__name__)

# What ends a request that neither its caller nor the upstream has ended.
CutBy: TypeAlias = type[DrainingError] | type[RevokedError]

_ACTIVITY_SECONDS = 5.0
_QUOTA_SECONDS = 3.0
# Until the snapshot shows what was written of an account.
_BRIDGE = timedelta(seconds=5)


@dataclass(eq=False)
class OpenRequest:
    """A request on its way: the task that serves it, and what cut it, if anything."""

    task: asyncio.Task[object]
    cut_by: CutBy | None = None

    def cut(self, error: CutBy) -> None:
        """End it with *error*, in the words that fit how far it has come."""
        if self.cut_by is None:
            self.cut_by = error
            self.task.cancel()


@dataclass
class Gateway:
    """The worker's state: what it knows, its upstream client, its open requests."""

    snapshot: Snapshot
    upstream: Upstream
    refresher: Refresher
    catalogue: Catalogue
    affinity: Affinity = field(default_factory=Affinity)
    activity: Activity = field(default_factory=Activity)
    quotas: Sightings = field(default_factory=Sightings)
    policy: Policy = field(default_factory=Policy)
    benches: Benches = field(default_factory=Benches)
    budget: Budget = field(default_factory=Budget)
    owners: Owners = field(default_factory=Owners)
    limiter: Limiter | Unlimited = field(default_factory=Unlimited)
    ledger: Ledger | NoLedger = field(default_factory=NoLedger)
    # Accounts whose sign-in is not good for batches, files and skills.
    barred: Deadlines[int] = field(default_factory=Deadlines)
    cursor: int = 0
    is_draining: bool = False
    # Whatever is still open now is cut, and what comes after as well.
    is_drained: bool = False
    open_requests: set[OpenRequest] = field(default_factory=set)
    _writing: set[asyncio.Task[None]] = field(default_factory=set)

    def choose(
        self,
        conversation: Conversation | None,
        now: datetime,
        *,
        model: str | None,
        already_tried: Collection[int],
    ) -> Decision:
        """Choose an account for a request; its turn is used by `take_turn`."""
        return selection.choose(
            self.snapshot.contents.accounts,
            cursor=self.cursor,
            now=now,
            preferred_id=conversation and self.affinity.find(conversation),
            model=model,
            already_tried=already_tried,
            benches=self.benches,
        )

    def take_turn(self, decision: Decision) -> None:
        """The chosen account is asked."""
        self.cursor = decision.cursor

    def choose_for_list(
        self, now: datetime, *, already_tried: Collection[int]
    ) -> Decision:
        """Choose the account whose models are listed; nobody's turn is used up.

        It is the same one for all callers and workers while it can serve: accounts
        differ in their models, so the pages of a list must come from one account, and
        what is listed must be found there.
        """
        return selection.choose(
            self.snapshot.contents.accounts,
            cursor=0,
            now=now,
            already_tried=already_tried,
            benches=self.benches,
        )

    def choose_home(
        self, key_id: int, now: datetime, *, already_tried: Collection[int]
    ) -> Decision:
        """Choose the account for what a caller makes; nobody's turn is used up."""
        return selection.choose_home(
            self.snapshot.contents.accounts,
            key_id=key_id,
            cursor=self.cursor,
            now=now,
            already_tried=already_tried,
            benches=self.benches,
        )

    def choose_owner(
        self,
        account_id: int,
        now: datetime,
        *,
        model: str | None,
        already_tried: Collection[int],
        has_own_limits: bool,
    ) -> Decision:
        """Choose the one account that can serve, if it can now."""
        return selection.choose_owner(
            self.snapshot.contents.accounts,
            account_id,
            cursor=self.cursor,
            now=now,
            model=model,
            already_tried=already_tried,
            benches=self.benches,
            has_own_limits=has_own_limits,
        )

    def charge(
        self,
        account: PooledAccount,
        judgement: Judgement,
        model: str | None,
        is_trial: bool,
    ) -> None:
        """Let the account bear what it is to blame for, here at once."""
        now = datetime.now(UTC)
        if model is None:
            judgement = judgement.for_all_models
        until = judgement.until or now
        bridged = min(until, now + _BRIDGE)
        match judgement.effect:
            case Effect.LIMIT:
                self.benches.cool(account.id, bridged, RATE_LIMITED, until)
                self._write(
                    partial(verdicts.limit, account.id, until, judgement.reason)
                )
            case Effect.REFUSE:
                self.benches.cool(account.id, now + _BRIDGE, judgement.reason)
                self._write(
                    partial(
                        verdicts.refuse,
                        account.id,
                        account.credential,
                        judgement.reason,
                    )
                )
            case Effect.COOL:
                if judgement.blame is Blame.ACCOUNT:
                    self.benches.cool(account.id, until, RATE_LIMITED, until)
                else:
                    self.benches.cool(account.id, until, judgement.reason)
            case Effect.COOL_GROUP if model is not None:
                self.benches.cool_group(account.id, model, until, now)
            case Effect.COOL_LINE:
                self.benches.cool_line(account.id, judgement.line, until)
            case Effect.LACK_MODEL if model is not None:
                self.benches.lack(account.id, model, until, now)
            case Effect.TROUBLE:
                self.benches.fail(account.id, now, is_trial=is_trial)
                return
        if judgement.blame in {Blame.REQUEST, Blame.MODEL}:
            self.benches.succeed(account.id, now)  # it did its part
        elif is_trial:
            self.benches.abandon(account.id)

    def _write(self, work: Callable[[], object]) -> None:
        """Have something written without making the request wait for it."""
        task = asyncio.create_task(self._written(work))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _written(self, work: Callable[[], object]) -> None:
        try:
            await db.run(work)
            await self.snapshot.refresh()
        except Error as error:
            # The next answer of the account says the same again.
            _log.warning("verdict_not_written", error=type(error).__name__)

    async def settle(self) -> None:
        """Wait for what is being written."""
        if self._writing:
            await asyncio.wait(self._writing)

    @contextlib.contextmanager
    def tracked(self) -> Iterator[OpenRequest]:
        """Count the current task among the open requests."""
        request = OpenRequest(cast("asyncio.Task[object]", asyncio.current_task()))
        self.open_requests.add(request)
        if self.is_drained:
            asyncio.get_running_loop().call_soon(request.cut, DrainingError)
        try:
            yield request
        finally:
            self.open_requests.discard(request)

    def start_drain(self) -> None:
        """Cut whatever is still open once DRAIN_TIMEOUT has passed."""
        if not self.is_draining:
            self.is_draining = True
            asyncio.get_running_loop().call_later(
                conf.drain_timeout.total_seconds(), self._cut_open_requests
            )

    def _cut_open_requests(self) -> None:
        self.is_drained = True
        for request in tuple(self.open_requests):
            request.cut(DrainingError)


def _policy() -> Policy:
    return Policy(
        is_enabled=conf.retry_enabled,
        max_attempts=conf.retry_max_attempts,
        base_delay=conf.retry_base_delay,
        max_delay=conf.retry_max_delay,
        jitter_max=conf.retry_jitter_max,
    )


async def _write_activity(activity: Activity) -> None:
    if due := activity.take_due(datetime.now(UTC)):
        await db.run(partial(activity_store.write, due))


async def _write_quotas(quotas: Sightings) -> None:
    if taken := quotas.take():
        try:
            # It waits for whoever holds an account, and nobody waits for it.
            await db.run_apart(partial(quota_sightings.write, taken))
        except (OperationalError, InterfaceError):
            quotas.put_back(taken)  # the database is away; anything else would stay
            raise


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Gateway]:
    """Open a worker's gateway on the running loop; close it when the context ends."""
    upstream = Upstream(conf.upstream_base_url, read_timeout=conf.request_timeout)
    try:
        snapshot = Snapshot()
        opened = Gateway(
            *(snapshot, upstream, Refresher(snapshot), Catalogue(snapshot)),
            policy=_policy(),
            limiter=limiter.from_settings(),
        )
        keep_activity = partial(_write_activity, opened.activity)
        keep_quotas = partial(_write_quotas, opened.quotas)
        async with (
            ledger.running() as opened.ledger,
            snapshot.kept_fresh(),
            repeated(keep_activity, seconds=_ACTIVITY_SECONDS),
            repeated(keep_quotas, seconds=_QUOTA_SECONDS),
            repeated(opened.limiter.step, seconds=limiter.INTERVAL_SECONDS),
        ):
            yield opened
            await opened.settle()
        await opened.limiter.aclose()
        # What was used since the last time; a database that is away loses little.
        with contextlib.suppress(Error):
            await keep_activity()
            await keep_quotas()
    finally:
        await upstream.aclose()
