"""The accounts that the sandbox knows, and who a request comes from."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

from claudeproxy.sandbox import catalogue
from claudeproxy.sandbox.errors import ControlError
from claudeproxy.sandbox.ratelimits import RateLimits

RawHeaders = Sequence[tuple[bytes, bytes]]

CREDENTIAL_HEADERS: Final = (b"x-api-key", b"authorization")
EVERYONE: Final = "*"
COMMON_MODELS: Final = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5")
DEFAULT_MODELS: Final = {
    "ada": (*COMMON_MODELS, "claude-haiku-4-5-20251001"),
    "grace": (*COMMON_MODELS, "claude-sonnet-4-5-20250929"),
    "edsger": ("claude-fable-5-2", *COMMON_MODELS),
}


def stable_id(name: str) -> str:
    """Derive a UUID from a name, the same in every sandbox."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"claude-sandbox:{name}"))


class Limits(Protocol):
    """What an account has used up, and the headers that report it."""

    def spend(self, now: float, input_tokens: int, output_tokens: int) -> None:
        """Charge one request."""

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """Build the headers."""


@dataclass(frozen=True, slots=True)
class Organization:
    """Whom an account belongs to."""

    id: str
    name: str
    kind: str | None = None

    @classmethod
    def named(cls, name: str, kind: str) -> Self:
        """Make up an organization; the id follows from the name."""
        return cls(stable_id(f"organization:{name}"), name, kind)


class Account:
    """One account: its key, its organization, its models and its rate limits."""

    rate_limits: Limits

    def __init__(
        self,
        name: str,
        api_key: str | None,
        models: Iterable[str] = COMMON_MODELS,
        latency_ms: float = 0,
        *,
        organization: Organization | None = None,
    ) -> None:
        self.name = name
        self.api_key = api_key
        self.latency_ms = latency_ms
        # Derived from the name, so that a restart does not change who answered.
        self.organization = organization or Organization(
            stable_id(name), f"Sandbox organization of {name}"
        )
        self.models = {model: catalogue.describe(model) for model in models}
        self.rate_limits = RateLimits()
        self.headers = [(b"anthropic-organization-id", self.organization_id.encode())]

    def __repr__(self) -> str:
        return f"<Account {self.name}>"

    @property
    def organization_id(self) -> str:
        """The id of its organization."""
        return self.organization.id

    @property
    def organization_name(self) -> str:
        """The name of its organization."""
        return self.organization.name


@dataclass(frozen=True, slots=True)
class Credential:
    """Whose a key or a token is, and what it is good for.

    A scope of None is no limit, as for keys; a refusal says why it is not accepted.
    """

    account: Account
    scope: tuple[str, ...] | None = None
    refusal: str | None = None


FindToken = Callable[[str], Credential | None]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, and its headers with the credentials taken out.

    The account is also known if its credential is refused.
    """

    account: Account | None
    credential_headers: list[str]
    headers: list[tuple[str, str]]
    scope: tuple[str, ...] | None = None
    refusal: str | None = None

    @property
    def accepted_account(self) -> Account | None:
        """The account, unless its credential is refused."""
        return None if self.refusal else self.account


def _no_token(_token: str) -> None:
    return None


class Accounts:
    """All accounts by name and by key."""

    def __init__(self) -> None:
        self._by_name: dict[str, Account] = {}
        self._by_key: dict[str, Account] = {}
        self.restore()

    def __iter__(self) -> Iterator[Account]:
        return iter(list(self._by_name.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Account:
        return self._by_name[name]

    def restore(self) -> None:
        """Go back to the three default accounts."""
        defaults = [
            Account(name, f"sk-sandbox-{name}", models)
            for name, models in DEFAULT_MODELS.items()
        ]
        self._by_name = {account.name: account for account in defaults}
        self._by_key = {
            account.api_key: account for account in defaults if account.api_key
        }

    def add(
        self,
        name: str,
        api_key: str,
        models: Iterable[str] = COMMON_MODELS,
        latency_ms: float = 0,
    ) -> Account:
        """Make a new account known.

        Errors: ControlError 409 if the name or the key is taken.
        """
        if name in self._by_name:
            raise ControlError(409, f"name: there is already an account {name}")
        if api_key in self._by_key:
            raise ControlError(409, "api_key: another account has this key")
        account = Account(name, api_key, models, latency_ms)
        self._by_name[name] = account
        self._by_key[api_key] = account
        return account

    def revoke(self, name: str) -> None:
        """Forget an account, so that its key is refused.

        Errors: ControlError 404 if there is none.
        """
        account = self._by_name.pop(name, None)
        if account is None:
            raise ControlError(404, f"there is no account {name}")
        self._by_key = {
            key: other for key, other in self._by_key.items() if other is not account
        }

    def identify(
        self, headers: RawHeaders, find_token: FindToken = _no_token
    ) -> Caller:
        """Find out whose credential a request has; x-api-key counts before a bearer."""
        shown: list[tuple[str, str]] = []
        found: dict[bytes, Credential | None] = {}
        for raw_name, raw_value in headers:
            value = raw_value.decode("latin-1")
            if raw_name in CREDENTIAL_HEADERS:
                credential = self._credential(raw_name, value, find_token)
                found.setdefault(raw_name, credential)
                known = f"[account {credential.account.name}]" if credential else ""
                value = known or "[unknown]"
            shown.append((raw_name.decode("latin-1"), value))
        deciding = next((name for name in CREDENTIAL_HEADERS if name in found), b"")
        credential = found.get(deciding)
        return Caller(
            account=credential.account if credential else None,
            credential_headers=[name.decode() for name in found],
            headers=shown,
            scope=credential.scope if credential else None,
            refusal=credential.refusal if credential else _refusal(deciding),
        )

    def _credential(
        self, header: bytes, value: str, find_token: FindToken
    ) -> Credential | None:
        secret = _secret_in(header, value)
        account = self._by_key.get(secret)
        if account is not None:
            return Credential(account)
        token = find_token(secret)
        if token is not None and header == b"x-api-key":
            return Credential(token.account, token.scope, _refusal(header))
        return token


def _refusal(header: bytes) -> str:
    return "invalid bearer token" if header == b"authorization" else "invalid x-api-key"


def _secret_in(name: bytes, value: str) -> str:
    if name == b"x-api-key":
        return value
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
