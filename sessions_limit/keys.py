"""Which session a request belongs to, and which limit that session is under.

Only the digest of what identifies a session goes into keys and comparisons. The parts
are kept beside it, for the operator who wants to know whose session it is.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from sessions_limit import addresses
from sessions_limit.addresses import Address

PARTS = ("ip", "user_agent", "key")
GLOBAL = "global"
_USER_AGENT_LENGTH = 200
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Scope:
    """Sessions that share one limit."""

    name: str
    limit: int

    @property
    def is_of_one_key(self) -> bool:
        return self.name != GLOBAL


class SessionId(NamedTuple):
    """The name of a session: unique within its scope."""

    scope: str
    digest: str


@dataclass(frozen=True, slots=True)
class Client:
    """Who calls: the digest that identifies the session, and what people read."""

    digest: str
    ip: str
    user_agent: str
    key_id: int
    key_name: str


def scope_of(key_id: int, own_limit: int | None, *, shared_limit: int) -> Scope:
    """A key with a limit of its own is a scope of its own; all others share one."""
    if own_limit is None:
        return Scope(GLOBAL, shared_limit)
    return Scope(f"key:{key_id}", own_limit)


def identify(
    address: Address | None,
    user_agent: bytes,
    *,
    key_id: int,
    key_name: str,
    parts: Collection[str],
    ipv6_prefix: int,
) -> Client:
    """Tell who calls.

    Shape: *parts* are those of `PARTS` that make a session; their order says nothing.
    """
    ip = addresses.counted_as(address, ipv6_prefix) if address else ""
    values = {"ip": ip.encode(), "user_agent": user_agent, "key": b"%d" % key_id}
    return Client(
        digest=_digest({name: values[name] for name in PARTS if name in parts}),
        ip=ip,
        user_agent=_readable(user_agent),
        key_id=key_id,
        key_name=key_name,
    )


def _digest(values: dict[str, bytes]) -> str:
    hashed = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for name, value in values.items():
        # With its name and length, no value can pass for two others.
        hashed.update(b"%s:%d:%s;" % (name.encode(), len(value), value))
    return hashed.hexdigest()


def _readable(user_agent: bytes) -> str:
    text = user_agent[: 4 * _USER_AGENT_LENGTH].decode("utf-8", "replace")
    text = "".join(char if char.isprintable() else "�" for char in text)
    return text[:_USER_AGENT_LENGTH]
