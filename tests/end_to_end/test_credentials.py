"""Whose request it is; and no credential but the account's goes to the upstream."""

import httpx
import pytest

from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.wire import Answer, ask, exchange, request

pytestmark = pytest.mark.processes

PLANTED = "planted-Vq7hT2"


def call(gateway: Gateway, *pairs: tuple[str, str]) -> Answer:
    return exchange(gateway.port, request(ask(), headers=pairs))


def test_no_credential_of_the_caller_reaches_the_upstream(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    answer = call(
        gateway,
        ("authorization", f"Bearer {gateway.key}"),
        ("x-api-key", f"sk-ant-{PLANTED}"),
        ("x-api-key", gateway.keys["ben"]),
        ("cookie", f"sessionid={PLANTED}; key={gateway.key}"),
        ("proxy-authorization", f"Basic {PLANTED}"),
        ("x-goog-api-key", PLANTED),
        ("x-auth-token", gateway.key),
        ("x-anthropic-key", PLANTED),
        ("api-key", PLANTED),
        ("x-forwarded-authorization", f"Bearer {PLANTED}"),
        ("x-amz-security-token", PLANTED),
    )
    assert answer.status == 200
    (entry,) = sandbox.log.after()
    assert entry.credential_headers == ["x-api-key"]
    assert f"[account {entry.account}]" in dict(entry.headers).values()
    said = repr(entry.headers)
    assert PLANTED not in said
    assert not any(key in said for key in gateway.keys.values())


@pytest.mark.parametrize(
    ("bearer", "plain", "whose"),
    [
        ("ana", "ben", "ana"),
        ("ben", "ana", "ben"),
        ("ana", None, "ana"),
        (None, "ben", "ben"),
        ("stranger", "ben", "ben"),
        ("ana", "stranger", "ana"),
    ],
)
def test_first_valid_key_counts_and_the_bearer_comes_first(
    gateway: Gateway, bearer: str | None, plain: str | None, whose: str
) -> None:
    keys = {**gateway.keys, "stranger": "sk-ant-of-somebody-else"}
    # The other order on the wire, which must not matter.
    pairs = [("x-api-key", keys[plain])] if plain else []
    pairs += [("authorization", f"Bearer {keys[bearer]}")] if bearer else []
    answer = call(gateway, *pairs)
    assert answer.status == 200
    assert gateway.logged(answer.header("request-id") or "")["key"] == whose


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_scheme_may_be_written_in_any_case(gateway: Gateway, scheme: str) -> None:
    assert call(gateway, ("authorization", f"{scheme} {gateway.key}")).status == 200


def test_only_the_bearer_scheme_carries_a_key(gateway: Gateway) -> None:
    assert call(gateway, ("authorization", f"Basic {gateway.key}")).status == 401
    assert call(gateway, ("authorization", gateway.key)).status == 401


@pytest.mark.parametrize("name", ["api_key", "key", "x-api-key", "token"])
def test_key_in_the_query_is_no_key(
    gateway: Gateway, sandbox: Sandbox, name: str
) -> None:
    target = f"/v1/messages?{name}={gateway.key}"
    answer = exchange(gateway.port, request(ask(), target=target))
    assert answer.status == 401
    assert sandbox.log.after() == []


def test_cookie_of_one_answer_goes_with_no_later_request(
    ana: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"headers": {"set-cookie": "planted=1; Path=/"}})
    assert "set-cookie" not in ana.post("/v1/messages", json=ask()).headers
    ana.post("/v1/messages", json=ask())
    assert "cookie" not in dict(sandbox.log.after()[-1].headers)
