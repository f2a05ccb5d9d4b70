"""Errors of the sandbox, and the JSON envelope in which the API reports them."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
STATUSES: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class ApiError(Exception):
    """An answer of the API that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        *,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers
        # What programs tell errors apart by, where type and status do not do it.
        self.code = code

    def body(self, request_id: str | None) -> bytes:
        """Write it in the API's envelope."""
        details = {"error_code": self.code} if self.code else None
        return envelope(error_type(self.status), self.message, request_id, details)


class ControlError(Exception):
    """A call of the control endpoint that cannot be done; its message says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class GrantError(Exception):
    """A refusal of the token endpoint, under the name that OAuth has for it."""

    def __init__(self, code: str, message: str, *, is_reuse: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.is_reuse = is_reuse


class PageError(Exception):
    """What is wrong with a sign-in, for the person who reads the page."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ClientGoneError(Exception):
    """The client left before its answer was complete."""


class ConnectionDroppedError(Exception):
    """Raised to end a response on a server that lets us do nothing sharper."""


class NotLoopbackError(ValueError):
    """The sandbox was asked to listen where others could reach it."""


def error_type(status: int) -> str:
    """Name the error type that goes with an HTTP status."""
    default = "invalid_request_error" if status < 500 else "api_error"
    return ERROR_TYPES.get(status, default)


def error_status(kind: str) -> int:
    """Name the HTTP status that goes with an error type."""
    return STATUSES.get(kind, 500)


def envelope(
    kind: str,
    message: str,
    request_id: str | None,
    details: Mapping[str, object] | None = None,
) -> bytes:
    """Build the JSON body of an error, which is also the data of an error event."""
    error: dict[str, Any] = {"type": kind, "message": message}
    if details is not None:
        error["details"] = details
    return msgspec.json.encode(
        {"type": "error", "error": error, "request_id": request_id}
    )


def readable(error: Exception, root: str = "") -> str:
    """Turn a decoding error into one line that begins with the field's name.

    Shape: "messages.0.role: Expected `str`, got `int`"; *root* is put before the path.
    """
    text, _, path = str(error).partition(" - at `")
    path = path.rstrip("`").removeprefix("$").replace("[...]", ".*")
    path = path.replace("[", ".").replace("]", "")
    where = f"{root}{path}" if root else path.removeprefix(".")
    return f"{where}: {text}" if where else text
