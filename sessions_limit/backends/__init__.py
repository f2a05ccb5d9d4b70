"""Where sessions are kept: in Redis if there is one, else in the database."""

from collections.abc import Iterator
from contextlib import contextmanager

from claudeproxy.conf import conf
from sessions_limit.backends.base import Backend
from sessions_limit.backends.database import DatabaseBackend


def from_settings() -> Backend:
    """Open the store that the settings name."""
    if conf.redis_url:
        # Its client takes 50 ms to load, which every process and command would pay.
        from sessions_limit.backends.redis import RedisBackend

        return RedisBackend(conf.redis_url, ttl=conf.session_ttl)
    return DatabaseBackend()


@contextmanager
def opened() -> Iterator[Backend]:
    """The store for one visit; StoreAwayError if it does not answer."""
    store = from_settings()
    try:
        yield store
    finally:
        store.close()
