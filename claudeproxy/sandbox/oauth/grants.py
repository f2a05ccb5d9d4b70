"""What was granted: codes, families of tokens, and what becomes of them.

Codes and tokens are kept as digests only. Whoever calls this sees to the locking.
"""

import base64
import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from claudeproxy.sandbox.errors import GrantError
from claudeproxy.sandbox.oauth.people import Person

CODE_LIFETIME: Final = timedelta(minutes=10)
ACCESS_LIFETIME: Final = timedelta(hours=8)
REFRESH_LIFETIME: Final = timedelta(days=30)
ACCESS_PREFIX: Final = "sk-sandbox-oat-"
REFRESH_PREFIX: Final = "sk-sandbox-ort-"
Scope = tuple[str, ...]


@dataclass(slots=True, eq=False)
class Family:
    """All tokens that come from one sign-in."""

    person: Person
    client_id: str
    scope: Scope
    is_revoked: bool = False


@dataclass(slots=True)
class AccessToken:
    """A token for the API."""

    family: Family
    scope: Scope
    expires_at: datetime


@dataclass(slots=True)
class RefreshToken:
    """A token for new tokens; retired once another has taken its place."""

    family: Family
    expires_at: datetime
    is_retired: bool = False


@dataclass(slots=True)
class Code:
    """An authorization code and what it is bound to."""

    person: Person
    client_id: str
    redirect_uri: str
    challenge: str
    state: str
    scope: Scope
    expires_at: datetime
    family: Family | None = None


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long tokens live."""

    access: timedelta
    refresh: timedelta


@dataclass(frozen=True, slots=True)
class Issued:
    """New tokens; the refresh token is None if the old one stays."""

    family: Family
    scope: Scope
    expires_at: datetime
    refresh_expires_at: datetime
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)


def digest(secret: str) -> str:
    """Build the SHA-256 of a code or token, in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def challenge_for(verifier: str) -> str:
    """Build the S256 challenge that goes with a verifier.

    Source: RFC 7636, section 4.2.
    """
    hashed = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()


class Grants:
    """All codes and tokens by digest."""

    def __init__(self) -> None:
        self._codes: dict[str, Code] = {}
        self._access: dict[str, AccessToken] = {}
        self._refresh: dict[str, RefreshToken] = {}

    def code(self, code: str) -> Code | None:
        """Find a code."""
        return self._codes.get(digest(code))

    def access(self, token: str) -> AccessToken | None:
        """Find an access token."""
        return self._access.get(digest(token))

    def refresh(self, token: str) -> RefreshToken | None:
        """Find a refresh token, retired ones included."""
        return self._refresh.get(digest(token))

    def families_of(self, person: Person) -> Iterator[Family]:
        """List what somebody has granted."""
        for token in self._refresh.values():
            if token.family.person is person:
                yield token.family
        for access in self._access.values():
            if access.family.person is person:
                yield access.family

    def add_code(self, code: Code) -> str:
        """Keep a new code; the result is its text."""
        text = secrets.token_urlsafe(32)
        self._codes[digest(text)] = code
        return text

    def issue(
        self,
        family: Family,
        now: datetime,
        lifetimes: Lifetimes,
        *,
        scope: Scope | None = None,
        access_token: str | None = None,
        refresh_token: str | None = None,
        with_refresh_token: bool = True,
    ) -> Issued:
        """Make tokens, or take those that are given."""
        access_token = access_token or ACCESS_PREFIX + secrets.token_urlsafe(32)
        expires_at = now + lifetimes.access
        scope = family.scope if scope is None else scope
        self._access[digest(access_token)] = AccessToken(family, scope, expires_at)
        refresh_expires_at = now + lifetimes.refresh
        if with_refresh_token:
            refresh_token = refresh_token or REFRESH_PREFIX + secrets.token_urlsafe(32)
            kept = RefreshToken(family, refresh_expires_at)
            self._refresh[digest(refresh_token)] = kept
        return Issued(
            family=family,
            scope=scope,
            expires_at=expires_at,
            refresh_expires_at=refresh_expires_at,
            access_token=access_token,
            refresh_token=refresh_token if with_refresh_token else None,
        )

    def expire_access_tokens(self, person: Person, now: datetime) -> None:
        """Let all access tokens of somebody end now."""
        for token in self._access.values():
            if token.family.person is person:
                token.expires_at = min(token.expires_at, now)


def check_code(
    code: Code | None,
    *,
    client_id: str,
    redirect_uri: str,
    verifier: str,
    state: str | None,
    now: datetime,
) -> Code:
    """Check that a code may be exchanged. A second use revokes what the first gave.

    Errors: GrantError invalid_grant that says what does not fit.
    """
    if code is None:
        raise GrantError("invalid_grant", "code: unknown")
    if code.family is not None:
        code.family.is_revoked = True
        raise GrantError("invalid_grant", "code: used before", is_reuse=True)
    if now >= code.expires_at:
        raise GrantError("invalid_grant", "code: expired")
    if client_id != code.client_id:
        raise GrantError("invalid_grant", "code: issued to another client")
    if redirect_uri != code.redirect_uri:
        raise GrantError("invalid_grant", "redirect_uri: not that of the sign-in")
    if not secrets.compare_digest(challenge_for(verifier), code.challenge):
        raise GrantError("invalid_grant", "code_verifier: does not fit the challenge")
    if state is not None and state != code.state:
        raise GrantError("invalid_grant", "state: not that of the sign-in")
    return code


def check_refresh(
    token: RefreshToken | None, *, client_id: str, now: datetime
) -> RefreshToken:
    """Check that a refresh token is good. A retired one revokes its family.

    Errors: GrantError invalid_grant that says what is wrong.
    """
    if token is None:
        raise GrantError("invalid_grant", "refresh_token: unknown")
    if client_id != token.family.client_id:
        raise GrantError("invalid_grant", "refresh_token: issued to another client")
    if token.is_retired:
        token.family.is_revoked = True
        raise GrantError("invalid_grant", "refresh_token: used before", is_reuse=True)
    if token.family.is_revoked:
        raise GrantError("invalid_grant", "refresh_token: revoked")
    if now >= token.expires_at:
        raise GrantError("invalid_grant", "refresh_token: expired")
    return token
