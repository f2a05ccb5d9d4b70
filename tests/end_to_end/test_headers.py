"""Only the documented headers cross the gateway, and those verbatim."""

from collections.abc import Sequence

import pytest

from claudeproxy.sandbox.log import Entry
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.wire import Answer, ask, exchange, head, request

pytestmark = pytest.mark.processes

Pair = tuple[str, str]

PASSED: list[Pair] = [
    ("accept", "application/json"),
    ("user-agent", "claude-cli/2.1.330 (external, cli)"),
    ("x-app", "cli"),
    ("anthropic-version", "2026-10-21"),
    ("anthropic-beta", "claude-code-20250219, effort-2025-11-24"),
    ("anthropic-beta", "  odd-spacing ,, and-commas,".strip()),
    ("anthropic-beta", "claude-code-20250219"),
    ("anthropic-dangerous-direct-browser-access", "true"),
    ("anthropic-of-the-future", 'a;b="c", d'),
    ("x-stainless-lang", "python"),
    ("x-stainless-timeout", "NOT_GIVEN"),
    ("x-stainless-retry-count", "0"),
    ("content-type", "application/json; charset=utf-8"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("tracestate", "vendor=value"),
]
KEPT_BACK: list[Pair] = [
    ("host", "gateway.test"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("connection", "close, x-app-hop"),
    ("keep-alive", "timeout=5"),
    ("te", "trailers"),
    ("trailer", "x-checksum"),
    ("cookie", "sessionid=planted"),
    ("proxy-authorization", "Basic planted"),
    ("forwarded", "for=192.0.2.1"),
    ("x-forwarded-for", "192.0.2.1"),
    ("x-forwarded-host", "elsewhere.test"),
    ("x-forwarded-proto", "https"),
    ("x-real-ip", "192.0.2.1"),
    ("via", "1.1 elsewhere"),
    ("origin", "https://elsewhere.test"),
    ("referer", "https://elsewhere.test/?token=planted"),
    ("x-claude-code-session-id", "0b9f4c0e-7a0f-4f0e-9d7e-0d6b8f1f8f11"),
    ("x-claude-code-agent-id", "agent"),
    ("x-request-id", "mine"),
    ("request-id", "mine"),
    ("x-custom", "something"),
    ("x-api-key-2", "planted"),
    ("api-key", "planted"),
    ("priority", "u=1"),
]


def call(
    gateway: Gateway,
    pairs: Sequence[Pair],
    *,
    first_line: str = "POST /v1/messages HTTP/1.1",
) -> Answer:
    """Send these headers and nothing else beside key and length."""
    body = b"" if first_line.startswith("GET") else b'{"model": "none"}'
    own = [("x-api-key", gateway.key), ("content-length", str(len(body)))]
    closing = [] if any(n == "connection" for n, _ in pairs) else [CLOSE]
    return exchange(gateway.port, head(first_line, [*pairs, *closing, *own]) + body)


CLOSE: Pair = ("connection", "close")
HOST: Pair = ("host", "gateway.test")


def arrived(sandbox: Sandbox) -> Entry:
    (entry,) = sandbox.log.wait_for(lambda entries: len(entries) > 0)
    return entry


def test_upstream_gets_the_listed_headers_and_three_of_the_gateways_own(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    call(gateway, [*KEPT_BACK[:8], *PASSED, *KEPT_BACK[8:]])
    entry = arrived(sandbox)
    own = [
        ("host", sandbox_host(gateway)),
        ("accept-encoding", "identity"),
        ("x-api-key", f"[account {entry.account}]"),
        ("content-length", str(entry.body_bytes)),
    ]
    assert sorted(entry.headers) == sorted([*PASSED, *own])


def sandbox_host(gateway: Gateway) -> str:
    return gateway.settings["UPSTREAM_BASE_URL"].removeprefix("http://")


def test_repeated_headers_keep_their_lines_and_their_order(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    lines = [f"beta-{number}, again-{number}" for number in (3, 1, 2)]
    call(gateway, [HOST, *(("anthropic-beta", line) for line in lines)])
    seen = [value for name, value in arrived(sandbox).headers if "beta" in name]
    assert seen == lines


@pytest.mark.parametrize("name", ["anthropic-version", "anthropic-beta"])
@pytest.mark.parametrize(
    "value", ["", "2023-06-01", "x" * 5_000, 'a"b\\c;d=e', "a,b,,c", "a\tb"]
)
def test_version_and_beta_pass_verbatim(
    gateway: Gateway, sandbox: Sandbox, name: str, value: str
) -> None:
    call(gateway, [HOST, (name, value)])
    assert (name, value) in arrived(sandbox).headers


def test_header_beyond_ascii_passes_byte_for_byte(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    value = "café 你好".encode().decode("latin-1")  # UTF-8, as it looks on the wire
    call(gateway, [HOST, ("x-stainless-os", value)])
    assert ("x-stainless-os", value) in arrived(sandbox).headers


def test_gateway_adds_no_version_of_its_own(gateway: Gateway, sandbox: Sandbox) -> None:
    answer = call(gateway, [HOST])
    assert "anthropic-version" not in dict(arrived(sandbox).headers)
    assert "anthropic-version: header is required" in answer.body.decode()


def test_request_without_a_body_has_no_length(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    pairs = [HOST, CLOSE, ("x-api-key", gateway.key)]
    exchange(gateway.port, head("GET /v1/models HTTP/1.1", pairs))
    assert sorted(name for name, _ in arrived(sandbox).headers) == [
        "accept-encoding",
        "host",
        "x-api-key",
    ]


@pytest.mark.parametrize(
    "query",
    [
        "beta=true",
        "beta=true&beta=false",
        "a=%2F..%2f&b=+%20&c",
        "=&&;a;%zz",
        "q=%F0%9F%A7%AA",
        "x=" + "y" * 4_000,
        "a?b=c?d",
        "a=[1]&b={2}|'\"",
    ],
)
@pytest.mark.parametrize("target", ["/v1/messages", "/v1/messages/count_tokens"])
def test_query_passes_verbatim(
    gateway: Gateway, sandbox: Sandbox, target: str, query: str
) -> None:
    call(gateway, [HOST], first_line=f"POST {target}?{query} HTTP/1.1")
    entry = arrived(sandbox)
    assert entry.path == target
    assert entry.query == query


def test_query_of_a_list_passes_verbatim(gateway: Gateway, sandbox: Sandbox) -> None:
    query = "lifecycle[]=active&lifecycle%5B%5D=deprecated&limit=2"
    call(gateway, [HOST], first_line=f"GET /v1/models?{query} HTTP/1.1")
    assert arrived(sandbox).query == query


ACCOUNTS_OWN = {
    "request-id": "req_upstream",
    "x-request-id": "req_upstream",
    "anthropic-organization-id": "org-planted",
    "anthropic-workspace-id": "wrkspc-planted",
    "anthropic-ratelimit-unified-status": "allowed",
    "anthropic-ratelimit-requests-remaining": "12",
    "anthropic-priority-input-tokens-limit": "12",
    "anthropic-fast-output-tokens-limit": "0",
    "set-cookie": "planted=1; Path=/",
    "server": "cloudflare",
    "via": "1.1 planted",
    "cf-ray": "planted",
    "cf-cache-status": "DYNAMIC",
    "strict-transport-security": "max-age=1",
    "alt-svc": 'h3=":443"',
    "connection": "x-named",
    "x-named": "hop",
    "keep-alive": "timeout=9",
}
RELAYED = {
    "anthropic-of-the-future": "value, with; marks",
    "retry-after": "3",
    "retry-after-ms": "3000",
    "x-should-retry": "false",
    "cache-control": "no-cache, private",
    "x-unknown": "passes",
}


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_caller_gets_no_header_about_the_account(
    gateway: Gateway, sandbox: Sandbox, is_stream: bool
) -> None:
    sandbox.script.add("*", {"headers": ACCOUNTS_OWN | RELAYED})
    answer = exchange(gateway.port, request(ask(stream=is_stream), key=gateway.key))
    assert answer.status == 200
    names = {name for name, _ in answer.headers}
    own = {"request-id", "date", "connection", "content-type", "x-claude-sandbox"}
    own |= (
        {"transfer-encoding", "x-accel-buffering"} if is_stream else {"content-length"}
    )
    assert names == own | set(RELAYED)
    assert answer.header("request-id") != "req_upstream"


def test_caller_gets_the_other_headers_verbatim(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"headers": ACCOUNTS_OWN | RELAYED})
    answer = exchange(gateway.port, request(ask(), key=gateway.key))
    assert {name: answer.header(name) for name in RELAYED} == RELAYED


def test_header_of_the_answer_beyond_ascii_passes_byte_for_byte(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"headers": {"x-words": "caf\xe9 \xff"}})
    answer = exchange(gateway.port, request(ask(), key=gateway.key))
    assert answer.header("x-words") == "caf\xe9 \xff"


def test_stream_asks_proxies_in_front_not_to_buffer(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    answer = exchange(gateway.port, request(ask(stream=True), key=gateway.key))
    assert answer.header("x-accel-buffering") == "no"
    assert answer.header("content-length") is None


@pytest.mark.parametrize(
    "name", ["anthropic-workspace-id", "anthropic-user-profile-id"]
)
def test_header_that_names_an_organizations_object_is_refused(
    gateway: Gateway, sandbox: Sandbox, name: str
) -> None:
    answer = call(gateway, [HOST, (name, "wrkspc_1")])
    assert answer.status == 400
    assert name in answer.json()["error"]["message"]
    assert sandbox.log.after() == []
