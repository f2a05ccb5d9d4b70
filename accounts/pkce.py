"""Proof Key for Code Exchange, method S256 (RFC 7636)."""

import base64
import hashlib
import secrets
from collections.abc import Callable

_RANDOM_BYTES = 32


def make_verifier(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a `code_verifier`: 43 characters, 256 random bits (section 4.1)."""
    return _base64url(random_bytes(_RANDOM_BYTES))


def challenge(verifier: str) -> str:
    """Return the `code_challenge` of a verifier (section 4.2)."""
    return _base64url(hashlib.sha256(verifier.encode("ascii")).digest())


def make_state(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a `state` that nobody can guess (RFC 6749, section 10.12)."""
    return _base64url(random_bytes(_RANDOM_BYTES))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
