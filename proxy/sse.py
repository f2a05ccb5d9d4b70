"""Server-sent events, read incrementally; what callers could not read ends there.

Source: WHATWG HTML, "Server-sent events", and the API's own event names. Lines end in
LF, CRLF or CR; an empty line ends a frame.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

import msgspec

from claudeproxy.errors import ClaudeProxyError
from proxy.errors import envelope

# An empty line after a line; CRLF CRLF and CRLF LF end so too.
_FRAME_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
# All but the last byte of the longest frame end.
_END_BYTES = 2
# What a whole answer may be, a frame may be: a document that was fetched is one frame.
_FRAME_BYTES = 32 * 1024**2

_CONTENT = frozenset(
    {
        *(b"message_start", b"message_delta", b"message_stop"),
        *(b"content_block_start", b"content_block_delta", b"content_block_stop"),
    }
)
_LAST = frozenset({b"message_stop", b"error"})
_DELTA_HEAD = b"event: content_block_delta\ndata: "
_DELTA_BORDER = b"\n\n" + _DELTA_HEAD
_NAME = re.compile(rb"[A-Za-z0-9_.:/-]{1,100}")
# Fields that mean something, or nothing, without an event; and comments.
_HARMLESS = frozenset({b"", b"id", b"retry"})


class _Object(msgspec.Struct):
    """Any object: what is in it is skipped, but must be JSON."""


_object = msgspec.json.Decoder(_Object)


@dataclass(slots=True)
class _Frame:
    """A frame as SDKs understand it, and where it ends."""

    end: int = 0
    name: bytes = b""
    data: list[bytes] = field(default_factory=list)
    is_odd: bool = False  # it has lines that are none of the protocol


class FrameReader:
    """Cuts a byte stream at frame ends.

    Whole frames pass; the beginning of the next is held until it is whole. So a stream
    that breaks can still be ended legally: what a caller has is always a run of whole
    frames. What comes out, with `held` at the end, is what went in, byte for byte.

    `last_event` is `message_stop` or `error` once one has passed: after that, a stream
    may end. An `error` wins, as it does with SDKs.

    `fault` says what is wrong with a frame that SDKs would trip over, or leave out
    without a word. Neither it nor anything after it comes out.
    """

    def __init__(self) -> None:
        self.last_event: bytes | None = None
        self.fault: str | None = None
        # Pieces, joined once: a long frame may come in thousands of them.
        self._pieces: list[bytes] = []
        self._held_bytes = 0

    @property
    def held(self) -> bytes:
        """The beginning of a frame that is not whole yet."""
        return b"".join(self._pieces)

    def feed(self, data: bytes) -> bytes:
        """Take bytes as they arrived; return the whole frames among them."""
        if self.fault is not None:
            return b""
        end = self._frame_end_in(data)
        if end == 0:
            self._hold(data)
            return b""
        frames = data[:end]
        if self._pieces:
            frames = b"".join((*self._pieces, frames))
            self._drop()
        if end < len(data):
            self._hold(data[end:])
        if self.last_event is None and _are_deltas(frames):
            return frames
        return self._checked(frames)

    def finish(self) -> bytes:
        """Return what may still be passed on at the stream's end.

        A last frame without its empty line counts if it ends a message: SDKs need no
        more of it. They would overlook an error that is not whole.
        """
        held = self.held
        for frame in _frames_in(held + b"\n\n"):
            if frame.name != b"message_stop" or self._fault_of(frame):
                break
            self.last_event = b"message_stop"
            return held
        return b""

    def _checked(self, frames: bytes) -> bytes:
        """Return the frames before the first with a fault; note the last event."""
        passed = 0
        for frame in _frames_in(frames):
            if self.last_event == b"error":
                break
            fault = self._fault_of(frame) or _fault_of_bytes(frames[passed : frame.end])
            if fault is not None:
                self.fault = fault
                self._drop()
                return frames[:passed]
            passed = frame.end
            if frame.name in _LAST:
                self.last_event = frame.name
        return frames

    def _fault_of(self, frame: _Frame) -> str | None:
        if not frame.name:
            # SDKs leave out data without a name: an answer would miss something.
            is_harmless = not frame.data and not frame.is_odd
            return None if is_harmless else "frame without an event"
        if not _NAME.fullmatch(frame.name):
            return "event name that is none"
        if self.last_event is not None and frame.name in _CONTENT:
            return "content after the end"
        data = b"\n".join(frame.data)
        if not data and frame.name not in _CONTENT and frame.name != b"error":
            return None
        return None if _is_object(data) else "data that is no JSON object"

    def _frame_end_in(self, data: bytes) -> int:
        """Return where in *data* its last whole frame ends; 0 if none ends there."""
        if not self._pieces:
            return _last_frame_end(data)
        # A frame's end may have begun in what is held.
        overlap = b"".join(self._pieces[-_END_BYTES:])[-_END_BYTES:]
        return max(0, _last_frame_end(overlap + data) - len(overlap))

    def _hold(self, data: bytes) -> None:
        if self._held_bytes + len(data) > _FRAME_BYTES:
            self.fault = "frame too long"
            self._drop()
        elif data:
            self._pieces.append(data)
            self._held_bytes += len(data)

    def _drop(self) -> None:
        self._pieces.clear()
        self._held_bytes = 0


def _last_frame_end(data: bytes) -> int:
    if data.endswith(b"\n\n"):
        return len(data)
    return max(
        at + len(end) if (at := data.rfind(end)) >= 0 else 0 for end in _FRAME_ENDS
    )


def _are_deltas(frames: bytes) -> bool:
    """Are these the frames that nearly all are, and without any fault?

    This is all that a frame of a healthy stream costs; see `_checked` for the others.
    """
    if not (frames.startswith(_DELTA_HEAD) and frames.endswith(b"\n\n")):
        return False
    payloads = frames[len(_DELTA_HEAD) : -2].split(_DELTA_BORDER)
    if frames.count(b"\n") != 3 * len(payloads) or b"\r" in frames:
        return False
    try:
        if not frames.isascii():
            frames.decode()
        for payload in payloads:
            _object.decode(payload)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return False
    return True


def _frames_in(frames: bytes) -> Iterator[_Frame]:
    """Read frames line by line, as SDKs do."""
    frame, at = _Frame(), 0
    for line in frames.splitlines(keepends=True):
        at += len(line)
        line = line.rstrip(b"\r\n")
        if not line:
            frame.end = at
            yield frame
            frame = _Frame()
            continue
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            frame.name = value
        elif name == b"data":
            frame.data.append(value)
        elif name not in _HARMLESS:
            frame.is_odd = True


def _fault_of_bytes(frame: bytes) -> str | None:
    try:
        frame.decode()
    except UnicodeDecodeError:
        return "bytes that are no UTF-8"
    return None


def _is_object(data: bytes) -> bool:
    try:
        _object.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return _is_object_to_sdks(data)
    return True


def _is_object_to_sdks(data: bytes) -> bool:
    """Half of a surrogate pair in an escape is no fault to them."""
    try:
        return isinstance(json.loads(data, parse_constant=_refuse), dict)
    except (ValueError, RecursionError):
        return False


def _refuse(constant: str) -> NoReturn:
    """NaN and its like are JSON to Python only."""
    raise ValueError(constant)


def error_event(error: ClaudeProxyError, request_id: str) -> bytes:
    """Return the frame that ends a broken stream; SDKs raise on it."""
    body = envelope(error.error_type, str(error), request_id)
    return b"event: error\ndata: " + body + b"\n\n"
