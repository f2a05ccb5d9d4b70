"""The gateway in front of a mock of Claude that others wrote and that knows no gateway.

What it says is compared with what it says when asked directly.
Source: the package `llmock` on PyPI, whose `/anthropic` paths speak the Messages API.
"""

import contextlib
import importlib.util
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from tests.end_to_end import gateway as gateways
from tests.end_to_end.checks import assert_envelope
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import Answer, ask, exchange, frames, request

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        importlib.util.find_spec("llmock") is None, reason="llmock is not installed"
    ),
]

START_SECONDS = 20
PREFIX = "/anthropic"
SETTINGS: dict[str, Any] = {
    "RETRY_BASE_DELAY": "0s",
    "RETRY_JITTER_MAX": "0s",
    "RETRY_GATE_SECONDS": "1m",
}
# Made anew for each answer.
_ID = re.compile(rb'"(msg|toolu)_[0-9a-f]{24}"')


class Mock:
    """A process of llmock's, on a port that stays its own."""

    def __init__(self, **settings: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port: int = taken.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = os.environ | settings
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "uvicorn", "llmock.main:app"]
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port), "--log-level", "error"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
        )
        try:
            until(self._is_there, within_seconds=START_SECONDS)
        except AssertionError:
            self.kill()
            raise

    def _is_there(self) -> bool:
        assert self._process.poll() is None
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/health", trust_env=False).is_success
        return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def reset(self) -> None:
        httpx.post(f"{self.url}/_llmock/reset", trust_env=False).raise_for_status()

    def expect(self, **behaviour: Any) -> None:
        """Script what the next messages meet."""
        match = {"path": f"{PREFIX}/v1/messages"}
        httpx.post(
            f"{self.url}/_llmock/scenario",
            json={"behaviors": [behaviour | {"match": match}]},
            trust_env=False,
        ).raise_for_status()

    def recover(self) -> None:
        """Forget what was scripted."""
        httpx.delete(f"{self.url}/_llmock/scenario", trust_env=False).raise_for_status()

    def requests(self) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/_llmock/requests", trust_env=False)
        return list(answer.json()["requests"])


@contextlib.contextmanager
def mock_running(**settings: str) -> Iterator[Mock]:
    mock = Mock(**settings)
    try:
        yield mock
    finally:
        mock.kill()


@pytest.fixture(scope="module")
def shared_mock() -> Iterator[Mock]:
    with mock_running() as mock:
        yield mock


@pytest.fixture
def mock(shared_mock: Mock) -> Mock:
    shared_mock.reset()
    return shared_mock


@pytest.fixture(scope="module")
def shared(
    template: Furnished, shared_mock: Mock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with gateways.running(
        template,
        tmp_path_factory.mktemp("llmock"),
        upstream_url=shared_mock.url + PREFIX,
        web_only=True,
        **SETTINGS,
    ) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared: Gateway, mock: Mock) -> Gateway:
    """A gateway whose upstream is the mock."""
    return shared


@contextlib.contextmanager
def gateway_before(
    mock: Mock, template: Furnished, directory: Path, **settings: str
) -> Iterator[Gateway]:
    """Run a gateway of the test's own."""
    with gateways.running(
        template,
        directory,
        upstream_url=mock.url + PREFIX,
        web_only=True,
        **SETTINGS | settings,
    ) as gateway:
        yield gateway


def directly(mock: Mock, body: dict[str, Any] | bytes = b"", **rest: Any) -> Answer:
    target = PREFIX + rest.pop("target", "/v1/messages")
    headers = [("content-type", "application/json")]
    data = request(body, key="sk-any", target=target, headers=headers, **rest)
    return exchange(mock.port, data)


def relayed(
    gateway: Gateway, body: dict[str, Any] | bytes = b"", **rest: Any
) -> Answer:
    headers = [("content-type", "application/json")]
    data = request(body, key=gateway.key, headers=headers, **rest)
    return exchange(gateway.port, data)


def nameless(answer: Answer) -> tuple[int, str | None, bytes]:
    """What of an answer does not change from one to the next."""
    body = _ID.sub(rb'"\1_"', answer.body)
    assert answer.is_whole
    return answer.status, answer.header("content-type"), body


TOOL = {
    "name": "get_weather",
    "description": "Tells the weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
BODIES: dict[str, dict[str, Any]] = {
    "text": ask("How are you?"),
    "unicode": ask("Grüße, 你好 👋"),
    "system": ask("Hello", system=[{"type": "text", "text": "Be brief."}]),
    "tool": ask("What is the weather in Oslo?", tools=[TOOL]),
    "invalid": {"model": "claude-opus-5-5", "messages": []},
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", BODIES)
def test_answer_is_the_same_bytes_as_without_the_gateway(
    gateway: Gateway, mock: Mock, name: str, stream: bool
) -> None:
    body = BODIES[name] | {"stream": stream}
    assert nameless(relayed(gateway, body)) == nameless(directly(mock, body))


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v1/models"),
        # The mock has no such paths, and says so.
        ("GET", "/v1/models/claude-opus-4-6"),
        ("POST", "/v1/messages/count_tokens"),
    ],
)
def test_other_paths_answer_the_same_bytes_too(
    gateway: Gateway, mock: Mock, method: str, target: str
) -> None:
    body = ask() if method == "POST" else b""
    direct = directly(mock, body, method=method, target=target)
    assert nameless(relayed(gateway, body, method=method, target=target)) == nameless(
        direct
    )


def client_of(url: str, key: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=20)


def without_ids(message: anthropic.types.Message) -> dict[str, Any]:
    said = message.to_dict()
    said.pop("id")
    for block in said["content"]:  # type: ignore[attr-defined]
        block.pop("id", None)
    return said


@pytest.mark.parametrize("name", ["text", "unicode", "system", "tool"])
def test_sdk_gets_the_same_message_as_without_the_gateway(
    gateway: Gateway, mock: Mock, name: str
) -> None:
    body = BODIES[name]
    with (
        client_of(mock.url + PREFIX, "sk-any") as direct,
        client_of(gateway.url, gateway.key) as through,
    ):
        whole = without_ids(through.messages.create(**body))
        assert whole == without_ids(direct.messages.create(**body))
        with (
            through.messages.stream(**body) as events,
            direct.messages.stream(**body) as direct_events,
        ):
            streamed = without_ids(events.get_final_message())
            assert streamed == without_ids(direct_events.get_final_message())


async def test_async_sdk_reads_a_stream(gateway: Gateway) -> None:
    async with (
        anthropic.AsyncAnthropic(
            base_url=gateway.url, api_key=gateway.key, max_retries=0
        ) as client,
        client.messages.stream(**ask()) as events,
    ):
        message = await events.get_final_message()
    assert message.stop_reason == "end_turn"


def test_sdk_lists_the_models_of_the_mock(gateway: Gateway, mock: Mock) -> None:
    with client_of(gateway.url, gateway.key) as client:
        listed = [model.id for model in client.models.list()]
    direct = directly(mock, method="GET", target="/v1/models").json()
    assert listed == [model["id"] for model in direct["data"]]


# --- what goes wrong


def states(gateway: Gateway) -> list[str]:
    path = f"file:{gateway.data_dir / 'claudeproxy.sqlite3'}?mode=ro"
    with closing(sqlite3.connect(path, uri=True)) as connection:
        rows = connection.execute("SELECT status FROM accounts_account ORDER BY id")
        return [status for (status,) in rows]


@pytest.mark.parametrize("status", [500, 503, 504, 529])
def test_error_that_happens_once_is_not_seen(
    gateway: Gateway, mock: Mock, status: int
) -> None:
    mock.expect(type="fail", status=status, retry_after=0)
    answer = relayed(gateway, ask(f"Question {status}", stream=True))
    assert answer.status == 200
    assert frames(answer.body)[-1].startswith(b"event: message_stop\n")
    assert [entry["status"] for entry in mock.requests()] == [status, 200]


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422, 500, 503, 529])
def test_error_that_everybody_gets_is_the_same_as_without_the_gateway(
    gateway: Gateway, mock: Mock, status: int
) -> None:
    mock.expect(type="fail", status=status, times=None, retry_after=0)
    answer = relayed(gateway, ask())
    assert nameless(answer) == nameless(directly(mock, ask()))
    assert answer.header("request-id")
    mock.recover()
    assert relayed(gateway, ask()).status == 200


@pytest.mark.parametrize("kind", ["disconnect", "truncate"])
def test_stream_that_breaks_before_its_content_comes_from_another_account(
    gateway: Gateway, mock: Mock, kind: str
) -> None:
    mock.expect(type="stream_fault", kind=kind, after_chunks=1)
    names = [
        frame.partition(b"\n")[0]
        for frame in frames(relayed(gateway, ask(stream=True)).body)
    ]
    assert names.count(b"event: message_start") == 1
    assert names[-1] == b"event: message_stop"
    assert len(mock.requests()) == 2


# A fault that comes in one read with the first content is none that a caller sees,
# since another account serves: in these two tests all accounts meet it.


@pytest.mark.parametrize("kind", ["disconnect", "truncate"])
def test_sdk_raises_when_a_stream_breaks_in_its_content(
    gateway: Gateway, mock: Mock, kind: str
) -> None:
    mock.expect(type="stream_fault", kind=kind, after_chunks=5, times=None)
    with (
        client_of(gateway.url, gateway.key) as client,
        pytest.raises(anthropic.APIStatusError) as caught,
        client.messages.stream(**ask()) as events,
    ):
        events.get_final_message()
    assert caught.value.type == "api_error"
    assert caught.value.request_id


def test_frame_that_is_no_json_ends_the_stream_with_an_error(
    gateway: Gateway, mock: Mock
) -> None:
    mock.expect(type="stream_fault", kind="malformed", after_chunks=5, times=None)
    with (
        client_of(gateway.url, gateway.key) as client,
        pytest.raises(anthropic.APIStatusError) as caught,
        client.messages.stream(**ask()) as events,
    ):
        events.get_final_message()
    assert caught.value.type == "api_error"


def test_key_that_is_refused_takes_the_account_out_and_another_serves(
    template: Furnished, mock: Mock, tmp_path: Path
) -> None:
    with gateway_before(mock, template, tmp_path) as gateway:
        # Once more after the first time, in case it was a slip.
        mock.expect(type="fail", status=401, times=2)
        assert relayed(gateway, ask()).status == 200
        until(lambda: sorted(states(gateway)) == ["active", "active", "invalid"])
        assert [e["status"] for e in mock.requests()] == [401, 401, 200]


def test_each_account_has_its_own_limit_and_all_are_used(
    template: Furnished, tmp_path: Path
) -> None:
    # The mock counts by key: one message a minute for each.
    with (
        mock_running(LLMOCK_RPM="1") as mock,
        gateway_before(mock, template, tmp_path) as gateway,
    ):
        answers = [relayed(gateway, ask(f"Question {n}")) for n in range(3)]
        assert [answer.status for answer in answers] == [200] * 3
        answer = relayed(gateway, ask("One more"))
        assert_envelope(answer, 429, "rate_limit_error")
        assert 1 <= int(answer.header("retry-after") or 0) <= 60
        # Less than a minute is the limit of a group of models, not of the account.
        assert states(gateway) == ["active"] * 3
        assert [each["status"] for each in mock.requests()] == [200] * 3 + [429] * 3
        assert relayed(gateway, ask("And another")).status == 429
        assert len(mock.requests()) == 6


def test_stream_that_stalls_ends_with_an_error(
    template: Furnished, mock: Mock, tmp_path: Path
) -> None:
    with gateway_before(mock, template, tmp_path, REQUEST_TIMEOUT="1s") as gateway:
        mock.expect(type="stream_fault", kind="stall", after_chunks=5, stall_seconds=20)
        with (
            client_of(gateway.url, gateway.key) as client,
            pytest.raises(anthropic.APIStatusError) as caught,
            client.messages.stream(**ask()) as events,
        ):
            events.get_final_message()
        assert caught.value.type == "timeout_error"


def test_upstream_that_was_killed_is_503_until_it_is_back(
    template: Furnished, tmp_path: Path
) -> None:
    with (
        mock_running() as mock,
        gateway_before(mock, template, tmp_path) as gateway,
    ):
        assert relayed(gateway, ask()).status == 200
        mock.kill()
        for stream in (False, True):
            answer = relayed(gateway, ask(stream=stream))
            assert_envelope(answer, 503, "api_error")
        mock.start()
        answer = relayed(gateway, ask())
        assert answer.status == 200
        assert states(gateway) == ["active"] * 3
