"""The bytes that travel: what callers ask, what the upstream answers, how to count it.

Pure. The upstream serves these bytes and the load generator checks every answer
against them, so both sides agree on sizes without talking to each other.
"""

import json
from dataclasses import dataclass, field
from functools import cache

MODEL_JSON = "bench-json"
MODEL_STREAM = "bench-stream"
MODEL_PACED = "bench-paced"

# The first three and the last three frames of a stream carry no text.
FRAMES_AROUND = 6
STREAM_FRAMES = 100
STREAM_DELTAS = STREAM_FRAMES - FRAMES_AROUND
PACED_EVENTS_PER_SECOND = 20

STAMP_DIGITS = 20
STAMP_MARK = b"sent-ns "

_MESSAGE = {
    "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
}
_USAGE = {
    "input_tokens": 27,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "service_tier": "standard",
}


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


ANSWER = _compact(
    _MESSAGE
    | {
        "content": [
            {
                "type": "text",
                "text": "A relay forwards what it was given and adds nothing.",
            }
        ],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": _USAGE | {"output_tokens": 16},
    }
)
_MODEL_IDS = (MODEL_JSON, MODEL_STREAM, MODEL_PACED)
MODELS = _compact(
    {
        "data": [
            {
                "type": "model",
                "id": model_id,
                "display_name": model_id,
                "created_at": "2026-11-25T00:00:00Z",
            }
            for model_id in _MODEL_IDS
        ],
        "has_more": False,
        "first_id": _MODEL_IDS[0],
        "last_id": _MODEL_IDS[-1],
    }
)
NOT_FOUND = _compact(
    {"type": "error", "error": {"type": "not_found_error", "message": "Not found"}}
)


def frame(event: str, **data: object) -> bytes:
    """Write one server-sent event as the Messages API does: the type stands twice."""
    return b"event: %b\ndata: %b\n\n" % (
        event.encode(),
        _compact({"type": event} | data),
    )


def text_frame(text: str) -> bytes:
    return frame(
        "content_block_delta", index=0, delta={"type": "text_delta", "text": text}
    )


OPENING_FRAMES = (
    frame(
        "message_start",
        message=_MESSAGE
        | {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _USAGE | {"output_tokens": 1},
        },
    ),
    frame("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    frame("ping"),
)
CLOSING_FRAMES = (
    frame("content_block_stop", index=0),
    frame(
        "message_delta",
        delta={"stop_reason": "end_turn", "stop_sequence": None},
        usage={"output_tokens": 94},
    ),
    frame("message_stop"),
)
DELTA_FRAME = text_frame(" and adds nothing of its own")
STAMPED_FRAME_BEFORE, _, STAMPED_FRAME_AFTER = text_frame(
    STAMP_MARK.decode() + "@ and adds nothing"
).partition(b"@")


def stamped_frame(now_ns: int) -> bytes:
    """Write a text frame that says when it left; its length never varies."""
    return STAMPED_FRAME_BEFORE + b"%0*d" % (STAMP_DIGITS, now_ns) + STAMPED_FRAME_AFTER


def read_stamp(text: bytes) -> int | None:
    """Read when a frame left, in nanoseconds of CLOCK_MONOTONIC; None if unstamped."""
    at = text.find(STAMP_MARK)
    if at < 0:
        return None
    start = at + len(STAMP_MARK)
    return int(text[start : start + STAMP_DIGITS])


@cache
def stream_bytes(deltas: int, *, stamped: bool) -> int:
    """Count the bytes of a whole stream of *deltas* text frames, framing left out."""
    around = sum(map(len, OPENING_FRAMES + CLOSING_FRAMES))
    one = len(stamped_frame(0)) if stamped else len(DELTA_FRAME)
    return around + deltas * one


@dataclass(slots=True)
class FrameReader:
    """Cuts a byte stream into frames, however the network cut it."""

    count: int = 0
    rest: bytes = field(default=b"", repr=False)

    def feed(self, data: bytes) -> list[bytes]:
        """Take *data* in and return the frames that are now whole."""
        *frames, self.rest = (self.rest + data).split(b"\n\n")
        self.count += len(frames)
        return frames


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of request, and what a right answer to it looks like."""

    model: str
    deltas: int = 0

    @property
    def is_stream(self) -> bool:
        return self.model != MODEL_JSON

    @property
    def frames(self) -> int:
        return self.deltas + FRAMES_AROUND if self.is_stream else 0

    @property
    def body_bytes(self) -> int:
        if not self.is_stream:
            return len(ANSWER)
        return stream_bytes(self.deltas, stamped=self.model == MODEL_PACED)

    def body(self) -> bytes:
        """Write the request body; `max_tokens` tells the upstream how many deltas."""
        return _compact(
            {
                "model": self.model,
                "max_tokens": self.deltas or 16,
                "stream": self.is_stream,
                "system": "You are a terse assistant for people who measure gateways.",
                "messages": [{"role": "user", "content": "What does a relay do?"}],
            }
        )

    def request(self, headers: dict[str, str], session: str) -> bytes:
        """Write the whole HTTP/1.1 request of one caller.

        Each caller is a session of its own, so that a gateway which keeps a
        conversation on one account still spreads the load over all of them.
        """
        body = self.body()
        fields = {
            "host": "127.0.0.1",
            "user-agent": "bench",
            "accept": "application/json",
            "content-type": "application/json",
            "content-length": str(len(body)),
            "anthropic-version": "2023-06-01",
            "x-claude-code-session-id": session,
            **headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"POST /v1/messages HTTP/1.1\r\n{lines}\r\n".encode() + body


JSON = Question(MODEL_JSON)
STREAM = Question(MODEL_STREAM, deltas=STREAM_DELTAS)
