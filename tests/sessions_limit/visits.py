"""Clients that come to the gateway, for tests of what operators see of them."""

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.conf import settings

from clients.models import ClientKey
from sessions_limit import backends, keys
from sessions_limit.addresses import Address
from sessions_limit.backends.base import Entry, Renewal
from sessions_limit.backends.redis import PREFIX, RedisBackend
from sessions_limit.keys import SessionId
from tests.sessions_limit import stores

NOBODY_THERE = "redis://127.0.0.1:9/0"  # discard


def visit(
    address: Address,
    *,
    key: ClientKey,
    user_agent: str = "claude-cli/2.1",
    running: int = 1,
    requests: int = 0,
    account_names: tuple[str, ...] = (),
    ttl: timedelta = stores.TTL,
) -> SessionId:
    """Let a client call, into the store that the settings name."""
    client = keys.identify(
        address,
        user_agent.encode(),
        key_id=key.pk,
        key_name=key.name,
        parts=("ip", "user_agent"),
        ipv6_prefix=64,
    )
    scope = keys.scope_of(key.pk, key.session_limit, shared_limit=10_000)
    session = SessionId(scope.name, client.digest)
    with opened() as store:
        held = stores.hold(running=running)
        store.acquire(Entry(session, client, 10_000, ttl, held))
        told = Renewal(
            *(session, client, 10_000, ttl, stores.hold(running=running)),
            generation=0,
            requests=requests,
            account_names=account_names,
        )
        store.renew([told])
    return session


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """The store that the settings name; one in Redis takes newcomers at once."""
    store: Any = backends.from_settings()
    if settings.REDIS_URL:
        store.close()
        store = RedisBackend(
            settings.REDIS_URL, ttl=stores.TTL, settling=0 * stores.SECOND
        )
    try:
        yield store
    finally:
        if settings.REDIS_URL:
            store.close()


@contextlib.contextmanager
def in_redis() -> Iterator[str]:
    """The address of a Redis database without sessions; skips where there is none."""
    url = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/15")
    url = f"{url.rpartition('/')[0]}/13"  # the gateway's own names, but not its place
    client: redis.Redis = redis.Redis.from_url(url, socket_connect_timeout=2)
    try:
        client.ping()
    except redis.RedisError as error:
        if os.environ.get("REQUIRE_REDIS") == "1":
            pytest.fail(f"no Redis server: {error}")
        pytest.skip(f"no Redis server: {error}")
    stores.forget(client, PREFIX)
    try:
        yield url
    finally:
        stores.forget(client, PREFIX)
        client.close()
