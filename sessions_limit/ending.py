"""End sessions, keep them out for a time, and let them in again; the log says who did.

Every verb may raise StoreAwayError.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from claudeproxy import durations
from sessions_limit import backends
from sessions_limit.backends.base import Backend, LiveSession
from sessions_limit.keys import SessionId

_log = structlog.get_logger(__name__)

_SHORTEST_BLOCK = timedelta(seconds=1)
_LONGEST_BLOCK = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it: how many were ended, were too late for that, are blocked."""

    ended: int = 0
    late: int = 0
    blocked: int = 0


def read_block(text: str) -> timedelta:
    """Read for how long to block; ValueError says what is wrong with it."""
    block = durations.parse(text)
    if not _SHORTEST_BLOCK <= block <= _LONGEST_BLOCK:
        raise ValueError("A block lasts at least 1s and at most 365d.")
    return block


def end(
    sessions: Iterable[SessionId], *, block: timedelta | None, actor: str
) -> Report:
    """End sessions; with *block*, also keep out those that have ended already."""
    ended, late, blocked = 0, 0, 0
    with backends.opened() as store:
        known = _known(store)
        for session in dict.fromkeys(sessions):
            is_alive = session in known and known[session].is_alive
            # Without a block, this would let in who is blocked.
            is_told = is_alive or block is not None
            is_done = is_told and store.revoke(session, block=block)
            ended += is_done and is_alive
            blocked += is_done and block is not None
            late += not (is_done and is_alive)
            if is_done:
                _record("ended" if is_alive else "blocked", session, block, actor)
    return Report(ended, late, blocked)


def unblock(sessions: Iterable[SessionId], *, actor: str) -> int:
    """Let blocked sessions in again; return how many were blocked."""
    unblocked = 0
    with backends.opened() as store:
        known = _known(store)
        for session in dict.fromkeys(sessions):
            # What is alive is not blocked, and must not be ended here.
            if session not in known or known[session].is_alive:
                continue
            if store.revoke(session):
                unblocked += 1
                _record("unblocked", session, None, actor)
    return unblocked


def _known(store: Backend) -> dict[SessionId, LiveSession]:
    return {session.id: session for session in store.live()}


def _record(what: str, session: SessionId, block: timedelta | None, actor: str) -> None:
    _log.info(
        f"session_{what}",
        scope=session.scope,
        session=session.digest,
        block=durations.describe(block) if block else None,
        actor=actor,
    )
