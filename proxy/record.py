"""What is noted of a request on its way: for the log's one line, and the ledger."""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from time import monotonic, time_ns
from typing import Any

import structlog

from accounts.pool import PooledAccount
from usage.tally import Tally

_log = structlog.get_logger("proxy.request")

# People paste keys into addresses.
_KEYS_IN_PATHS = re.compile(r"(?:cp_|sk-)[\w-]+")
_PATH_LENGTH = 200


class End(StrEnum):
    """How a request ended."""

    COMPLETE = "complete"  # the caller has the whole answer
    REJECTED = "rejected"  # refused by the gateway itself
    CLIENT_GONE = "client_gone"  # the caller left before the end
    UPSTREAM_ERROR = "upstream_error"  # not reached, or broke off
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"  # the stream ended cleanly, but without its last event
    DRAINED = "drained"  # cut by the worker's own stop
    REVOKED = "revoked"  # cut by an operator, who ended the session
    FAILED = "failed"  # a fault of the gateway


def new_request_id() -> str:
    """Return an id that begins with the time: an index of many grows at its end."""
    return f"req_{time_ns() // 1_000_000:012x}{secrets.token_hex(6)}"


@dataclass(slots=True)
class Attempt:
    """An attempt that failed, and how long was waited before the next."""

    account_name: str
    blame: str
    reason: str
    duration_ms: float | None = None
    may_have_used: bool = False  # tokens that no answer tells of
    waited: timedelta = timedelta()

    @property
    def waited_ms(self) -> int:
        return round(self.waited.total_seconds() * 1000)

    def fields(self) -> dict[str, Any]:
        return {
            "account": self.account_name,
            "blame": self.blame,
            "reason": self.reason,
            "duration_ms": self.duration_ms,
            "waited_ms": self.waited_ms,
        }


@dataclass(slots=True)
class RequestRecord:
    """What is written down about a request: never a secret, never content."""

    method: str
    path: str
    request_id: str = field(default_factory=new_request_id)
    clock: Callable[[], float] = monotonic
    started: float = field(init=False)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    first_byte_at: float | None = None
    endpoint: str | None = None
    key_id: int | None = None
    key_name: str | None = None
    session: str | None = None
    account: PooledAccount | None = None
    routing: str | None = None
    model: str | None = None
    is_stream: bool = False
    status: int = 0
    request_bytes: int = 0
    answer_bytes: int = 0
    end: End | None = None
    is_quiet: bool = False  # health checks would drown the log
    cause: str | None = None
    # What the answer says it used, where answers say so.
    tally: Tally | None = None
    # The attempts that failed; the last account's answer is the line itself.
    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def note_sent(self, size: int) -> None:
        """Count bytes of the answer's body."""
        if self.first_byte_at is None:
            self.first_byte_at = self.clock()
        self.answer_bytes += size

    def write(self) -> None:
        """Write the line."""
        write = _log.debug if self.is_quiet else _log.info
        write("request", **self.fields())

    def fields(self) -> dict[str, Any]:
        """The line's fields; times in milliseconds since the request's start."""
        fields: dict[str, Any] = {
            "request_id": self.request_id,
            "key": self.key_name,
            "session": self.session,
            "account": self.account.name if self.account else None,
            "routing": self.routing,
            "model": self.model,
            "stream": self.is_stream,
            "method": self.method,
            "path": self.shown_path,
            "status": self.status,
            "end": self.end,
            "request_bytes": self.request_bytes,
            "answer_bytes": self.answer_bytes,
            "first_byte_ms": self.first_byte_ms,
            "duration_ms": self.duration_ms,
        }
        if self.cause is not None:
            fields["cause"] = self.cause
        if self.attempts:
            fields["failed"] = [attempt.fields() for attempt in self.attempts]
        return fields

    @property
    def shown_path(self) -> str:
        """The path as it may be written down."""
        return _KEYS_IN_PATHS.sub("[key]", self.path[:_PATH_LENGTH])

    @property
    def first_byte_ms(self) -> float | None:
        at = self.first_byte_at
        return None if at is None else self._since_start(at)

    @property
    def duration_ms(self) -> float:
        """How long it has taken until now."""
        return self._since_start(self.clock())

    def _since_start(self, at: float) -> float:
        return round((at - self.started) * 1000, 1)
