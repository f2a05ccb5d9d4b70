"""What a browser opens is served by the same process, within limits of its own."""

import json

import httpx
import pytest

from tests.end_to_end.checks import assert_envelope
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.wire import Wire, chunked, exchange, head, parse

pytestmark = pytest.mark.processes

PIECE = b"x" * 64 * 1024


def test_the_login_page_is_served_with_its_style(gateway: Gateway) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{gateway.port}") as client:
        page = client.get("/admin/login/")
        style = client.get("/static/claudeproxy/theme.css")

    assert page.status_code == style.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert style.headers["content-type"].startswith("text/css")


def test_the_front_door_leads_to_the_admin(gateway: Gateway) -> None:
    answer = httpx.get(f"http://127.0.0.1:{gateway.port}/")

    assert (answer.status_code, answer.headers["location"]) == (302, "/admin/")


@pytest.mark.parametrize("path", ["/admin/login/", "/api/accounts", "/oauth/authorize"])
@pytest.mark.parametrize("is_declared", [True, False])
def test_a_body_that_no_form_needs_is_refused(
    gateway: Gateway, path: str, is_declared: bool
) -> None:
    pieces = [PIECE] * 80  # 5 MB
    answer = httpx.post(
        f"http://127.0.0.1:{gateway.port}{path}",
        content=b"".join(pieces) if is_declared else iter(pieces),
        headers={"content-type": "application/octet-stream"},
    )

    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"
    assert "larger than 4 MB" in answer.text


def test_a_body_that_is_said_to_be_too_large_is_refused_unread(
    gateway: Gateway,
) -> None:
    pairs = [("host", "localhost"), ("content-length", str(20 * len(PIECE) * 16))]
    with Wire(gateway.port) as wire:
        wire.send(head("POST /api/accounts HTTP/1.1", pairs))
        wire.receive_until(b"request_id")
        for _ in range(20 * 16):  # and the caller may go on sending
            wire.send(PIECE)
        answer = parse(wire.rest())

    assert_envelope(answer, 413, "request_too_large")


def test_a_page_is_refused_in_plain_text(gateway: Gateway) -> None:
    pairs = [("host", "localhost"), ("content-length", "5000000")]
    with Wire(gateway.port) as wire:
        wire.send(head("POST /admin/login/ HTTP/1.1", pairs))
        answer = parse(wire.receive_until(b"contents.\n"))

    assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert answer.is_whole


def test_a_body_in_a_coding_we_do_not_know_is_refused(gateway: Gateway) -> None:
    pairs = [("host", "localhost"), ("transfer-encoding", "gzip, chunked")]
    data = head("POST /api/accounts HTTP/1.1", pairs) + chunked([b"x"])

    assert_envelope(exchange(gateway.port, data), 501, "invalid_request_error")


def test_a_body_that_comes_too_slowly_is_ended(hasty_gateway: Gateway) -> None:
    pairs = [("host", "localhost"), ("connection", "close"), ("content-length", "100")]
    data = head("POST /api/accounts HTTP/1.1", pairs) + b"{"

    assert_envelope(exchange(hasty_gateway.port, data), 408, "timeout_error")


@pytest.mark.parametrize("is_chunked", [True, False], ids=["chunks", "length"])
def test_a_body_arrives_however_it_is_framed(
    gateway: Gateway, is_chunked: bool
) -> None:
    name = f"framed {is_chunked}"
    made = gateway.manage("create_client_key", f"{name} by", "--role=admin", "--json")
    body = json.dumps({"name": name}).encode()
    pairs = [
        ("host", "localhost"),
        ("connection", "close"),
        ("x-api-key", json.loads(made)["key"]),
        ("content-type", "application/json"),
    ]
    if is_chunked:
        pairs.append(("transfer-encoding", "chunked"))
        sent = chunked([body[:5], body[5:]])
    else:
        pairs.append(("content-length", str(len(body))))
        sent = body
    answer = exchange(gateway.port, head("POST /api/tokens HTTP/1.1", pairs) + sent)

    assert answer.status == 201, answer.body
    assert answer.json()["name"] == name
