"""What a worker keeps between requests, opened and closed with it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import cast

from django.db import DatabaseError

from accounts import activity as activity_store
from accounts.activity import Activity
from claudeproxy import db
from claudeproxy.conf import conf
from proxy import selection
from proxy.affinity import Affinity, Conversation
from proxy.background import repeated
from proxy.catalogue import Catalogue
from proxy.refresher import Refresher
from proxy.selection import Decision
from proxy.snapshot import Snapshot
from proxy.upstream import Upstream

_ACTIVITY_SECONDS = 5.0


@dataclass(eq=False)
class OpenRequest:
    """A request on its way: the task that serves it, and whether a drain cut it."""

    task: asyncio.Task[object]
    is_cut: bool = False

    def cut(self) -> None:
        self.is_cut = True
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
    cursor: int = 0
    is_draining: bool = False
    open_requests: set[OpenRequest] = field(default_factory=set)

    def choose(
        self,
        conversation: Conversation | None,
        now: datetime,
        *,
        model: str | None,
        already_tried: Collection[int],
    ) -> Decision:
        """Choose an account for a request and give it its turn."""
        decision = selection.choose(
            self.snapshot.contents.accounts,
            cursor=self.cursor,
            now=now,
            preferred_id=conversation and self.affinity.find(conversation),
            model=model,
            already_tried=already_tried,
        )
        self.cursor = decision.cursor
        return decision

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
        )

    @contextlib.contextmanager
    def tracked(self) -> Iterator[OpenRequest]:
        """Count the current task among the open requests."""
        request = OpenRequest(cast("asyncio.Task[object]", asyncio.current_task()))
        self.open_requests.add(request)
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
        for request in tuple(self.open_requests):
            request.cut()


async def _write_activity(activity: Activity) -> None:
    if due := activity.take_due(datetime.now(UTC)):
        await db.run(partial(activity_store.write, due))


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Gateway]:
    """Open a worker's gateway on the running loop; close it when the context ends."""
    upstream = Upstream(conf.upstream_base_url, read_timeout=conf.request_timeout)
    try:
        snapshot = Snapshot()
        opened = Gateway(snapshot, upstream, Refresher(snapshot), Catalogue(snapshot))
        keep_activity = partial(_write_activity, opened.activity)
        async with (
            snapshot.kept_fresh(),
            repeated(keep_activity, seconds=_ACTIVITY_SECONDS),
        ):
            yield opened
        # What was used since the last time; a database that is away loses little.
        with contextlib.suppress(DatabaseError):
            await keep_activity()
    finally:
        await upstream.aclose()
