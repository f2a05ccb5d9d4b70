"""The errors of the gateway.

    ClaudeProxyError
    ├─ RequestRefusedError        the caller's request cannot be taken as it is
    ├─ NoAccountAvailableError    nobody can serve the request now
    ├─ IllegalMoveError           a status move that the table does not allow
    └─ UpstreamError              the upstream could not be asked, or broke off

A message of this tree is written for the person who reads it and is safe to show: it
never holds a secret. The apps define the leaves they raise; this module defines the
root and says what an error is as HTTP.
"""

from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from types import MappingProxyType


class ClaudeProxyError(Exception):
    """Something went wrong that the gateway can put into words."""

    http_status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    error_type: str = "api_error"
    retry_after: timedelta | None = None
    # True or False becomes `x-should-retry`, which both SDKs obey before the status.
    should_retry: bool | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    # What programs read beside the message: `error.details` of the envelope.
    details: Mapping[str, str] = MappingProxyType({})


class RequestRefusedError(ClaudeProxyError):
    """The gateway refuses the request itself; no account was involved."""

    def __init__(
        self,
        message: str,
        *,
        http_status: int,
        error_type: str,
        should_retry: bool | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.error_type = error_type
        self.should_retry = should_retry
        self.headers = headers
