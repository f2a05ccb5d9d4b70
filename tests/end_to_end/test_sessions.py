"""How many clients a gateway serves at a time, and what becomes of the others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end import gateway as gateways
from tests.end_to_end.checks import assert_envelope
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import Answer, Wire, ask, exchange, frames, parse, request

_REVOKE = (
    "from sessions_limit import backends\n"
    "store = backends.from_settings()\n"
    "print([store.revoke(one.id, block={block}) for one in store.live()])"
)


@pytest.fixture
def limited(
    template: Furnished,
    sandbox_server: SandboxServer,
    sandbox: Sandbox,
    tmp_path: Path,
) -> Iterator[Gateway]:
    """A gateway with room for two clients."""
    with gateways.running(
        template,
        tmp_path,
        upstream_url=sandbox_server.url,
        SESSION_MAX_CONCURRENT="2",
        SESSION_TTL="90s",
    ) as gateway:
        yield gateway


def call(gateway: Gateway, user_agent: str, *headers: tuple[str, str]) -> Answer:
    named = (("user-agent", user_agent), *headers)
    return exchange(gateway.port, request(ask(), key=gateway.key, headers=named))


def test_one_client_more_than_may_be_is_refused_and_touches_no_account(
    limited: Gateway, sandbox: Sandbox
) -> None:
    assert call(limited, "one").status == call(limited, "two").status == 200
    asked = sandbox.log.last_seq
    answer = call(limited, "three")

    assert_envelope(answer, 429, "rate_limit_error")
    assert "SESSION_MAX_CONCURRENT" in answer.json()["error"]["message"]
    assert 60 < int(answer.header("retry-after") or 0) <= 90
    assert answer.header("x-should-retry") == "false"
    assert sandbox.log.last_seq == asked
    assert call(limited, "one").status == 200


def test_looking_at_the_models_takes_no_place(limited: Gateway) -> None:
    for name in ("one", "two", "three", "four"):
        look = request(
            key=limited.key,
            method="GET",
            target="/v1/models",
            headers=(("user-agent", name),),
        )
        assert exchange(limited.port, look).status == 200
    assert call(limited, "five").status == call(limited, "six").status == 200


def test_forged_header_makes_no_client_another(limited: Gateway) -> None:
    for number in range(5):
        forged = ("x-forwarded-for", f"198.51.100.{number}")
        assert call(limited, "one", forged).status == 200


def test_key_with_a_limit_of_its_own_takes_no_place_of_the_others(
    limited: Gateway,
) -> None:
    assert call(limited, "one").status == call(limited, "two").status == 200
    own = limited.manage("create_client_key", "own", "--session-limit", "1", "--json")
    key = own.partition('"key": "')[2].partition('"')[0]
    by_own_key = request(ask(), key=key)

    assert exchange(limited.port, by_own_key).status == 200
    other = request(ask(), key=key, headers=(("user-agent", "another"),))
    assert_envelope(exchange(limited.port, other), 429, "rate_limit_error")


def test_revoked_client_sees_its_stream_end_with_an_error_and_frees_its_place(
    limited: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"hang": 6})
    with Wire(limited.port) as wire:
        wire.send(request(ask(stream=True), key=limited.key))
        wire.receive_until(b"event: content_block_delta")
        printed = limited.manage(
            "shell", "--verbosity", "0", "--command", _REVOKE.format(block=None)
        )
        assert "True" in printed
        answer = parse(wire.rest())

    last = frames(answer.body)[-1]
    assert last.startswith(b"event: error\n")
    assert b"operator of this gateway ended this session" in last
    assert until(lambda: limited.requests_logged()[-1:])[0]["end"] == "revoked"
    assert call(limited, "two").status == call(limited, "three").status == 200


def test_blocked_client_is_told_so_and_not_to_try_again(limited: Gateway) -> None:
    assert call(limited, "one").status == 200
    block = "__import__('datetime').timedelta(hours=1)"
    limited.manage(
        "shell", "--verbosity", "0", "--command", _REVOKE.format(block=block)
    )
    answer = until(lambda: _refused(limited))

    assert_envelope(answer, 403, "permission_error")
    assert answer.header("x-should-retry") == "false"
    assert call(limited, "two").status == 200


def _refused(gateway: Gateway) -> Answer | None:
    answer = call(gateway, "one")
    return answer if answer.status != 200 else None


def test_sdk_raises_its_rate_limit_error(limited: Gateway) -> None:
    assert call(limited, "one").status == call(limited, "two").status == 200
    client = anthropic.Anthropic(base_url=limited.url, api_key=limited.key)
    with client, pytest.raises(anthropic.RateLimitError) as raised:
        client.messages.create(
            model="claude-opus-5-5",
            max_tokens=10,
            messages=[{"role": "user", "content": "Hello"}],
        )
    assert raised.value.request_id == raised.value.response.headers["request-id"]


def test_running_stream_keeps_its_session_alive(
    template: Furnished, sandbox_server: SandboxServer, tmp_path: Path
) -> None:
    ttl_seconds = 10
    frames_a_second, seconds = 10, ttl_seconds + 2
    sandbox_server.sandbox.reset()
    sandbox_server.sandbox.script.add(
        "*",
        {
            "frames": frames_a_second * seconds,
            "frame_delay_ms": 1000 / frames_a_second,
        },
    )
    settings: dict[str, Any] = {
        "SESSION_MAX_CONCURRENT": "1",
        "SESSION_TTL": f"{ttl_seconds}s",
    }
    with (
        gateways.running(
            template, tmp_path, upstream_url=sandbox_server.url, **settings
        ) as gateway,
        Wire(gateway.port) as wire,
    ):
        wire.send(request(ask(stream=True), key=gateway.key))
        answer = parse(wire.rest())
        assert frames(answer.body)[-1].startswith(b"event: message_stop\n")
        # It lives on for a while after its end, too.
        assert call(gateway, "another").status == 429


def test_the_log_says_whose_session_a_request_belongs_to(limited: Gateway) -> None:
    ids = [call(limited, name).header("request-id") or "" for name in ("one", "two")]
    sessions = [limited.logged(request_id)["session"] for request_id in ids]

    assert all(sessions)
    assert len(set(sessions)) == 2
