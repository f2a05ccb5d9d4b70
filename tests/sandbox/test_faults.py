"""Each field of a step that shapes an answer does what it says on the wire."""

from time import perf_counter

import httpx
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.sandbox.wire import (
    ask,
    connect,
    ended,
    exchange,
    read_events,
    streamed_frames,
)

PLAIN = ask()
STREAMED = ask(stream=True)


def test_status_answers_with_the_matching_envelope(
    ada: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {"status": 529})
    answer = ada.post("/v1/messages", json=PLAIN)
    assert answer.status_code == 529
    assert answer.json()["error"]["type"] == "overloaded_error"
    assert ended(sandbox).status == 529


def test_error_type_and_message_fill_the_envelope(
    ada: httpx.Client, sandbox: Sandbox
) -> None:
    step = {"status": 400, "error_type": "billing_error", "error_message": "Pay!"}
    sandbox.script.add("ada", step)
    answer = ada.post("/v1/messages", json=PLAIN)
    assert answer.status_code == 400
    assert answer.json()["error"] == {"type": "billing_error", "message": "Pay!"}


def test_a_success_status_keeps_the_ordinary_answer(
    ada: httpx.Client, sandbox: Sandbox
) -> None:
    expected = ada.post("/v1/messages", json=PLAIN).content
    sandbox.script.add("ada", {"status": 202})
    answer = ada.post("/v1/messages", json=PLAIN)
    assert (answer.status_code, answer.content) == (202, expected)


def test_a_status_without_a_body_has_none(ada: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.script.add("ada", {"status": 204})
    answer = ada.post("/v1/messages", json=STREAMED)
    assert (answer.status_code, answer.content) == (204, b"")


def test_headers_replace_add_and_remove(ada: httpx.Client, sandbox: Sandbox) -> None:
    headers = {"Retry-After": "7", "request-id": "req_own", "content-type": None}
    sandbox.script.add("ada", {"status": 429, "headers": headers})
    answer = ada.post("/v1/messages", json=PLAIN)
    assert answer.headers["retry-after"] == "7"
    assert answer.headers.get_list("request-id") == ["req_own"]
    assert "content-type" not in answer.headers


def test_headers_as_pairs_may_repeat(ada: httpx.Client, sandbox: Sandbox) -> None:
    pairs = [["set-cookie", "a=1"], ["set-cookie", "b=2"]]
    sandbox.script.add("ada", {"headers": pairs})
    answer = ada.post("/v1/messages", json=PLAIN)
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("body", "sent", "content_type"),
    [
        ({"odd": [1]}, b'{"odd":[1]}', "application/json"),
        (None, b"null", "application/json"),
        ("<h1>Blocked</h1>", b"<h1>Blocked</h1>", "text/html; charset=utf-8"),
        ("no", b"no", "text/plain; charset=utf-8"),
    ],
)
def test_body_is_sent_as_given(
    ada: httpx.Client, sandbox: Sandbox, body: object, sent: bytes, content_type: str
) -> None:
    sandbox.script.add("ada", {"status": 403, "body": body})
    answer = ada.post("/v1/messages", json=PLAIN)
    assert (answer.status_code, answer.content) == (403, sent)
    assert answer.headers["content-type"] == content_type


def test_a_step_is_used_once(ada: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.script.add("ada", {"status": 500})
    statuses = [ada.post("/v1/messages", json=PLAIN).status_code for _ in range(2)]
    assert statuses == [500, 200]


def test_path_moves_a_step_to_another_endpoint(
    ada: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {"status": 503, "path": "/v1/models"})
    assert ada.post("/v1/messages", json=PLAIN).status_code == 200
    assert ada.get("/v1/models/claude-opus-5-5").status_code == 503


@pytest.mark.parametrize("field", ["delay_ms", "first_frame_delay_ms"])
@pytest.mark.parametrize("body", [PLAIN, STREAMED])
def test_a_delay_holds_the_answer_back(
    ada: httpx.Client, sandbox: Sandbox, field: str, body: dict[str, object]
) -> None:
    sandbox.script.add("ada", {field: 20})
    begun = perf_counter()
    assert ada.post("/v1/messages", json=body).status_code == 200
    assert perf_counter() - begun >= 0.02


def test_first_frame_delay_lets_the_head_go_first(
    server: SandboxServer, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {"first_frame_delay_ms": 3_600_000})
    with connect(server.url, STREAMED) as sock:
        assert sock.recv(65536).endswith(b"\r\n\r\n")


def test_frame_delay_spreads_the_frames(
    server: SandboxServer, ada: httpx.Client, sandbox: Sandbox
) -> None:
    frames = len(streamed_frames(server.url))
    sandbox.script.add("ada", {"frame_delay_ms": 2})
    begun = perf_counter()
    ada.post("/v1/messages", json=STREAMED)
    assert perf_counter() - begun >= 0.002 * (frames - 1)


def test_frames_sets_the_number_of_text_deltas(
    ada: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {"frames": 50, "times": 2})
    streamed = read_events(ada.post("/v1/messages", json=STREAMED).content)
    texts = [
        data["delta"]["text"]
        for name, data in streamed
        if name == "content_block_delta"
    ]
    assert len(texts) == 50
    plain = ada.post("/v1/messages", json=PLAIN).json()
    assert "".join(texts) == plain["content"][0]["text"]


def test_text_is_the_answer(ada: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.script.add("ada", {"text": "Own words 自分の言葉 🦊", "frames": 3})
    answer = ada.post("/v1/messages", json=ask(max_tokens=1))
    assert answer.json()["content"] == [
        {"type": "text", "text": "Own words 自分の言葉 🦊"}
    ]


def test_usage_is_what_the_answer_says_it_used(
    ada: httpx.Client, sandbox: Sandbox
) -> None:
    own = {"input_tokens": 100_001, "inference_geo": "us"}
    sandbox.script.add("ada", {"usage": own, "times": 2})
    usage = ada.post("/v1/messages", json=PLAIN).json()["usage"]
    assert usage.items() >= own.items()
    assert usage["output_tokens"] > 0
    events = dict(read_events(ada.post("/v1/messages", json=STREAMED).content))
    assert events["message_start"]["message"]["usage"].items() >= own.items()
    assert events["message_delta"]["usage"]["input_tokens"] == 100_001


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_split_every_cuts_the_body_into_pieces_of_that_size(
    server: SandboxServer, sandbox: Sandbox, size: int
) -> None:
    whole = b"".join(streamed_frames(server.url))
    sandbox.script.add("ada", {"split_every": size})
    chunks = exchange(server.url, STREAMED).chunks
    assert b"".join(chunks) == whole
    assert {len(chunk) for chunk in chunks[:-2]} <= {size}


@pytest.mark.parametrize("line_ending", ["\r\n", "\r"])
def test_line_ending_replaces_every_line_feed(
    server: SandboxServer, sandbox: Sandbox, line_ending: str
) -> None:
    whole = b"".join(streamed_frames(server.url))
    sandbox.script.add("ada", {"line_ending": line_ending})
    body = b"".join(exchange(server.url, STREAMED).chunks)
    assert body == whole.replace(b"\n", line_ending.encode())
