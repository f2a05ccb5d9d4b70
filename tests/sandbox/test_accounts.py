"""Who is known, and what is kept of a request's headers."""

import pytest

from claudeproxy.sandbox.accounts import Accounts
from claudeproxy.sandbox.errors import ControlError


def who(*headers: tuple[bytes, bytes]) -> str | None:
    account = Accounts().identify(headers).account
    return account.name if account else None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([(b"x-api-key", b"sk-sandbox-ada")], "ada"),
        ([(b"authorization", b"Bearer sk-sandbox-grace")], "grace"),
        ([(b"authorization", b"bearer sk-sandbox-grace")], "grace"),
        ([(b"authorization", b"Basic sk-sandbox-grace")], None),
        ([(b"authorization", b"sk-sandbox-grace")], None),
        ([], None),
        (
            [
                (b"authorization", b"Bearer sk-sandbox-ada"),
                (b"x-api-key", b"sk-sandbox-edsger"),
            ],
            "edsger",
        ),
    ],
)
def test_a_key_tells_the_account(
    headers: list[tuple[bytes, bytes]], expected: str | None
) -> None:
    assert who(*headers) == expected


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ([], "invalid x-api-key"),
        ([(b"x-api-key", b"unknown")], "invalid x-api-key"),
        ([(b"authorization", b"Bearer unknown")], "invalid bearer token"),
        ([(b"x-api-key", b"sk-sandbox-ada")], None),
    ],
)
def test_a_refusal_names_the_header_that_decided(
    headers: list[tuple[bytes, bytes]], refusal: str | None
) -> None:
    assert Accounts().identify(headers).refusal == refusal


def test_organizations_are_the_same_after_a_restart() -> None:
    first = [account.organization_id for account in Accounts()]
    assert [account.organization_id for account in Accounts()] == first
    assert len(set(first)) == 3


def test_an_account_does_not_show_its_key() -> None:
    assert "sk-" not in repr(Accounts()["ada"])


@pytest.mark.parametrize(
    ("name", "key"), [("ada", "sk-new"), ("new", "sk-sandbox-ada")]
)
def test_name_and_key_are_unique(name: str, key: str) -> None:
    with pytest.raises(ControlError) as caught:
        Accounts().add(name, key)
    assert caught.value.status == 409
    assert key not in str(caught.value)


def test_a_revoked_key_can_be_given_again() -> None:
    accounts = Accounts()
    accounts.revoke("ada")
    assert "ada" not in accounts
    assert accounts.add("ada", "sk-sandbox-ada").name == "ada"
