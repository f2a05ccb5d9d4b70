"""Ask the upstream whether a credential works: `GET /v1/models`, which costs nothing.

Shape of the answer: Anthropic API reference, "List Models". This module is where
httpx's exceptions end for the accounts app.
"""

from dataclasses import dataclass
from typing import Any

import httpx

from accounts import foreign
from accounts.models import Account
from accounts.status import AccountKind
from claudeproxy.conf import conf
from claudeproxy.crypto import Secret

# Of calls the gateway makes for itself; callers' requests keep their own version.
API_VERSION = "2023-06-01"
OAUTH_BETA = "oauth-2025-04-20"
_TIMEOUT = httpx.Timeout(15, connect=10)


@dataclass(frozen=True)
class Finding:
    """What the upstream said about a credential."""

    works: bool
    # Did the upstream judge the credential, or could it not be asked?
    refused: bool
    message: str
    organization_uuid: str = ""


def auth_headers(kind: AccountKind, credential: Secret) -> dict[str, str]:
    """The headers that carry a credential of this kind."""
    if kind == AccountKind.API_KEY:
        return {"x-api-key": credential.reveal()}
    return {
        "authorization": f"Bearer {credential.reveal()}",
        "anthropic-beta": OAUTH_BETA,
    }


def check(account: Account) -> Finding:
    """Check a stored account."""
    return check_credential(AccountKind(account.kind), account.credential)


def check_credential(
    kind: AccountKind,
    credential: Secret,
    *,
    transport: httpx.BaseTransport | None = None,
) -> Finding:
    """Send one model list request with the credential and read the answer."""
    headers = {"anthropic-version": API_VERSION, **auth_headers(kind, credential)}
    try:
        with httpx.Client(
            timeout=_TIMEOUT, trust_env=False, transport=transport
        ) as client:
            reply = client.get(
                f"{conf.upstream_base_url}/v1/models",
                params={"limit": 1000},
                headers=headers,
            )
    except httpx.HTTPError as error:
        return Finding(
            works=False,
            refused=False,
            message=f"{conf.upstream_base_url} could not be asked "
            f"({type(error).__name__}); check UPSTREAM_BASE_URL and the network.",
        )
    return _read(reply, credential)


def _read(reply: httpx.Response, credential: Secret) -> Finding:
    if reply.status_code == httpx.codes.OK:
        models = _field(reply, "data")
        if isinstance(models, list):
            return Finding(
                works=True,
                refused=False,
                message=f"works, {len(models)} models",
                organization_uuid=foreign.clean(
                    reply.headers.get("anthropic-organization-id")
                ),
            )
        return Finding(
            False,
            False,
            "the upstream's answer is no model list; check UPSTREAM_BASE_URL",
        )
    error = _field(reply, "error")
    said = error.get("message") if isinstance(error, dict) else ""
    words = foreign.quote(said, sent=[credential.reveal()])
    refused = reply.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}
    return Finding(
        works=False,
        refused=refused,
        message=f"the upstream answered {reply.status_code}"
        + (f": {words}" if words else ""),
    )


def _field(reply: httpx.Response, name: str) -> Any:
    try:
        body = reply.json()
    except (ValueError, RecursionError):
        return None
    return body.get(name) if isinstance(body, dict) else None
