"""The stores that the tests run on: SQLite in a file, PostgreSQL, Redis.

Each is given as plain words, so that other processes can open the same one.
"""

import contextlib
import os
import uuid
import zlib
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import environ
import psycopg
import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from sessions_limit.backends.base import (
    Answer,
    Backend,
    Entry,
    Hold,
    Renewal,
    Standing,
)
from sessions_limit.backends.database import DatabaseBackend
from sessions_limit.backends.redis import RedisBackend
from sessions_limit.keys import GLOBAL, Client, SessionId

NAMES = ("sqlite", "postgres", "redis")
TTL = timedelta(minutes=5)
SECOND = timedelta(seconds=1)
_POSTGRES = os.environ.get(
    "TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres"
)
_REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/15")


@contextlib.contextmanager
def store(name: str, directory: Path) -> Iterator[dict[str, str]]:
    """An empty store that is gone at the end; skips where there is no server for it."""
    if name == "redis":
        with _redis() as words:
            yield words
        return
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{directory / 'sessions.sqlite3'}"
        if name == "postgres":
            url = stack.enter_context(_postgres())
        words = {"database": url}
        with opened(words):
            alias = alias_of(words)
            call_command("migrate", "sessions_limit", database=alias, verbosity=0)
        yield words


@contextlib.contextmanager
def opened(words: dict[str, str], *, settling: timedelta = 0 * SECOND) -> Iterator[Any]:
    """The backend on a store, in this process."""
    connection: Any
    if "redis" in words:
        backend = RedisBackend(
            words["redis"], ttl=TTL, prefix=words["prefix"], settling=settling
        )
        try:
            yield backend
        finally:
            backend.close()
        return
    database = dict(environ.Env.db_url_config(words["database"]))
    is_sqlite = "sqlite3" in database["ENGINE"]
    database["OPTIONS"] = (
        settings.SQLITE_OPTIONS if is_sqlite else settings.POSTGRES_OPTIONS
    )
    alias = alias_of(words)
    connections.databases[alias] = connections.configure_settings(
        {"default": {}, alias: database}
    )[alias]
    try:
        yield DatabaseBackend(alias)
    finally:
        connection = connections[alias]
        connection.close()
        if not is_sqlite:
            connection.close_pool()
        del connections[alias]
        del connections.databases[alias]


def alias_of(words: dict[str, str]) -> str:
    """What Django calls a database: threads keep what they know under this name."""
    return f"sessions-{zlib.crc32(words['database'].encode())}"


@contextlib.contextmanager
def _postgres() -> Iterator[str]:
    try:
        connection = psycopg.connect(_POSTGRES, connect_timeout=2, autocommit=True)
    except psycopg.OperationalError as error:
        what = f"no PostgreSQL server: {str(error).splitlines()[0]}"
        if os.environ.get("REQUIRE_POSTGRES") == "1":
            pytest.fail(what)
        pytest.skip(what)
    name = f"claudeproxy_sessions_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    with connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield f"{_POSTGRES.rpartition('/')[0]}/{name}"
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextlib.contextmanager
def _redis() -> Iterator[dict[str, str]]:
    client: redis.Redis = redis.Redis.from_url(_REDIS, socket_connect_timeout=2)
    try:
        client.ping()
    except redis.RedisError as error:
        what = f"no Redis server: {error}"
        if os.environ.get("REQUIRE_REDIS") == "1":
            pytest.fail(what)
        pytest.skip(what)
    prefix = f"{{test-{os.getpid()}-{uuid.uuid4().hex[:8]}}}"
    try:
        yield {"redis": _REDIS, "prefix": prefix}
    finally:
        forget(client, prefix)
        client.close()


def forget(client: Any, prefix: str) -> None:
    """Make Redis lose what it knows, as a restart without persistence does."""
    keys = iter(client.scan_iter(f"{prefix}:*", count=1000))
    while some := list(islice(keys, 1000)):
        client.delete(*some)


# --- what is asked of a backend, with what does not matter left out


def client_named(name: str) -> Client:
    return Client(
        digest=name.ljust(32, "_"),
        ip="192.0.2.1",
        user_agent="claude-cli/2.1",
        key_id=7,
        key_name="ana",
    )


def session_id(name: str, scope: str = GLOBAL) -> SessionId:
    return SessionId(scope, client_named(name).digest)


class Sequence:
    """Numbers the reports of all workers of a test."""

    value = 0

    @classmethod
    def next(cls) -> int:
        cls.value += 1
        return cls.value


def hold(worker: str = "w1", running: int = 1, sequence: int | None = None) -> Hold:
    return Hold(worker, running, Sequence.next() if sequence is None else sequence)


def enter(
    backend: Backend,
    name: str,
    *,
    scope: str = GLOBAL,
    limit: int = 3,
    ttl: timedelta = TTL,
    worker: str = "w1",
    running: int = 1,
    sequence: int | None = None,
    max_requests: int = 0,
) -> Answer:
    return backend.acquire(
        Entry(
            id=session_id(name, scope),
            client=client_named(name),
            limit=limit,
            ttl=ttl,
            hold=hold(worker, running, sequence),
            max_requests=max_requests,
        )
    )


def renewal(
    name: str,
    *,
    scope: str = GLOBAL,
    limit: int = 3,
    lifetime: timedelta = TTL,
    generation: int = 0,
    worker: str = "w1",
    running: int = 0,
    sequence: int | None = None,
    requests: int = 0,
    account_names: tuple[str, ...] = (),
) -> Renewal:
    return Renewal(
        id=session_id(name, scope),
        client=client_named(name),
        limit=limit,
        lifetime=lifetime,
        hold=hold(worker, running, sequence),
        generation=generation,
        requests=requests,
        account_names=account_names,
    )


def renew(backend: Backend, name: str, **fields: Any) -> Standing:
    (standing,) = backend.renew([renewal(name, **fields)])
    return standing


def alive(backend: Backend) -> list[str]:
    """The names of the sessions that are alive."""
    return sorted(
        session.id.digest.rstrip("_") for session in backend.live() if session.is_alive
    )
