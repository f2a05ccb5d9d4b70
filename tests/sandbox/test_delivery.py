"""How the script bends an answer, on three short frames."""

from typing import Any

import pytest

from claudeproxy.sandbox import delivery, script
from claudeproxy.sandbox.delivery import Plan, Reply
from claudeproxy.sandbox.log import Outcome

FRAMES = [b"aa\n", b"bbb\n", b"c\n"]


def planned(step: dict[str, Any], *, is_stream: bool = True) -> Plan:
    reply = Reply(200, [], FRAMES if is_stream else [b"abcdef"], is_stream=is_stream)
    return delivery.plan(reply, script.parse_step(step), "req_1")


@pytest.mark.parametrize(
    ("step", "pieces", "ending"),
    [
        ({}, FRAMES, Outcome.COMPLETE),
        ({"cut_before_frame": 1}, [], Outcome.CUT),
        ({"cut_before_frame": 3}, FRAMES[:2], Outcome.CUT),
        ({"cut_before_frame": 4}, FRAMES, Outcome.CUT),
        ({"cut_before_frame": 99}, FRAMES, Outcome.CUT),
        ({"cut_at_byte": 0}, [], Outcome.CUT),
        ({"cut_at_byte": 3}, [b"aa\n"], Outcome.CUT),
        ({"cut_at_byte": 4}, [b"aa\n", b"b"], Outcome.CUT),
        ({"cut_at_byte": 99}, FRAMES, Outcome.CUT),
        ({"reset": {"at_byte": 1}}, [b"a"], Outcome.RESET),
        ({"hang": 2}, FRAMES[:1], Outcome.HANG),
        ({"end_after_frame": 0}, [], Outcome.ENDED_EARLY),
        ({"end_after_frame": 2}, FRAMES[:2], Outcome.ENDED_EARLY),
        ({"end_after_frame": 3}, FRAMES, Outcome.COMPLETE),
        ({"split_every": 4}, [b"aa\nb", b"bb\nc", b"\n"], Outcome.COMPLETE),
        ({"split_every": 2, "cut_at_byte": 3}, [b"aa", b"\n"], Outcome.CUT),
        ({"line_ending": "\r"}, [b"aa\r", b"bbb\r", b"c\r"], Outcome.COMPLETE),
    ],
)
def test_a_stream_is_bent(
    step: dict[str, Any], pieces: list[bytes], ending: Outcome
) -> None:
    plan = planned(step)
    assert (list(plan.pieces), plan.ending) == (pieces, ending)


@pytest.mark.parametrize(
    ("step", "pieces", "ending"),
    [
        ({"cut_before_frame": 1}, [], Outcome.CUT),
        ({"cut_before_frame": 2}, [b"abcdef"], Outcome.CUT),
        ({"cut_at_byte": 2}, [b"ab"], Outcome.CUT),
        ({"reset": {"at_byte": 2}}, [b"ab"], Outcome.RESET),
        ({"hang": 1}, [], Outcome.HANG),
        ({"end_after_frame": 0}, [b"abcdef"], Outcome.COMPLETE),
        ({"split_every": 4}, [b"abcd", b"ef"], Outcome.COMPLETE),
        ({"line_ending": "\r"}, [b"abcdef"], Outcome.COMPLETE),
    ],
)
def test_a_plain_answer_counts_as_one_frame(
    step: dict[str, Any], pieces: list[bytes], ending: Outcome
) -> None:
    plan = planned(step, is_stream=False)
    assert (list(plan.pieces), plan.ending) == (pieces, ending)


def test_an_error_takes_the_place_of_a_frame() -> None:
    plan = planned({"error_at_frame": 2, "error_type": "api_error"})
    assert plan.pieces[0] == FRAMES[0]
    assert plan.pieces[1].startswith(b"event: error\ndata: ")
    assert b"api_error" in plan.pieces[1]
    assert len(plan.pieces) == 2


@pytest.mark.parametrize(
    ("sent_bytes", "frames"), [(0, 0), (2, 0), (3, 1), (8, 2), (9, 3)]
)
def test_only_whole_frames_are_counted(sent_bytes: int, frames: int) -> None:
    assert planned({"split_every": 1}).frames_in(sent_bytes) == frames
