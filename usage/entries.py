"""What the journal says of a request: when it has begun, and when it has ended."""

from datetime import datetime

import msgspec

from usage.tokens import Usage


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """An attempt that failed."""

    account: str
    blame: str
    reason: str
    duration_ms: float | None = None
    waited_ms: float = 0


class Begun(msgspec.Struct, kw_only=True, omit_defaults=True, tag="begun"):
    """A request that is on its way; never a secret, never content."""

    request_id: str
    started_at: datetime
    endpoint: str
    key_id: int | None = None
    key_name: str | None = None
    model_asked: str | None = None
    is_stream: bool = False
    request_bytes: int = 0
    session_digest: str | None = None


class Finished(Begun, kw_only=True, omit_defaults=True, tag="finished"):
    """A request that is over; says all there is to say, the beginning included."""

    end_reason: str
    status: int
    duration_ms: float
    first_byte_ms: float | None = None
    account_id: int | None = None
    account_name: str | None = None
    account_kind: str | None = None
    organization_uuid: str | None = None
    routing: str | None = None
    attempts: tuple[Attempt, ...] = ()
    answer_bytes: int = 0
    model_answered: str | None = None
    stop_reason: str | None = None
    usage: Usage | None = None
    # Was the answer cut off before it had said all it used?
    is_incomplete: bool = False
