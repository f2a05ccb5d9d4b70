"""Reads what an answer used, from a copy of it and without decoding its content.

Source: upstream API reference, "Messages", `usage`, and "Streaming messages". The usage
of a stream is that of `message_start`, each field of which is replaced by what a later
`message_delta` says of it: these counts are totals so far, and are never added.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from usage.tokens import Part, Tokens, Usage

# No request is as large; what claims to be is no count, and would not fit its column.
_LARGEST_COUNT = 10**9
_LONGEST_WORD = 200
_MOST_PARTS = 100

_LINE_END = re.compile(rb"\r\n|\n|\r")
_EVENTS = frozenset({b"message_start", b"message_delta", b"message_stop"})
# Of these, msgspec only turns its own into a DecodeError.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Message(msgspec.Struct):
    type: Any = None
    model: Any = None
    stop_reason: Any = None
    usage: Any = None


class _Start(msgspec.Struct):
    message: _Message


class _Stop(msgspec.Struct):
    stop_reason: Any = None


class _Delta(msgspec.Struct):
    delta: _Stop | None = None
    usage: Any = None


_message = msgspec.json.Decoder(_Message)
_start = msgspec.json.Decoder(_Start)
_delta = msgspec.json.Decoder(_Delta)


class Tally:
    """What one answer has said of itself so far."""

    __slots__ = ("_fields", "_model", "_stop_reason", "is_complete", "is_unreadable")

    def __init__(self) -> None:
        self._fields: dict[str, Any] | None = None
        self._model: Any = None
        self._stop_reason: Any = None
        self.is_complete = False  # the answer said all it had to say
        self.is_unreadable = False

    def note_frames(self, frames: bytes) -> None:
        """Look at whole frames of an event stream; those with content cost a search."""
        # JSON escapes line ends, so a line that begins an event is never content.
        if b"message_" not in frames:
            return
        for event, data in _frames_in(frames):
            self._note_event(event, data)

    def note_body(self, body: bytes) -> None:
        """Look at the whole body of an answer that is no stream."""
        try:
            message = _message.decode(body)
        except _UNREADABLE:
            self.is_unreadable = True
            return
        if message.type == "message":
            self._note_message(message)
            self.is_complete = True

    @property
    def model(self) -> str | None:
        """The model that answered."""
        return _word(self._model)

    @property
    def stop_reason(self) -> str | None:
        return _word(self._stop_reason)

    @property
    def usage(self) -> Usage | None:
        """What was used so far; None if the answer said nothing of it.

        It never fails: what cannot be read counts as not said, and is marked.
        """
        if self._fields is None:
            return Usage(Tokens(), is_unreadable=True) if self.is_unreadable else None
        return _Reader(self._fields, is_unreadable=self.is_unreadable).usage()

    def _note_event(self, event: bytes, data: bytes) -> None:
        try:
            if event == b"message_start":
                self._note_message(_start.decode(data).message)
            elif event == b"message_delta":
                delta = _delta.decode(data)
                if delta.delta is not None and delta.delta.stop_reason is not None:
                    self._stop_reason = delta.delta.stop_reason
                self._overlay(delta.usage)
            else:
                self.is_complete = True
        except _UNREADABLE:
            self.is_unreadable = True

    def _note_message(self, message: _Message) -> None:
        self._model, self._stop_reason = message.model, message.stop_reason
        self._overlay(message.usage)

    def _overlay(self, usage: Any) -> None:
        if usage is None:
            return
        if not isinstance(usage, dict):
            self.is_unreadable = True
            return
        said = {name: value for name, value in usage.items() if value is not None}
        self._fields = {**(self._fields or {}), **said}


def _frames_in(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield event and data of the frames that tell of a message as a whole."""
    event = b""
    lines: list[bytes] = []
    for line in (*_LINE_END.split(data), b""):
        if not line:
            if event in _EVENTS:
                yield event, b"\n".join(lines)
            event = b""
            lines.clear()
        elif line.startswith(b"event:"):
            event = line[6:].removeprefix(b" ")
        elif line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))


def _word(value: Any) -> str | None:
    is_word = isinstance(value, str) and 0 < len(value) <= _LONGEST_WORD
    return value if is_word else None


class _Reader:
    """Turns a usage object into `Usage`; notes what it could not read."""

    def __init__(self, fields: dict[str, Any], *, is_unreadable: bool) -> None:
        self._fields = fields
        self._is_unreadable = is_unreadable

    def usage(self) -> Usage:
        fields = self._fields
        stated = self._tokens(fields)
        parts = self._parts(fields.get("iterations"))
        tools = self._object(fields, "server_tool_use")
        return Usage(
            stated=stated,
            parts=parts,
            web_searches=self._count(tools, "web_search_requests"),
            web_fetches=self._count(tools, "web_fetch_requests"),
            service_tier=self._word(fields, "service_tier"),
            speed=self._word(fields, "speed"),
            inference_geo=self._word(fields, "inference_geo"),
            is_unreadable=self._is_unreadable,
        )

    def _parts(self, listed: Any) -> tuple[Part, ...]:
        if listed is None:
            return ()
        if not isinstance(listed, list) or len(listed) > _MOST_PARTS:
            self._is_unreadable = True
            return ()
        if not all(isinstance(entry, dict) for entry in listed):
            self._is_unreadable = True
            return ()
        return tuple(
            Part(
                self._tokens(entry),
                kind=self._word(entry, "type") or "message",
                model=self._word(entry, "model"),
            )
            for entry in listed
        )

    def _tokens(self, fields: dict[str, Any]) -> Tokens:
        written = self._count(fields, "cache_creation_input_tokens")
        split = self._object(fields, "cache_creation")
        write_5m = self._count(split, "ephemeral_5m_input_tokens")
        write_1h = self._count(split, "ephemeral_1h_input_tokens")
        return Tokens(
            input=self._count(fields, "input_tokens"),
            # What the split does not tell of is priced as the shorter of the two.
            write_5m=max(write_5m, written - write_1h),
            write_1h=write_1h,
            read=self._count(fields, "cache_read_input_tokens"),
            output=self._count(fields, "output_tokens"),
        )

    def _count(self, fields: dict[str, Any], name: str) -> int:
        value = fields.get(name)
        # `True` is an int to Python, and no count.
        if type(value) is int and 0 <= value <= _LARGEST_COUNT:
            return value
        self._is_unreadable |= value is not None
        return 0

    def _object(self, fields: dict[str, Any], name: str) -> dict[str, Any]:
        value = fields.get(name)
        if isinstance(value, dict):
            return value
        self._is_unreadable |= value is not None
        return {}

    def _word(self, fields: dict[str, Any], name: str) -> str | None:
        word = _word(fields.get(name))
        self._is_unreadable |= word is None and fields.get(name) is not None
        return word
