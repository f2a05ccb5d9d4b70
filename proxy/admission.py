"""Whose request is this? Finds the client key in a request's headers.

A key may stand in `Authorization: Bearer` or in `x-api-key`. Claude Code can send both
with different values, so every candidate is tried, the bearer first, and the first
valid one wins. If none is, the answer speaks of the candidate that came closest.
"""

from collections.abc import Mapping
from datetime import datetime

from claudeproxy.errors import RequestRefusedError
from clients import keys
from clients.directory import KnownKey
from proxy import errors
from proxy.headers import Headers


def candidates(received: Headers) -> list[str]:
    """Return what may be keys, in the order they are tried."""
    bearers = []
    plain = []
    for name, value in received:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            if scheme.lower() == b"bearer":
                bearers.append(token)
        elif name == b"x-api-key":
            plain.append(value)
    return [text for raw in bearers + plain if (text := raw.decode("latin-1").strip())]


def find(
    texts: list[str], directory: Mapping[bytes, KnownKey], now: datetime
) -> KnownKey | None:
    """Return the first candidate that is a valid key."""
    for text in texts:
        key = directory.get(keys.digest(text))
        if key is not None and key.why_ended(now) is None:
            return key
    return None


def may_be_new(texts: list[str], directory: Mapping[bytes, KnownKey]) -> bool:
    """Could a candidate have been issued after the directory was read?"""
    return any(
        keys.is_intact(text) and keys.digest(text) not in directory for text in texts
    )


def refusal(
    texts: list[str], directory: Mapping[bytes, KnownKey], now: datetime
) -> RequestRefusedError:
    """Say why no candidate is a valid key."""
    known = [key for text in texts if (key := directory.get(keys.digest(text)))]
    if known:
        return errors.unauthenticated(known[0].why_ended(now) or "")
    if any(keys.is_intact(text) for text in texts):
        return errors.unauthenticated(
            "This gateway does not know this key. It may have been deleted; "
            "ask the operator for a new one."
        )
    if any(text.startswith(keys.PREFIX) for text in texts):
        return errors.unauthenticated(
            "This key has a typo: its checksum does not match. Copy it again."
        )
    if texts:
        return errors.unauthenticated(
            "This is not a key of this gateway; its keys begin with cp_. "
            "Ask the operator for one."
        )
    return errors.unauthenticated(
        "No key was sent. Put a key of this gateway into x-api-key "
        "or Authorization: Bearer."
    )
