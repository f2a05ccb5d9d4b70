"""The authorization server: signs people in, and issues, rotates and revokes tokens."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from claudeproxy.sandbox.accounts import Credential
from claudeproxy.sandbox.clock import Clock
from claudeproxy.sandbox.errors import ControlError, GrantError
from claudeproxy.sandbox.log import Entry, Log
from claudeproxy.sandbox.oauth import grants, scopes
from claudeproxy.sandbox.oauth.grants import Code, Family, Grants, Issued, Lifetimes
from claudeproxy.sandbox.oauth.people import People, Person
from claudeproxy.sandbox.oauth.requests import TokenRequest
from claudeproxy.sandbox.script import TOKEN_PATH

DEFAULT_CLIENT_ID: Final = "sandbox-client"


@dataclass(frozen=True, slots=True)
class TokenPair:
    """Tokens as a test gets them without a browser."""

    person: str
    scope: str
    expires_at: datetime
    refresh_token_expires_at: datetime
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """A request for authorization that has been checked."""

    redirect_uri: str
    challenge: str
    state: str
    scope: tuple[str, ...]
    login_hint: str = ""


class AuthorizationServer:
    """Who has signed in, and with which tokens; safe to use from any thread."""

    def __init__(
        self,
        clock: Clock,
        log: Log,
        *,
        client_id: str = DEFAULT_CLIENT_ID,
        access_token_lifetime: timedelta = grants.ACCESS_LIFETIME,
        refresh_token_lifetime: timedelta = grants.REFRESH_LIFETIME,
    ) -> None:
        self._clock = clock
        self._log = log
        self._settings = (client_id, access_token_lifetime, refresh_token_lifetime)
        self._lock = threading.RLock()
        self.people = People()
        self.restore()

    def restore(self) -> None:
        """Forget all codes and tokens, and go back to the settings of the start."""
        with self._lock:
            self.client_id, self.access_token_lifetime, self.refresh_token_lifetime = (
                self._settings
            )
            self.people.restore()
            self._grants = Grants()
            self._presented: Counter[str] = Counter()

    def grant_code(self, sign_in: SignIn, person: Person) -> str:
        """Make a code for somebody who has agreed."""
        code = Code(
            person=person,
            client_id=self.client_id,
            redirect_uri=sign_in.redirect_uri,
            challenge=sign_in.challenge,
            state=sign_in.state,
            scope=sign_in.scope,
            expires_at=self._clock.now() + grants.CODE_LIFETIME,
        )
        with self._lock:
            return self._grants.add_code(code)

    def grant(self, asked: TokenRequest, *, omit_refresh_token: bool = False) -> Issued:
        """Do what a token request asks for.

        Errors: GrantError with the name that OAuth has for the refusal.
        """
        kind = asked.require("grant_type")
        if kind not in ("authorization_code", "refresh_token"):
            raise GrantError("unsupported_grant_type", f"grant_type: unknown {kind!r}")
        self._check_client(asked)
        with self._lock:
            if kind == "authorization_code":
                return self._exchange(asked, with_refresh_token=not omit_refresh_token)
            return self._refresh(asked, with_refresh_token=not omit_refresh_token)

    def _check_client(self, asked: TokenRequest) -> None:
        if asked.require("client_id") != self.client_id:
            raise GrantError("invalid_client", "client_id: unknown")

    def _exchange(self, asked: TokenRequest, *, with_refresh_token: bool) -> Issued:
        now = self._clock.now()
        code = grants.check_code(
            self._grants.code(asked.require("code")),
            client_id=asked.require("client_id"),
            redirect_uri=asked.require("redirect_uri"),
            verifier=asked.require("code_verifier"),
            state=asked.state,
            now=now,
        )
        code.family = Family(code.person, code.client_id, code.scope)
        return self._grants.issue(
            code.family, now, self._lifetimes, with_refresh_token=with_refresh_token
        )

    def _refresh(self, asked: TokenRequest, *, with_refresh_token: bool) -> Issued:
        now = self._clock.now()
        token = grants.check_refresh(
            self._grants.refresh(asked.require("refresh_token")),
            client_id=asked.require("client_id"),
            now=now,
        )
        scope = scopes.narrow(asked.scope, token.family.scope)
        token.is_retired = with_refresh_token
        return self._grants.issue(
            token.family,
            now,
            self._lifetimes,
            scope=scope,
            with_refresh_token=with_refresh_token,
        )

    @property
    def _lifetimes(self) -> Lifetimes:
        return Lifetimes(self.access_token_lifetime, self.refresh_token_lifetime)

    def revoke_token(self, asked: TokenRequest) -> None:
        """Revoke the family of an access or refresh token; unknown ones are no error.

        Errors: GrantError if the request is no good.
        Source: RFC 7009, section 2.2.
        """
        text = asked.require("token")
        self._check_client(asked)
        with self._lock:
            found = self._grants.refresh(text) or self._grants.access(text)
            if found is not None and found.family.client_id == asked.client_id:
                found.family.is_revoked = True

    def find_token(self, text: str) -> Credential | None:
        """Find out whose an access token is, and whether it is still good."""
        with self._lock:
            token = self._grants.access(text)
            if token is None:
                return None
            refusal = None
            if token.family.is_revoked:
                refusal = "The OAuth access token has been revoked."
            elif self._clock.now() >= token.expires_at:
                refusal = "The OAuth access token has expired."
            return Credential(token.family.person, token.scope, refusal)

    def note(self, asked: TokenRequest, entry: Entry) -> None:
        """Put into the log what arrived at the token endpoint, and from whom."""
        entry.grant_type = asked.grant_type
        with self._lock:
            if asked.refresh_token:
                entry.refresh_token_sha256 = grants.digest(asked.refresh_token)
                self._presented[entry.refresh_token_sha256] += 1
            owner = self._owner(asked)
        entry.account = owner.name if owner else None

    def _owner(self, asked: TokenRequest) -> Person | None:
        if asked.grant_type == "authorization_code":
            code = self._grants.code(asked.code or "")
            return code.person if code else None
        text = asked.refresh_token or asked.token or ""
        token = self._grants.refresh(text) or self._grants.access(text)
        return token.family.person if token else None

    def issue(
        self,
        person: str,
        *,
        scope: str = " ".join(scopes.DEFAULT),
        access_token: str | None = None,
        refresh_token: str | None = None,
    ) -> TokenPair:
        """Sign somebody in without a browser, if wanted with tokens of one's own.

        Errors: ControlError 400 for a name or a scope that nobody knows.
        """
        try:
            parts = scopes.read(scope)
        except GrantError as exc:
            raise ControlError(400, str(exc)) from exc
        with self._lock:
            family = Family(self.people[person], self.client_id, parts)
            issued = self._grants.issue(
                family,
                self._clock.now(),
                self._lifetimes,
                access_token=access_token,
                refresh_token=refresh_token,
            )
        return TokenPair(
            person=person,
            scope=" ".join(issued.scope),
            expires_at=issued.expires_at,
            refresh_token_expires_at=issued.refresh_expires_at,
            access_token=issued.access_token,
            refresh_token=issued.refresh_token or "",
        )

    def expire_access_tokens(self, person: str) -> None:
        """Let all access tokens of somebody end now; refresh tokens stay good.

        Errors: ControlError 400 for a name that nobody has.
        """
        with self._lock:
            holder = self.people[person]
            self._grants.expire_access_tokens(holder, self._clock.now())

    def revoke(self, person: str) -> None:
        """Revoke all tokens of somebody, so that only a new sign-in helps.

        Errors: ControlError 400 for a name that nobody has.
        """
        with self._lock:
            for family in self._grants.families_of(self.people[person]):
                family.is_revoked = True

    def is_family_alive(self, refresh_token: str) -> bool:
        """Tell whether a refresh token, even a retired one, has living relatives."""
        with self._lock:
            token = self._grants.refresh(refresh_token)
            return token is not None and not token.family.is_revoked

    def presented(self, refresh_token: str) -> int:
        """Count how often a refresh token arrived at the token endpoint."""
        return self._presented[grants.digest(refresh_token)]

    def presentations(self) -> dict[str, int]:
        """Count the same for every refresh token that arrived, by its SHA-256."""
        with self._lock:
            return dict(self._presented)

    def token_requests(self) -> list[Entry]:
        """List the requests to the token endpoint that are in the log."""
        return [entry for entry in self._log.after() if entry.path == TOKEN_PATH]
