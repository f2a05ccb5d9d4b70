"""What a browser opens, and the REST API: Django's own handler, within limits."""

import warnings
from typing import Any

import structlog
from django.core.handlers.asgi import ASGIHandler

from claudeproxy.conf import conf
from claudeproxy.errors import RequestRefusedError
from proxy.errors import CallerGoneError, envelope
from proxy.record import new_request_id
from proxy.request_body import RequestBody

# The largest form is far below; files are not taken at all.
_BODY_LIMIT_BYTES = 4 * 1024**2

# WhiteNoise hands over a file to be read at once, which is what it means to do.
warnings.filterwarnings(
    "ignore", message="StreamingHttpResponse must consume synchronous iterators"
)

_log = structlog.get_logger(__name__)

_django = ASGIHandler()


async def serve(scope: Any, receive: Any, send: Any) -> None:
    """Serve a page or the REST API, whose bodies are small.

    Django takes a body in before anything of ours sees it, without a limit and for as
    long as it takes; and REST framework sees no body where no length was declared.
    """
    body = RequestBody(scope["headers"], receive)
    try:
        content = await body.take(
            _BODY_LIMIT_BYTES, conf.request_timeout.total_seconds()
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
    await _django(scope, receive_whole, send)


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
