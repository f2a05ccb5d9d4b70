"""What a worker keeps between requests, opened and closed with it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from claudeproxy.conf import conf
from proxy import selection
from proxy.affinity import Affinity, Conversation
from proxy.selection import Decision
from proxy.snapshot import Snapshot
from proxy.upstream import Upstream


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
    affinity: Affinity = field(default_factory=Affinity)
    cursor: int = 0
    is_draining: bool = False
    open_requests: set[OpenRequest] = field(default_factory=set)

    def choose(self, conversation: Conversation | None, now: datetime) -> Decision:
        """Choose an account for a request and give it its turn."""
        decision = selection.choose(
            self.snapshot.contents.accounts,
            cursor=self.cursor,
            now=now,
            preferred_id=conversation and self.affinity.find(conversation),
        )
        self.cursor = decision.cursor
        return decision

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


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Gateway]:
    """Open a worker's gateway on the running loop; close it when the context ends."""
    upstream = Upstream(conf.upstream_base_url, read_timeout=conf.request_timeout)
    try:
        snapshot = Snapshot()
        async with snapshot.kept_fresh():
            yield Gateway(snapshot, upstream)
    finally:
        await upstream.aclose()
