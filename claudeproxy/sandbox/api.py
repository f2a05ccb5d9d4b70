"""The API side: decides what one request is answered, without any I/O."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qs

from claudeproxy.sandbox import answers, calls, catalogue, errors, requests
from claudeproxy.sandbox.accounts import Account
from claudeproxy.sandbox.calls import JSON, Call, require_method
from claudeproxy.sandbox.delivery import Reply
from claudeproxy.sandbox.errors import ApiError
from claudeproxy.sandbox.oauth import authorize, endpoints, scopes
from claudeproxy.sandbox.objects import conversing, routes, threads
from claudeproxy.sandbox.requests import Head
from claudeproxy.sandbox.script import MESSAGES_PATH, TOKEN_PATH

EVENT_STREAM: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
)
COUNT_PATH: Final = "/v1/messages/count_tokens"
MODELS_PATH: Final = "/v1/models"
PROBE_PATHS: Final = ("/", "/api/hello")
OAUTH_BETA: Final = "oauth-2025-04-20"
# What needs no key or access token.
OPEN_HANDLERS: Final[Mapping[str, Callable[[Call], Reply]]] = {
    TOKEN_PATH: endpoints.token,
    endpoints.REVOKE_PATH: endpoints.revoke,
    authorize.PATH: authorize.authorize,
    authorize.CALLBACK_PATH: authorize.show_code,
}


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
        body = exc.body(call.request_id)
        return calls.answer(call, exc.status, body, JSON, *exc.headers)


def _route(call: Call) -> Reply:
    if call.path in PROBE_PATHS:
        require_method(call, "HEAD")
        return Reply(200, calls.headers(call), [b""])
    open_handler = OPEN_HANDLERS.get(call.path)
    if open_handler is not None:
        return open_handler(call)
    if not call.path.startswith(("/v1/", "/api/oauth/")):
        raise ApiError(404, "Not found")
    if call.account is None:
        raise ApiError(401, call.refusal or "invalid x-api-key")
    if calls.is_scripted(call.step):
        call.account.rate_limits.spend(call.now, 0, 0)
        return calls.scripted(call)
    if call.body is None:
        raise ApiError(413, "Request exceeds the maximum size")
    handlers = _find(call.path)
    require_method(call, *handlers)
    if call.path.startswith("/v1/"):
        _check_use(call)
    return handlers[call.method](call, call.account)


def _check_use(call: Call) -> None:
    """Check what the API wants besides a good credential."""
    if call.scope is not None:
        betas = [beta.strip() for beta in call.header(b"anthropic-beta").split(",")]
        if call.path.startswith(MESSAGES_PATH) and OAUTH_BETA not in betas:
            text = f"OAuth access tokens need the header anthropic-beta: {OAUTH_BETA}"
            raise ApiError(401, text)
        if scopes.INFERENCE not in call.scope:
            raise ApiError(403, f"The token lacks the scope {scopes.INFERENCE}")
    if not any(name == b"anthropic-version" for name, _ in call.headers):
        raise ApiError(400, "anthropic-version: header is required")


def _find(path: str) -> Mapping[str, Callable[[Call, Account], Reply]]:
    """Find what answers at a path, by method."""
    if path == MESSAGES_PATH:
        return {"POST": _messages}
    if path == COUNT_PATH:
        return {"POST": _count_tokens}
    if path == MODELS_PATH:
        return {"GET": _models}
    if path.startswith(f"{MODELS_PATH}/"):
        return {"GET": _model}
    if path == endpoints.PROFILE_PATH:
        return {"GET": endpoints.profile}
    if path == endpoints.USAGE_PATH:
        return {"GET": endpoints.usage}
    return routes.find(path)


def _messages(call: Call, account: Account) -> Reply:
    question = conversing.check(call, account, _head(call))
    conversation = question.conversation
    step = call.step
    if step.error_at_frame is not None and not conversation.stream:
        # There is no frame to fail at, so the whole answer is the error.
        kind = step.error_type or "overloaded_error"
        text = step.error_message or "The sandbox was told to fail here."
        return calls.fail(call, errors.error_status(kind), kind, text)
    wording = answers.Wording(step.text, step.frames)
    composed = conversing.answer(call, account, question, wording)
    answer = replace(composed, own_usage=step.usage or {})
    if question.thread and step.error_at_frame is None and not step.prevents_work:
        threads.hold(call, account, question.thread, answer.id)
    usage = answer.usage
    account.rate_limits.spend(call.now, usage.limited_input_tokens, usage.output_tokens)
    status = step.status or 200
    if conversation.stream:
        headers = calls.headers(call, *EVENT_STREAM)
        return Reply(status, headers, answers.frames(answer), is_stream=True)
    return calls.answer(call, status, answers.message(answer), JSON)


def _count_tokens(call: Call, account: Account) -> Reply:
    question = conversing.check(call, account, _head(call), counting=True)
    tokens = question.conversation.input_tokens
    return calls.answer_json(call, {"input_tokens": tokens})


def _models(call: Call, account: Account) -> Reply:
    query = parse_qs(call.query, keep_blank_values=True)
    return calls.answer_json(call, catalogue.page(list(account.models.values()), query))


def _model(call: Call, account: Account) -> Reply:
    name = call.path.removeprefix(f"{MODELS_PATH}/")
    return calls.answer_json(call, catalogue.find(account.models, name))


def _head(call: Call) -> Head:
    # Decoding again is only for the error it raises.
    return call.head or requests.read_head(call.body or b"")
