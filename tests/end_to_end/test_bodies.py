"""Bodies cross the gateway byte for byte, in both directions."""

import hashlib
import json
import random
from collections.abc import Callable

import httpx
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.conftest import caller
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.wire import ask, chunked, exchange, head, request

pytestmark = pytest.mark.processes

# Fixed, so that a failure can be looked at again.
SEED = 20_261_125
COUNT = 500
BATCH = 50


CHARACTERS = (
    "abc xyz,.  the quick brown fox"
    "äöüßéñ你好世界思考👩‍💻🧪👋🏽"
    "\u2028\u2029\ufeff\u0000\u001f\u007f"
    '"\\/\n\r\t'
)


def _spellings(character: str) -> set[str]:
    """Say a character in each of the ways that JSON has."""
    units = character.encode("utf-16-be")
    hexed = [units[at : at + 2].hex() for at in range(0, len(units), 2)]
    return {
        json.dumps(character, ensure_ascii=False)[1:-1],
        json.dumps(character)[1:-1],
        "".join(f"\\u{unit.upper()}" for unit in hexed),
    }


SPELLINGS = [said for c in CHARACTERS for said in sorted(_spellings(c))]


def _string(draw: random.Random, length: int) -> str:
    return '"' + "".join(draw.choices(SPELLINGS, k=length)) + '"'


def _space(draw: random.Random) -> str:
    return draw.choice(("", "", " ", "\n", "\t", "\r\n", "  \t\n "))


def _value(draw: random.Random, depth: int) -> str:
    kinds = ["text", "integer", "float", "word"] + ["list", "object"] * (depth > 0)
    match draw.choice(kinds):
        case "text":
            return _string(draw, draw.randrange(40))
        case "integer":
            return str(draw.randrange(-(10 ** draw.randrange(1, 60)), 10**30))
        case "float":
            return draw.choice(("1.0", "-0.0", "1e400", "1E+2", "0.10", "1.5e-7"))
        case "word":
            return draw.choice(("true", "false", "null"))
        case "list":
            items = [_value(draw, depth - 1) for _ in range(draw.randrange(4))]
            return "[" + ",".join(_space(draw) + i + _space(draw) for i in items) + "]"
        case _:
            names = draw.choices(('"a"', '"\\u0061"', '"ключ"'), k=draw.randrange(4))
            members = [(name, _value(draw, depth - 1)) for name in names]
            return _object(draw, members)


def _object(draw: random.Random, members: list[tuple[str, str]]) -> str:
    said = [
        _space(draw) + name + _space(draw) + ":" + _space(draw) + value + _space(draw)
        for name, value in members
    ]
    return "{" + ",".join(said) + "}"


def _request(draw: random.Random) -> bytes:
    """A valid Messages request, written as no serializer would."""
    size = draw.choice((10, 100, 1_000, 1_000, 10_000, 50_000))
    content = _string(draw, draw.randrange(size))
    members = [
        ('"model"', '"claude-opus-5-5"'),
        ('"max_tokens"', str(draw.randrange(1, 2000))),
        ('"messages"', f'[{{"role":"user","content":{content}}}]'),
        ('"stream"', draw.choice(("true", "false"))),
    ]
    extra = [(f'"x{n}"', _value(draw, 4)) for n in range(draw.randrange(4))]
    if draw.random() < 0.2:
        extra.append(('"deep"', "[" * 200 + "]" * 200))
    if draw.random() < 0.3:
        extra.append(('"x0"', _value(draw, 1)))  # a name that may be there already
    members += extra
    draw.shuffle(members)
    return (_space(draw) + _object(draw, members) + _space(draw)).encode()


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _arrived(sandbox: Sandbox, count: int) -> list[str | None]:
    entries = sandbox.log.wait_for(
        lambda entries: sum(e.outcome is not None for e in entries) == count
    )
    return [entry.body_sha256 for entry in entries]


@pytest.mark.parametrize("batch", range(COUNT // BATCH))
def test_generated_bodies_arrive_byte_for_byte(
    ana: httpx.Client, sandbox: Sandbox, batch: int
) -> None:
    draw = random.Random(SEED + batch)  # noqa: S311  # it generates cases, not keys
    bodies = [_request(draw) for _ in range(BATCH)]
    for body in bodies:
        assert ana.post("/v1/messages", content=body).status_code == 200
    assert _arrived(sandbox, len(bodies)) == [_digest(body) for body in bodies]


@pytest.mark.parametrize("megabytes", [5, 12, 20, 31])
def test_large_body_arrives_byte_for_byte(
    ana: httpx.Client, sandbox: Sandbox, megabytes: int
) -> None:
    draw = random.Random(SEED)  # noqa: S311  # it generates cases, not keys
    body = json.dumps(ask(draw.randbytes(megabytes * 524_288).hex())).encode()
    assert len(body) > megabytes * 1024**2
    assert ana.post("/v1/messages", content=body).status_code == 200
    assert _arrived(sandbox, 1) == [_digest(body)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"model": 3, "stream": "yes", "metadata": []}',
        b'\xef\xbb\xbf{"model": "claude-opus-5-5"}',
        b'{"model":"claude-opus-5-5","max_tokens":1,"messages":' + b"[" * 5_000,
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    ],
    ids=["none", "cut", "null", "bytes", "deep", "types", "mark", "nested", "half"],
)
def test_broken_body_arrives_byte_for_byte_and_the_refusal_returns(
    ana: httpx.Client, sandbox: Sandbox, body: bytes
) -> None:
    answer = ana.post("/v1/messages", content=body)
    assert answer.status_code == 400
    (entry,) = sandbox.log.after()
    assert entry.body_sha256 == _digest(body)
    assert answer.json()["request_id"] == entry.request_id  # its words, not ours


def test_chunked_body_arrives_byte_for_byte(gateway: Gateway, sandbox: Sandbox) -> None:
    body = json.dumps(ask("split " * 20_000)).encode()
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    pairs = [
        ("host", "gateway.test"),
        ("connection", "close"),
        ("x-api-key", gateway.key),
        ("anthropic-version", "2023-06-01"),
        ("transfer-encoding", "chunked"),
    ]
    data = head("POST /v1/messages HTTP/1.1", pairs) + chunked(pieces)
    assert exchange(gateway.port, data).status == 200
    assert _arrived(sandbox, 1) == [_digest(body)]


def test_compressed_body_arrives_byte_for_byte(
    ana: httpx.Client, sandbox: Sandbox
) -> None:
    body = bytes(range(256)) * 40
    ana.post("/v1/messages", content=body, headers={"content-encoding": "gzip"})
    (entry,) = sandbox.log.after()
    assert entry.body_sha256 == _digest(body)
    assert ("content-encoding", "gzip") in entry.headers


TOOL = {"name": "look", "input_schema": {"properties": {"at": {"type": "string"}}}}
ANSWERS: dict[str, Callable[[], bytes]] = {
    "whole": lambda: json.dumps(ask()).encode(),
    "stream": lambda: json.dumps(ask(stream=True)).encode(),
    "thinking": lambda: json.dumps(
        ask(
            stream=True,
            thinking={"type": "adaptive"},
            tools=[TOOL],
            tool_choice={"type": "any"},
        )
    ).encode(),
    "refused": lambda: b"{}",
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("step", [{}, {"split_every": 7}, {"line_ending": "\r\n"}])
def test_answer_is_byte_for_byte_what_the_account_gets_directly(
    gateway: Gateway,
    sandbox: Sandbox,
    sandbox_server: SandboxServer,
    kind: str,
    step: dict[str, object],
) -> None:
    body = ANSWERS[kind]()
    if step:
        sandbox.script.add("*", {**step, "times": 2})
    relayed = exchange(gateway.port, request(body, key=gateway.key))
    (entry,) = sandbox.log.after()
    port = int(sandbox_server.url.rpartition(":")[2])
    direct = exchange(port, request(body, key=f"sk-sandbox-{entry.account}"))
    said = direct.body
    if kind == "refused":  # it carries an id that is new each time
        (_, own) = sandbox.log.after()
        said = said.replace(own.request_id.encode(), entry.request_id.encode())
    assert relayed.is_whole
    assert relayed.status == direct.status
    assert relayed.header("content-type") == direct.header("content-type")
    assert relayed.body == said


def test_answer_of_many_megabytes_is_byte_for_byte_the_same(
    gateway: Gateway, sandbox: Sandbox, sandbox_server: SandboxServer
) -> None:
    sandbox.script.add("*", {"frames": 40_000, "times": 2})
    body = json.dumps(ask(stream=True)).encode()
    relayed = exchange(gateway.port, request(body, key=gateway.key))
    (entry,) = sandbox.log.after()
    port = int(sandbox_server.url.rpartition(":")[2])
    direct = exchange(port, request(body, key=f"sk-sandbox-{entry.account}"))
    assert len(direct.body) > 4_000_000
    assert relayed.body == direct.body


def test_answer_that_is_no_json_passes_as_it_is(
    relaying_gateway: Gateway, sandbox: Sandbox
) -> None:
    page = "<html><body>Just a moment… 你好</body></html>"
    sandbox.script.add("*", {"status": 403, "body": page})
    with caller(relaying_gateway) as client:
        answer = client.post("/v1/messages", json=ask())
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.content == page.encode()
