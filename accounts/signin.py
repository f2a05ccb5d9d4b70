"""Signing in at the provider: begin here, come back with a code, have an account.

A sign-in is known by its `state`, which works once, for ten minutes, and only for
whoever began it. The verifier never leaves the server.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from accounts import oauth, pkce, registration
from accounts.errors import AuthorizationError
from accounts.models import Account, PendingAuthorization
from accounts.oauth import Identity, TokenSet
from accounts.status import AccountKind
from claudeproxy.crypto import Secret

LIFETIME = timedelta(minutes=10)
_AGAIN = "Begin the sign-in again."


@dataclass(frozen=True, slots=True)
class Begun:
    """Where to send the person, and the state that comes back."""

    url: str
    state: str


def begin(
    *,
    owner: str,
    redirect_uri: str,
    name: str = "",
    account: Account | None = None,
    now: datetime,
) -> Begun:
    """Begin a sign-in: of a new account called *name*, or of *account* once more.

    Errors: OAuthNotConfiguredError, AccountError for a name that cannot be had.
    """
    oauth.require_configured()
    if account is not None and account.kind != AccountKind.OAUTH:
        raise AuthorizationError(
            f"account: {account.name!r} has an API key; nobody signs in to it."
        )
    if account is None:
        name = registration.clean_name(name)
        registration.require_free_name(name)
    verifier, state = pkce.make_verifier(), pkce.make_state()
    url = oauth.authorization_url(
        state=state, verifier=verifier, redirect_uri=redirect_uri
    )
    prune(now=now)
    PendingAuthorization.objects.create(
        state_digest=_digest(state),
        owner=owner,
        verifier=Secret(verifier),
        redirect_uri=redirect_uri,
        account_name=account.name if account else name,
        account=account,
        expires_at=now + LIFETIME,
    )
    return Begun(url, state)


def finish(
    *, owner: str, state: str, code: Secret, actor: str, now: datetime
) -> Account:
    """Turn the code into tokens and keep them; return the account.

    Errors: AuthorizationError if the state is not one of *owner*'s or is used up, the
    errors of `oauth.parse_token_reply`, IdentityError.
    """
    pending = _claim(owner, state, now)
    if not code.reveal():
        raise AuthorizationError(f"code: the provider sent no code. {_AGAIN}")
    tokens = oauth.post_token(
        oauth.exchange_request(
            code=code,
            state=state,
            verifier=_verifier(pending),
            redirect_uri=pending.redirect_uri,
        ),
        now=now,
    )
    identity = identity_of(tokens)
    if pending.account is None:
        return registration.add_oauth(
            pending.account_name, tokens, identity, actor=actor, now=now
        )
    registration.sign_in_again(pending.account, tokens, identity, actor=actor, now=now)
    return pending.account


def abandon(*, owner: str, state: str, now: datetime) -> None:
    """Use up a state whose sign-in was denied; AuthorizationError if it is unknown."""
    _claim(owner, state, now)


def identity_of(tokens: TokenSet) -> Identity:
    """Say whose tokens they are: the profile knows most, the token answer some."""
    profile = oauth.get_profile(tokens.access_token)
    return profile if profile.holder else tokens.identity


def prune(*, now: datetime) -> int:
    """Forget sign-ins that never came back; return how many."""
    return PendingAuthorization.objects.filter(expires_at__lte=now).delete()[0]


def find(*, owner: str, state: str) -> PendingAuthorization | None:
    """Return *owner*'s sign-in of that state, which stays as it is; None if unknown."""
    return (
        PendingAuthorization.objects.select_related("account")
        .filter(state_digest=_digest(state), owner=owner)
        .first()
    )


def _claim(owner: str, state: str, now: datetime) -> PendingAuthorization:
    pending = find(owner=owner, state=state)
    # Of two that come back with one state, the one whose delete counts goes on.
    if (
        pending is None
        or not PendingAuthorization.objects.filter(pk=pending.pk).delete()[0]
    ):
        raise AuthorizationError(
            f"state: this sign-in was not begun here, or has been used. {_AGAIN}"
        )
    if pending.expires_at <= now:
        raise AuthorizationError(
            f"state: this sign-in took longer than ten minutes. {_AGAIN}"
        )
    return pending


def _verifier(pending: PendingAuthorization) -> Secret:
    if pending.verifier is None:
        raise ValueError("a pending sign-in always has a verifier")
    return pending.verifier


def _digest(state: str) -> str:
    return hashlib.sha256(state.encode()).hexdigest()
