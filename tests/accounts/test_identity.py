"""Whose an account is, and that nobody is here twice."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from accounts import registration
from accounts.errors import IdentityError
from accounts.models import Account, AccountEvent
from accounts.oauth import Identity, TokenSet
from accounts.status import AccountStatus
from claudeproxy.crypto import Secret
from tests.factories import NOW

pytestmark = pytest.mark.django_db

DOROTHY = Identity("orbits", "Orbits", "dorothy", "dorothy@example.org")
KATHERINE = Identity("orbits", "Orbits", "katherine", "katherine@example.org")
DOROTHY_AT_HOME = Identity("home", "Home", "dorothy", "dorothy@example.org")
NOBODY_KNOWN = Identity("orbits", "Orbits")


def tokens(text="a"):
    return TokenSet(Secret(text), Secret(text + "-refresh"), NOW + timedelta(hours=8))


def add(name, identity):
    return registration.add_oauth(name, tokens(name), identity, actor="grace", now=NOW)


def add_key(name, key, **options):
    return registration.add_api_key(
        name, Secret(key), actor="grace", now=NOW, **options
    )


def sign_in_again(account, identity):
    registration.sign_in_again(account, tokens("new"), identity, actor="grace", now=NOW)


def names():
    return [account.name for account in Account.objects.all()]


def test_a_holder_is_here_once_in_an_organization():
    add("first", DOROTHY)
    with pytest.raises(IdentityError, match="'first', which is here already"):
        add("second", DOROTHY)

    assert names() == ["first"]
    assert AccountEvent.objects.count() == 1


@pytest.mark.parametrize("other", [KATHERINE, DOROTHY_AT_HOME])
def test_another_holder_or_another_organization_is_another_account(other):
    add("first", DOROTHY)
    add("second", other)

    assert names() == ["first", "second"]


def test_accounts_whose_holder_is_not_known_are_not_called_the_same():
    add("first", NOBODY_KNOWN)
    add("second", NOBODY_KNOWN)

    assert names() == ["first", "second"]


@pytest.mark.parametrize("first", ["", "orbits"])
@pytest.mark.parametrize("second", ["", "orbits"])
def test_a_key_is_here_once_whether_or_not_its_organization_was_known(first, second):
    add_key("first", "sk-ant-1", organization_uuid=first)
    with pytest.raises(IdentityError, match="'first', which is here already"):
        add_key("second", "sk-ant-1", organization_uuid=second)

    assert names() == ["first"]


def test_another_key_of_an_organization_is_another_account():
    add_key("first", "sk-ant-1", organization_uuid="orbits")
    add_key("second", "sk-ant-2", organization_uuid="orbits")

    assert names() == ["first", "second"]


def test_a_key_is_not_in_the_name_of_its_holder():
    account = add_key("first", "sk-ant-1")

    assert account.holder.startswith("key:")
    assert "sk-ant-1" not in account.holder


def test_who_loses_the_race_for_a_holder_is_told_and_stores_nothing():
    others = iter([("winner", DOROTHY)])

    def another_first(execute, sql, params, many, context):
        if sql.startswith("SAVEPOINT") and (other := next(others, None)):
            add(*other)
        return execute(sql, params, many, context)

    with (
        connection.execute_wrapper(another_first),
        pytest.raises(IdentityError, match="'winner', which is here already"),
    ):
        add("late", DOROTHY)

    assert names() == ["winner"]


# --- signing in again


def test_the_same_holder_may_sign_in_again():
    account = add("first", DOROTHY)
    sign_in_again(account, DOROTHY)

    assert Account.objects.get().access_token == Secret("new")


def test_a_holder_whose_name_has_changed_is_the_same():
    account = add("first", DOROTHY)
    sign_in_again(account, Identity("orbits", "Orbits Ltd", "dorothy", "d@new.org"))

    assert Account.objects.get().holder_name == "d@new.org"


@pytest.mark.parametrize("who", [KATHERINE, DOROTHY_AT_HOME, NOBODY_KNOWN, Identity()])
def test_nobody_else_may_sign_in_again_and_nothing_changes(who):
    account = add("first", DOROTHY)
    Account.objects.update(status=AccountStatus.INVALID)
    before = Account.objects.values().get()
    with pytest.raises(IdentityError, match=r"belongs to dorothy@.* in Orbits"):
        sign_in_again(account, who)

    assert Account.objects.values().get() == before
    assert AccountEvent.objects.count() == 1


def test_an_account_of_somebody_unknown_becomes_the_first_ones_who_signs_in():
    account = add("first", NOBODY_KNOWN)
    sign_in_again(account, DOROTHY)
    row: Any = Account.objects.get()

    assert (row.organization_uuid, row.holder) == ("orbits", "dorothy")


def test_an_account_of_somebody_unknown_does_not_become_a_second_of_somebody():
    add("first", DOROTHY)
    account = add("second", NOBODY_KNOWN)
    with pytest.raises(IdentityError, match="'first', which is here already"):
        sign_in_again(account, DOROTHY)

    assert Account.objects.get(pk=account.pk).access_token == Secret("second")


@pytest.mark.parametrize(
    ("status", "after"),
    [
        (AccountStatus.ACTIVE, AccountStatus.ACTIVE),
        (AccountStatus.INACTIVE, AccountStatus.INACTIVE),
        (AccountStatus.INVALID, AccountStatus.ACTIVE),
    ],
)
def test_signing_in_again_mends_what_was_invalid_and_no_more(status, after):
    account = add("first", DOROTHY)
    Account.objects.update(status=status)
    sign_in_again(account, DOROTHY)

    assert Account.objects.get().status == account.status == after


def test_signing_in_again_does_not_end_a_rate_limit():
    account = add("first", DOROTHY)
    until = NOW + timedelta(hours=1)
    Account.objects.update(status=AccountStatus.RATE_LIMITED, rate_limited_until=until)
    sign_in_again(account, DOROTHY)

    assert Account.objects.get().rate_limited_until == until


@pytest.mark.parametrize("identity", [NOBODY_KNOWN, KATHERINE])
def test_the_same_tokens_are_not_here_twice_whosever_they_are(identity):
    add("first", Identity())
    with pytest.raises(IdentityError, match="'first' has these tokens already"):
        registration.add_oauth(
            "second", tokens("first"), identity, actor="grace", now=NOW
        )

    assert names() == ["first"]


def test_signing_in_again_elsewhere_is_refused_even_if_the_holder_was_not_known():
    account = add("first", NOBODY_KNOWN)
    with pytest.raises(IdentityError, match="Nothing was changed"):
        sign_in_again(account, DOROTHY_AT_HOME)

    account.refresh_from_db()
    assert account.organization_uuid == "orbits"
