"""One API request, and the building of its answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from claudeproxy.sandbox import errors
from claudeproxy.sandbox.accounts import Account, RawHeaders
from claudeproxy.sandbox.delivery import Reply
from claudeproxy.sandbox.errors import ApiError
from claudeproxy.sandbox.requests import Head
from claudeproxy.sandbox.script import NOTHING, Step
from claudeproxy.sandbox.state import Sandbox
from claudeproxy.sandbox.wire import BODYLESS_STATUSES, Headers

LABEL: Final = (b"x-claude-sandbox", b"1")
JSON: Final = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One API request.

    A body of None was too large to keep, and where bodies may be very large it is in
    the file *upload* instead; a head of None could not be decoded. There is no account
    if its credential was refused, and no scope if all is allowed.
    """

    sandbox: Sandbox
    method: str
    path: str
    query: str
    headers: RawHeaders
    body: bytes | None
    head: Head | None
    account: Account | None
    request_id: str
    scope: tuple[str, ...] | None = None
    refusal: str | None = None
    step: Step = NOTHING
    upload: Path | None = None

    @property
    def now(self) -> float:
        """The time by the sandbox's clock, in seconds since the epoch."""
        return self.sandbox.clock.timestamp()

    def header(self, name: bytes) -> str:
        """Join the values of a header, which is named in lower case."""
        values = [value for found, value in self.headers if found == name]
        return b",".join(values).decode("latin-1")


def require_method(call: Call, *methods: str) -> None:
    """Check the method.

    Errors: ApiError 405.
    """
    if call.method not in methods:
        allow = ((b"allow", ", ".join(methods).encode()),)
        raise ApiError(405, "Method Not Allowed", allow)


def headers(call: Call, *own: tuple[bytes, bytes]) -> Headers:
    """Build the headers every answer has, then apply what the script says."""
    built = [LABEL, (b"request-id", call.request_id.encode()), *own]
    if call.account is not None:
        built += call.account.headers
        built += call.account.rate_limits.headers(call.now)
    pairs = call.step.header_pairs
    if not pairs:
        return built
    named = {name.lower().encode() for name, _ in pairs}
    kept = [(name, value) for name, value in built if name not in named]
    added = [
        (name.lower().encode(), value.encode("latin-1"))
        for name, value in pairs
        if value is not None
    ]
    return kept + added


def answer(
    call: Call, status: int, body: bytes, *own_headers: tuple[bytes, bytes]
) -> Reply:
    """Answer with a whole body, or with none if the status forbids it."""
    if status in BODYLESS_STATUSES:
        return Reply(status, headers(call), [b""])
    length = (b"content-length", str(len(body)).encode())
    return Reply(status, headers(call, *own_headers, length), [body])


def answer_json(
    call: Call, value: object, *own_headers: tuple[bytes, bytes], status: int = 200
) -> Reply:
    """Answer with JSON; the script may have changed the status."""
    status = call.step.status or status
    return answer(call, status, msgspec.json.encode(value), JSON, *own_headers)


def fail(
    call: Call, status: int, kind: str, text: str, *own_headers: tuple[bytes, bytes]
) -> Reply:
    """Answer with an error in the API's envelope."""
    body = errors.envelope(kind, text, call.request_id)
    return answer(call, status, body, JSON, *own_headers)


def is_scripted(step: Step) -> bool:
    """Tell whether the script replaces the answer instead of bending it."""
    status = step.status or 200
    is_error = status >= 400 or status in BODYLESS_STATUSES
    return is_error or step.body is not msgspec.UNSET


def scripted(call: Call) -> Reply:
    """Answer what the script says."""
    step = call.step
    status = step.status or 200
    if step.body is msgspec.UNSET and status not in BODYLESS_STATUSES:
        kind = step.error_type or errors.error_type(status)
        text = step.error_message or f"The sandbox was told to answer {status}."
        return fail(call, status, kind, text)
    if isinstance(step.body, str):
        kind = "html" if step.body.lstrip().startswith("<") else "plain"
        content_type = (b"content-type", f"text/{kind}; charset=utf-8".encode())
        return answer(call, status, step.body.encode(), content_type)
    body = b"" if step.body is msgspec.UNSET else msgspec.json.encode(step.body)
    return answer(call, status, body, JSON)
