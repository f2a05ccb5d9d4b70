"""Which models an account may use: read from the provider, kept, and asked.

Source: Anthropic API reference, "List Models" (paged by `after_id`). Parsing and asking
are pure; `fetch` reads the network. Nothing is concluded from what is not known.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx

from accounts import foreign, probe
from accounts.models import Account
from accounts.status import AccountKind
from claudeproxy.conf import conf

_TIMEOUT = httpx.Timeout(20, connect=10)
_PAGE_SIZE = 1000
_MOST_PAGES = 20
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_FIRST_VERSION = re.compile(r"[a-z]-\d$")
_DATE = re.compile(r"-20\d{6}$")


def parse_model(model: Mapping[str, Any]) -> dict[str, Any] | None:
    """Keep of a model what routing and the admin use; None if it has no id."""
    model_id = model.get("id")
    if not foreign.is_word(model_id):
        return None
    return {
        "id": model_id,
        "name": foreign.clean(model.get("display_name")) or model_id,
        "lifecycle": foreign.clean(model.get("lifecycle")),
        "max_input_tokens": _count(model.get("max_input_tokens")),
        "max_tokens": _count(model.get("max_tokens")),
        "features": sorted(_features(model.get("capabilities"))),
    }


def names(models: Sequence[Mapping[str, Any]] | None) -> frozenset[str] | None:
    """Return every name the models answer to; None if they are not known.

    A model with a date in its id also answers to the aliases that the provider
    resolves: the id without it, that with `-latest`, and `…-4-0` for `…-4`.
    """
    if models is None:
        return None
    ids = {str(model["id"]) for model in models}
    aliases = {_DATE.sub("", model_id) for model_id in ids}
    latest = {alias + "-latest" for alias in aliases}
    first = {alias + "-0" for alias in aliases if _FIRST_VERSION.search(alias)}
    return frozenset(ids | aliases | latest | first)


def fetch(account: Account) -> list[dict[str, Any]] | None:
    """Read all pages of the account's model list; None if that does not succeed.

    An empty list counts as none: it would keep the account from every request.
    """
    headers = {
        "anthropic-version": probe.API_VERSION,
        **probe.auth_headers(AccountKind(account.kind), account.credential),
    }
    models: list[dict[str, Any]] = []
    params: dict[str, str | int] = {"limit": _PAGE_SIZE}
    try:
        with httpx.Client(timeout=_TIMEOUT, trust_env=False) as client:
            for _ in range(_MOST_PAGES):
                reply = client.get(
                    f"{conf.upstream_base_url}/v1/models",
                    params=params,
                    headers=headers,
                )
                page = reply.raise_for_status().json()
                models += [m for raw in page["data"] if (m := parse_model(raw))]
                if not page.get("has_more"):
                    return models or None
                params["after_id"] = page["last_id"]
    except (httpx.HTTPError, *_UNREADABLE):
        return None
    return None


def refresh(account: Account, *, now: datetime) -> bool:
    """Read the account's models and keep them; False if they could not be read.

    What was known before stays in that case.
    """
    models = fetch(account)
    if models is None:
        return False
    Account.objects.filter(pk=account.pk).update(
        capabilities=models, capabilities_at=now, updated_at=now
    )
    return True


def _features(capabilities: Any) -> Iterable[str]:
    """Name every capability, nested ones with a dot, whose `supported` is true."""
    if not isinstance(capabilities, dict):
        return
    for name, value in capabilities.items():
        if not isinstance(value, dict) or not foreign.is_word(name):
            continue
        if value.get("supported") is True:
            yield name
        for inner in _features(value):
            yield f"{name}.{inner}"


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None
