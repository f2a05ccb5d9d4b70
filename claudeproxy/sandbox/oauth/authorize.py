"""What a browser sees: the question who signs in, and the code to paste."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit

from claudeproxy.sandbox import calls
from claudeproxy.sandbox.calls import Call, require_method
from claudeproxy.sandbox.delivery import Reply
from claudeproxy.sandbox.errors import ControlError, GrantError, PageError
from claudeproxy.sandbox.oauth import pages, requests, scopes
from claudeproxy.sandbox.oauth.server import SignIn

PATH: Final = "/oauth/authorize"
CALLBACK_PATH: Final = "/oauth/code/callback"
# An S256 challenge is 32 bytes in base64url, without padding.
CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
URI_CHARACTERS: Final = re.compile(r"[!#-;=?-\[\]_a-z~%]+")
# A form goes where it came from, so its page must not hide that from us.
SECURITY_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


def authorize(call: Call) -> Reply:
    """Ask who signs in, or send the browser back with the decision."""
    require_method(call, "GET", "POST")
    try:
        return _decide(call) if call.method == "POST" else _ask(call)
    except PageError as exc:
        return _page(call, pages.problem(str(exc)), status=exc.status)


def show_code(call: Call) -> Reply:
    """Show the code of a sign-in, to be pasted where it was begun."""
    require_method(call, "GET")
    try:
        found = _read(call.query.encode("latin-1"))
        if "error" in found:
            return _page(call, pages.denied(found["error"]))
        code, state = _require(found, "code"), _require(found, "state")
    except PageError as exc:
        return _page(call, pages.problem(str(exc)), status=exc.status)
    return _page(call, pages.code(f"{code}#{state}"))


def _ask(call: Call) -> Reply:
    fields = _read(call.query.encode("latin-1"))
    sign_in = _check(call, fields)
    people = sorted(
        call.sandbox.oauth.people,
        key=lambda person: sign_in.login_hint not in (person.name, person.email),
    )
    kept = {name: fields[name] for name in pages.FIELDS if name in fields}
    html = pages.question(people, kept, sign_in)
    return _page(call, html, form_target=sign_in.redirect_uri)


def _decide(call: Call) -> Reply:
    host = call.header(b"host")
    origin = call.header(b"origin")
    if origin and urlsplit(origin).netloc != host:
        raise PageError("This form was sent from another site.", 403)
    fields = _read(call.body or b"")
    sign_in = _check(call, fields)
    if "deny" in fields:
        return _send_back(call, sign_in, {"error": "access_denied"})
    try:
        person = call.sandbox.oauth.people[_require(fields, "allow")]
    except ControlError as exc:
        raise PageError(str(exc)) from exc
    code = call.sandbox.oauth.grant_code(sign_in, person)
    return _send_back(call, sign_in, {"code": code})


def _send_back(call: Call, sign_in: SignIn, result: Mapping[str, str]) -> Reply:
    uri = sign_in.redirect_uri
    query = urlencode({**result, "state": sign_in.state})
    target = f"{uri}{'&' if '?' in uri else '?'}{query}"
    location = (b"location", target.encode("ascii"))
    return calls.answer(call, 302, b"", location, *SECURITY_HEADERS)


def _read(query: bytes) -> Mapping[str, str]:
    try:
        return requests.read_form(query)
    except ValueError as exc:
        raise PageError(f"The request cannot be read: {exc}") from exc


def _require(fields: Mapping[str, str], name: str) -> str:
    value = fields.get(name, "")
    if not value:
        raise PageError(f"{name} is missing.")
    return value


def _check(call: Call, fields: Mapping[str, str]) -> SignIn:
    """Check a request for authorization.

    Errors: PageError that names the parameter. Nothing goes back to a redirect_uri
    before all of it is known to be good.
    """
    if _require(fields, "client_id") != call.sandbox.oauth.client_id:
        raise PageError("client_id is not one that the sandbox knows.")
    redirect_uri = _require(fields, "redirect_uri")
    _check_redirect(redirect_uri, call.header(b"host"))
    if _require(fields, "response_type") != "code":
        raise PageError("response_type must be code.")
    challenge = _require(fields, "code_challenge")
    if _require(fields, "code_challenge_method") != "S256":
        raise PageError("code_challenge_method must be S256.")
    if not CHALLENGE.fullmatch(challenge):
        raise PageError("code_challenge is not a SHA-256 in base64url.")
    try:
        scope = scopes.read(fields.get("scope", ""))
    except GrantError as exc:
        raise PageError(str(exc)) from exc
    return SignIn(
        redirect_uri=redirect_uri,
        challenge=challenge,
        state=_require(fields, "state"),
        scope=scope,
        login_hint=fields.get("login_hint", ""),
    )


def _check_redirect(uri: str, own_host: str) -> None:
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise PageError("redirect_uri is not a URI.") from exc
    if parts.scheme not in ("http", "https") or not host:
        raise PageError("redirect_uri must be an http or https URI.")
    if not URI_CHARACTERS.fullmatch(uri) or "#" in uri or "@" in parts.netloc:
        raise PageError("redirect_uri must have no fragment, user or odd characters.")
    is_own_page = parts.netloc == own_host and parts.path == CALLBACK_PATH
    if not is_own_page and not _is_loopback(host):
        raise PageError("redirect_uri must lead to this computer.")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _page(
    call: Call, html: str, *, status: int = 200, form_target: str | None = None
) -> Reply:
    content_type = (b"content-type", b"text/html; charset=utf-8")
    policy = (b"content-security-policy", pages.policy(form_target).encode())
    body = html.encode()
    return calls.answer(call, status, body, content_type, policy, *SECURITY_HEADERS)
