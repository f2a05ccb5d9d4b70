"""Server-sent events, read incrementally and without decoding.

Source: WHATWG HTML, "Server-sent events", and the API's own event names. Lines end in
LF, CRLF or CR; an empty line ends a frame.
"""

import re

from claudeproxy.errors import ClaudeProxyError
from proxy.errors import envelope

_FRAME_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
# JSON has no raw line ends, so a line that begins so is an event name, never content.
_LAST_EVENT = re.compile(rb"(?:^|[\r\n])event: ?(message_stop|error)(?=[\r\n])")

# A frame that grows beyond this is passed on in pieces; memory stays bounded.
_HELD_LIMIT_BYTES = 1024**2
# All but the last byte of the longest frame end.
_END_BYTES = 3


class FrameReader:
    """Cuts a byte stream at frame ends.

    Whole frames pass; the beginning of the next is held until it is whole. So a stream
    that breaks can still be ended legally: what a caller has is always a run of whole
    frames. What comes out, with `held` at the end, is what went in, byte for byte.

    `last_event` is `message_stop` or `error` once one has passed: after that, a stream
    may end. An `error` wins, as it does with SDKs.
    """

    def __init__(self) -> None:
        self.last_event: bytes | None = None
        # Pieces, joined once: a long frame may come in thousands of them.
        self._pieces: list[bytes] = []
        self._held_bytes = 0

    @property
    def held(self) -> bytes:
        """The beginning of a frame that is not whole yet."""
        return b"".join(self._pieces)

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they arrived; return the whole frames among them."""
        end = self._frame_end_in(data)
        if end == 0 and self._held_bytes + len(data) > _HELD_LIMIT_BYTES:
            end = len(data)
        if end == 0:
            self._hold(data)
            return b""
        frames = data[:end]
        if self._pieces:
            frames = b"".join((*self._pieces, frames))
            self._pieces.clear()
            self._held_bytes = 0
        if end < len(data):
            self._hold(data[end:])
        if self.last_event != b"error":
            self.last_event = _last_event(frames) or self.last_event
        return frames

    def finish(self) -> bytes:
        """Return what may still be passed on at the stream's end.

        A last frame without its empty line counts if it ends a message: SDKs need no
        more of it. They would overlook an error that is not whole.
        """
        held = self.held
        if self.last_event is None and _last_event(held) == b"message_stop":
            self.last_event = b"message_stop"
        return held if self.last_event else b""

    def _frame_end_in(self, data: bytes) -> int:
        """Return where in *data* its last whole frame ends; 0 if none ends there."""
        if not self._pieces:
            return _last_frame_end(data)
        # A frame's end may have begun in what is held.
        overlap = b"".join(self._pieces[-_END_BYTES:])[-_END_BYTES:]
        return max(0, _last_frame_end(overlap + data) - len(overlap))

    def _hold(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
            self._held_bytes += len(data)


def _last_frame_end(data: bytes) -> int:
    if data.endswith(b"\n\n"):
        return len(data)
    return max(
        at + len(end) if (at := data.rfind(end)) >= 0 else 0 for end in _FRAME_ENDS
    )


def _last_event(frames: bytes) -> bytes | None:
    # The plain searches are far cheaper, and nearly always say no.
    if b"message_stop" not in frames and b"error" not in frames:
        return None
    found = set(_LAST_EVENT.findall(frames))
    return b"error" if b"error" in found else next(iter(found), None)


def error_event(error: ClaudeProxyError, request_id: str) -> bytes:
    """Return the frame that ends a broken stream; SDKs raise on it."""
    body = envelope(error.error_type, str(error), request_id)
    return b"event: error\ndata: " + body + b"\n\n"
