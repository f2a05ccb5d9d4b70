"""The script of faults: what it accepts, what it refuses, what comes next."""

import json
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claudeproxy.sandbox import script
from claudeproxy.sandbox.errors import ControlError
from claudeproxy.sandbox.script import Script, Step

FIELDS = Step.__struct_fields__
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
LIKELY = st.sampled_from(["before_head", "forever", "\r", 1, 0, 200, {"at_byte": 1}])
VALUES = (
    LIKELY
    | LEAVES
    | st.lists(LEAVES, max_size=3)
    | st.dictionaries(st.text(max_size=5), LEAVES, max_size=3)
)
NAMES = st.sampled_from(FIELDS) | st.text(max_size=5)
STEPS = st.dictionaries(NAMES, VALUES, max_size=4)
quickly = settings(max_examples=60, deadline=None)


def refusal(check: Callable[[], object]) -> str | None:
    """Why *check* refuses what it was given, None if it does not."""
    try:
        check()
    except ControlError as error:
        return f"{error.status} {error}"
    return None


@quickly
@given(STEPS)
def test_any_step_is_accepted_or_refused_with_a_reason(step: dict[str, object]) -> None:
    reason = refusal(lambda: script.parse_step(step))
    assert reason is None or re.match(r"400 .+", reason)


@quickly
@given(STEPS)
def test_any_step_in_a_call_is_accepted_or_refused_with_its_place(
    step: dict[str, object],
) -> None:
    body = json.dumps({"account": "ada", "steps": [step]}).encode()
    reason = refusal(lambda: script.parse_request(body))
    # What JSON itself does not allow, like NaN, has no place in the document.
    assert reason is None or re.match(r"400 (steps\.0|JSON is malformed)", reason)


@quickly
@given(st.binary())
def test_any_bytes_are_refused_without_a_crash(body: bytes) -> None:
    with pytest.raises(ControlError):
        script.parse_request(body)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"status": 99}, "status: "),
        ({"status": "500"}, "status: "),
        ({"unknown": 1}, "unknown field `unknown`"),
        ({"times": 0}, "times: "),
        ({"times": "often"}, "times: "),
        ({"path": "v1"}, "path must begin with /"),
        ({"delay_ms": -1}, "delay_ms: "),
        ({"frames": 0}, "frames: "),
        ({"split_every": 0}, "split_every: "),
        ({"cut_before_frame": 0}, "cut_before_frame: "),
        ({"error_at_frame": 0}, "error_at_frame: "),
        ({"hang": "later"}, "hang: "),
        ({"hang": 0}, "hang: "),
        ({"reset": 3}, "reset: "),
        ({"reset": {"at": 3}}, "reset: "),
        ({"line_ending": "\n\r"}, "line_ending: "),
        ({"hang": 1, "cut_at_byte": 1}, "cut_at_byte and hang exclude each other"),
        ({"status": 500, "frames": 2}, "a body or an error status excludes frames"),
        ({"usage": 3}, "usage: "),
        ({"usage": {"input_tokens": "\ud800"}}, "usage cannot be written as JSON"),
        ({"body": {}, "usage": {}}, "a body or an error status excludes usage"),
        ({"body": {}, "text": ""}, "a body or an error status excludes text"),
        ({"error_type": "api_error"}, "error_type and error_message need"),
        ({"headers": {"a b": "1"}}, "headers: 'a b' is not a header name"),
        ({"headers": {"a": "1\n2"}}, "headers: the value of a has forbidden"),
        ({"headers": {"Content-Length": "1"}}, "headers: content-length is set by"),
        ({"text": "\ud800"}, "text cannot be written as JSON"),
        ({"body": ["\ud800"]}, "body cannot be written as JSON"),
        ({"body": object()}, "body cannot be written as JSON"),
        ({"lose_answer": True}, "lose_answer needs a path that /v1/oauth/token"),
        (
            {"omit_refresh_token": True, "path": "/v1/models"},
            "omit_refresh_token needs",
        ),
        (
            {"path": "/v1/oauth/token", "lose_answer": True, "hang": 1},
            "hang and lose_answer exclude each other",
        ),
        (
            {"path": "/v1/oauth/token", "status": 500, "lose_answer": True},
            "a body or an error status excludes lose_answer",
        ),
    ],
)
def test_a_wrong_step_is_refused_by_name(step: dict[str, object], reason: str) -> None:
    with pytest.raises(ControlError) as caught:
        script.parse_step(step)
    assert reason in str(caught.value)


def test_a_refused_step_tells_its_place() -> None:
    with pytest.raises(ControlError, match=r"^steps\.1\.status: "):
        Script().add("ada", {"status": 500}, {"status": 1})


def test_steps_come_in_order() -> None:
    steps = Script()
    steps.add("ada", {"status": 500}, {"status": 529})
    taken = [steps.take("ada", "/v1/messages") for _ in range(3)]
    assert [step and step.status for step in taken] == [500, 529, None]


def test_own_steps_come_before_those_for_everyone() -> None:
    steps = Script()
    steps.add("*", {"status": 500})
    steps.add("ada", {"status": 529})
    taken = [steps.take("ada", "/v1/messages") for _ in range(2)]
    assert [step and step.status for step in taken] == [529, 500]


def test_steps_of_one_account_do_not_reach_another() -> None:
    steps = Script()
    steps.add("ada", {"status": 500})
    assert steps.take("grace", "/v1/messages") is None


def test_times_repeats_a_step() -> None:
    steps = Script()
    steps.add("ada", {"status": 500, "times": 2})
    taken = [steps.take("ada", "/v1/messages") for _ in range(3)]
    assert [step is not None for step in taken] == [True, True, False]


def test_forever_never_ends_until_cleared() -> None:
    steps = Script()
    steps.add("ada", {"status": 500, "times": "forever"})
    assert all(steps.take("ada", "/v1/messages") for _ in range(100))
    steps.clear("ada")
    assert steps.take("ada", "/v1/messages") is None


def test_a_step_without_path_is_for_messages_only() -> None:
    steps = Script()
    steps.add("ada", {"status": 500})
    assert steps.take("ada", "/v1/messages/count_tokens") is None
    assert steps.take("ada", "/v1/messages") is not None


def test_a_step_for_another_path_does_not_block_the_queue() -> None:
    steps = Script()
    steps.add("ada", {"path": "/v1/models", "status": 500}, {"status": 529})
    taken = steps.take("ada", "/v1/messages")
    assert taken is not None
    assert taken.status == 529


def test_pending_steps_are_counted_by_account() -> None:
    steps = Script()
    steps.add("ada", {}, {})
    steps.add("*", {"times": 5})
    assert steps.pending() == {"ada": 2, "*": 1}
