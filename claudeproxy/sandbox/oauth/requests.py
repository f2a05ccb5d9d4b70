"""Reads what a client sends to the token endpoint, as JSON or as a form."""

from collections.abc import Mapping
from urllib.parse import parse_qs

import msgspec

from claudeproxy.sandbox.accounts import RawHeaders
from claudeproxy.sandbox.errors import GrantError, readable


class TokenRequest(msgspec.Struct, frozen=True):
    """The parameters of a token or revocation request; the rest is ignored."""

    grant_type: str | None = None
    client_id: str | None = None
    code: str | None = None
    redirect_uri: str | None = None
    code_verifier: str | None = None
    state: str | None = None
    refresh_token: str | None = None
    scope: str | None = None
    token: str | None = None
    token_type_hint: str | None = None

    def require(self, name: str) -> str:
        """Fetch a parameter.

        Errors: GrantError invalid_request if it is missing or empty.
        """
        value: str | None = getattr(self, name)
        if not value:
            raise GrantError("invalid_request", f"{name}: required")
        return value


def read(headers: RawHeaders, body: bytes | None) -> TokenRequest:
    """Decode a request.

    Errors: GrantError invalid_request that names what is wrong.
    """
    if body is None:
        raise GrantError("invalid_request", "the request is too large")
    try:
        if _content_type(headers) == "application/json":
            return msgspec.json.decode(body, type=TokenRequest)
        if _content_type(headers) == "application/x-www-form-urlencoded":
            return msgspec.convert(read_form(body), TokenRequest)
    except (msgspec.DecodeError, ValueError, RecursionError) as exc:
        raise GrantError("invalid_request", readable(exc)) from exc
    raise GrantError("invalid_request", "content-type: must be JSON or a form")


def read_form(body: bytes) -> Mapping[str, str]:
    """Decode a form or a query; empty parameters count as missing.

    Errors: ValueError if a name comes twice, or if it is not UTF-8.
    """
    found = parse_qs(body.decode(), errors="strict")
    for name, values in found.items():
        if len(values) > 1:
            raise ValueError(f"{name}: given more than once")
    return {name: values[0] for name, values in found.items()}


def _content_type(headers: RawHeaders) -> str:
    found = next((value for name, value in headers if name == b"content-type"), b"")
    return found.partition(b";")[0].strip().lower().decode("latin-1")
