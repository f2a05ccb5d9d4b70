"""The ASGI application: the gateway's handler for the API, Django's for the rest.

Django refuses the lifespan scope, so it is served here: the gateway opens and closes
with the worker.
"""

import asyncio
import contextlib
import os
import signal
import warnings
from types import FrameType
from typing import Any

import django
import structlog

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "claudeproxy.settings")
django.setup(set_prefix=False)

from django.core.handlers.asgi import ASGIHandler  # noqa: E402

from claudeproxy.conf import conf  # noqa: E402
from claudeproxy.errors import RequestRefusedError  # noqa: E402
from proxy import gateway  # noqa: E402
from proxy.errors import CallerGoneError, envelope  # noqa: E402
from proxy.gateway import Gateway  # noqa: E402
from proxy.handler import GatewayHandler  # noqa: E402
from proxy.record import new_request_id  # noqa: E402
from proxy.request_body import RequestBody  # noqa: E402

# The largest form is far below; files are not taken at all.
_PAGE_BODY_LIMIT_BYTES = 4 * 1024**2

# WhiteNoise hands over a file to be read at once, which is what it means to do.
warnings.filterwarnings(
    "ignore", message="StreamingHttpResponse must consume synchronous iterators"
)

_log = structlog.get_logger(__name__)

_pages = ASGIHandler()
_api = GatewayHandler()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Serve one connection, or the worker's life itself."""
    if scope["type"] == "lifespan":
        await _live(scope, receive, send)
    elif scope["type"] == "http" and _is_api(scope):
        await _api(scope, receive, send)
    else:
        await _page(scope, receive, send)


async def _page(scope: Any, receive: Any, send: Any) -> None:
    """Serve a page or the REST API, whose bodies are small.

    Django takes a body in before anything of ours sees it, without a limit and for as
    long as it takes; and REST framework sees no body where no length was declared.
    """
    body = RequestBody(scope["headers"], receive)
    try:
        content = await body.take(
            _PAGE_BODY_LIMIT_BYTES, conf.request_timeout.total_seconds()
        )
    except CallerGoneError:
        return
    except RequestRefusedError as error:
        await _refuse_page(error, scope["path"], body, send)
        return
    whole = iter([{"type": "http.request", "body": content}])

    async def receive_whole() -> Any:
        return next(whole, None) or await receive()

    if body.is_chunked:
        length = (b"content-length", str(len(content)).encode())
        kept = [(n, v) for n, v in scope["headers"] if n != b"transfer-encoding"]
        scope = {**scope, "headers": [*kept, length]}
    await _pages(scope, receive_whole, send)


async def _refuse_page(
    error: RequestRefusedError, path: str, body: RequestBody, send: Any
) -> None:
    request_id = new_request_id()
    _log.info("page_refused", request_id=request_id, status=int(error.http_status))
    content, content_type = f"{error}\n".encode(), b"text/plain; charset=utf-8"
    if path.startswith(("/api", "/oauth")):
        content = envelope(error.error_type, str(error), request_id)
        content_type = b"application/json"
    must_linger = body.must_be_awaited
    headers = [
        (b"content-type", content_type),
        (b"content-length", str(len(content)).encode()),
        (b"request-id", request_id.encode()),
        *([(b"connection", b"close")] if must_linger else []),
    ]
    status = int(error.http_status)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    message = {"type": "http.response.body", "body": content}
    await send({**message, "more_body": must_linger})
    if must_linger:
        await body.linger()
        await send({"type": "http.response.body"})


def _is_api(scope: Any) -> bool:
    path = scope["path"]
    return (
        path.startswith("/v1")
        or path == "/health"
        or (scope["method"] == "HEAD" and path in {"/", "/api/hello"})
    )


async def _live(scope: Any, receive: Any, send: Any) -> None:
    """Run the gateway from the server's start-up message to its shutdown message."""
    await receive()
    async with contextlib.AsyncExitStack() as stack:
        try:
            opened = await stack.enter_async_context(gateway.running())
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        scope["state"]["gateway"] = opened
        _drain_on_signals(opened)
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


def _drain_on_signals(opened: Gateway) -> None:
    """Start the drain on SIGTERM and SIGINT, then do what the server would do.

    The server only waits for open answers, and at last cuts them without a word.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        previous = signal.getsignal(number)

        def handle(
            received: int, frame: FrameType | None, previous: Any = previous
        ) -> None:
            loop.call_soon_threadsafe(opened.start_drain)
            if callable(previous):
                previous(received, frame)

        with contextlib.suppress(ValueError):  # not the main thread: a test's server
            signal.signal(number, handle)
