"""The control side, by which an operator or a test steers the sandbox."""

from collections.abc import Callable
from typing import Annotated, Final, TypeVar
from urllib.parse import parse_qs

import msgspec

from claudeproxy.sandbox import script
from claudeproxy.sandbox.accounts import COMMON_MODELS, EVERYONE, Account
from claudeproxy.sandbox.errors import ControlError, readable
from claudeproxy.sandbox.oauth.people import Person
from claudeproxy.sandbox.state import Sandbox

T = TypeVar("T")

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


class ClockMove(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a call that moves the clock."""

    advance_seconds: float


class ObjectSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a call that says how new objects shall behave."""

    batch_seconds: Annotated[float, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    uploads_are_downloadable: bool | None = None


class WhoseTokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a call that ends somebody's tokens."""

    person: str


class NewTokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a call that signs somebody in."""

    person: str
    scope: str = ""


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
        "people": [_shown_person(person) for person in sandbox.oauth.people],
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
    new = _decode(body, NewAccount)
    if new.name in sandbox.oauth.people:
        raise ControlError(409, f"name: there is already somebody called {new.name}")
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


def _tell_time(sandbox: Sandbox, _query: str, _body: bytes) -> Answer:
    return 200, {"now": sandbox.clock.now()}


def _move_clock(sandbox: Sandbox, query: str, body: bytes) -> Answer:
    sandbox.clock.advance(_decode(body, ClockMove).advance_seconds)
    return _tell_time(sandbox, query, body)


def _list_objects(sandbox: Sandbox, _query: str, _body: bytes) -> Answer:
    objects = sandbox.objects
    return 200, {
        "objects": objects.owned(),
        "batch_seconds": objects.batch_seconds,
        "uploads_are_downloadable": objects.uploads_are_downloadable,
    }


def _set_objects(sandbox: Sandbox, query: str, body: bytes) -> Answer:
    asked = _decode(body, ObjectSettings)
    if asked.batch_seconds is not None:
        sandbox.objects.batch_seconds = asked.batch_seconds
    if asked.uploads_are_downloadable is not None:
        sandbox.objects.uploads_are_downloadable = asked.uploads_are_downloadable
    return _list_objects(sandbox, query, body)


def _issue_tokens(sandbox: Sandbox, _query: str, body: bytes) -> Answer:
    asked = _decode(body, NewTokens)
    return 200, sandbox.oauth.issue(asked.person, scope=asked.scope)


def _expire_tokens(sandbox: Sandbox, _query: str, body: bytes) -> Answer:
    sandbox.oauth.expire_access_tokens(_decode(body, WhoseTokens).person)
    return 200, {}


def _revoke_tokens(sandbox: Sandbox, _query: str, body: bytes) -> Answer:
    sandbox.oauth.revoke(_decode(body, WhoseTokens).person)
    return 200, {}


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ControlError(400, readable(exc)) from exc


def _require_account(sandbox: Sandbox, name: str) -> None:
    if name != EVERYONE and not sandbox.knows(name):
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


def _shown_person(person: Person) -> dict[str, object]:
    holder = {
        "uuid": person.holder_id,
        "full_name": person.full_name,
        "email": person.email,
    }
    return {**_shown(person), "holder": holder}


Route = Callable[[Sandbox, str, bytes], Answer]
ROUTES: Final[dict[str, dict[str, Route]]] = {
    "": {"GET": _describe},
    "log": {"GET": _read_log, "DELETE": _clear_log},
    "accounts": {"POST": _add_account},
    "accounts/": {"DELETE": _revoke_account},
    "script": {"POST": _extend_script, "DELETE": _clear_script},
    "clock": {"GET": _tell_time, "POST": _move_clock},
    "objects": {"GET": _list_objects, "POST": _set_objects},
    "oauth/issue": {"POST": _issue_tokens},
    "oauth/expire": {"POST": _expire_tokens},
    "oauth/revoke": {"POST": _revoke_tokens},
    "reset": {"POST": _reset},
}
