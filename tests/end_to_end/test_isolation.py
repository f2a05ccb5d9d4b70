"""Callers at the same time never see anything of each other."""

import asyncio
import hashlib
import json

import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.wire import Answer, ask, fetch, request

pytestmark = pytest.mark.processes

COUNT = 80


def _body(number: int) -> bytes:
    return json.dumps(ask(f"This is caller {number}.", stream=True)).encode()


def _call(gateway: Gateway, number: int) -> bytes:
    return request(
        _body(number),
        key=gateway.keys["ana" if number % 2 else "ben"],
        headers=[
            ("x-app", f"caller-{number}"),
            ("anthropic-beta", f"caller-{number}"),
            ("user-agent", f"caller-{number}"),
        ],
    )


async def _interleaved(gateway: Gateway, sandbox: Sandbox) -> list[Answer]:
    sandbox.script.add("*", {"frame_delay_ms": 15, "times": COUNT})
    calls = [fetch(gateway.port, _call(gateway, n)) for n in range(COUNT)]
    return await asyncio.gather(*calls)


async def test_each_upstream_request_holds_what_one_caller_sent(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    await _interleaved(gateway, sandbox)
    entries = sandbox.log.after()
    numbers = {hashlib.sha256(_body(n)).hexdigest(): n for n in range(COUNT)}
    assert sorted(numbers[e.body_sha256 or ""] for e in entries) == list(range(COUNT))
    for entry in entries:
        whose = f"caller-{numbers[entry.body_sha256 or '']}"
        sent = dict(entry.headers)
        assert [sent[n] for n in ("x-app", "anthropic-beta", "user-agent")] == [
            whose
        ] * 3


async def test_each_caller_gets_its_own_answer_whole(
    gateway: Gateway, sandbox: Sandbox, sandbox_server: SandboxServer
) -> None:
    answers = await _interleaved(gateway, sandbox)
    accounts = {e.body_sha256: e.account for e in sandbox.log.after()}
    port = int(sandbox_server.url.rpartition(":")[2])
    for number, answer in enumerate(answers):
        body = _body(number)
        account = accounts[hashlib.sha256(body).hexdigest()]
        direct = await fetch(port, request(body, key=f"sk-sandbox-{account}"))
        assert answer.is_whole
        assert answer.body == direct.body


async def test_each_answer_has_a_request_id_of_its_own(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    answers = await _interleaved(gateway, sandbox)
    ids = [answer.header("request-id") for answer in answers]
    assert len(set(ids)) == COUNT
    whose = {gateway.logged(id_ or "")["key"] for id_ in ids[::2]}
    assert whose == {"ben"}
