"""One sandbox and a few gateways for all tests of this directory."""

import os
import resource
from collections.abc import Iterator

import httpx
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end import gateway as gateways
from tests.end_to_end.gateway import Furnished, Gateway


@pytest.fixture(scope="session", autouse=True)
def _no_foreign_settings() -> Iterator[None]:
    """Keep whatever steers an SDK in the developer's shell away from the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("ANTHROPIC_") or name.lower().endswith("_proxy"):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def _room_for_connections() -> None:
    """Let a thousand connections be open here, and in the gateways started here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8_192 if hard == resource.RLIM_INFINITY else min(8_192, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pytest.fixture(scope="session")
def sandbox_server() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def sandbox(sandbox_server: SandboxServer) -> Sandbox:
    """The stand-in for Claude behind the gateways, as new."""
    sandbox_server.sandbox.reset()
    return sandbox_server.sandbox


@pytest.fixture(scope="session")
def empty_template(tmp_path_factory: pytest.TempPathFactory) -> Furnished:
    return gateways.furnish(tmp_path_factory.mktemp("empty"), accounts=())


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Furnished:
    accounts = ("ada", "grace", "edsger")
    return gateways.furnish(tmp_path_factory.mktemp("template"), accounts=accounts)


@pytest.fixture(scope="session")
def shared_gateway(
    template: Furnished,
    sandbox_server: SandboxServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    with gateways.running(
        template, tmp_path_factory.mktemp("gateway"), upstream_url=sandbox_server.url
    ) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared_gateway: Gateway, sandbox: Sandbox) -> Gateway:
    """A gateway with three accounts whose upstream is the sandbox, as new."""
    return shared_gateway


@pytest.fixture(scope="session")
def shared_hasty_gateway(
    template: Furnished,
    sandbox_server: SandboxServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    with gateways.running(
        template,
        tmp_path_factory.mktemp("hasty"),
        upstream_url=sandbox_server.url,
        REQUEST_TIMEOUT="300ms",
    ) as gateway:
        yield gateway


@pytest.fixture
def hasty_gateway(shared_hasty_gateway: Gateway, sandbox: Sandbox) -> Gateway:
    """The same, but it does not wait long for anybody."""
    return shared_hasty_gateway


@pytest.fixture(scope="session")
def shared_relaying_gateway(
    template: Furnished,
    sandbox_server: SandboxServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    with gateways.running(
        template,
        tmp_path_factory.mktemp("relaying"),
        upstream_url=sandbox_server.url,
        RETRY_ENABLED="off",
    ) as gateway:
        yield gateway


@pytest.fixture
def relaying_gateway(shared_relaying_gateway: Gateway, sandbox: Sandbox) -> Gateway:
    """The same, but it asks once: what the upstream says is what the caller gets."""
    return shared_relaying_gateway


@pytest.fixture
def ana(gateway: Gateway) -> Iterator[httpx.Client]:
    """A plain HTTP client of the gateway with a valid key."""
    with caller(gateway) as client:
        yield client


def caller(gateway: Gateway, name: str = "ana") -> httpx.Client:
    return httpx.Client(
        base_url=gateway.url,
        headers={"x-api-key": gateway.keys[name], "anthropic-version": "2023-06-01"},
        trust_env=False,
        timeout=20,
    )
