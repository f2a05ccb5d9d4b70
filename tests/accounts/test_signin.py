import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connection

from accounts import oauth, pkce, signin
from accounts.errors import (
    AccountError,
    AuthorizationError,
    NoTokenReplyError,
    OAuthNotConfiguredError,
    TokenRefusedError,
)
from accounts.models import Account, AccountEvent, PendingAuthorization
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Secret
from claudeproxy.sandbox.oauth.server import SignIn
from tests.accounts import provider
from tests.factories import NOW, make_account

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
def sandbox(claude, settings):
    return provider.configure(settings, claude)


@pytest.fixture
def begun(sandbox):
    return begin()


def begin(**changes):
    asked = {"owner": "grace", "redirect_uri": provider.REDIRECT, "name": "dorothy"}
    return signin.begin(**{**asked, "now": NOW, **changes})


def query_of(begun):
    return {
        name: value for name, (value,) in parse_qs(urlsplit(begun.url).query).items()
    }


def allow(sandbox, begun, person="dorothy"):
    """Let somebody allow the access; return the code that comes back."""
    asked = query_of(begun)
    sign_in = SignIn(
        redirect_uri=asked["redirect_uri"],
        challenge=asked["code_challenge"],
        state=asked["state"],
        scope=tuple(asked["scope"].split()),
    )
    return Secret(sandbox.oauth.grant_code(sign_in, sandbox.oauth.people[person]))


def finish(begun, code, **changes):
    asked = {"owner": "grace", "state": begun.state, "code": code, "actor": "grace"}
    return signin.finish(**{**asked, "now": NOW, **changes})


def pending() -> Any:
    return PendingAuthorization.objects.get()


# --- begin


def test_the_person_is_sent_off_with_a_state_and_a_challenge(begun):
    asked = query_of(begun)

    assert asked["state"] == begun.state
    assert asked["code_challenge"] == pkce.challenge(pending().verifier.reveal())
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == provider.REDIRECT


def test_what_is_kept_gives_neither_state_nor_verifier_away(begun):
    verifier = pending().verifier.reveal()
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM accounts_pendingauthorization")
        row = str(cursor.fetchall())

    assert begun.state not in row
    assert verifier not in row
    assert verifier not in begun.url


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize("name", ["", "a\nb"])
def test_a_name_that_no_account_can_have_begins_nothing(name):
    with pytest.raises(AccountError, match=r"^name: "):
        begin(name=name)

    assert not PendingAuthorization.objects.exists()


@pytest.mark.usefixtures("sandbox")
def test_a_name_that_is_taken_begins_nothing():
    make_account("dorothy")
    with pytest.raises(AccountError, match="'dorothy' exists already"):
        begin()


def test_without_its_settings_nothing_begins():
    with pytest.raises(OAuthNotConfiguredError):
        begin()

    assert not PendingAuthorization.objects.exists()


@pytest.mark.usefixtures("sandbox")
def test_an_account_with_an_api_key_cannot_sign_in_again():
    with pytest.raises(AuthorizationError, match="has an API key"):
        begin(account=make_account())


# --- finish


def test_a_code_becomes_an_account(sandbox, begun):
    account = finish(begun, allow(sandbox, begun))
    row: Any = Account.objects.get()
    holder = sandbox.oauth.people["dorothy"]
    event = AccountEvent.objects.get()

    assert row == account
    assert (row.name, row.kind) == ("dorothy", AccountKind.OAUTH)
    assert row.status == AccountStatus.ACTIVE
    assert sandbox.oauth.find_token(row.access_token.reveal()).account is holder
    assert sandbox.oauth.is_family_alive(row.refresh_token.reveal())
    assert row.expires_at - NOW == timedelta(hours=8)
    assert (event.actor, event.reason) == ("grace", "added")


def test_an_account_knows_whose_it_is(sandbox, begun):
    row = finish(begun, allow(sandbox, begun))
    person = sandbox.oauth.people["dorothy"]

    assert (row.holder, row.holder_name) == (person.holder_id, person.email)
    assert row.organization_uuid == person.organization_id
    assert row.organization_name == person.organization_name


def test_without_a_profile_the_token_answer_says_whose_it_is(sandbox, begun):
    sandbox.script.add("dorothy", {"path": "/api/oauth/profile", "status": 503})
    row = finish(begun, allow(sandbox, begun))

    assert row.holder == sandbox.oauth.people["dorothy"].holder_id


def test_signing_in_again_gives_the_same_account_new_tokens(sandbox):
    account = provider.signed_in(sandbox, status=AccountStatus.INVALID)
    again = begin(account=account)
    found = finish(again, allow(sandbox, again))
    row: Any = Account.objects.get()

    assert found.pk == row.pk == account.pk
    assert row.status == AccountStatus.ACTIVE
    assert row.access_token != account.access_token
    assert sandbox.oauth.is_family_alive(row.refresh_token.reveal())
    assert AccountEvent.objects.get().reason == "signed in again"


# --- the state


def refused(begun, code, **changes):
    with pytest.raises(AuthorizationError, match=r"^state: ") as caught:
        finish(begun, code, **changes)
    return str(caught.value)


def test_a_state_works_once(sandbox, begun):
    code = allow(sandbox, begun)
    finish(begun, code)

    assert "has been used" in refused(begun, code)
    assert len(sandbox.oauth.token_requests()) == 1


def test_a_state_that_was_not_given_out_is_refused(sandbox, begun):
    code = allow(sandbox, begun)
    for state in ("", "another", begun.state[:-1]):
        refused(begun, code, state=state)

    assert sandbox.oauth.token_requests() == []


def test_a_state_belongs_to_who_began(sandbox, begun):
    code = allow(sandbox, begun)
    refused(begun, code, owner="mallory")

    # Nor does that keep its owner from using it.
    assert finish(begun, code).name == "dorothy"


def test_a_state_works_for_ten_minutes(sandbox, begun):
    code = allow(sandbox, begun)

    assert finish(begun, code, now=NOW + 10 * MINUTE - SECOND)


def test_a_state_works_no_longer_than_ten_minutes(sandbox, begun):
    code = allow(sandbox, begun)

    assert "ten minutes" in refused(begun, code, now=NOW + 10 * MINUTE)
    assert sandbox.oauth.token_requests() == []


@pytest.mark.django_db(transaction=True)
def test_of_two_who_come_back_at_once_one_wins(sandbox, begun):
    code = allow(sandbox, begun)

    def come_back(_):
        try:
            return finish(begun, code).name
        except AuthorizationError:
            return "refused"
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        found = sorted(threads.map(come_back, range(4)))

    assert found == ["dorothy"] + ["refused"] * 3
    assert len(sandbox.oauth.token_requests()) == 1


def test_sign_ins_that_never_came_back_are_forgotten(sandbox, begun):
    begin(name="radia", now=NOW + MINUTE)

    assert signin.prune(now=NOW + 10 * MINUTE - SECOND) == 0
    assert signin.prune(now=NOW + 10 * MINUTE) == 1
    assert pending().account_name == "radia"


def test_beginning_forgets_what_never_came_back(sandbox, begun):
    begin(name="radia", now=NOW + 10 * MINUTE)

    assert pending().account_name == "radia"


def test_a_sign_in_that_was_denied_is_used_up(sandbox, begun):
    signin.abandon(owner="grace", state=begun.state, now=NOW)

    refused(begun, allow(sandbox, begun))


# --- what goes wrong


def nothing_stored():
    return not Account.objects.exists() and not AccountEvent.objects.exists()


def test_a_sign_in_without_a_code_asks_nobody(sandbox, begun):
    with pytest.raises(AuthorizationError, match=r"^code: "):
        finish(begun, Secret(""))

    assert sandbox.oauth.token_requests() == []


def test_a_code_that_is_refused_stores_nothing(sandbox, begun):
    with pytest.raises(TokenRefusedError, match="code: unknown"):
        finish(begun, Secret("another"))

    assert nothing_stored()


def test_a_code_of_another_sign_in_does_not_fit_the_verifier(sandbox, begun):
    stolen = allow(sandbox, begin(owner="mallory", name="of mallory"))
    with pytest.raises(TokenRefusedError, match="code_verifier"):
        finish(begun, stolen)

    assert nothing_stored()


@pytest.mark.parametrize("step", [{"status": 503}, {"body": "<h1>Hello"}])
def test_a_provider_in_trouble_stores_nothing(sandbox, begun, step):
    provider.script(sandbox, step)
    with pytest.raises(NoTokenReplyError):
        finish(begun, allow(sandbox, begun))

    assert nothing_stored()


@pytest.mark.parametrize("kind", ["invalid_grant", "server_error"])
def test_what_the_provider_quotes_is_not_repeated(sandbox, begun, kind):
    verifier, code = pending().verifier.reveal(), allow(sandbox, begun)
    quoted = {"code": code.reveal(), "verifier": verifier, "state": begun.state}
    error = {"status": 400, "error_type": kind, "error_message": json.dumps(quoted)}
    provider.script(sandbox, error)
    with pytest.raises((TokenRefusedError, NoTokenReplyError)) as caught:
        finish(begun, code)

    assert str(caught.value).count("[secret]") == 3
    assert not any(text in str(caught.value) for text in quoted.values())


def test_a_name_that_was_taken_meanwhile_stores_nothing(sandbox, begun):
    make_account("dorothy")
    with pytest.raises(AccountError, match="'dorothy' exists already"):
        finish(begun, allow(sandbox, begun))

    assert Account.objects.count() == 1


def test_an_account_that_was_deleted_meanwhile_does_not_come_back(sandbox):
    account = provider.signed_in(sandbox)
    again = begin(account=account)
    account.delete()

    refused(again, allow(sandbox, again))
    assert nothing_stored()


def test_an_account_deleted_while_its_code_is_exchanged_does_not_come_back(
    sandbox, monkeypatch
):
    account = provider.signed_in(sandbox)
    again = begin(account=account)
    code = allow(sandbox, again)
    ask = oauth.get_profile

    def delete_then_ask(access_token):
        Account.objects.all().delete()
        return ask(access_token)

    monkeypatch.setattr(oauth, "get_profile", delete_then_ask)
    with pytest.raises(AccountError, match="was deleted meanwhile"):
        finish(again, code)

    assert nothing_stored()
