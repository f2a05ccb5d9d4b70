"""The control side, by which an operator or a test steers the sandbox."""

from collections.abc import Callable
from typing import Annotated, Final
from urllib.parse import parse_qs

import msgspec

from claudeproxy.sandbox import script
from claudeproxy.sandbox.accounts import COMMON_MODELS, EVERYONE, Account
from claudeproxy.sandbox.errors import ControlError, readable
from claudeproxy.sandbox.state import Sandbox

PREFIX: Final = "/_sandbox"
Answer = tuple[int, object]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
# What can stand in a header; visible ASCII only.
Key = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,512}$")]


class NewAccount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a call that adds an account."""

    name: Name
    api_key: Key
    models: tuple[str, ...] = COMMON_MODELS
    latency_ms: script.Milliseconds = 0


class LogQuery(msgspec.Struct, frozen=True):
    """The query parameters of the log."""

    after: Annotated[int, msgspec.Meta(ge=0)] = 0


def handle(sandbox: Sandbox, method: str, path: str, query: str, body: bytes) -> Answer:
    """Do one call of the control endpoint; the answer is a status and a JSON value."""
    place = path.removeprefix(PREFIX).strip("/")
    if place.startswith("accounts/"):
        place, query = "accounts/", place.removeprefix("accounts/")
    try:
        routes = ROUTES.get(place)
        if routes is None:
            raise ControlError(404, "the sandbox has no such path")
        route = routes.get(method)
        if route is None:
            raise ControlError(405, f"use {' or '.join(routes)}")
        return route(sandbox, query, body)
    except ControlError as exc:
        return exc.status, {"error": str(exc)}


def _describe(sandbox: Sandbox, _query: str, _body: bytes) -> Answer:
    log = sandbox.log
    return 200, {
        "what": "A stand-in for Claude. No model is asked and nothing costs money.",
        "accounts": [_shown(account) for account in sandbox.accounts],
        "requests": log.last_seq,
        "requests_in_log": len(log),
        "requests_in_flight": log.in_flight,
        "steps_pending": sandbox.script.pending(),
    }


def _read_log(sandbox: Sandbox, query: str, _body: bytes) -> Answer:
    values = {name: found[-1] for name, found in parse_qs(query).items()}
    try:
        asked = msgspec.convert(values, LogQuery, strict=False)
    except msgspec.ValidationError as exc:
        raise ControlError(400, readable(exc)) from exc
    return 200, {"requests": sandbox.log.after(asked.after)}


def _clear_log(sandbox: Sandbox, _query: str, _body: bytes) -> Answer:
    sandbox.log.clear()
    return 200, {}


def _add_account(sandbox: Sandbox, _query: str, body: bytes) -> Answer:
    try:
        new = msgspec.json.decode(body, type=NewAccount)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ControlError(400, readable(exc)) from exc
    account = sandbox.accounts.add(new.name, new.api_key, new.models, new.latency_ms)
    return 201, _shown(account)


def _revoke_account(sandbox: Sandbox, name: str, _body: bytes) -> Answer:
    sandbox.accounts.revoke(name)
    sandbox.script.clear(name)
    return 200, {}


def _extend_script(sandbox: Sandbox, _query: str, body: bytes) -> Answer:
    asked = script.parse_request(body)
    _require_account(sandbox, asked.account)
    sandbox.script.add(asked.account, *asked.steps)
    return 200, {"steps_pending": sandbox.script.pending()}


def _clear_script(sandbox: Sandbox, query: str, _body: bytes) -> Answer:
    account = parse_qs(query).get("account", [None])[-1]
    if account is not None:
        _require_account(sandbox, account)
    sandbox.script.clear(account)
    return 200, {"steps_pending": sandbox.script.pending()}


def _reset(sandbox: Sandbox, _query: str, _body: bytes) -> Answer:
    sandbox.reset()
    return 200, {}


def _require_account(sandbox: Sandbox, name: str) -> None:
    if name != EVERYONE and name not in sandbox.accounts:
        raise ControlError(400, f"account: there is no account {name}")


def _shown(account: Account) -> dict[str, object]:
    return {
        "name": account.name,
        "organization": {
            "uuid": account.organization_id,
            "name": account.organization_name,
        },
        "models": list(account.models),
        "latency_ms": account.latency_ms,
    }


Route = Callable[[Sandbox, str, bytes], Answer]
ROUTES: Final[dict[str, dict[str, Route]]] = {
    "": {"GET": _describe},
    "log": {"GET": _read_log, "DELETE": _clear_log},
    "accounts": {"POST": _add_account},
    "accounts/": {"DELETE": _revoke_account},
    "script": {"POST": _extend_script, "DELETE": _clear_script},
    "reset": {"POST": _reset},
}
