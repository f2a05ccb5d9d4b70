"""What clients call: tokens, their revocation, and whose an access token is."""

from dataclasses import replace
from typing import Final

from claudeproxy.sandbox import calls
from claudeproxy.sandbox.accounts import Account
from claudeproxy.sandbox.calls import Call, require_method
from claudeproxy.sandbox.delivery import Reply
from claudeproxy.sandbox.errors import ApiError, GrantError
from claudeproxy.sandbox.log import TokenOutcome
from claudeproxy.sandbox.oauth import requests, scopes
from claudeproxy.sandbox.oauth.grants import Issued
from claudeproxy.sandbox.oauth.people import Person
from claudeproxy.sandbox.script import TOKEN_PATH

REVOKE_PATH: Final = f"{TOKEN_PATH}/revoke"
TOKEN_PATHS: Final = (TOKEN_PATH, REVOKE_PATH)
PROFILE_PATH: Final = "/api/oauth/profile"
USAGE_PATH: Final = "/api/oauth/usage"
NO_STORE: Final = (b"cache-control", b"no-store")
# How a scripted status is named in the form of OAuth, unless the step says it.
ERROR_CODES: Final = {
    401: "invalid_client",
    403: "access_denied",
    429: "rate_limit_error",
    503: "temporarily_unavailable",
}


def token(call: Call) -> Reply:
    """Answer a request for tokens."""
    require_method(call, "POST")
    kept_back = _kept_back(call)
    if kept_back is not None:
        return kept_back
    try:
        asked = requests.read(call.headers, call.body)
        issued = call.sandbox.oauth.grant(
            asked, omit_refresh_token=call.step.omit_refresh_token
        )
    except GrantError as exc:
        return _refuse(call, exc)
    reply = calls.answer_json(call, _shown(call, issued), NO_STORE)
    return replace(reply, token_outcome=TokenOutcome.ISSUED)


def revoke(call: Call) -> Reply:
    """Answer a revocation."""
    require_method(call, "POST")
    kept_back = _kept_back(call)
    if kept_back is not None:
        return kept_back
    try:
        call.sandbox.oauth.revoke_token(requests.read(call.headers, call.body))
    except GrantError as exc:
        return _refuse(call, exc)
    reply = calls.answer_json(call, {}, NO_STORE)
    return replace(reply, token_outcome=TokenOutcome.REVOKED)


def profile(call: Call, account: Account) -> Reply:
    """Tell whose an access token is."""
    person = _holder(call, account)
    kind = person.organization.kind
    holder = {
        "uuid": person.holder_id,
        "email": person.email,
        "full_name": person.full_name,
        "display_name": person.full_name.partition(" ")[0],
        "has_claude_max": kind == "claude_max",
        "has_claude_pro": kind == "claude_pro",
    }
    organization = {
        "uuid": person.organization_id,
        "name": person.organization_name,
        "organization_type": kind,
        "billing_type": "sandbox",
        "rate_limit_tier": "default_sandbox",
        "has_extra_usage_enabled": False,
    }
    return calls.answer_json(call, {"account": holder, "organization": organization})


def usage(call: Call, account: Account) -> Reply:
    """Tell how much of the plan is used."""
    person = _holder(call, account)
    return calls.answer_json(call, person.rate_limits.answer(call.now))


def _kept_back(call: Call) -> Reply | None:
    """Build the answer for a step under which the server does nothing."""
    step = call.step
    if not calls.is_scripted(step) and not step.prevents_work:
        return None
    status = step.status or 200
    reply = calls.scripted(call)
    if status >= 400 and not step.has_body:
        default = "invalid_request" if status < 500 else "server_error"
        code = step.error_type or ERROR_CODES.get(status, default)
        text = step.error_message or f"The sandbox was told to answer {status}."
        reply = _error(call, status, code, text)
    return replace(reply, token_outcome=TokenOutcome.SCRIPTED)


def _refuse(call: Call, error: GrantError) -> Reply:
    reply = _error(call, 400, error.code, str(error))
    outcome = TokenOutcome.REUSED if error.is_reuse else TokenOutcome(error.code)
    return replace(reply, token_outcome=outcome)


def _error(call: Call, status: int, code: str, text: str) -> Reply:
    value = {"error": code, "error_description": text}
    return calls.answer_json(call, value, NO_STORE, status=status)


def _shown(call: Call, issued: Issued) -> dict[str, object]:
    now = call.sandbox.clock.now()
    person = issued.family.person
    shown: dict[str, object] = {
        "access_token": issued.access_token,
        "token_type": "Bearer",
        "expires_in": round((issued.expires_at - now).total_seconds()),
        "scope": " ".join(issued.scope),
        "organization": {
            "uuid": person.organization_id,
            "name": person.organization_name,
        },
        "account": {"uuid": person.holder_id, "email_address": person.email},
    }
    if issued.refresh_token is not None:
        left = issued.refresh_expires_at - now
        shown["refresh_token"] = issued.refresh_token
        shown["refresh_token_expires_in"] = round(left.total_seconds())
    return shown


def _holder(call: Call, account: Account) -> Person:
    if not isinstance(account, Person) or call.scope is None:
        raise ApiError(401, "This needs an OAuth access token")
    if scopes.PROFILE not in call.scope:
        raise ApiError(403, f"The token lacks the scope {scopes.PROFILE}")
    return account
