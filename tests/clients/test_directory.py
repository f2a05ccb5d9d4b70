import pytest

from clients import directory, issuing, keys
from clients.directory import KnownKey
from clients.models import ClientKeyRole
from tests.factories import NOW, make_client_key

pytestmark = pytest.mark.django_db


def test_a_key_is_found_by_its_digest():
    issued = make_client_key("alice", ClientKeyRole.ADMIN, expires_at=NOW)
    known = directory.load()[keys.digest(issued.key.reveal())]

    assert known == KnownKey(
        id=issued.row.pk, name="alice", role="admin", expires_at=NOW, is_revoked=False
    )


def test_keys_that_have_ended_stay_known():
    revoked = make_client_key("revoked")
    issuing.revoke(revoked.row, now=NOW)
    make_client_key("expired", expires_at=NOW)
    known = directory.load()

    assert len(known) == 2
    assert known[keys.digest(revoked.key.reveal())].is_revoked


def test_nobody_is_known_at_first():
    assert directory.load() == {}


def test_loading_takes_one_query(django_assert_num_queries):
    for number in range(5):
        make_client_key(f"key-{number}")
    with django_assert_num_queries(1):
        directory.load()


def test_the_session_limit_of_a_key_is_known():
    issued = make_client_key()
    issuing.limit_sessions(issued.row, 5)
    known = directory.load()[keys.digest(issued.key.reveal())]

    assert known.session_limit == 5
