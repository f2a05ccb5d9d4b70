"""Django's ASGI handler for `/v1`, without what a proxy cannot afford.

Django's own takes the whole body in before any of our code runs, without limit, and
holds a thread for every request in flight. This one leaves the body to the view, runs a
short async middleware chain in the event loop, and owns the clean-up: whatever a
request opened is in `request.resources`, which is closed however the request ends.
"""

import asyncio
import contextlib
import io
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any, cast

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http.response import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.module_loading import import_string

from proxy import errors
from proxy.errors import CallerGoneError, DrainingError, Stage, UpstreamError
from proxy.gateway import Gateway, OpenRequest
from proxy.headers import Headers, first
from proxy.middleware import error_response
from proxy.record import End, RequestRecord

# After a refusal a caller may still be sending. It is listened to for this long and
# this much, or it would see a reset instead of the answer (RFC 9112 §9.6).
_LINGER_SECONDS = 10
_LINGER_BYTES = 64 * 1024**2
# An unread body up to this size is left to the server, which reads it and goes on.
_SMALL_BODY_BYTES = 1024**2


class GatewayRequest(ASGIRequest):
    """A request whose body is read by the view, within a limit."""

    def __init__(self, scope: dict[str, Any], receive: Any, open_: OpenRequest) -> None:
        super().__init__(scope, io.BytesIO())
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self.urlconf = settings.GATEWAY_URLCONF
        self.open_request = open_
        self.is_body_complete = False
        self.is_caller_gone = False
        self.is_answered = False
        self.resources = contextlib.AsyncExitStack()
        self.record = RequestRecord(
            method=scope["method"], path=scope["raw_path"].decode("latin-1")
        )

    @property
    def gateway(self) -> Gateway:
        return cast(Gateway, self.scope["state"]["gateway"])

    @property
    def raw_headers(self) -> Headers:
        """Headers as they arrived: names in lower case, duplicates kept."""
        return cast(Headers, self.scope["headers"])

    @property
    def declared_body_bytes(self) -> int | None:
        value = first(self.raw_headers, b"content-length")
        return int(value) if value is not None and value.isdigit() else None

    async def read_body(self, limit_bytes: int, timeout_seconds: float) -> bytes:
        """Take the body in, then watch for the caller to leave.

        Errors: RequestRefusedError (413) once it is clear that the body is too large,
        before any more of it is kept; 408 if it does not arrive in time;
        CallerGoneError if the caller leaves first.
        """
        if (self.declared_body_bytes or 0) > limit_bytes:
            raise errors.body_too_large(limit_bytes)
        try:
            async with asyncio.timeout(timeout_seconds):
                body = await self._gather_body(limit_bytes)
        except TimeoutError:
            raise errors.body_too_slow() from None
        self.record.request_bytes = len(body)
        self._watcher = asyncio.create_task(self._watch_caller())
        self.resources.callback(self._watcher.cancel)
        return body

    async def _gather_body(self, limit_bytes: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while not self.is_body_complete:
            piece = await self.receive_piece()
            size += len(piece)
            if size > limit_bytes:
                raise errors.body_too_large(limit_bytes)
            pieces.append(piece)
        return b"".join(pieces)

    async def receive_piece(self) -> bytes:
        """Return the next piece of the body as the server hands it over."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.is_caller_gone = True
            raise CallerGoneError
        self.is_body_complete = not message.get("more_body", False)
        return cast(bytes, message.get("body", b""))

    async def _watch_caller(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # The server says the same once the answer is complete.
        if not self.is_answered:
            self.is_caller_gone = True
            self.open_request.task.cancel()


class GatewayHandler(ASGIHandler):
    """Serves what `proxy.urls` knows, in the event loop."""

    def load_middleware(self, is_async: bool = True) -> None:
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        chain: Any = cast(Any, self)._get_response_async
        for path in reversed(settings.GATEWAY_MIDDLEWARE):
            chain = import_string(path)(chain)
        self._middleware_chain = chain

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        gateway: Gateway = scope["state"]["gateway"]
        with gateway.tracked() as open_request:
            request = GatewayRequest(scope, receive, open_request)
            try:
                async with request.resources:
                    await self._serve(request, send)
            finally:
                request.record.write()

    async def _serve(self, request: GatewayRequest, send: Any) -> None:
        record = request.record
        try:
            try:
                response = await self._middleware_chain(request)
            except asyncio.CancelledError:
                if not request.open_request.is_cut:
                    raise
                request.open_request.task.uncancel()
                record.end = End.DRAINED
                error = DrainingError(Stage.PERHAPS_EXECUTED, "drain")
                response = error_response(request, error)
            await self._send(request, response, send)
        except asyncio.CancelledError:
            # By whom? Only our own two cancellations end here.
            if request.is_caller_gone:
                record.end, record.status = End.CLIENT_GONE, 499
            elif request.open_request.is_cut:
                record.end = End.DRAINED
            else:
                raise
            request.open_request.task.uncancel()
        except CallerGoneError:
            record.end, record.status = End.CLIENT_GONE, 499
        except UpstreamError:
            # The answer broke off where no error can be put: `relay` has recorded it.
            # Leaving without the last message makes the server drop the connection.
            pass

    async def _send(
        self, request: GatewayRequest, response: HttpResponseBase, send: Any
    ) -> None:
        record = request.record
        record.status = record.status or response.status_code
        is_lingering = _must_linger(request, response)
        if is_lingering:
            response.headers["connection"] = "close"
        if not response.streaming:
            response.headers["content-length"] = str(len(_content(response)))
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": [
                    (name.encode("ascii"), value.encode("latin-1"))
                    for name, value in response.items()
                ],
            }
        )
        if isinstance(response, StreamingHttpResponse):
            pieces = cast(AsyncGenerator[bytes], aiter(response))
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    record.note_sent(len(piece))
                    await send(_body(piece, more=True))
            request.is_answered = True
            await send(_body(b"", more=False))
            return
        content = _content(response)
        record.note_sent(len(content))
        record.end = record.end or End.COMPLETE
        request.is_answered = not is_lingering
        await send(_body(content, more=is_lingering))
        if is_lingering:
            await _linger(request)
            request.is_answered = True
            await send(_body(b"", more=False))


def _content(response: HttpResponseBase) -> bytes:
    return cast(HttpResponse, response).content


def _body(piece: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": piece, "more_body": more}


def _must_linger(request: GatewayRequest, response: HttpResponseBase) -> bool:
    """Is an unread body on its way that the server should not just read to its end?"""
    if request.is_body_complete or response.status_code < HTTPStatus.BAD_REQUEST:
        return False
    declared = request.declared_body_bytes
    if declared is None:
        return first(request.raw_headers, b"transfer-encoding") is not None
    return declared > _SMALL_BODY_BYTES


async def _linger(request: GatewayRequest) -> None:
    seen = 0
    with contextlib.suppress(TimeoutError, CallerGoneError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while not request.is_body_complete and seen < _LINGER_BYTES:
                seen += len(await request.receive_piece())
