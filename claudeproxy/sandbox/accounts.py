"""The accounts that the sandbox knows, and who a request comes from."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

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


class Account:
    """One account: its key, its organization, its models and its rate limits."""

    def __init__(
        self,
        name: str,
        api_key: str,
        models: Iterable[str] = COMMON_MODELS,
        latency_ms: float = 0,
    ) -> None:
        self.name = name
        self.api_key = api_key
        self.latency_ms = latency_ms
        # Derived from the name, so that a restart does not change who answered.
        self.organization_id = str(
            uuid.uuid5(uuid.NAMESPACE_URL, f"claude-sandbox:{name}")
        )
        self.organization_name = f"Sandbox organization of {name}"
        self.models = {model: catalogue.describe(model) for model in models}
        self.rate_limits = RateLimits()
        self.headers = [(b"anthropic-organization-id", self.organization_id.encode())]

    def __repr__(self) -> str:
        return f"<Account {self.name}>"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, and its headers with the credentials taken out."""

    account: Account | None
    credential_headers: list[str]
    headers: list[tuple[str, str]]


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
        self._by_key = {account.api_key: account for account in defaults}

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
        del self._by_key[account.api_key]

    def identify(self, headers: RawHeaders) -> Caller:
        """Find out whose key a request carries; x-api-key counts before a bearer."""
        shown: list[tuple[str, str]] = []
        owners: dict[bytes, Account | None] = {}
        for raw_name, raw_value in headers:
            value = raw_value.decode("latin-1")
            if raw_name in CREDENTIAL_HEADERS:
                owner = self._by_key.get(_key_in(raw_name, value))
                owners.setdefault(raw_name, owner)
                value = f"[account {owner.name}]" if owner else "[unknown]"
            shown.append((raw_name.decode("latin-1"), value))
        deciding = next((name for name in CREDENTIAL_HEADERS if name in owners), b"")
        return Caller(
            account=owners.get(deciding),
            credential_headers=[name.decode() for name in owners],
            headers=shown,
        )


def _key_in(name: bytes, value: str) -> str:
    if name == b"x-api-key":
        return value
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
