"""Sessions in Redis: one script for each operation, by the clock of Redis.

Scripts run one at a time, which is all the locking there is. Whatever is stored ends by
itself. A Redis that comes back empty lets no newcomer in for a moment, so that sessions
which the workers still know get their places back first.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from sessions_limit.backends.base import (
    HOLD,
    MOST_ACCOUNT_NAMES,
    REVOKED_KEPT,
    Answer,
    Entered,
    Entry,
    LiveSession,
    News,
    Obstacle,
    Refused,
    Renewal,
    Revocation,
    Standing,
    StoreAwayError,
)
from sessions_limit.keys import Client, SessionId

# In braces: a cluster keeps all keys of one name in one place.
PREFIX = "{claudeproxy}:sessions"
# Longer than workers take to renew what they know.
SETTLING = timedelta(seconds=3)
_LUA = Path(__file__).parent / "lua"
_TIMEOUT_SECONDS = 2.0
# Redis is asked to keep what must outlive the longest lease by this much.
_SPARE = timedelta(hours=1)
_MILLISECOND = timedelta(milliseconds=1)


class RedisBackend:
    """The store for many workers, or many machines: fast, and away from the disk."""

    def __init__(
        self,
        url: str,
        *,
        ttl: timedelta,
        prefix: str = PREFIX,
        settling: timedelta = SETTLING,
    ) -> None:
        self._redis: redis.Redis = redis.Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            # Whoever asks has a better answer than to wait: it goes on with what it
            # knows, and asks again a second later.
            retry=Retry(NoBackoff(), 1),
        )
        common = (_LUA / "common.lua").read_text("utf-8")
        self._scripts = {
            path.stem: self._redis.register_script(common + path.read_text("utf-8"))
            for path in _LUA.glob("*.lua")
            if path.stem != "common"
        }
        self._prefix = prefix
        self._settling = settling
        self._kept = max(ttl, REVOKED_KEPT) + _SPARE
        self.offset = timedelta()  # how far tests have moved the clock

    def acquire(self, entry: Entry) -> Answer:
        what, number = self._run(
            "acquire",
            **_named(entry.id),
            client=asdict(entry.client),
            limit=entry.limit,
            ttl=_ms(entry.ttl),
            hold=asdict(entry.hold),
            max_requests=entry.max_requests,
            settling=_ms(self._settling),
        )
        if what == "entered":
            return Entered(int(number))
        return Refused(Obstacle(what), int(number) * _MILLISECOND)

    def renew(self, renewals: Sequence[Renewal]) -> list[Standing]:
        if not renewals:
            return []
        told = [
            {
                **_named(renewal.id),
                "client": asdict(renewal.client),
                "limit": renewal.limit,
                "lifetime": _ms(renewal.lifetime),
                "hold": asdict(renewal.hold),
                "generation": renewal.generation,
                "requests": renewal.requests,
                "account_names": renewal.account_names,
            }
            for renewal in renewals
        ]
        found = self._run("renew", renewals=told, most_names=MOST_ACCOUNT_NAMES)
        return [Standing(text) for text in found]

    def revoke(self, session: SessionId, *, block: timedelta | None = None) -> bool:
        return bool(
            self._run(
                "revoke",
                **_named(session),
                block=_ms(block or timedelta()),
                revoked_kept=_ms(REVOKED_KEPT),
            )
        )

    def news(self) -> News:
        epoch, *rest = self._run("news")
        triples = zip(*[iter(rest)] * 3, strict=True)
        return News(
            epoch,
            tuple(
                Revocation(SessionId(scope, digest), int(generation))
                for scope, digest, generation in triples
            ),
        )

    def live(self) -> list[LiveSession]:
        found = [_shown(json.loads(text)) for text in self._run("live")]
        return sorted(found, key=lambda session: session.last_seen_at, reverse=True)

    def prune(self) -> int:
        return int(self._run("prune"))

    def close(self) -> None:
        self._redis.close()

    def _run(self, script: str, **asked: Any) -> Any:
        asked |= {
            "offset": _ms(self.offset),
            "kept": _ms(self._kept),
            "hold_lasts": _ms(HOLD),
        }
        with _translated():
            return self._scripts[script](keys=[self._prefix], args=[json.dumps(asked)])


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        # The name only: what it says may hold the address, and so the password.
        raise StoreAwayError(type(error).__name__) from error


def _named(session: SessionId) -> dict[str, str]:
    return {"scope": session.scope, "digest": session.digest}


def _ms(span: timedelta) -> int:
    return span // _MILLISECOND


def _at(milliseconds: Any) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def _shown(found: dict[str, Any]) -> LiveSession:
    blocked_until = found.get("blocked_until")
    return LiveSession(
        id=SessionId(found["scope"], found["digest"]),
        client=Client(
            digest=found["digest"],
            ip=found["ip"],
            user_agent=found["user_agent"],
            key_id=int(found["key_id"]),
            key_name=found["key_name"],
        ),
        first_seen_at=_at(found["first_seen"]),
        last_seen_at=_at(found["last_seen"]),
        expires_at=_at(found["expires_at"]),
        requests=int(found["requests"]),
        in_flight=int(found["in_flight"]),
        account_names=tuple(json.loads(found.get("account_names", "[]"))),
        is_alive=found["is_alive"],
        blocked_until=None if blocked_until is None else _at(blocked_until),
    )
