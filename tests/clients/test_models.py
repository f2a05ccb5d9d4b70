from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from clients import issuing
from clients.models import ClientKey
from clients.querysets import KeyCounts
from tests.factories import NOW, make_client_key

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("expires_at", "is_revoked", "is_valid"),
    [
        (None, False, True),
        (NOW + SECOND, False, True),
        (NOW, False, False),
        (NOW - SECOND, False, False),
        (None, True, False),
        (NOW + SECOND, True, False),
    ],
)
def test_a_key_counts_until_it_ends(expires_at, is_revoked, is_valid):
    row = make_client_key(expires_at=expires_at).row
    if is_revoked:
        issuing.revoke(row, now=NOW)
        row.refresh_from_db()

    assert row.is_valid(NOW) is is_valid
    assert ClientKey.objects.valid(NOW).exists() is is_valid


def test_every_key_is_counted_in_one_state():
    make_client_key("valid")
    make_client_key("later", expires_at=NOW + SECOND)
    make_client_key("expired", expires_at=NOW)
    for name in ("revoked", "revoked and expired"):
        row = make_client_key(name, expires_at=NOW).row
        issuing.revoke(row, now=NOW)

    everything = ClientKey.objects.all()
    assert everything.count_by_state(NOW) == KeyCounts(valid=2, expired=1, revoked=2)
    assert [key.name for key in everything.expired(NOW)] == ["expired"]
    assert everything.revoked().count() == 2


def test_no_keys_are_counted_as_none():
    assert ClientKey.objects.count_by_state(NOW) == KeyCounts(0, 0, 0)


@pytest.mark.parametrize(
    "change",
    [{"role": "owner"}, {"name": "alice"}, {"digest": b"one"}, {"session_limit": 0}],
)
def test_the_database_refuses_an_impossible_key(change):
    ClientKey.objects.create(name="alice", digest=b"one")
    other = ClientKey.objects.create(name="bob", digest=b"two")
    with pytest.raises(IntegrityError), transaction.atomic():
        ClientKey.objects.filter(pk=other.pk).update(**change)


def test_a_key_shows_its_name():
    assert str(make_client_key("alice").row) == "alice"
