"""What an operator changes is noticed at once, without a restart."""

from collections.abc import Iterator

import httpx
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end import gateway as gateways
from tests.end_to_end.checks import assert_envelope
from tests.end_to_end.gateway import Furnished, Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import Answer, ask, exchange, request

pytestmark = pytest.mark.processes

# A reading of the database each second, and a little for the reading itself.
NOTICED_SECONDS = 1.5


@pytest.fixture
def empty_gateway(
    empty_template: Furnished,
    sandbox_server: SandboxServer,
    sandbox: Sandbox,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("empty")
    url = sandbox_server.url
    with gateways.running(empty_template, directory, upstream_url=url) as gateway:
        yield gateway


def served(gateway: Gateway, key: str = "") -> Answer:
    return exchange(gateway.port, request(ask(), key=key or gateway.key))


def deactivate(gateway: Gateway, name: str) -> None:
    gateway.operate(
        f"lifecycle.deactivate(Account.objects.get(name={name!r}), actor='test',"
        " reason='a test', now=timezone.now())"
    )


def test_pool_that_fills_and_empties_is_noticed(empty_gateway: Gateway) -> None:
    gateway = empty_gateway

    def becomes(status: str) -> None:
        until(
            lambda: gateway.health()["status"] == status, within_seconds=NOTICED_SECONDS
        )

    assert gateway.health()["status"] == "unhealthy"
    answer = served(gateway)
    assert_envelope(answer, 503, "api_error")
    assert "add_account" in answer.json()["error"]["message"]

    gateway.add_account("ada")
    becomes("degraded")
    assert served(gateway).status == 200

    gateway.add_account("grace")
    becomes("healthy")

    deactivate(gateway, "ada")
    becomes("degraded")
    assert served(gateway).status == 200

    deactivate(gateway, "grace")
    becomes("unhealthy")
    answer = served(gateway)
    assert_envelope(answer, 503, "api_error")
    assert "2 inactive" in answer.json()["error"]["message"]


def test_health_says_status_and_version_and_nothing_else(gateway: Gateway) -> None:
    answer = httpx.get(f"{gateway.url}/health", trust_env=False)
    assert answer.status_code == 200
    assert answer.json() == {"status": "healthy", "version": answer.json()["version"]}
    assert answer.json()["version"]


def test_new_key_works_at_once(gateway: Gateway) -> None:
    key = gateway.new_key("brand new")
    assert served(gateway, key).status == 200


def test_conversation_leaves_an_account_that_is_deactivated(
    template: Furnished,
    sandbox_server: SandboxServer,
    sandbox: Sandbox,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("leaving")
    url = sandbox_server.url
    with gateways.running(template, directory, upstream_url=url) as gateway:
        assert served(gateway).status == 200
        assert served(gateway).status == 200
        first, second = (entry.account for entry in sandbox.log.after())
        assert first == second
        deactivate(gateway, str(first))

        def has_moved() -> bool:
            assert served(gateway).status == 200
            return sandbox.log.after()[-1].account != first

        until(has_moved, within_seconds=NOTICED_SECONDS)
        settled = sandbox.log.after()[-1].account
        assert served(gateway).status == 200
        assert sandbox.log.after()[-1].account == settled
