import json
import re

import pytest
import time_machine
from structlog.testing import capture_logs

from clients import keys
from proxy.record import End, RequestRecord, new_request_id


def record(path="/v1/messages", *, times=(0.0, 0.0)):
    moments = iter(times)
    return RequestRecord("POST", path, clock=lambda: next(moments))


def test_request_ids_look_like_the_apis_and_never_repeat():
    ids = {new_request_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(re.fullmatch("req_[0-9a-f]{24}", id) for id in ids)


def test_a_later_request_has_a_larger_id():
    with time_machine.travel("2026-11-26", tick=False) as traveller:
        first = new_request_id()
        traveller.shift(0.001)
        assert new_request_id() > first


def test_times_are_milliseconds_since_the_start():
    it = record(times=(100.0, 100.0125, 102.5))
    it.note_sent(10)
    it.note_sent(5)
    fields = it.fields()

    assert fields["first_byte_ms"] == 12.5
    assert fields["duration_ms"] == 2500.0
    assert fields["answer_bytes"] == 15


def test_a_request_without_an_answer_has_no_first_byte():
    assert record().fields()["first_byte_ms"] is None


@pytest.mark.parametrize(
    "key",
    [
        keys.generate(),
        "sk-ant-api03-aaaa_bbb-CCC",
        "sk-ant-oat01-" + "x" * 90,
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/messages/{}", "/{}/v1/messages", "/v1/x={}&y", "/{0}{0}"]
)
def test_a_key_pasted_into_the_path_is_not_written_down(path, key):
    line = json.dumps(record(path.format(key)).fields())

    assert key not in line
    assert key[-20:] not in line


@pytest.mark.parametrize("position", range(140, 205, 3))
def test_a_key_that_is_cut_off_with_its_path_is_not_written_down(position):
    key = keys.generate()
    path = record("/" * position + key).fields()["path"]

    assert key[3:9] not in path
    assert len(path) <= 210


def test_the_cause_is_only_there_when_there_is_one():
    it = record(times=(0.0, 0.0, 0.0))

    assert "cause" not in it.fields()
    it.cause = "not sent: ConnectError"
    assert it.fields()["cause"] == "not sent: ConnectError"


@pytest.mark.parametrize(("is_quiet", "level"), [(False, "info"), (True, "debug")])
def test_a_quiet_request_is_written_below_the_usual_level(is_quiet, level):
    it = record()
    it.is_quiet = is_quiet
    it.end = End.COMPLETE
    with capture_logs() as lines:
        it.write()

    assert [line["log_level"] for line in lines] == ([level] if not is_quiet else [])
