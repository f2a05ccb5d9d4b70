import dataclasses
from datetime import timedelta

import pytest
from django.db import connection

from accounts import pool
from accounts.models import Account
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Cipher, WrongEncryptionKeyError
from claudeproxy.secretfiles import new_fernet_key
from tests.factories import NOW, make_account

pytestmark = pytest.mark.django_db


def test_an_empty_pool_is_no_accounts():
    assert pool.load() == ()


def test_accounts_come_whole_and_in_the_order_of_their_ids():
    first = make_account("z", secret="sk-1")
    second = make_account(
        "a",
        kind=AccountKind.OAUTH,
        status=AccountStatus.RATE_LIMITED,
        secret="token",
        rate_limited_until=NOW,
        recovered_at=NOW - timedelta(days=1),
        expires_at=NOW + timedelta(hours=1),
    )
    loaded = pool.load()

    assert [account.id for account in loaded] == [first.pk, second.pk]
    assert loaded[0].credential.reveal() == "sk-1"
    assert loaded[1].credential.reveal() == "token"
    assert (loaded[1].name, loaded[1].kind) == ("a", AccountKind.OAUTH)
    assert loaded[1].status is AccountStatus.RATE_LIMITED
    assert loaded[1].rate_limited_until == NOW
    assert loaded[1].recovered_at == NOW - timedelta(days=1)
    assert loaded[1].expires_at == NOW + timedelta(hours=1)


def test_loading_takes_one_query(django_assert_num_queries):
    for number in range(5):
        make_account(f"account-{number}")
    with django_assert_num_queries(1):
        pool.load()


def test_a_pooled_account_cannot_be_changed_and_shows_no_secret():
    make_account(secret="sk-ant-shown")
    (account,) = pool.load()

    assert "sk-ant-shown" not in repr(account)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(account, "name", "other")  # noqa: B010  # mypy forbids it as well


def test_one_account_that_cannot_be_read_leaves_the_others_usable(monkeypatch):
    make_account("readable", secret="sk-1")
    lost = make_account("lost")
    strange = Cipher([new_fernet_key()]).encrypt("x")
    table = Account._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET api_key = %s WHERE id = %s",  # noqa: S608  # ours
            [strange, lost.pk],
        )
    readable, unreadable = pool.load()

    assert readable.credential.reveal() == "sk-1"
    with pytest.raises(WrongEncryptionKeyError):
        unreadable.credential.reveal()
