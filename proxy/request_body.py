"""A caller's body on its way: taken in within limits, or listened to and dropped."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, cast

from claudeproxy.errors import RequestRefusedError
from proxy import errors
from proxy.errors import CallerGoneError
from proxy.headers import Headers, first
from proxy.spool import PIECE_BYTES, Body, FileBody

# After a refusal a caller may still be sending. It is listened to for this long and
# this much, or it would see a reset instead of the answer (RFC 9112 §9.6).
_LINGER_SECONDS = 10
_LINGER_BYTES = 64 * 1024**2
# An unread body up to this size is left to the server, which reads it and goes on.
_SMALL_BODY_BYTES = 1024**2


class RequestBody:
    """What the server hands over of a request's body."""

    def __init__(
        self, headers: Headers, receive: Callable[[], Awaitable[dict[str, Any]]]
    ) -> None:
        self._headers = headers
        self._receive = receive
        self.is_complete = False

    async def take(self, limit_bytes: int, timeout_seconds: float) -> bytes:
        """Take the body in.

        Errors: RequestRefusedError (413) once it is clear that the body is too large,
        before any more of it is kept; 408 if it does not arrive in time; 501 if it is
        in a coding that only its sender can undo; CallerGoneError if the caller leaves
        first.
        """
        self._require_takable(limit_bytes)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._gather(limit_bytes)
        except TimeoutError:
            raise errors.body_too_slow() from None

    async def take_spooled(self, limit_bytes: int, silence_seconds: float) -> Body:
        """Take a body in that may be too large for memory; a file is the caller's.

        However long it takes as a whole, no two pieces may be further apart than
        *silence_seconds*.

        Errors: as of `take`; SpoolError if there is no place for it on the disk.
        """
        self._require_takable(limit_bytes)
        file = FileBody(self._declared_bytes or 0)
        try:
            rest = await self._spool(file, limit_bytes, silence_seconds)
            if not file.size:
                return bytes(rest)
            await file.append(rest)
        except BaseException:
            file.close()
            raise
        return file

    async def _spool(
        self, file: FileBody, limit_bytes: int, silence_seconds: float
    ) -> bytearray:
        """Write the body into *file*, but for the last piece, which is returned."""
        held = bytearray()
        while not self.is_complete:
            try:
                async with asyncio.timeout(silence_seconds):
                    held += await self._next_piece()
            except TimeoutError:
                raise errors.body_too_slow() from None
            if file.size + len(held) > limit_bytes:
                raise errors.body_too_large(limit_bytes)
            if len(held) > PIECE_BYTES:
                await file.append(held)
                held = bytearray()
        return held

    def _require_takable(self, limit_bytes: int) -> None:
        if self._has_foreign_coding:
            raise _coding_not_implemented()
        if (self._declared_bytes or 0) > limit_bytes:
            raise errors.body_too_large(limit_bytes)

    async def _gather(self, limit_bytes: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while not self.is_complete:
            piece = await self._next_piece()
            size += len(piece)
            if size > limit_bytes:
                raise errors.body_too_large(limit_bytes)
            pieces.append(piece)
        return b"".join(pieces)

    async def _next_piece(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise CallerGoneError
        self.is_complete = not message.get("more_body", False)
        return cast(bytes, message.get("body", b""))

    @property
    def must_be_awaited(self) -> bool:
        """Is more on its way than the server should just read to its end?"""
        if self.is_complete:
            return False
        declared = self._declared_bytes
        if declared is None:
            return self.is_chunked
        return declared > _SMALL_BODY_BYTES

    async def linger(self) -> None:
        """Listen to a caller who has its answer and may not have seen it yet."""
        seen = 0
        with contextlib.suppress(TimeoutError, CallerGoneError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while not self.is_complete and seen < _LINGER_BYTES:
                    seen += len(await self._next_piece())

    @property
    def is_chunked(self) -> bool:
        return first(self._headers, b"transfer-encoding") is not None

    @property
    def _has_foreign_coding(self) -> bool:
        # The server undoes `chunked`. What lies below it would go upstream as if it
        # were the content, since the header that names it stays here.
        codings = [v for name, v in self._headers if name == b"transfer-encoding"]
        return bool(codings) and b",".join(codings).strip().lower() != b"chunked"

    @property
    def _declared_bytes(self) -> int | None:
        value = first(self._headers, b"content-length")
        return int(value) if value is not None and value.isdigit() else None


def _coding_not_implemented() -> RequestRefusedError:
    # RFC 9112 §6.1 names the status.
    return RequestRefusedError(
        "transfer-encoding: this gateway understands chunked and no other coding.",
        http_status=HTTPStatus.NOT_IMPLEMENTED,
        error_type="invalid_request_error",
    )
