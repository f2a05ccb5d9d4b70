"""What the limiter asks of the store that all workers share.

Every operation is one atomic step of the store, and the store's clock alone decides
what is alive. Waits and lifetimes are spans, never times, so that a worker's clock
means nothing to the store and the store's nothing to a worker.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

from sessions_limit.keys import Client, SessionId

# What a worker says of its running requests, every second, counts for so long.
HOLD = timedelta(seconds=30)
# So long the store remembers a revocation: a worker that was cut off for longer knows
# no lease any more, whatever SESSION_TTL is.
REVOKED_KEPT = timedelta(hours=1)
MOST_ACCOUNT_NAMES = 5


class StoreAwayError(Exception):
    """The store cannot be reached, or cannot do what it should."""


@dataclass(frozen=True, slots=True)
class Hold:
    """How many requests of a session a worker has running.

    Reports may overtake each other on their way; the highest sequence is the latest.
    """

    worker: str
    running: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A session that wants to be alive, with one request more than it had."""

    id: SessionId
    client: Client
    limit: int
    ttl: timedelta
    hold: Hold
    max_requests: int = 0


@dataclass(frozen=True, slots=True)
class Renewal:
    """A session that a worker knows, and what it did since the last time."""

    id: SessionId
    client: Client
    limit: int
    lifetime: timedelta
    hold: Hold
    generation: int
    requests: int = 0
    account_names: tuple[str, ...] = ()  # the latest first


@dataclass(frozen=True, slots=True)
class Entered:
    """The session is alive for its TTL from now on."""

    generation: int


class Obstacle(enum.Enum):
    """Why a session does not get in."""

    FULL = "full"  # until the first session of the scope could end
    BUSY = "busy"  # until one of its requests ends
    BLOCKED = "blocked"  # until the block ends
    SETTLING = "settling"  # until those that the store forgot had time to come back


@dataclass(frozen=True, slots=True)
class Refused:
    """The session does not get in, and for how long that is so at least."""

    why: Obstacle
    wait: timedelta


class Standing(enum.Enum):
    """What has become of a session that was renewed."""

    ALIVE = "alive"  # renewed, or back in its place after the store lost it
    LOST = "lost"  # it had ended, and its place is taken
    REVOKED = "revoked"  # an operator ended it


@dataclass(frozen=True, slots=True)
class Revocation:
    """A session was revoked so often; leases of fewer revocations are void."""

    id: SessionId
    generation: int


@dataclass(frozen=True, slots=True)
class News:
    """What every worker must hear about.

    Another `epoch` than before: the store has lost what it knew.
    """

    epoch: str
    revocations: tuple[Revocation, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session for people to look at: alive, or kept out by a block."""

    id: SessionId
    client: Client
    first_seen_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    requests: int
    in_flight: int
    account_names: tuple[str, ...]
    is_alive: bool
    blocked_until: datetime | None


Answer: TypeAlias = Entered | Refused


class Backend(Protocol):
    """A store of sessions. Every method may raise StoreAwayError."""

    def acquire(self, entry: Entry) -> Answer:
        """Let a session in, or keep it alive if it is in already."""

    def renew(self, renewals: Sequence[Renewal]) -> list[Standing]:
        """Prolong sessions and note what they did; one answer for each, in order.

        One that the store has lost gets its place back if there is one.
        """

    def revoke(self, session: SessionId, *, block: timedelta | None = None) -> bool:
        """End a session, for *block* at least; False if there is none.

        Without *block*, one that is blocked may come back at once.
        """

    def news(self) -> News:
        """Tell which sessions were revoked of late."""

    def live(self) -> list[LiveSession]:
        """List the sessions that are alive or blocked, the latest first."""

    def prune(self) -> int:
        """Forget sessions that have ended; return how many."""

    def close(self) -> None:
        """Let go of connections that are its own."""
