import pytest

from accounts import registration
from accounts.errors import AccountError
from accounts.models import Account, AccountEvent
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Secret
from tests.factories import NOW, make_account


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("ada", "ada"),
        ("  ada  ", "ada"),
        ("Ada's account (2)", "Ada's account (2)"),
        ("日本", "日本"),
        ("a" * 100, "a" * 100),
    ],
)
def test_a_name_is_trimmed(name, clean):
    assert registration.clean_name(name) == clean


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x00b", "a\x1b[31m", "a" * 101])
def test_what_cannot_be_a_name_is_refused(name):
    with pytest.raises(AccountError, match=r"^name: "):
        registration.clean_name(name)


@pytest.mark.parametrize("text", ["sk-ant-x", " sk-ant-x\n", "\tsk-ant-x\r\n"])
def test_a_key_is_trimmed(text):
    assert registration.clean_api_key(text) == Secret("sk-ant-x")


@pytest.mark.parametrize(
    "text", ["", " \n", "sk ant", "sk\nant", "sk\tant", "sk-é", "sk\x00"]
)
def test_what_cannot_travel_in_a_header_is_refused_and_not_repeated(text):
    with pytest.raises(AccountError, match=r"^api_key: ") as caught:
        registration.clean_api_key(text)

    assert not text.strip() or text not in str(caught.value)


@pytest.mark.django_db
def test_a_new_account_is_active_with_its_first_event():
    account = registration.add_api_key(
        "ada", Secret("sk-ant-x"), actor="grace", now=NOW
    )
    row = Account.objects.get()
    event = AccountEvent.objects.get()

    assert row == account
    assert (row.kind, row.status) == (AccountKind.API_KEY, AccountStatus.ACTIVE)
    assert row.api_key == Secret("sk-ant-x")
    assert row.status_changed_at == NOW
    assert (event.actor, event.to_status, event.at) == ("grace", "active", NOW)


@pytest.mark.django_db
def test_a_name_that_is_taken_is_refused():
    make_account("ada")
    with pytest.raises(AccountError, match="'ada' exists already"):
        registration.require_free_name("ada")
    registration.require_free_name("grace")


@pytest.mark.django_db
def test_losing_the_race_for_a_name_stores_nothing():
    make_account("ada")
    with pytest.raises(AccountError, match="'ada' exists already"):
        registration.add_api_key("ada", Secret("sk-ant-x"), actor="grace", now=NOW)

    assert Account.objects.count() == 1
    assert not AccountEvent.objects.exists()
