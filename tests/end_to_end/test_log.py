"""One line for each request; nothing secret and no content anywhere."""

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.test_bad_keys import with_typo
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import Wire, ask, exchange, request

pytestmark = pytest.mark.processes

FIELDS = {
    "request_id",
    "key",
    "account",
    "routing",
    "model",
    "stream",
    "method",
    "path",
    "status",
    "end",
    "request_bytes",
    "answer_bytes",
    "first_byte_ms",
    "duration_ms",
}


def line_of(gateway: Gateway, data: bytes) -> dict[str, Any]:
    answer = exchange(gateway.port, data)
    return gateway.logged(answer.header("request-id") or "")


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_served_request_leaves_one_line_with_all_facts(
    gateway: Gateway, sandbox: Sandbox, is_stream: bool
) -> None:
    body = json.dumps(ask(stream=is_stream)).encode()
    answer = exchange(gateway.port, request(body, key=gateway.key))
    request_id = answer.header("request-id") or ""
    line = gateway.logged(request_id)
    (entry,) = sandbox.log.after()
    assert set(line) >= FIELDS
    assert line | {"event": "request", "level": "info"} == line
    expected = {
        "key": "ana",
        "account": entry.account,
        "model": "claude-opus-5-5",
        "stream": is_stream,
        "method": "POST",
        "path": "/v1/messages",
        "status": 200,
        "end": "complete",
        "request_bytes": len(body),
        "answer_bytes": len(answer.body),
    }
    assert {name: line[name] for name in expected} == expected
    assert 0 < line["first_byte_ms"] <= line["duration_ms"] < 10_000
    ids = [entry["request_id"] for entry in gateway.requests_logged()]
    assert ids.count(request_id) == 1


def test_a_name_of_a_model_is_written_down_in_part_if_it_is_very_long(
    gateway: Gateway,
) -> None:
    asked = ask(model="m" * 100_000)
    line = line_of(gateway, request(asked, key=gateway.key))
    assert line["model"] == "m" * 200


def test_line_tells_the_first_byte_from_the_last(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"first_frame_delay_ms": 30, "frame_delay_ms": 5})
    line = line_of(gateway, request(ask(stream=True), key=gateway.key))
    assert line["first_byte_ms"] >= 30
    assert line["duration_ms"] >= line["first_byte_ms"] + 50


@pytest.mark.parametrize(
    ("change", "status", "end"),
    [
        ({"key": "wrong"}, 401, "rejected"),
        ({"target": "/v1/elsewhere"}, 404, "rejected"),
        ({"content": b"{"}, 400, "complete"),
        ({"content": b"x" * 33 * 1024**2}, 413, "rejected"),
    ],
)
def test_refused_request_leaves_a_line_too(
    gateway: Gateway, change: dict[str, Any], status: int, end: str
) -> None:
    data = request(**{"content": ask(), "key": gateway.key} | change)
    line = line_of(gateway, data)
    assert (line["status"], line["end"]) == (status, end)


def test_every_line_of_the_log_is_json(gateway: Gateway) -> None:
    exchange(gateway.port, request(ask(), key=gateway.key))
    lines = gateway.log_text.splitlines()
    assert all(json.loads(line)["event"] for line in lines)


def test_name_of_a_request_cannot_break_a_line(gateway: Gateway) -> None:
    target = '/v1/%0a"}\\u000a{"event":"request'
    line = line_of(gateway, request(ask(), key=gateway.key, target=target))
    assert line["path"] == target


def planted(name: str) -> str:
    return f"planted-{name}-{uuid.uuid4().hex}"


def test_nothing_secret_and_no_content_is_written_anywhere(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    marks = {
        name: planted(name)
        for name in (
            *("prompt", "system", "answer", "error", "query", "bearer", "cookie"),
            *("header", "beta", "session", "user", "broken", "agent"),
        )
    }
    pairs = [
        ("authorization", f"Bearer {marks['bearer']}"),
        ("cookie", f"id={marks['cookie']}"),
        ("x-custom", marks["header"]),
        ("anthropic-beta", marks["beta"]),
        ("x-claude-code-session-id", marks["session"]),
        ("user-agent", marks["agent"]),
    ]
    body = ask(
        marks["prompt"],
        system=marks["system"],
        metadata={"user_id": marks["user"]},
        stream=True,
    )
    target = f"/v1/messages?token={marks['query']}&key={gateway.key}"
    ends: list[dict[str, Any]] = [
        {"text": marks["answer"]},
        {"text": marks["answer"], "cut_at_byte": 700},
        {"text": marks["answer"], "end_after_frame": 6},
        {"status": 400, "error_message": marks["error"]},
        {"error_at_frame": 5, "error_message": marks["error"]},
        {"reset": "before_head"},
    ]
    for step in ends:
        sandbox.script.add("*", step)
        data = request(body, key=gateway.key, target=target, headers=pairs)
        exchange(gateway.port, data)
    exchange(gateway.port, request(b'{"x": "' + marks["broken"].encode()))
    exchange(gateway.port, request(body, headers=pairs))
    typo = with_typo(gateway.key)
    exchange(gateway.port, request(body, key=typo))
    exchange(gateway.port, request(body, key=gateway.key, target=f"/v1/{gateway.key}"))
    with Wire(gateway.port) as wire:
        wire.send(b"\x00" + marks["broken"].encode() + b"\r\n\r\n")
        wire.rest()
    last = exchange(gateway.port, request(ask(), key=gateway.key))
    gateway.logged(last.header("request-id") or "")

    secrets = [*marks.values(), *gateway.keys.values(), typo, "sk-sandbox-"]
    # What a client calls itself is shown with its session, and nowhere else.
    kept = {marks["agent"]}
    for text in secrets:
        assert text not in gateway.log_text
        for path, content in files_below(gateway.data_dir):
            if text in kept and path.name.startswith("claudeproxy.sqlite3"):
                continue
            assert text.encode() not in content, (text, path.name)


def files_below(directory: Path) -> Iterator[tuple[Path, bytes]]:
    for path in directory.rglob("*"):
        # SQLite's log comes and goes.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            yield path, path.read_bytes()


def test_data_is_its_owners_alone(gateway: Gateway) -> None:
    files = [path for path in gateway.data_dir.rglob("*") if path.is_file()]
    for path in files:
        with contextlib.suppress(FileNotFoundError):
            assert path.stat().st_mode & 0o077 == 0, path.name
    assert files


def test_health_checks_do_not_fill_the_log(gateway: Gateway) -> None:
    for _ in range(20):
        gateway.health()
    answer = exchange(gateway.port, request(ask(), key=gateway.key))
    gateway.logged(answer.header("request-id") or "")
    paths = [entry["path"] for entry in gateway.requests_logged()]
    assert "/health" not in paths
    assert until(lambda: "/v1/messages" in paths)
