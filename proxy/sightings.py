"""What answers show of an account's objects: pure readers of the upstream's JSON.

An answer that is not of the expected shape shows nothing, and passes all the same.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from accounts.ownership import CONTAINER_LIFETIME, THREAD_LIFETIME, Possession
from accounts.status import ObjectKind
from proxy import endpoints

# Skills of the provider: every account has them, so they bind nobody to one.
_SHARED_SOURCES = frozenset({"anthropic", "anthropic_example"})
_DATA = re.compile(rb"(?:^|[\r\n])data: ?([^\r\n]*)")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Sighting(msgspec.Struct):
    """An object of a list, or one that was just made."""

    id: str
    made: Any = msgspec.field(default=None, name="created_at")
    source: Any = None

    @property
    def created_at(self) -> datetime | None:
        """When it was made, in UTC if no zone is said; None if nothing is."""
        if not isinstance(self.made, str):
            return None
        try:
            at = msgspec.convert(self.made, datetime)
        except msgspec.ValidationError:
            return None
        return at if at.tzinfo else at.replace(tzinfo=UTC)

    @property
    def is_shared(self) -> bool:
        """Does every account have it? Its source is a word, or an object with one."""
        source = self.source
        if isinstance(source, dict):
            source = source.get("type")
        return isinstance(source, str) and source in _SHARED_SOURCES

    def possession(self, kind: ObjectKind, account_id: int) -> Possession | None:
        """Say whose it is; None for what is nobody's own."""
        if self.is_shared or not endpoints.is_object_id(self.id):
            return None
        return Possession(self.id, kind, account_id)


class _Container(msgspec.Struct):
    id: str | None = None
    expires_at: datetime | None = None


class _Message(msgspec.Struct):
    id: str | None = None
    container: _Container | None = None


class _Event(msgspec.Struct):
    """`message_start` or `message_delta`; others hold neither field."""

    message: _Message | None = None
    delta: _Message | None = None


_object = msgspec.json.Decoder(Sighting)
_message = msgspec.json.Decoder(_Message)
_event = msgspec.json.Decoder(_Event)


def read_object(raw: bytes) -> Sighting | None:
    """Read an object by itself."""
    try:
        return _object.decode(raw)
    except _UNREADABLE:
        return None


def in_message(
    body: bytes, account_id: int, now: datetime, *, is_thread: bool
) -> list[Possession]:
    """Return what a whole answer of Messages shows: its thread, its container."""
    try:
        message = _message.decode(body)
    except _UNREADABLE:
        return []
    return list(_possessions(message, account_id, now, is_thread=is_thread))


def in_frames(
    frames: bytes, account_id: int, now: datetime, *, is_thread: bool
) -> list[Possession]:
    """Return what whole frames of a stream show: its thread, its container."""
    found: list[Possession] = []
    for data in _DATA.findall(frames):
        if b'"message_start"' not in data and b'"container"' not in data:
            continue
        try:
            event = _event.decode(data)
        except _UNREADABLE:
            continue
        for part in (event.message, event.delta):
            if part is not None:
                found += _possessions(part, account_id, now, is_thread=is_thread)
    return found


def _possessions(
    message: _Message, account_id: int, now: datetime, *, is_thread: bool
) -> Iterator[Possession]:
    if is_thread and message.id and endpoints.is_object_id(message.id):
        until = now + THREAD_LIFETIME
        yield Possession(message.id, ObjectKind.THREAD, account_id, until)
    container = message.container
    if container and container.id and endpoints.is_object_id(container.id):
        until = _aware(container.expires_at, now) or now + CONTAINER_LIFETIME
        yield Possession(container.id, ObjectKind.CONTAINER, account_id, until)


def _aware(at: datetime | None, now: datetime) -> datetime | None:
    """Return a time that may be stored: with a zone, and no further than a year."""
    if at is None or at.tzinfo is None:
        return None
    return min(at, now + timedelta(days=365))
