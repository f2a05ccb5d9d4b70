from collections.abc import Iterator
from typing import Any

import pytest

from sessions_limit.models import ClientSession, SessionScope
from tests.sessions_limit import stores


@pytest.fixture(scope="module", params=stores.NAMES)
def words(request: Any, tmp_path_factory: Any, django_db_blocker: Any) -> Iterator[Any]:
    """A store of each kind in turn, as words that open it."""
    with (
        django_db_blocker.unblock(),
        stores.store(request.param, tmp_path_factory.mktemp("sessions")) as words,
    ):
        yield words


@pytest.fixture
def backend(words: dict[str, str], django_db_blocker: Any) -> Iterator[Any]:
    """A backend of each kind in turn, on an empty store."""
    with django_db_blocker.unblock(), stores.opened(words) as backend:
        yield backend
        backend.offset = 0 * stores.SECOND
        if "redis" in words:
            stores.forget(backend._redis, words["prefix"])
        else:
            alias = stores.alias_of(words)
            ClientSession.objects.using(alias).all().delete()
            SessionScope.objects.using(alias).all().delete()
