from datetime import timedelta

import pytest

from claudeproxy.crypto import Secret
from clients import issuing, keys
from clients.errors import ClientKeyError
from clients.models import ClientKey, ClientKeyRole
from tests.factories import NOW, make_client_key

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)


def test_a_key_is_shown_once_and_only_its_digest_is_kept():
    issued = issuing.issue("alice", ClientKeyRole.USER)
    row = ClientKey.objects.get()
    text = issued.key.reveal()

    assert issued.row == row
    assert isinstance(issued.key, Secret)
    assert keys.is_intact(text)
    assert bytes(row.digest) == keys.digest(text)
    assert text not in str(ClientKey.objects.values().get())
    assert text not in repr(issued)


def test_a_key_has_the_role_and_the_end_it_was_given():
    issuing.issue("root", ClientKeyRole.ADMIN, expires_at=NOW)
    row = ClientKey.objects.get()

    assert (row.role, row.expires_at, row.revoked_at) == ("admin", NOW, None)


def test_a_name_is_taken_once():
    make_client_key("alice")
    with pytest.raises(ClientKeyError, match="'alice' exists already"):
        issuing.issue(" alice ", ClientKeyRole.USER)

    assert ClientKey.objects.count() == 1


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x00", "x" * 101])
def test_what_cannot_be_a_name_is_refused(name):
    with pytest.raises(ClientKeyError, match=r"^name: "):
        issuing.issue(name, ClientKeyRole.USER)

    assert not ClientKey.objects.exists()


def test_a_key_is_revoked_once():
    row = make_client_key().row

    assert issuing.revoke(row, now=NOW) is True
    assert issuing.revoke(row, now=NOW + SECOND) is False
    assert ClientKey.objects.get().revoked_at == NOW


def test_a_key_expires_now():
    row = make_client_key().row

    assert issuing.expire(row, now=NOW) is True
    assert not ClientKey.objects.get().is_valid(NOW)


def test_a_key_that_has_ended_does_not_end_again():
    row = make_client_key(expires_at=NOW).row

    assert issuing.expire(row, now=NOW + SECOND) is False
    assert ClientKey.objects.get().expires_at == NOW


def test_a_revoked_key_does_not_expire():
    row = make_client_key().row
    issuing.revoke(row, now=NOW)
    row.refresh_from_db()

    assert issuing.expire(row, now=NOW) is False


@pytest.mark.parametrize("limit", [None, 1, 100_000])
def test_a_key_may_have_a_session_limit_of_its_own(limit):
    issuing.issue("alice", ClientKeyRole.USER, session_limit=limit)
    assert ClientKey.objects.get().session_limit == limit

    issuing.limit_sessions(ClientKey.objects.get(), 7)
    issuing.limit_sessions(ClientKey.objects.get(), limit)
    assert ClientKey.objects.get().session_limit == limit


@pytest.mark.parametrize("limit", [0, -1, 100_001])
def test_what_cannot_be_a_session_limit_is_refused(limit):
    with pytest.raises(ClientKeyError, match=r"^session_limit: "):
        issuing.issue("alice", ClientKeyRole.USER, session_limit=limit)
    row = make_client_key().row
    with pytest.raises(ClientKeyError, match=r"^session_limit: "):
        issuing.limit_sessions(row, limit)
