"""OAuth 2.0 with the provider: what is sent, what comes back, and one thin sender.

Building and parsing are pure. Only `post_token` and `get_profile` touch the network;
httpx's exceptions end here. Sources: RFC 6749 (sections 4.1, 5, 6), RFC 7636.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx

from accounts import foreign, pkce
from accounts.errors import (
    NoTokenReplyError,
    OAuthNotConfiguredError,
    TokenRefusedError,
)
from accounts.probe import OAUTH_BETA
from claudeproxy.conf import conf
from claudeproxy.crypto import Secret

# All parts together stay below the lease of a refresh, and below a job's time.
_TIMEOUT = httpx.Timeout(15, connect=5, write=5)
_READ_SECONDS = 10.0
_ANSWER_BYTES = 1024**2
# Used when the provider does not say how long a token lives.
_DEFAULT_LIFE = timedelta(hours=1)
# The grant itself is no good: only a person who signs in again can help.
_PERMANENT_ERRORS = frozenset({"invalid_grant", "organization_on_hold"})
# Said by a proxy in between that had sent the request on and got no answer to it.
_PERHAPS_PROCESSED = frozenset({502, 504, 520, 524})
_SECRET_NAMES = ("code", "code_verifier", "refresh_token", "state")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose account it is: a holder in an organization; empty where not known."""

    organization_uuid: str = ""
    organization_name: str = ""
    holder: str = ""
    holder_name: str = ""


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What a token endpoint gives. No refresh token means: keep the old one."""

    access_token: Secret
    refresh_token: Secret | None
    expires_at: datetime
    identity: Identity = Identity()


def require_configured() -> None:
    """OAuthNotConfiguredError that names the settings that are missing."""
    values = {
        "OAUTH_CLIENT_ID": conf.oauth_client_id,
        "OAUTH_AUTHORIZE_URL": conf.oauth_authorize_url,
        "OAUTH_TOKEN_URL": conf.oauth_token_url,
    }
    if missing := [name for name, value in values.items() if not value]:
        raise OAuthNotConfiguredError(missing)


def authorization_url(*, state: str, verifier: str, redirect_uri: str) -> str:
    """Return the address at the provider where a person allows the access.

    Source: RFC 6749 section 4.1.1, RFC 7636 section 4.3; `code=true` asks the provider
    to show the code where it does not redirect.
    """
    require_configured()
    parts = urlsplit(conf.oauth_authorize_url)
    query = [
        *parse_qsl(parts.query, keep_blank_values=True),
        ("code", "true"),
        ("client_id", conf.oauth_client_id),
        ("response_type", "code"),
        ("redirect_uri", redirect_uri),
        ("scope", conf.oauth_scope),
        ("code_challenge", pkce.challenge(verifier)),
        ("code_challenge_method", "S256"),
        ("state", state),
    ]
    return urlunsplit(parts._replace(query=urlencode(query)))


def split_pasted_code(text: str) -> tuple[str, str]:
    """Split `CODE#STATE` as a provider shows it; without a state that is empty."""
    code, _, state = text.strip().partition("#")
    return code.strip(), state.strip()


def exchange_request(
    *, code: Secret, state: str, verifier: Secret, redirect_uri: str
) -> dict[str, str]:
    """Build the request that turns a code into tokens (RFC 6749 section 4.1.3)."""
    return {
        "grant_type": "authorization_code",
        "code": code.reveal(),
        "state": state,
        "redirect_uri": redirect_uri,
        "client_id": conf.oauth_client_id,
        "code_verifier": verifier.reveal(),
    }


def refresh_request(refresh_token: Secret) -> dict[str, str]:
    """Build the request for a new token pair (RFC 6749 section 6)."""
    return {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token.reveal(),
        "client_id": conf.oauth_client_id,
    }


def parse_token_reply(
    status: int, body: bytes, *, now: datetime, sent: Collection[str] = ()
) -> TokenSet:
    """Read the answer of a token endpoint.

    Errors: TokenRefusedError if the grant is no good, NoTokenReplyError if the answer
    says nothing about it (a fault of the provider, or of the configuration). What the
    provider says is in the message, without the texts of *sent*, which it may quote.
    """
    fields = _json_object(body)
    if status == httpx.codes.OK:
        access_token = fields.get("access_token")
        refresh_token = fields.get("refresh_token")
        if not isinstance(refresh_token, str) or not refresh_token:
            refresh_token = None
        if not foreign.is_word(access_token) or not (
            refresh_token is None or foreign.is_word(refresh_token)
        ):
            # It may be the answer of somebody in between, or one that was cut.
            raise NoTokenReplyError(
                "the provider's answer holds no access token that could be used",
                was_processed=None,
            )
        return TokenSet(
            access_token=Secret(str(access_token)),
            refresh_token=None if refresh_token is None else Secret(refresh_token),
            expires_at=now + _life(fields.get("expires_in")),
            identity=_identity(fields, name="email_address"),
        )
    code, said = _error_of(fields)
    message = f"{status} {foreign.quote(code, sent=sent) or 'without an error code'}"
    if said:
        message += f": {foreign.quote(said, sent=sent)}"
    if code in _PERMANENT_ERRORS and status < httpx.codes.INTERNAL_SERVER_ERROR:
        raise TokenRefusedError(message)
    raise NoTokenReplyError(
        f"the provider answered {message}",
        was_processed=None if status in _PERHAPS_PROCESSED else False,
    )


def parse_profile(body: bytes) -> Identity:
    """Read the identity from a profile; empty where a field is missing."""
    return _identity(_json_object(body), name="email")


def post_token(request: Mapping[str, str], *, now: datetime) -> TokenSet:
    """Send a token request and read the answer; errors as of `parse_token_reply`."""
    headers = {"anthropic-beta": OAUTH_BETA, "user-agent": "claude-proxy"}
    try:
        with (
            httpx.Client(timeout=_TIMEOUT, trust_env=False) as client,
            client.stream(
                "POST", conf.oauth_token_url, json=dict(request), headers=headers
            ) as reply,
        ):
            body = _read(reply)
    except (
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.UnsupportedProtocol,  # an address that nothing could be sent to
        httpx.InvalidURL,
    ) as error:
        raise NoTokenReplyError(_trouble(error), was_processed=False) from error
    except httpx.HTTPError as error:
        raise NoTokenReplyError(_trouble(error), was_processed=None) from error
    sent = [request[name] for name in _SECRET_NAMES if request.get(name)]
    return parse_token_reply(reply.status_code, body, now=now, sent=sent)


def get_profile(access_token: Secret) -> Identity:
    """Ask whose token it is; an empty identity where the provider does not say."""
    headers = {"authorization": f"Bearer {access_token.reveal()}"}
    try:
        with httpx.Client(timeout=_TIMEOUT, trust_env=False) as client:
            reply = client.get(
                f"{conf.upstream_base_url}/api/oauth/profile", headers=headers
            )
    except httpx.HTTPError:
        return Identity()
    if reply.status_code != httpx.codes.OK:
        return Identity()
    return parse_profile(reply.content)


def _read(reply: httpx.Response) -> bytes:
    """Read an answer that is short and prompt; NoTokenReplyError if it is not."""
    deadline = monotonic() + _READ_SECONDS
    body = b""
    for chunk in reply.iter_bytes():
        body += chunk
        if len(body) > _ANSWER_BYTES or monotonic() > deadline:
            raise NoTokenReplyError(
                "the provider's answer was too long or too slow", was_processed=None
            )
    return body


def _trouble(error: Exception) -> str:
    # Without the exception's text: it may quote what was sent.
    return f"the provider could not be asked ({type(error).__name__})"


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _life(seconds: object) -> timedelta:
    if isinstance(seconds, int | float) and 0 < seconds < 10**9:
        return timedelta(seconds=seconds)
    return _DEFAULT_LIFE


def _identity(fields: dict[str, Any], *, name: str) -> Identity:
    organization = fields.get("organization")
    account = fields.get("account")
    return Identity(
        organization_uuid=_text(organization, "uuid"),
        organization_name=_text(organization, "name"),
        holder=_text(account, "uuid"),
        holder_name=_text(account, name),
    )


def _text(fields: object, name: str) -> str:
    return foreign.clean(fields.get(name)) if isinstance(fields, dict) else ""


def _error_of(fields: dict[str, Any]) -> tuple[str, object]:
    """Return code and description: OAuth's own form, or the API's envelope."""
    error = fields.get("error")
    if isinstance(error, dict):
        details = error.get("details")
        code = _text(details, "error_code") or _text(error, "type")
        return code, error.get("message")
    return _text(fields, "error"), fields.get("error_description")
