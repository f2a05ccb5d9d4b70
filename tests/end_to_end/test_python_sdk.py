"""The official Python SDK works through the gateway as it does without."""

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import pytest

from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.wire import ask

pytestmark = pytest.mark.processes

CREDENTIALS = ("api_key", "auth_token")


def options(gateway: Gateway, credential: str) -> dict[str, Any]:
    return {
        "base_url": gateway.url,
        "max_retries": 0,
        "timeout": 20,
        credential: gateway.key,
    }


@pytest.fixture(params=CREDENTIALS)
def client(
    gateway: Gateway, request: pytest.FixtureRequest
) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(**options(gateway, request.param)) as client:
        yield client


@pytest.fixture
def one_client(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(**options(gateway, "api_key")) as client:
        yield client


@pytest.fixture
def relaying_client(relaying_gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(**options(relaying_gateway, "api_key")) as client:
        yield client


AsyncClient = Callable[[], anthropic.AsyncAnthropic]


@pytest.fixture(params=CREDENTIALS)
def async_client(gateway: Gateway, request: pytest.FixtureRequest) -> AsyncClient:
    return lambda: anthropic.AsyncAnthropic(**options(gateway, request.param))


def test_sdk_gets_the_same_answer_streamed_and_whole(
    client: anthropic.Anthropic,
) -> None:
    whole = client.messages.create(**ask())
    with client.messages.stream(**ask()) as stream:
        text = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    assert streamed.to_dict() == whole.to_dict()
    assert whole.content[0].type == "text"
    assert text == whole.content[0].text


async def test_async_sdk_gets_the_same_answer_streamed_and_whole(
    async_client: AsyncClient,
) -> None:
    async with async_client() as client:
        whole = await client.messages.create(**ask())
        async with client.messages.stream(**ask()) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            streamed = await stream.get_final_message()
    assert streamed.to_dict() == whole.to_dict()
    assert whole.content[0].type == "text"
    assert text == whole.content[0].text


def test_sdk_counts_tokens(client: anthropic.Anthropic) -> None:
    body = ask()
    del body["max_tokens"]
    assert client.messages.count_tokens(**body).input_tokens > 0


async def test_async_sdk_counts_tokens(async_client: AsyncClient) -> None:
    body = ask()
    del body["max_tokens"]
    async with async_client() as client:
        assert (await client.messages.count_tokens(**body)).input_tokens > 0


def test_sdk_pages_through_the_models_of_one_account(
    client: anthropic.Anthropic,
) -> None:
    paged = [model.id for model in client.models.list(limit=1)]
    assert len(paged) == len(set(paged)) == 4


async def test_async_sdk_pages_through_the_models_of_one_account(
    async_client: AsyncClient,
) -> None:
    async with async_client() as client:
        paged = [model.id async for model in client.models.list(limit=1)]
    assert len(paged) == len(set(paged)) == 4


def test_sdk_retrieves_each_model_it_was_shown(client: anthropic.Anthropic) -> None:
    for model in client.models.list():
        assert client.models.retrieve(model.id).display_name == model.display_name


async def test_async_sdk_retrieves_a_model(async_client: AsyncClient) -> None:
    async with async_client() as client:
        model = await client.models.retrieve("claude-opus-5-5")
    assert model.display_name == "Claude Opus 5.5"


def test_sdk_raises_authentication_error_for_a_wrong_key(gateway: Gateway) -> None:
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key="wrong") as client,
        pytest.raises(anthropic.AuthenticationError, match="not a key of this gateway"),
    ):
        client.messages.create(**ask())


async def test_async_sdk_raises_authentication_error_for_a_wrong_key(
    gateway: Gateway,
) -> None:
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="no") as client:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            await client.messages.create(**ask())
    assert caught.value.request_id


def test_sdk_raises_not_found_for_an_unknown_model(
    one_client: anthropic.Anthropic,
) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model: claude-none"):
        one_client.messages.create(**ask(model="claude-none"))


def test_sdk_raises_bad_request_with_the_words_of_the_upstream(
    one_client: anthropic.Anthropic,
) -> None:
    with pytest.raises(
        anthropic.BadRequestError, match="messages: at least one message is required"
    ):
        one_client.messages.create(**ask(messages=[]))


@pytest.mark.parametrize(
    ("status", "kind", "raised"),
    [
        (400, "invalid_request_error", anthropic.BadRequestError),
        (403, "permission_error", anthropic.PermissionDeniedError),
        (404, "not_found_error", anthropic.NotFoundError),
        (413, "request_too_large", anthropic.APIStatusError),
        (500, "api_error", anthropic.InternalServerError),
        (529, "overloaded_error", anthropic.InternalServerError),
    ],
)
def test_sdk_raises_its_class_for_an_error_of_the_upstream(
    relaying_client: anthropic.Anthropic,
    sandbox: Sandbox,
    status: int,
    kind: str,
    raised: type[anthropic.APIStatusError],
) -> None:
    sandbox.script.add("*", {"status": status, "error_message": f"It is {kind}."})
    with pytest.raises(raised, match=f"It is {kind}") as caught:
        relaying_client.messages.create(**ask())
    assert caught.value.status_code == status
    assert caught.value.type == kind


def test_request_id_of_an_answer_is_the_gateways_own(
    one_client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    answer = one_client.messages.create(**ask())
    (entry,) = sandbox.log.after()
    assert answer._request_id
    assert answer._request_id != entry.request_id


def test_request_id_of_a_relayed_error_is_the_gateways_own(
    relaying_client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"status": 529})
    with pytest.raises(anthropic.InternalServerError) as caught:
        relaying_client.messages.create(**ask())
    (entry,) = sandbox.log.after()
    assert caught.value.request_id
    assert caught.value.request_id != entry.request_id
    body = caught.value.body
    assert isinstance(body, dict)
    assert body["request_id"] == entry.request_id  # the body passes as it is


def test_relayed_error_keeps_its_advice_about_trying_again(
    ana: httpx.Client, sandbox: Sandbox
) -> None:
    advice = {"retry-after": "7", "retry-after-ms": "7000", "x-should-retry": "false"}
    sandbox.script.add("*", {"status": 529, "headers": advice})
    answer = ana.post("/v1/messages", json=ask())
    assert {name: answer.headers.get(name) for name in advice} == advice


def test_sdk_tries_again_after_an_overload(
    relaying_gateway: Gateway, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"status": 529, "headers": {"retry-after-ms": "1"}})
    settings = options(relaying_gateway, "api_key") | {"max_retries": 1}
    with anthropic.Anthropic(**settings) as c:
        assert c.messages.create(**ask()).stop_reason == "end_turn"
    assert [entry.status for entry in sandbox.log.after()] == [529, 200]
