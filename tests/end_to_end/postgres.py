"""A PostgreSQL server that is there already, and databases of the tests' own in it."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

SERVER = os.environ.get(
    "TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres"
)


@contextlib.contextmanager
def connected() -> Iterator[psycopg.Connection[Any]]:
    """Connect to the server; a test that has none is skipped, or fails in CI."""
    try:
        connection = psycopg.connect(SERVER, connect_timeout=2, autocommit=True)
    except psycopg.OperationalError as error:
        what = f"no PostgreSQL server: {str(error).splitlines()[0]}"
        if os.environ.get("REQUIRE_POSTGRES") == "1":
            pytest.fail(what)
        pytest.skip(what)
    with connection:
        yield connection


@contextlib.contextmanager
def database(server: psycopg.Connection[Any]) -> Iterator[str]:
    """The name of an empty database, dropped at the end."""
    name = f"claudeproxy_test_{uuid.uuid4().hex[:12]}"
    server.execute(f"CREATE DATABASE {name}".encode())
    try:
        yield name
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
