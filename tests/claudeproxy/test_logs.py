import contextlib
import errno
import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import structlog
from django.test import Client

from claudeproxy import logs
from claudeproxy.crypto import Secret


@pytest.fixture(
    params=[structlog.get_logger, logging.getLogger],
    ids=["structlog", "standard library"],
)
def get_logger(request):
    # No logger yet: structlog's keep the configuration of their first use.
    return request.param


@contextlib.contextmanager
def written(*, as_json: bool = True) -> Iterator[io.StringIO]:
    """What is logged inside; afterwards logging is as it was."""
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        logs.configure(level="info", as_json=as_json)
        try:
            yield stream
        finally:
            structlog.configure(**before)
            root.handlers[:] = handlers
            root.setLevel(level)


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().split("\n")[:-1]]


def fail_with_local_secrets():
    api_key = "-".join(["sk", "ant", "local"])
    raise KeyError(len(api_key))


def test_a_line_is_one_json_object(get_logger):
    with written() as stream:
        get_logger("tests.logs").info("first\nsecond")
        get_logger("tests.logs").warning("third")
    first, third = read(stream)

    assert (first["event"], first["level"]) == ("first\nsecond", "info")
    assert (third["event"], third["level"]) == ("third", "warning")
    assert datetime.fromisoformat(first["timestamp"]).tzinfo == UTC


def test_a_line_below_the_level_is_not_written(get_logger):
    with written() as stream:
        get_logger("tests.logs").debug("quiet")

    assert stream.getvalue() == ""


def test_the_context_of_a_request_is_on_every_line(get_logger):
    with written() as stream, structlog.contextvars.bound_contextvars(request_id="r"):
        get_logger("tests.logs").info("inside")

    assert read(stream)[0]["request_id"] == "r"


def log_a_failure(logger):
    try:
        fail_with_local_secrets()
    except KeyError:
        logger.exception("failed")


def test_a_logged_exception_is_json_on_the_same_line(get_logger):
    with written() as stream:
        log_a_failure(get_logger("tests.logs"))
    (line,) = read(stream)

    assert line["exception"][0]["exc_type"] == "KeyError"
    assert line["exception"][0]["frames"][-1]["name"] == "fail_with_local_secrets"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_shows_no_local_variables(get_logger, as_json):
    with written(as_json=as_json) as stream:
        log_a_failure(get_logger("tests.logs"))

    assert "fail_with_local_secrets" in stream.getvalue()
    assert "sk-ant-local" not in stream.getvalue()


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Odd(), "<odd>"),
        ([Odd(), {"a": Odd()}], ["<odd>", {"a": "<odd>"}]),
        (Secret("sk-ant-x"), "[secret]"),
        ({"key": Secret("sk-ant-x")}, {"key": "[secret]"}),
        (KeyError("x"), "KeyError('x')"),
        (Decimal("1.50"), "1.50"),
        (b"bytes", "Ynl0ZXM="),
        (float("nan"), None),
        ("é\u2028", "é\u2028"),
        ("\udfff", "\udfff"),
        (2**70, 2**70),
    ],
)
def test_a_value_that_json_cannot_hold_is_shown(value, shown):
    with written() as stream:
        structlog.get_logger("tests.logs").info("event", value=value)

    assert read(stream)[0]["value"] == shown


@pytest.mark.parametrize(
    "value",
    [{"\udfff": 1}, {(1, 2): 3}, {1.5: 2}, ["\udfff", Odd(), Secret("sk-ant-x")]],
    ids=["surrogate key", "tuple key", "float key", "mixture"],
)
def test_a_line_is_never_lost_over_its_values(value):
    with written() as stream:
        structlog.get_logger("tests.logs").info("event", value=value)

    assert read(stream)[0]["event"] == "event"
    assert "sk-ant-x" not in stream.getvalue()


def test_a_secret_is_not_formatted_into_a_line():
    secret = Secret("sk-ant-x")
    with written() as stream:
        logging.getLogger("tests.logs").info("%s and %r", secret, secret)

    assert read(stream)[0]["event"] == "[secret] and [secret]"


def test_a_full_disk_does_not_fail_what_is_logged():
    class FullDisk(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with written(), contextlib.redirect_stderr(FullDisk()):
        structlog.get_logger("tests.logs").info("event")


def test_the_console_has_no_colours_where_there_is_no_terminal(get_logger):
    with written(as_json=False) as stream:
        get_logger("tests.logs").info("hello")

    assert "hello" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("name", ["httpx", "httpx2", "uvicorn.error"])
def test_noisy_libraries_are_heard_from_warnings_on(name):
    with written() as stream:
        logging.getLogger(name).info("noise")
        logging.getLogger(name).warning("worth it")

    assert [line["event"] for line in read(stream)] == ["worth it"]


def test_a_wrong_host_is_refused_with_one_line_and_no_traceback():
    with written() as stream:
        answer = Client(headers={"host": "stranger.example"}).get("/admin/login/")
    (line,) = read(stream)

    assert answer.status_code == 400
    assert line["level"] == "warning"
    assert line["logger"] == "django.security.DisallowedHost"
    assert "stranger.example" in line["event"]
    assert "exception" not in line
    assert "Traceback" not in stream.getvalue()


def test_an_answer_left_incomplete_on_purpose_is_no_line_of_the_server():
    with written() as stream:
        server = logging.getLogger("uvicorn.error")
        server.error("ASGI callable returned without completing response.")
        server.error("ASGI callable returned without starting response.")

    assert [line["event"] for line in read(stream)] == [
        "ASGI callable returned without starting response."
    ]
