"""A client without any credential."""

from collections.abc import Iterator

import httpx
import pytest

from claudeproxy.sandbox.server import SandboxServer


@pytest.fixture
def http(server: SandboxServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client
