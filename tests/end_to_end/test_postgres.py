"""The main case with PostgreSQL instead of the embedded database."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import psycopg
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end import gateway as gateways
from tests.end_to_end import postgres
from tests.end_to_end.checks import refused
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.streaming import open_streams
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import ask, exchange, request

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server() -> Iterator[psycopg.Connection[Any]]:
    with postgres.connected() as connection:
        yield connection


@pytest.fixture(scope="module")
def database(server: psycopg.Connection[Any]) -> Iterator[str]:
    with postgres.database(server) as name:
        yield name


@pytest.fixture(scope="module")
def shared_postgres_gateway(
    database: str,
    sandbox_server: SandboxServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    directory: Path = tmp_path_factory.mktemp("postgres")
    url = f"{postgres.SERVER.rpartition('/')[0]}/{database}"
    template = gateways.furnish(
        tmp_path_factory.mktemp("postgres-template"),
        accounts=("ada", "grace"),
        DATABASE_URL=url,
    )
    with gateways.running(
        template, directory, upstream_url=sandbox_server.url, DATABASE_URL=url
    ) as gateway:
        yield gateway


@pytest.fixture
def postgres_gateway(shared_postgres_gateway: Gateway, sandbox: Sandbox) -> Gateway:
    return shared_postgres_gateway


def test_sdk_works(postgres_gateway: Gateway) -> None:
    with anthropic.Anthropic(
        base_url=postgres_gateway.url, api_key=postgres_gateway.key, max_retries=0
    ) as client:
        whole = client.messages.create(**ask())
        with client.messages.stream(**ask()) as stream:
            assert stream.get_final_message().to_dict() == whole.to_dict()
        assert client.models.list().data


def test_new_key_works_at_once_and_a_revoked_one_no_more(
    postgres_gateway: Gateway,
) -> None:
    key = postgres_gateway.new_key("short-lived")
    data = request(ask(), key=key)
    assert exchange(postgres_gateway.port, data).status == 200
    postgres_gateway.operate(
        "issuing.revoke(ClientKey.objects.get(name='short-lived'), now=timezone.now())"
    )
    answer = until(lambda: refused(postgres_gateway, key), within_seconds=5)
    assert answer.status == 401


def test_streams_hold_no_connection(
    postgres_gateway: Gateway,
    sandbox: Sandbox,
    server: psycopg.Connection[Any],
    database: str,
) -> None:
    def connections() -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        row = server.execute(query, [database]).fetchone()
        assert row
        return int(row[0])

    exchange(postgres_gateway.port, request(ask(), key=postgres_gateway.key))
    before = connections()
    with open_streams(postgres_gateway, sandbox, 100):
        assert connections() <= max(before, 2)


def test_database_that_goes_away_stops_no_request(
    postgres_gateway: Gateway,
    sandbox: Sandbox,
    server: psycopg.Connection[Any],
    database: str,
) -> None:
    server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false".encode())
    try:
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [database],
        )
        until(lambda: "snapshot_kept" in postgres_gateway.log_text, within_seconds=15)
        data = request(ask(), key=postgres_gateway.key)
        assert exchange(postgres_gateway.port, data).status == 200
    finally:
        server.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true".encode())
    key = until(lambda: postgres_gateway.new_key("after"))
    data = request(ask(), key=key)
    until(
        lambda: exchange(postgres_gateway.port, data).status == 200, within_seconds=15
    )
