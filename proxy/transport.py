"""httpx's transport interface over an aiohttp session.

httpx's own pool scans every open connection for each request, which costs more than
all the rest of the gateway once hundreds of streams are open (ADR 0003 has the
figures). aiohttp's does not, and its exceptions tell a request that was never sent from
one that may have been executed. This module translates them into httpx's:

    nothing was sent       ConnectError, ConnectTimeout
    perhaps executed       WriteError, WriteTimeout, ReadError, ReadTimeout,
                           RemoteProtocolError (no answer has begun)
    the answer has begun   the same read errors, raised from the body's iterator

No cookies, no redirects, no environment, no decompression: bytes pass as they come.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator

import aiohttp
import httpx
from aiohttp import hdrs
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from multidict import CIMultiDict
from yarl import URL

from proxy.spool import FileBody, SpoolError

_PIECE_BYTES = 64 * 1024
# Longer than one header line of any client seen; the default is 8 KB.
_LINE_LIMIT_BYTES = 64 * 1024
_NOT_ADDED = frozenset(
    {hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE}
)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends httpx requests through one aiohttp session of its own.

    It must be made inside the running event loop that will use it.
    """

    def __init__(self, *, keepalive_seconds: float = 30) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                # The session limit decides how many callers there are, not the pool.
                limit=0,
                keepalive_timeout=keepalive_seconds,
                ssl=ssl.create_default_context(),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=_NOT_ADDED,
            max_line_size=_LINE_LIMIT_BYTES,
            max_field_size=_LINE_LIMIT_BYTES,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request*; return as soon as status and headers are in.

        Shape: the request's body is in memory (`request.content`) or a `FileStream`;
        the URL's target may be given literally in `extensions["target"]`.

        Errors: SpoolError if the body cannot be read from its file.
        """
        if not isinstance(request.stream, FileStream):
            body = request.content
            write_timeout = request.extensions.get("timeout", {}).get("write")
            return await self._send(
                request, _TimedBytes(body, write_timeout) if body else None
            )
        payload = _TimedFile(
            request.stream.body, request.extensions.get("timeout", {}).get("write")
        )
        try:
            response = await self._send(request, payload)
        except httpx.TransportError:
            if payload.fault is not None:
                raise payload.fault from None
            raise
        payload.is_refused = response.is_error
        return response

    async def _send(
        self, request: httpx.Request, payload: Payload | None
    ) -> httpx.Response:
        timeout = request.extensions.get("timeout", {})
        with _translated():
            reply = await self._session.request(
                request.method,
                _url(request),
                headers=_headers(request),
                data=payload,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=timeout.get("pool"),
                    sock_connect=timeout.get("connect"),
                    sock_read=timeout.get("read"),
                ),
            )
        return httpx.Response(
            reply.status,
            headers=list(reply.raw_headers),
            stream=_ReplyStream(reply),
            request=request,
        )

    async def aclose(self) -> None:
        await self._session.close()


class _ReplyStream(httpx.AsyncByteStream):
    """The body of an answer, in the pieces in which it arrives."""

    def __init__(self, reply: aiohttp.ClientResponse) -> None:
        self._reply = reply

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._reply.content
        with _translated():
            try:
                while piece := await content.readany():
                    yield piece
            except (aiohttp.ClientError, OSError):
                # It raises before it hands over what had arrived until then.
                if rest := content._read_nowait(-1):
                    yield rest
                raise

    async def aclose(self) -> None:
        # Ends the connection unless the body was read to its end.
        self._reply.close()


class FileStream(httpx.AsyncByteStream):
    """What an httpx request has in place of its content if the body is in a file."""

    def __init__(self, body: FileBody) -> None:
        self.body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.body.pieces()


class _TimedBytes(Payload):
    """A request body in memory, written in pieces, each with a time limit.

    aiohttp limits connecting and reading, but not writing.
    """

    def __init__(self, body: bytes, write_timeout: float | None) -> None:
        super().__init__(body)
        self._size = len(body)  # aiohttp's name, for the Content-Length
        self._body = body
        self._write_timeout = write_timeout

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        if len(self._body) <= _PIECE_BYTES:
            await _write_piece(writer, self._body, self._write_timeout)
            return
        view = memoryview(self._body)
        for start in range(0, len(view), _PIECE_BYTES):
            piece = view[start : start + _PIECE_BYTES]
            await _write_piece(writer, piece, self._write_timeout)


class _TimedFile(Payload):
    """A request body in a file, written as one in memory is."""

    def __init__(self, body: FileBody, write_timeout: float | None) -> None:
        super().__init__(body)
        self._size = body.size
        self._body = body
        self._write_timeout = write_timeout
        # Why it could not be read: aiohttp says only that something went wrong.
        self.fault: SpoolError | None = None
        # Has the upstream answered that it does not want it?
        self.is_refused = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("too large for memory")

    async def write(self, writer: AbstractStreamWriter) -> None:
        try:
            async for large in self._body.pieces():
                view = memoryview(large)
                for start in range(0, len(view), _PIECE_BYTES):
                    await self._notice_answer()
                    piece = view[start : start + _PIECE_BYTES]
                    await _write_piece(writer, piece, self._write_timeout)
        except SpoolError as error:
            self.fault = error
            raise

    async def _notice_answer(self) -> None:
        """Let an answer in that comes before its time; send no more if it is a refusal.

        Whoever refuses a body may close the connection on it, and the next write would
        end it here too, with an answer that nobody had read.
        """
        # What was ready to be read is handed out behind a task that waits for one turn.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if self.is_refused:
            # Until aiohttp, which has the answer, cancels the writing. To return would
            # mean that the body is complete.
            await asyncio.get_running_loop().create_future()


async def _write_piece(
    writer: AbstractStreamWriter, piece: bytes | memoryview, seconds: float | None
) -> None:
    async with asyncio.timeout(seconds):
        await writer.write(piece)


def _url(request: httpx.Request) -> URL:
    target = request.extensions.get("target")
    if target is None:
        return URL(str(request.url), encoded=True)
    origin = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
    # `encoded`: the target goes out exactly as it came in.
    return URL(origin + target.decode("latin-1"), encoded=True)


def _headers(request: httpx.Request) -> CIMultiDict[str]:
    return CIMultiDict(
        (name.decode("ascii"), _text(value))
        for name, value in request.headers.raw
        if name.lower() != b"host"
    )


def _text(value: bytes) -> str:
    # aiohttp writes headers as UTF-8; only what is no UTF-8 changes on this way.
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


# The first match counts, so subclasses stand before their bases.
_TRANSLATIONS: tuple[tuple[type[BaseException], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.SocketTimeoutError, httpx.ReadTimeout),
    (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
    (aiohttp.ServerFingerprintMismatch, httpx.ConnectError),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ClientConnectorCertificateError, httpx.ConnectError),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (aiohttp.http.HttpProcessingError, httpx.RemoteProtocolError),
    (aiohttp.ClientConnectionResetError, httpx.WriteError),
    (aiohttp.ClientOSError, httpx.ReadError),
    (aiohttp.ClientError, httpx.ReadError),
    # Only `_write_piece` raises it bare.
    (TimeoutError, httpx.WriteTimeout),
    (OSError, httpx.ReadError),
)


def translate(error: BaseException) -> httpx.TransportError:
    """Return httpx's word for an exception of aiohttp's."""
    for known, translation in _TRANSLATIONS:
        if isinstance(error, known):
            return translation(_describe(error))
    raise TypeError(f"no translation for {type(error).__name__}") from error


def _describe(error: BaseException) -> str:
    """Say what is safe to log.

    Only the operating system's errors speak for themselves, of addresses and numbers:
    those of the parser quote the answer, and others the URL with its query.
    """
    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, OSError) else kind


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError) as error:
        raise translate(error) from error
