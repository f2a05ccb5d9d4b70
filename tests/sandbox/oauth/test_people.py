"""Who can sign in."""

import uuid

import pytest

from claudeproxy.sandbox.accounts import Organization
from claudeproxy.sandbox.errors import ControlError
from claudeproxy.sandbox.oauth.people import People, Person
from claudeproxy.sandbox.state import Sandbox


def test_two_holders_share_an_organization() -> None:
    people = People()
    one, two = people["dorothy"], people["katherine"]
    assert one.organization == two.organization
    assert one.holder_id != two.holder_id


def test_one_holder_has_accounts_in_two_organizations() -> None:
    people = People()
    work, home = people["hedy-work"], people["hedy-home"]
    assert work.holder_id == home.holder_id
    assert work.email == home.email
    assert work.organization_id != home.organization_id


def test_ids_are_the_same_after_a_restart() -> None:
    ids = [(person.holder_id, person.organization_id) for person in People()]
    again = [(person.holder_id, person.organization_id) for person in People()]
    assert again == ids
    assert all(uuid.UUID(found) for pair in ids for found in pair)
    assert len(set(ids)) == len(ids) == 5


def test_nobody_is_called_like_an_account_with_a_key() -> None:
    sandbox = Sandbox()
    names = {account.name for account in sandbox.accounts}
    assert not names & {person.name for person in sandbox.oauth.people}


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(ControlError, match="person: nobody here is called nobody"):
        People()["nobody"]


def test_others_can_be_added_until_the_reset() -> None:
    sandbox = Sandbox()
    organization = Organization.named("Own", "claude_team")
    sandbox.oauth.people.add(Person("own", "Own Person", organization))
    assert sandbox.oauth.issue("own").access_token
    sandbox.reset()
    assert "own" not in sandbox.oauth.people
