"""The one client of the upstream: opens requests, and says what went wrong with them.

httpx's exceptions end here. Each becomes an `UpstreamError` that knows how far the
request had come, which decides later whether it may be sent again.
"""

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta

import httpx

from proxy.errors import (
    MalformedReplyError,
    Stage,
    UpstreamError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from proxy.headers import Headers, first
from proxy.spool import Body
from proxy.transport import AiohttpTransport, FileStream

_CONNECT_TIMEOUT_SECONDS = 10.0
# For each piece of a body, not for the whole of it.
_WRITE_TIMEOUT_SECONDS = 30.0
# The pool has no limit, so waiting for a place in it means a fault of ours.
_POOL_TIMEOUT_SECONDS = 20.0

_NOTHING = httpx.ByteStream(b"")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.ProxyError,
    httpx.LocalProtocolError,
)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What goes to the upstream; `target` is path and query as the caller sent them."""

    method: str
    target: bytes
    headers: Headers
    body: Body


class UpstreamReply:
    """An answer that has begun: status and headers are in, the body is on its way."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status: int = response.status_code
        self.headers: Headers = [
            (name.lower(), value) for name, value in response.headers.raw
        ]

    @property
    def is_event_stream(self) -> bool:
        """Is the body made of frames that can be read on the way through?"""
        content_type = first(self.headers, b"content-type") or b""
        encoding = first(self.headers, b"content-encoding") or b"identity"
        return (
            content_type.lower().startswith(b"text/event-stream")
            and encoding.lower() == b"identity"
        )

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the body as it arrives; UpstreamError if it breaks off."""
        try:
            async for chunk in self._response.aiter_raw():
                yield chunk
        except httpx.TransportError as error:
            raise translate(error, begun=True) from error

    async def aclose(self) -> None:
        """Let go of the connection; it is closed unless the body was read whole."""
        await self._response.aclose()
        # httpx lets each hold the other, which only the garbage collector could undo.
        self._response.stream = _NOTHING


class _NoCookies(httpx.Cookies):
    """Keeps nothing: a cookie set for one account must not travel with another's.

    Nor is any answer searched for them, which took 5 % of a small request.
    """

    def extract_cookies(self, response: httpx.Response) -> None:
        return


class _Client(httpx.AsyncClient):
    _no_cookies = _NoCookies()

    @property  # type: ignore[misc]  # there are none to be set
    def cookies(self) -> httpx.Cookies:
        return self._no_cookies


class Upstream:
    """A long-lived client. It belongs to the event loop it was made in."""

    def __init__(
        self,
        base_url: str,
        *,
        read_timeout: timedelta,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        url = httpx.URL(base_url)
        self._origin = url.copy_with(raw_path=b"/")
        self._prefix = url.raw_path.rstrip(b"/")
        self._client = _Client(
            transport=transport or AiohttpTransport(),
            trust_env=False,
            follow_redirects=False,
        )
        self._timeout = httpx.Timeout(
            connect=_CONNECT_TIMEOUT_SECONDS,
            read=read_timeout.total_seconds(),
            write=_WRITE_TIMEOUT_SECONDS,
            pool=_POOL_TIMEOUT_SECONDS,
        ).as_dict()

    async def open(self, request: UpstreamRequest) -> UpstreamReply:
        """Send *request* and return when the answer's status and headers are in.

        Errors: UpstreamError, with the stage the request had reached; SpoolError if a
        body in a file cannot be read.
        """
        body = request.body
        http_request = httpx.Request(
            request.method,
            self._origin,
            headers=request.headers,
            content=(body or None) if isinstance(body, bytes) else None,
            stream=None if isinstance(body, bytes) else FileStream(body),
            # httpx's own client would add headers and rewrite the URL.
            extensions={
                "timeout": self._timeout,
                "target": self._prefix + request.target,
            },
        )
        try:
            response = await self._client.send(http_request, stream=True)
        except httpx.TransportError as error:
            raise translate(error, begun=False) from error
        if fault := _fault_of(response):
            await UpstreamReply(response).aclose()
            raise MalformedReplyError(Stage.ANSWER_BEGUN, fault)
        return UpstreamReply(response)

    async def aclose(self) -> None:
        await self._client.aclose()


def _fault_of(response: httpx.Response) -> str | None:
    """Say why an answer must not be passed on; None if it may."""
    status = response.status_code
    if response.is_redirect:
        # The caller would send its key to another host.
        return f"redirect {status}"
    if not 200 <= status <= 599:
        return f"status {status}"
    if any(_CONTROL.search(value) for _, value in response.headers.raw):
        return "a header with control characters"
    return None


def translate(error: httpx.TransportError, *, begun: bool) -> UpstreamError:
    """Return our word for an exception of httpx's."""
    cause = f"{type(error).__name__}: {error}"
    if begun:
        stage = Stage.ANSWER_BEGUN
    elif isinstance(error, _NOT_SENT):
        stage = Stage.NOT_SENT
    else:
        stage = Stage.PERHAPS_EXECUTED
    if isinstance(error, httpx.TimeoutException):
        return UpstreamTimeoutError(stage, cause)
    return UpstreamUnavailableError(stage, cause)
