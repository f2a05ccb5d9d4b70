"""What tests of every app share: the settings of hypothesis, and a fake Claude."""

import re
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from claudeproxy.sandbox.server import SandboxServer

# A shared machine is slow at times; what is slow always is found by the benchmark.
hypothesis.settings.register_profile(
    "tests",
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")


_RANDOM_PART = re.compile("[0-9A-Za-z]{40,}")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Keep keys out of the names of tests: each process of the tests makes others."""
    if isinstance(val, str) and _RANDOM_PART.search(val):
        return _RANDOM_PART.sub("key", val)
    return None


# Each is one test that takes long: at the end, all but one processor would wait for it.
_FIRST = ("tests/usage/test_postgres.py",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(_FIRST))


@pytest.fixture(scope="session")
def _claude_server() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture
def claude(_claude_server: SandboxServer, settings: Any) -> Iterator[SandboxServer]:
    """The sandbox, fresh, as the upstream that the settings name."""
    _claude_server.sandbox.reset()
    settings.UPSTREAM_BASE_URL = _claude_server.url
    yield _claude_server
    _claude_server.sandbox.reset()
