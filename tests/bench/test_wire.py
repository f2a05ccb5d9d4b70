import json

import pytest

from bench import wire

FRAMES = [*wire.OPENING_FRAMES, wire.DELTA_FRAME, *wire.CLOSING_FRAMES]


def test_the_small_answer_is_a_message_of_about_400_bytes():
    answer = json.loads(wire.ANSWER)

    assert answer["type"] == "message"
    assert set(answer["usage"]) >= {"input_tokens", "output_tokens"}
    assert 350 <= len(wire.ANSWER) <= 450


@pytest.mark.parametrize("frame", [*FRAMES, wire.stamped_frame(7)])
def test_a_frame_names_its_type_twice_and_ends_with_an_empty_line(frame):
    event, data, *rest = frame.split(b"\n")

    assert rest == [b"", b""]
    name = event.removeprefix(b"event: ").decode()
    assert json.loads(data.removeprefix(b"data: "))["type"] == name


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 64, 10_000])
def test_frames_are_counted_however_they_are_cut(piece_bytes):
    text = b"".join(FRAMES)
    reader = wire.FrameReader()

    frames = [
        frame
        for at in range(0, len(text), piece_bytes)
        for frame in reader.feed(text[at : at + piece_bytes])
    ]

    assert reader.count == len(FRAMES)
    assert [frame + b"\n\n" for frame in frames] == FRAMES


def test_a_frame_that_is_cut_off_is_not_counted():
    reader = wire.FrameReader()
    reader.feed(b"".join(FRAMES)[:-1])

    assert reader.count == len(FRAMES) - 1


@pytest.mark.parametrize("now_ns", [0, 1, 123_456_789_012_345, 2**63 - 1])
def test_a_stamp_is_read_as_it_was_written(now_ns):
    frame = wire.stamped_frame(now_ns)

    assert wire.read_stamp(frame) == now_ns
    assert len(frame) == len(wire.stamped_frame(0))


def test_an_ordinary_frame_has_no_stamp():
    assert wire.read_stamp(wire.DELTA_FRAME) is None


def test_a_request_says_its_length_its_session_and_the_callers_own_headers():
    request = wire.STREAM.request({"x-api-key": "secret"}, "session-1")
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")

    assert lines[0] == "POST /v1/messages HTTP/1.1"
    assert f"content-length: {len(body)}" in lines
    assert "x-claude-code-session-id: session-1" in lines
    assert "x-api-key: secret" in lines
    assert json.loads(body)["stream"] is True


def test_the_plain_stream_has_a_hundred_frames():
    assert wire.STREAM.frames == wire.STREAM_FRAMES == 100
