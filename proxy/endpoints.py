"""The paths that may use the pool: an allow-list, matched on the path as it was sent.

Nothing is decoded or normalised before the match, so `..`, `//` and `%2f` cannot turn
an unlisted path into a listed one on the way to the upstream.
"""

import re
from dataclasses import dataclass

_MEBIBYTE = 1024**2


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of the API: its pattern, the methods it takes, its largest body."""

    name: str
    path: re.Pattern[bytes]
    methods: tuple[str, ...]
    body_limit_bytes: int
    # Does the body name a model and belong to a conversation?
    is_conversation: bool = False
    # Is it limited apart from messages?
    has_own_limits: bool = False


ENDPOINTS = (
    Endpoint(
        "messages",
        re.compile(rb"/v1/messages"),
        ("POST",),
        32 * _MEBIBYTE,
        is_conversation=True,
    ),
    Endpoint(
        "count_tokens",
        re.compile(rb"/v1/messages/count_tokens"),
        ("POST",),
        32 * _MEBIBYTE,
        is_conversation=True,
        has_own_limits=True,
    ),
    Endpoint(
        "models",
        re.compile(rb"/v1/models"),
        ("GET",),
        _MEBIBYTE,
        has_own_limits=True,
    ),
    Endpoint(
        "model",
        # An id is one segment that begins with a letter or digit, so never `.` or `..`.
        re.compile(rb"/v1/models/[A-Za-z0-9][A-Za-z0-9._:@-]{0,199}"),
        ("GET",),
        _MEBIBYTE,
        has_own_limits=True,
    ),
)


def find(raw_path: bytes) -> Endpoint | None:
    """Return the endpoint of a path as it stood in the request line, or None."""
    for endpoint in ENDPOINTS:
        if endpoint.path.fullmatch(raw_path):
            return endpoint
    return None
