"""A caller without a valid key learns why, and costs the gateway nothing."""

import asyncio
from collections import Counter

import anthropic
import pytest

from claudeproxy.sandbox.state import Sandbox
from clients import keys
from tests.end_to_end.checks import assert_envelope, refused
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import ask, exchange, fetch, request

pytestmark = pytest.mark.processes


def with_typo(key: str) -> str:
    return key[:10] + ("a" if key[10] != "a" else "b") + key[11:]


def of_the_case(gateway: Gateway, case: str) -> str:
    if case == "typo":
        return with_typo(gateway.key)
    return {
        "none": "",
        "foreign": "sk-ant-api03-something",
        "unknown": keys.generate(),
        "short": "cp_",
        "long": "cp_" + "x" * 10_000,
        "beyond ascii": "cp_\xe9\xff",
        "blank": " ",
    }[case]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("none", "No key was sent"),
        ("blank", "No key was sent"),
        ("foreign", "not a key of this gateway"),
        ("unknown", "does not know this key"),
        ("typo", "typo"),
        ("short", "typo"),
        ("long", "typo"),
        ("beyond ascii", "typo"),
    ],
)
@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
def test_bad_key_is_refused_with_the_reason(
    gateway: Gateway, sandbox: Sandbox, header: str, case: str, words: str
) -> None:
    key = of_the_case(gateway, case)
    value = f"Bearer {key}" if header == "authorization" else key
    answer = exchange(gateway.port, request(ask(), headers=[(header, value)]))
    assert_envelope(answer, 401, "authentication_error")
    assert words in answer.json()["error"]["message"]
    assert answer.header("x-should-retry") == "false"
    assert sandbox.log.after() == []


@pytest.mark.parametrize("target", ["/v1/messages/count_tokens", "/v1/messages"])
def test_bad_key_is_refused_on_every_path(gateway: Gateway, target: str) -> None:
    answer = exchange(gateway.port, request(ask(), key="wrong", target=target))
    assert_envelope(answer, 401, "authentication_error")


def revoke(gateway: Gateway, name: str) -> None:
    gateway.operate(
        f"issuing.revoke(ClientKey.objects.get(name={name!r}), now=timezone.now())"
    )


def test_revoked_key_is_refused_with_the_reason(gateway: Gateway) -> None:
    key = gateway.new_key("to be revoked")
    assert exchange(gateway.port, request(ask(), key=key)).status == 200
    revoke(gateway, "to be revoked")
    answer = until(lambda: refused(gateway, key), within_seconds=5)
    assert_envelope(answer, 401, "authentication_error")
    assert "revoked" in answer.json()["error"]["message"]
    assert answer.header("x-should-retry") == "false"


def test_expired_key_is_refused_with_the_reason(gateway: Gateway) -> None:
    key = gateway.new_key("to expire")
    assert exchange(gateway.port, request(ask(), key=key)).status == 200
    gateway.operate(
        "issuing.expire(ClientKey.objects.get(name='to expire'), now=timezone.now())"
    )
    answer = until(lambda: refused(gateway, key), within_seconds=5)
    assert_envelope(answer, 401, "authentication_error")
    assert "expired" in answer.json()["error"]["message"]


def test_revoked_key_beside_a_valid_one_does_no_harm(gateway: Gateway) -> None:
    revoked = gateway.new_key("old one")
    revoke(gateway, "old one")
    until(lambda: refused(gateway, revoked), within_seconds=5)
    pairs = [("authorization", f"Bearer {revoked}")]
    answer = exchange(gateway.port, request(ask(), key=gateway.key, headers=pairs))
    assert answer.status == 200


def test_sdk_does_not_repeat_a_refused_key(gateway: Gateway) -> None:
    seen = len(gateway.requests_logged())
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key="wrong") as client,
        pytest.raises(anthropic.AuthenticationError) as caught,
    ):
        client.messages.create(**ask())
    gateway.logged(caught.value.request_id or "")
    assert len(gateway.requests_logged()) == seen + 1


async def test_thousand_bad_keys_at_once_are_all_refused_and_leave_nothing(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    worker = gateway.worker()
    await fetch(gateway.port, request(ask(), key=gateway.key))
    descriptors, threads = worker.num_fds(), worker.num_threads()
    seen = len(gateway.log_text)
    bad = [keys.generate() if n % 2 else f"sk-ant-{n}" for n in range(1_000)]
    answers = await asyncio.gather(
        *(fetch(gateway.port, request(ask(), key=key)) for key in bad)
    )
    assert Counter(answer.status for answer in answers) == {401: 1_000}
    until(lambda: worker.num_fds() <= descriptors)
    assert worker.num_threads() <= threads
    log = gateway.log_text[seen:]
    assert "Traceback" not in log
    assert '"level":"error"' not in log
    assert not any(key in log for key in bad)
    assert len(sandbox.log.after()) == 1
