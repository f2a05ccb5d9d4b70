from datetime import timedelta

import pytest
from django.db import IntegrityError

from accounts import ownership
from accounts.models import OwnedObject
from accounts.ownership import Possession
from accounts.status import ObjectKind
from tests.factories import NOW, make_account

pytestmark = pytest.mark.django_db

FILE, THREAD = ObjectKind.FILE, ObjectKind.THREAD
LATER = NOW + timedelta(hours=1)


def test_an_object_is_found_with_its_account():
    account = make_account()
    ownership.remember([Possession("file_1", FILE, account.pk)], now=NOW)

    found = ownership.owners(["file_1", "file_2"], now=NOW)
    assert found == {"file_1": (account.pk, None)}


def test_the_latest_sight_of_an_object_counts():
    ada, grace = make_account(), make_account("grace")
    ownership.remember([Possession("x", FILE, ada.pk, LATER)], now=NOW)
    ownership.remember(
        [Possession("x", FILE, ada.pk), Possession("x", THREAD, grace.pk)], now=NOW
    )

    assert ownership.owners(["x"], now=LATER) == {"x": (grace.pk, None)}


def test_many_objects_are_stored_with_one_query(django_assert_num_queries):
    account = make_account()
    seen = [Possession(f"file_{i}", FILE, account.pk) for i in range(100)]
    with django_assert_num_queries(1):
        ownership.remember(seen, now=NOW)

    assert len(ownership.owners([p.object_id for p in seen], now=NOW)) == 100


def test_an_account_that_is_gone_owns_nothing():
    account = make_account()
    ownership.remember([Possession("file_1", FILE, account.pk)], now=NOW)
    account.delete()

    assert ownership.owners(["file_1"], now=NOW) == {}


@pytest.mark.django_db(transaction=True)
def test_an_account_that_is_not_there_is_given_nothing():
    with pytest.raises(IntegrityError):
        ownership.remember([Possession("file_1", FILE, 404)], now=NOW)


def test_what_has_expired_is_not_found_and_goes():
    account = make_account()
    seen = [
        Possession("msg_1", THREAD, account.pk, LATER),
        Possession("file_1", FILE, account.pk),
    ]
    ownership.remember(seen, now=NOW)

    assert set(ownership.owners(["msg_1", "file_1"], now=LATER)) == {"file_1"}
    assert ownership.prune(now=NOW) == 0
    assert ownership.prune(now=LATER) == 1
    assert [row.object_id for row in OwnedObject.objects.all()] == ["file_1"]


@pytest.mark.parametrize(
    ("kind", "is_other_account", "is_kept"),
    [(FILE, False, False), (THREAD, False, True), (FILE, True, True)],
)
def test_only_what_its_account_has_no_more_is_forgotten(
    kind, is_other_account, is_kept
):
    account, other = make_account(), make_account("grace")
    ownership.remember([Possession("x", FILE, account.pk)], now=NOW)
    asked = other if is_other_account else account
    ownership.forget("x", kind, account_id=asked.pk)

    assert bool(ownership.owners(["x"], now=NOW)) is is_kept


@pytest.mark.parametrize("text", ["x' or 1=1 --", "%", "é" * 200, ""])
def test_an_id_is_a_value_and_nothing_else(text):
    account = make_account()
    ownership.remember([Possession("file_1", FILE, account.pk)], now=NOW)

    assert ownership.owners([text], now=NOW) == {}
