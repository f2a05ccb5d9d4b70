"""The sessions of the moment as operators see them, from whichever store there is."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from claudeproxy.conf import conf
from sessions_limit import backends, neighbours, references
from sessions_limit.backends.base import LiveSession
from sessions_limit.keys import GLOBAL


@dataclass(frozen=True, slots=True)
class Served:
    """An account that served a session; no id: it is gone, or called otherwise now."""

    name: str
    id: int | None


@dataclass(frozen=True, slots=True)
class ShownSession:
    """A session with what others know about it."""

    live: LiveSession
    used: int  # sessions that are alive under its limit
    limit: int | None  # None: its key has no limit of its own any more, or is gone
    has_key: bool
    accounts: tuple[Served, ...]

    @property
    def reference(self) -> str:
        return references.write(self.live.id)

    @property
    def has_own_limit(self) -> bool:
        return self.live.id.scope != GLOBAL


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sessions are asked for; what is empty or None does not matter."""

    has_own_limit: bool | None = None
    key_id: int | None = None
    is_alive: bool | None = None
    search: str = ""


def load() -> list[ShownSession]:
    """All sessions that are alive or blocked, the latest first."""
    with backends.opened() as store:
        sessions = store.live()
    used = count_alive(sessions)
    limits = neighbours.key_limits({session.client.key_id for session in sessions})
    ids = neighbours.account_ids(
        {name for session in sessions for name in session.account_names}
    )
    return [
        ShownSession(
            live=session,
            used=used[session.id.scope],
            limit=(
                conf.session_max_concurrent
                if session.id.scope == GLOBAL
                else limits.get(session.client.key_id)
            ),
            has_key=session.client.key_id in limits,
            accounts=tuple(
                Served(name, ids.get(name)) for name in session.account_names
            ),
        )
        for session in sessions
    ]


def count_alive(sessions: Iterable[LiveSession]) -> Counter[str]:
    """Count the sessions that are alive under each limit."""
    return Counter(session.id.scope for session in sessions if session.is_alive)


def matching(
    sessions: Iterable[ShownSession], wanted: Wanted
) -> Iterator[ShownSession]:
    """Pick those that are asked for; every word searched for has to be somewhere."""
    words = wanted.search.casefold().split()
    for session in sessions:
        client = session.live.client
        text = f"{client.ip}\n{client.user_agent}\n{client.key_name}".casefold()
        if (
            wanted.has_own_limit in (None, session.has_own_limit)
            and wanted.key_id in (None, client.key_id)
            and wanted.is_alive in (None, session.live.is_alive)
            and all(word in text for word in words)
        ):
            yield session
