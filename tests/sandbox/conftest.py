"""One sandbox server for all tests of this directory, reset before each."""

from collections.abc import Iterator

import httpx
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox


@pytest.fixture(scope="session")
def shared_server() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def server(shared_server: SandboxServer) -> SandboxServer:
    shared_server.sandbox.reset()
    return shared_server


@pytest.fixture
def sandbox(server: SandboxServer) -> Sandbox:
    return server.sandbox


@pytest.fixture
def ada(server: SandboxServer) -> Iterator[httpx.Client]:
    """A client with the key of the account ada."""
    headers = {"x-api-key": "sk-sandbox-ada", "anthropic-version": "2023-06-01"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as client:
        yield client


@pytest.fixture
def control(server: SandboxServer) -> Iterator[httpx.Client]:
    """A client of the control side."""
    url = f"{server.url}/_sandbox"
    with httpx.Client(base_url=url, trust_env=False) as client:
        yield client
