import pytest
from django.db import IntegrityError, transaction

from sessions_limit.models import ClientSession, SessionScope
from tests.factories import NOW


def make(**fields):
    return ClientSession.objects.create(
        scope="global",
        digest="0123456789abcdef",
        key_id=1,
        first_seen_at=NOW,
        last_seen_at=NOW,
        expires_at=NOW,
        **fields,
    )


@pytest.mark.django_db
def test_a_session_is_there_once_in_its_scope():
    make()
    with pytest.raises(IntegrityError), transaction.atomic():
        make()


@pytest.mark.django_db
def test_rows_show_what_they_are():
    assert str(make()) == "global 01234567"
    assert str(SessionScope(name="key:7", clock_at=NOW)) == "key:7"
