"""How an answer that broke off may look to its caller, and how it never does."""

import json
import re
from typing import Any

from tests.end_to_end.checks import assert_envelope
from tests.end_to_end.wire import Answer, frames


def error_in(frame: bytes) -> dict[str, Any]:
    """Read an `error` event, which must be well formed."""
    name, _, data = frame.partition(b"\n")
    assert name == b"event: error"
    assert frame.endswith(b"\n\n")
    error = json.loads(data.removeprefix(b"data: "))
    assert error["type"] == "error"
    assert error["error"]["message"]
    return dict(error)


_MESSAGE_ID = re.compile(rb'"msg_[0-9a-z]+"')


def nameless(stream: list[bytes]) -> list[bytes]:
    """Leave out of frames what is different in each account's answer."""
    return [_MESSAGE_ID.sub(b'"msg_"', frame) for frame in stream]


def kept_frames(answer: Answer, whole: list[bytes]) -> int:
    """Count the frames of *whole* that arrived before the stream broke, if it did.

    They must be its first ones, byte for byte, and be followed by an `error` event if
    any is missing. A stream that broke before its content is an error from the start,
    and none arrived.
    """
    if answer.status != 200:
        assert_envelope(answer, 503, "api_error")
        return 0
    assert answer.is_whole
    got, whole = nameless(frames(answer.body)), nameless(whole)
    if got == whole:
        return len(whole)
    *kept, last = got
    assert kept == whole[: len(kept)]
    assert len(kept) >= 2, "the caller was shown a stream without content"
    assert error_in(last)["request_id"] == answer.header("request-id")
    return len(kept)
