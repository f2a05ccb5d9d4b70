"""The sandbox as the provider that OAuth accounts sign in at."""

from datetime import timedelta
from typing import Any

from django.utils import timezone

from accounts import registration
from accounts.models import Account
from accounts.oauth import Identity, TokenSet
from accounts.status import AccountKind
from claudeproxy.crypto import Secret
from claudeproxy.sandbox.oauth.server import TokenPair
from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.factories import make_account

TOKEN_PATH = "/v1/oauth/token"
REDIRECT = "http://localhost:4000/oauth/callback"


def configure(settings: Any, server: SandboxServer) -> Sandbox:
    """Have the gateway's settings name the sandbox as its provider."""
    settings.OAUTH_CLIENT_ID = server.sandbox.oauth.client_id
    settings.OAUTH_AUTHORIZE_URL = f"{server.url}/oauth/authorize"
    settings.OAUTH_TOKEN_URL = f"{server.url}{TOKEN_PATH}"
    return server.sandbox


def signed_in(
    sandbox: Sandbox,
    person: str = "dorothy",
    *,
    ends_in: timedelta = timedelta(seconds=30),
    **fields: Any,
) -> Any:
    """An account with living tokens of somebody, and the time that is left to it."""
    pair = sandbox.oauth.issue(person)
    holder = sandbox.oauth.people[person]
    return make_account(
        **{
            "name": person,
            "kind": AccountKind.OAUTH,
            "secret": pair.access_token,
            "refresh_token": Secret(pair.refresh_token),
            "expires_at": timezone.now() + ends_in,
            "organization_uuid": holder.organization_id,
            "organization_name": holder.organization_name,
            "holder": holder.holder_id,
            "holder_name": holder.email,
            **fields,
        }
    )


def script(sandbox: Sandbox, *steps: dict[str, Any], person: str = "dorothy") -> None:
    """Say what the next token requests of somebody meet."""
    sandbox.script.add(person, *({"path": TOKEN_PATH, **step} for step in steps))


def outcomes(sandbox: Sandbox) -> list[str | None]:
    """What became of the requests to the token endpoint."""
    return [entry.token_outcome for entry in sandbox.oauth.token_requests()]


def most_sent(sandbox: Sandbox) -> int:
    """How often the refresh token that was sent most often has arrived."""
    return max(sandbox.oauth.presentations().values(), default=0)


def access_token(account: Account) -> str:
    """The access token that is stored now."""
    return Account.objects.get(pk=account.pk).credential.reveal()


def token_set(pair: TokenPair) -> TokenSet:
    """What the gateway reads from the answer that gives this pair."""
    return TokenSet(
        Secret(pair.access_token), Secret(pair.refresh_token), pair.expires_at
    )


def identity_of(account: Account) -> Identity:
    """Whose account it is, as its row says."""
    names = ("organization_uuid", "organization_name", "holder", "holder_name")
    return Identity(**{name: getattr(account, name) for name in names})


def sign_in_again(account: Account, tokens: TokenSet) -> None:
    """Let the holder of an account sign in once more."""
    registration.sign_in_again(
        account, tokens, identity_of(account), actor="grace", now=timezone.now()
    )
