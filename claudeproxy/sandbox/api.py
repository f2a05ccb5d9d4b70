"""The API side: decides what one request is answered, without any I/O."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

import msgspec

from claudeproxy.sandbox import answers, catalogue, errors, requests
from claudeproxy.sandbox.accounts import Account, RawHeaders
from claudeproxy.sandbox.delivery import Reply
from claudeproxy.sandbox.errors import ApiError
from claudeproxy.sandbox.requests import Head
from claudeproxy.sandbox.script import MESSAGES_PATH, NOTHING, Step
from claudeproxy.sandbox.wire import BODYLESS_STATUSES, Headers

LABEL: Final = (b"x-claude-sandbox", b"1")
JSON: Final = (b"content-type", b"application/json")
EVENT_STREAM: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
)
COUNT_PATH: Final = "/v1/messages/count_tokens"
MODELS_PATH: Final = "/v1/models"
PROBE_PATHS: Final = ("/", "/api/hello")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One API request.

    A body of None was too large to keep; a head of None could not be decoded.
    """

    method: str
    path: str
    query: str
    headers: RawHeaders
    body: bytes | None
    head: Head | None
    account: Account | None
    request_id: str
    step: Step = NOTHING


def peek(body: bytes | None) -> Head | None:
    """Decode the top level of a body, None if that cannot be done."""
    if not body:
        return None
    try:
        return requests.read_head(body)
    except ApiError:
        return None


def respond(call: Call) -> Reply:
    """Decide the answer to a call, errors included."""
    try:
        return _route(call)
    except ApiError as exc:
        kind = errors.error_type(exc.status)
        return _error(call, exc.status, kind, exc.message, exc.headers)


def _route(call: Call) -> Reply:
    if call.path in PROBE_PATHS:
        _require_method(call, "HEAD")
        return Reply(200, _headers(call), [b""])
    if not call.path.startswith("/v1/"):
        raise ApiError(404, "Not found")
    if call.account is None:
        raise ApiError(401, "invalid x-api-key")
    if _is_scripted(call.step):
        call.account.rate_limits.spend(time.time(), 0, 0)
        return _scripted(call)
    if call.body is None:
        raise ApiError(413, "Request exceeds the maximum size")
    method, handler = _find(call.path)
    _require_method(call, method)
    if not any(name == b"anthropic-version" for name, _ in call.headers):
        raise ApiError(400, "anthropic-version: header is required")
    return handler(call, call.account)


def _find(path: str) -> tuple[str, Callable[[Call, Account], Reply]]:
    if path == MESSAGES_PATH:
        return "POST", _messages
    if path == COUNT_PATH:
        return "POST", _count_tokens
    if path == MODELS_PATH:
        return "GET", _models
    if path.startswith(f"{MODELS_PATH}/"):
        return "GET", _model
    raise ApiError(404, "Not found")


def _require_method(call: Call, method: str) -> None:
    if call.method != method:
        allow = ((b"allow", method.encode()),)
        raise ApiError(405, "Method Not Allowed", allow)


def _messages(call: Call, account: Account) -> Reply:
    conversation = requests.read_conversation(_head(call))
    model = catalogue.find(account.models, conversation.model)
    step = call.step
    if step.error_at_frame is not None and not conversation.stream:
        # There is no frame to fail at, so the whole answer is the error.
        kind = step.error_type or "overloaded_error"
        text = step.error_message or "The sandbox was told to fail here."
        return _error(call, errors.error_status(kind), kind, text)
    answer = answers.compose(
        conversation,
        account=account.name,
        model=model.id,
        wording=answers.Wording(step.text, step.frames),
    )
    usage = answer.usage
    account.rate_limits.spend(
        time.time(), usage.limited_input_tokens, usage.output_tokens
    )
    status = step.status or 200
    if conversation.stream:
        headers = _headers(call, *EVENT_STREAM)
        return Reply(status, headers, answers.frames(answer), is_stream=True)
    return _body(call, status, answers.message(answer), JSON)


def _count_tokens(call: Call, account: Account) -> Reply:
    conversation = requests.read_conversation(_head(call), counting=True)
    catalogue.find(account.models, conversation.model)
    return _json(call, {"input_tokens": conversation.input_tokens})


def _models(call: Call, account: Account) -> Reply:
    query = parse_qs(call.query, keep_blank_values=True)
    return _json(call, catalogue.page(list(account.models.values()), query))


def _model(call: Call, account: Account) -> Reply:
    name = call.path.removeprefix(f"{MODELS_PATH}/")
    return _json(call, catalogue.find(account.models, name))


def _head(call: Call) -> Head:
    # Decoding again is only for the error it raises.
    return call.head or requests.read_head(call.body or b"")


def _is_scripted(step: Step) -> bool:
    """Tell whether the script replaces the answer instead of bending it."""
    status = step.status or 200
    is_error = status >= 400 or status in BODYLESS_STATUSES
    return is_error or step.body is not msgspec.UNSET


def _scripted(call: Call) -> Reply:
    step = call.step
    status = step.status or 200
    if step.body is msgspec.UNSET and status not in BODYLESS_STATUSES:
        kind = step.error_type or errors.error_type(status)
        text = step.error_message or f"The sandbox was told to answer {status}."
        return _error(call, status, kind, text)
    if isinstance(step.body, str):
        kind = "html" if step.body.lstrip().startswith("<") else "plain"
        content_type = (b"content-type", f"text/{kind}; charset=utf-8".encode())
        return _body(call, status, step.body.encode(), content_type)
    body = b"" if step.body is msgspec.UNSET else msgspec.json.encode(step.body)
    return _body(call, status, body, JSON)


def _error(
    call: Call,
    status: int,
    kind: str,
    text: str,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> Reply:
    body = errors.envelope(kind, text, call.request_id)
    return _body(call, status, body, JSON, *headers)


def _json(call: Call, value: object) -> Reply:
    return _body(call, call.step.status or 200, msgspec.json.encode(value), JSON)


def _body(call: Call, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Reply:
    if status in BODYLESS_STATUSES:
        return Reply(status, _headers(call), [b""])
    length = (b"content-length", str(len(body)).encode())
    return Reply(status, _headers(call, *headers, length), [body])


def _headers(call: Call, *own: tuple[bytes, bytes]) -> Headers:
    """Build the headers every answer has, then apply what the script says."""
    headers = [LABEL, (b"request-id", call.request_id.encode()), *own]
    if call.account is not None:
        headers += call.account.headers
        headers += call.account.rate_limits.headers(time.time())
    pairs = call.step.header_pairs
    if not pairs:
        return headers
    named = {name.lower().encode() for name, _ in pairs}
    kept = [(name, value) for name, value in headers if name not in named]
    added = [
        (name.lower().encode(), value.encode("latin-1"))
        for name, value in pairs
        if value is not None
    ]
    return kept + added
