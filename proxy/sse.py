"""Server-sent events, read incrementally and without decoding.

Source: WHATWG HTML, "Server-sent events", and the API's own event names. Lines end in
LF, CRLF or CR; an empty line ends a frame.
"""

import re

from claudeproxy.errors import ClaudeProxyError
from proxy.errors import envelope

_FRAME_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
# JSON has no raw line ends, so a line that begins so is an event name, never content.
_LAST_EVENT = re.compile(rb"(?:^|[\r\n])event: ?(?:message_stop|error)[\r\n]")

# A frame that grows beyond this is passed on in pieces; memory stays bounded.
_HELD_LIMIT_BYTES = 8 * 1024**2


class FrameReader:
    """Cuts a byte stream at frame ends.

    Whole frames pass; the beginning of the next is held until it is whole. So a stream
    that breaks can still be ended legally: what a caller has is always a run of whole
    frames. What comes out, with `held` at the end, is what went in, byte for byte.
    """

    def __init__(self) -> None:
        self.held = b""
        self.has_ended = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they arrived; return the whole frames among them."""
        if self.held:
            data = self.held + data
        end = _last_frame_end(data)
        if end == 0 and len(data) > _HELD_LIMIT_BYTES:
            end = len(data)
        if end == len(data):
            frames, self.held = data, b""
        else:
            frames, self.held = data[:end], data[end:]
        if frames and not self.has_ended:
            self.has_ended = _ends_message(frames)
        return frames

    def finish(self) -> bytes:
        """Return what may still be passed on at the stream's end.

        A last frame without its empty line counts if it is the one that ends a message.
        """
        self.has_ended = self.has_ended or _ends_message(self.held)
        return self.held if self.has_ended else b""


def _last_frame_end(data: bytes) -> int:
    if data.endswith(b"\n\n"):
        return len(data)
    return max(
        at + len(end) if (at := data.rfind(end)) >= 0 else 0 for end in _FRAME_ENDS
    )


def _ends_message(frames: bytes) -> bool:
    # The plain searches are far cheaper, and nearly always say no.
    return (b"message_stop" in frames or b"error" in frames) and (
        _LAST_EVENT.search(frames) is not None
    )


def error_event(error: ClaudeProxyError, request_id: str) -> bytes:
    """Return the frame that ends a broken stream; SDKs raise on it."""
    body = envelope(error.error_type, str(error), request_id)
    return b"event: error\ndata: " + body + b"\n\n"
