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
from typing import Any, Literal, cast, overload

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http.response import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.module_loading import import_string

from claudeproxy.errors import ClaudeProxyError
from proxy import accounting, errors, protocol
from proxy.endings import end_of
from proxy.errors import CallerGoneError, DrainingError, Stage, UpstreamError
from proxy.gateway import Gateway, OpenRequest
from proxy.headers import Headers
from proxy.middleware import error_response, failure_response
from proxy.record import End, RequestRecord
from proxy.request_body import RequestBody
from proxy.spool import Body, FileBody
from sessions_limit.limiter import PASS, Admission, Pass


class GatewayRequest(ASGIRequest):
    """A request whose body is read by the view, within a limit."""

    def __init__(self, scope: dict[str, Any], receive: Any, open_: OpenRequest) -> None:
        super().__init__(scope, io.BytesIO())
        self._receive = receive
        self.incoming = RequestBody(scope["headers"], receive)
        self.urlconf = settings.GATEWAY_URLCONF
        self.open_request = open_
        self.is_caller_gone = False
        # Is the upstream asked for what a second request would make twice?
        self.is_making = False
        self.is_answer_begun = False
        self.admission: Admission | Pass = PASS
        self.is_answered = False
        self.is_settled = False
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

    @overload
    async def read_body(
        self,
        limit_bytes: int,
        timeout_seconds: float,
        *,
        may_spool: Literal[False] = False,
    ) -> bytes: ...

    @overload
    async def read_body(
        self, limit_bytes: int, timeout_seconds: float, *, may_spool: bool
    ) -> Body: ...

    async def read_body(
        self, limit_bytes: int, timeout_seconds: float, *, may_spool: bool = False
    ) -> Body:
        """Take the body in, then watch for the caller to leave.

        With *may_spool* a large one is kept in a file, for as long as the request, and
        *timeout_seconds* is how long the caller may be silent.

        Errors: as of `RequestBody.take`, or `take_spooled`.
        """
        body: Body
        if may_spool:
            body = await self.incoming.take_spooled(limit_bytes, timeout_seconds)
            if isinstance(body, FileBody):
                self.resources.callback(body.close)
        else:
            body = await self.incoming.take(limit_bytes, timeout_seconds)
        self.record.request_bytes = len(body)
        watcher = asyncio.create_task(self._watch_caller())
        self.resources.callback(watcher.cancel)
        return body

    def begin(self) -> None:
        """Tell the ledger that the request goes on its way."""
        self.gateway.ledger.begin(accounting.begun(self.record))

    def settle(self) -> None:
        """Tell the ledger how the request ended; said twice, it counts once."""
        if not (self.is_settled or self.record.is_quiet):
            self.is_settled = True
            self.gateway.ledger.finish(accounting.finished(self.record))

    def note_caller_gone(self) -> None:
        if not self.is_settled:  # or it left with the whole answer
            self.record.end, self.record.status = End.CLIENT_GONE, 499

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
                await self._serve_and_clean_up(request, send)
            finally:
                request.record.end = request.record.end or End.FAILED
                request.settle()
                request.record.write()

    async def _serve_and_clean_up(self, request: GatewayRequest, send: Any) -> None:
        try:
            async with request.resources:
                await self._serve(request, send)
        except Exception:  # noqa: BLE001  # the outer edge, and it is logged
            response = failure_response(request)
            if not request.is_answer_begun:
                request.record.status = response.status_code
                await self._send(request, response, send)
            # Else it is left without its last message: the server drops the connection.

    async def _serve(self, request: GatewayRequest, send: Any) -> None:
        record = request.record
        try:
            try:
                response = await self._middleware_chain(request)
            except asyncio.CancelledError:
                cut_by = request.open_request.cut_by
                if cut_by is None:
                    raise
                request.open_request.task.uncancel()
                error: ClaudeProxyError = cut_by(Stage.PERHAPS_EXECUTED, "cut")
                record.end = end_of(error)
                if request.is_making and cut_by is DrainingError:
                    error = errors.perhaps_made()
                response = error_response(request, error)
            await self._send(request, response, send)
        except asyncio.CancelledError:
            # By whom? Only our own two cancellations end here.
            if request.is_caller_gone:
                request.note_caller_gone()
            else:
                cut_by = request.open_request.cut_by
                cause = cut_by or DrainingError
                record.end = end_of(cause(Stage.ANSWER_BEGUN, "cut"))
                if cut_by is None:
                    raise  # the server's, which waits for the drain no longer
            request.open_request.task.uncancel()
        except CallerGoneError:
            request.note_caller_gone()
        except UpstreamError:
            # The answer broke off where no error can be put: `relay` has recorded it.
            # Leaving without the last message makes the server drop the connection.
            pass

    async def _send(
        self, request: GatewayRequest, response: HttpResponseBase, send: Any
    ) -> None:
        record = request.record
        record.status = record.status or response.status_code
        is_refused = response.status_code >= HTTPStatus.BAD_REQUEST
        is_lingering = is_refused and request.incoming.must_be_awaited
        if is_lingering:
            response.headers["connection"] = "close"
        if not response.streaming:
            response.headers["content-length"] = str(len(_content(response)))
        headers = [
            (name.encode("ascii"), value.encode("latin-1"))
            for name, value in response.items()
        ]
        protocol.require_sendable(headers)
        request.is_answer_begun = True
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": headers,
            }
        )
        if isinstance(response, StreamingHttpResponse):
            declared = response.headers.get("content-length")
            pieces = cast(AsyncGenerator[bytes], aiter(response))
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    record.note_sent(len(piece))
                    if declared == str(record.answer_bytes):
                        # The caller has it all, and may go before we know it is over.
                        record.end = record.end or End.COMPLETE
                    if record.end is not None:
                        request.settle()  # this is the last one
                    await send(_body(piece, more=True))
            request.is_answered = True
            request.settle()
            await send(_body(b"", more=False))
            return
        content = _content(response)
        record.note_sent(len(content))
        record.end = record.end or End.COMPLETE
        request.settle()
        request.is_answered = not is_lingering
        await send(_body(content, more=is_lingering))
        if is_lingering:
            await request.incoming.linger()
            request.is_answered = True
            await send(_body(b"", more=False))


def _content(response: HttpResponseBase) -> bytes:
    return cast(HttpResponse, response).content


def _body(piece: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": piece, "more_body": more}
