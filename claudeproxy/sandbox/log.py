"""The record of what arrived, without any content or credential."""

import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from time import perf_counter
from typing import Final

import msgspec

from claudeproxy.sandbox.accounts import Caller
from claudeproxy.sandbox.clock import Clock

CAPACITY: Final = 10_000


class Outcome(StrEnum):
    """How an answer ended."""

    COMPLETE = "complete"
    CLIENT_GONE = "client_gone"
    # The connection was closed in the middle of the answer.
    CUT = "cut"
    # The connection was closed with a TCP reset.
    RESET = "reset"
    # No more came, until the client left.
    HANG = "hang"
    # The stream ended with an error event.
    ERROR_EVENT = "error_event"
    # The stream ended cleanly, but before its last event.
    ENDED_EARLY = "ended_early"


class TokenOutcome(StrEnum):
    """What became of a request to the token endpoint, whatever reached the client."""

    ISSUED = "issued"
    REVOKED = "revoked"
    # A code or a refresh token came a second time; what came of it is revoked.
    REUSED = "reused"
    INVALID_CLIENT = "invalid_client"
    INVALID_GRANT = "invalid_grant"
    INVALID_REQUEST = "invalid_request"
    INVALID_SCOPE = "invalid_scope"
    UNSUPPORTED_GRANT_TYPE = "unsupported_grant_type"
    # The script answered or broke the connection; nothing was done.
    SCRIPTED = "scripted"


class Entry(msgspec.Struct, kw_only=True):
    """One request; what is not known yet is None."""

    seq: int
    at: datetime
    request_id: str
    account: str | None
    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    credential_headers: list[str]
    body_bytes: int = 0
    body_sha256: str | None = None
    model: str | None = None
    stream: bool | None = None
    status: int | None = None
    outcome: Outcome | None = None
    frames_sent: int = 0
    bytes_sent: int = 0
    client_gone_after_ms: float | None = None
    grant_type: str | None = None
    refresh_token_sha256: str | None = None
    token_outcome: TokenOutcome | None = None


class Log:
    """The latest requests in the order of their arrival."""

    def __init__(self, capacity: int = CAPACITY, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._entries: deque[Entry] = deque(maxlen=capacity)
        self._last_seq = 0
        self._changed = threading.Condition()
        self.in_flight = 0

    @property
    def last_seq(self) -> int:
        """The number of the latest request, 0 if there was none."""
        return self._last_seq

    def __len__(self) -> int:
        return len(self._entries)

    def arrive(
        self, caller: Caller, *, request_id: str, method: str, path: str, query: str
    ) -> Entry:
        """Note a request whose head has arrived."""
        with self._changed:
            self._last_seq += 1
            entry = Entry(
                seq=self._last_seq,
                at=self._clock.now(),
                request_id=request_id,
                account=caller.account.name if caller.account else None,
                method=method,
                path=path,
                query=query,
                headers=caller.headers,
                credential_headers=caller.credential_headers,
            )
            self._entries.append(entry)
            self.in_flight += 1
            self._changed.notify_all()
        return entry

    def finish(self, entry: Entry, outcome: Outcome | None) -> None:
        """Note how the answer ended."""
        with self._changed:
            entry.outcome = outcome
            self.in_flight -= 1
            self._changed.notify_all()

    def after(self, seq: int = 0) -> list[Entry]:
        """List the requests that came after number *seq*."""
        with self._changed:
            return [entry for entry in self._entries if entry.seq > seq]

    def clear(self) -> None:
        """Forget all requests; the numbers go on."""
        with self._changed:
            self._entries.clear()

    def restart(self) -> None:
        """Forget all requests and count from 1 again."""
        with self._changed:
            self._entries.clear()
            self._last_seq = 0

    def wait_for(
        self, condition: Callable[[list[Entry]], bool], timeout_seconds: float = 5.0
    ) -> list[Entry]:
        """Block another thread until the entries fulfil *condition*; return them.

        Errors: TimeoutError if they do not in time.
        """
        deadline = perf_counter() + timeout_seconds
        with self._changed:
            while not condition(entries := list(self._entries)):
                left = deadline - perf_counter()
                if left <= 0 or not self._changed.wait(left):
                    raise TimeoutError(f"the log is not as awaited: {entries}")
        return entries
