"""Tokens and models of accounts in the admin."""

import html
import re
from datetime import timedelta

import pytest
from cryptography.fernet import Fernet
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts import tokens
from accounts.admin import REFRESH_WORDS
from accounts.models import Account
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Secret
from claudeproxy.sandbox.server import SandboxServer
from tests.factories import make_account

pytestmark = pytest.mark.django_db

LIST = reverse("admin:accounts_account_changelist")
TOKEN_PATH = "/v1/oauth/token"
MODEL = {
    "id": "claude-opus-5-5",
    "name": "Claude Opus 5.5",
    "lifecycle": "active",
    "max_input_tokens": 1_000_000,
    "max_tokens": None,
    "features": ["effort", "effort.high", "image_input"],
}


def page(account: Account, name: str = "change") -> str:
    return reverse(f"admin:accounts_account_{name}", args=[account.pk])


def text(response) -> str:
    """What a reader sees: no tags, single blanks."""
    without_tags = re.sub(r"<[^>]+>", " ", response.content.decode())
    return re.sub(r"\s+", " ", html.unescape(without_tags)).replace("\xa0", " ")


def in_(**span: int) -> timedelta:
    """A while, and a bit: what is shown is rounded down to the minute."""
    return timedelta(**span, seconds=30)


@pytest.fixture
def provider(claude: SandboxServer, settings) -> SandboxServer:
    settings.OAUTH_CLIENT_ID = claude.sandbox.oauth.client_id
    settings.OAUTH_AUTHORIZE_URL = f"{claude.url}/oauth/authorize"
    settings.OAUTH_TOKEN_URL = f"{claude.url}{TOKEN_PATH}"
    return claude


def make_dorothy(**fields) -> Account:
    return make_account(
        "dorothy",
        kind=AccountKind.OAUTH,
        **{
            "refresh_token": Secret("rt-dorothy"),
            "expires_at": timezone.now() + in_(hours=8),
            **fields,
        },
    )


def sign_in(provider: SandboxServer, **fields) -> Account:
    """Dorothy's account with tokens that the provider knows."""
    pair = provider.sandbox.oauth.issue("dorothy")
    return make_dorothy(
        secret=pair.access_token, refresh_token=Secret(pair.refresh_token), **fields
    )


# --- what the page says


def test_page_says_whose_the_account_is(admin_client: Client) -> None:
    account = make_dorothy(
        organization_uuid="uuid-of-orbits",
        organization_name="Orbits",
        holder="uuid-of-dorothy",
        holder_name="dorothy@example.org",
    )
    shown = text(admin_client.get(page(account)))
    assert "Orbits uuid-of-orbits" in shown
    assert "dorothy@example.org uuid-of-dorothy" in shown


def test_page_does_not_show_the_digest_of_a_key(admin_client: Client) -> None:
    account = make_account(holder="key:0123456789abcdef")
    response = admin_client.get(page(account))
    assert "the provider names no holder of a key" in text(response)
    assert "0123456789abcdef" not in response.content.decode()


def test_page_of_a_key_says_nothing_of_tokens(admin_client: Client) -> None:
    response = admin_client.get(page(make_account()))
    assert "refresh" not in text(response).lower()
    assert "Sign in again" not in text(response)


def test_page_says_what_is_not_known(admin_client: Client) -> None:
    shown = text(admin_client.get(page(make_dorothy())))
    assert "Organization: not known" in shown
    assert "Holder: not known" in shown
    assert "Last refresh: none so far" in shown
    assert "Last refresh error: none" in shown
    assert "Last used: never" in shown


def test_page_says_how_the_last_refreshes_went(admin_client: Client) -> None:
    account = make_dorothy(
        last_refresh_at=timezone.now() - in_(hours=3),
        last_refresh_error="the provider answered 503",
        refresh_failures=4,
        refresh_retry_at=timezone.now() + in_(minutes=11),
    )
    shown = text(admin_client.get(page(account)))
    assert "3 hours ago" in shown
    assert "the provider answered 503 (4 in a row)" in shown
    assert "in 11 minutes" in shown
    assert "refresh failed" in text(admin_client.get(LIST))


def test_page_says_once_that_one_refresh_failed(admin_client: Client) -> None:
    account = make_dorothy(last_refresh_error="no luck", refresh_failures=1)
    shown = text(admin_client.get(page(account)))
    assert "no luck" in shown
    assert "in a row" not in shown


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"refresh_token": None}, "none: the account has no refresh token"),
        ({"status": AccountStatus.INVALID}, "none while the account is invalid"),
        ({"status": AccountStatus.INACTIVE}, "none while the account is inactive"),
        ({"expires_at": None}, "with the next request or hourly job"),
        ({}, "by the first hourly job after"),
    ],
)
def test_page_says_when_the_next_refresh_is(
    admin_client: Client, fields, words: str
) -> None:
    shown = text(admin_client.get(page(make_dorothy(**fields))))
    assert f"Next refresh: {words}" in shown


def test_a_token_that_has_ended_is_said_to_have(admin_client: Client) -> None:
    account = make_dorothy(expires_at=timezone.now() - in_(hours=1))
    assert "Access token, set; ended" in text(admin_client.get(page(account)))
    assert "token ended 1 hour ago" in text(admin_client.get(LIST))


def test_list_says_when_a_token_ends(admin_client: Client) -> None:
    make_dorothy()
    assert "token ends in 8 hours" in text(admin_client.get(LIST))


def test_page_of_an_invalid_account_says_what_helps(admin_client: Client) -> None:
    response = admin_client.get(page(make_dorothy(status=AccountStatus.INVALID)))
    assert "Sign in again as the same holder" in text(response)
    assert "Refresh token now" not in text(response)


def test_page_says_when_a_rate_limit_is_over(admin_client: Client) -> None:
    account = make_dorothy(
        status=AccountStatus.RATE_LIMITED,
        rate_limited_until=timezone.now() - in_(minutes=5),
    )
    shown = text(admin_client.get(page(account)))
    assert "5 minutes ago Over: it serves again." in shown


# --- models


def test_page_says_that_models_are_not_known_yet(admin_client: Client) -> None:
    assert "Not known yet" in text(admin_client.get(page(make_account())))


def test_page_says_that_there_is_no_model(admin_client: Client) -> None:
    account = make_account(capabilities=[], capabilities_at=timezone.now())
    assert "The provider lists none" in text(admin_client.get(page(account)))


def test_page_lists_models_with_limits_and_features(admin_client: Client) -> None:
    account = make_account(capabilities=[MODEL], capabilities_at=timezone.now())
    shown = text(admin_client.get(page(account)))
    assert "Claude Opus 5.5 claude-opus-5-5, active 1,000,000 not known" in shown
    assert "effort, image input In detail effort.high" in shown
    assert "Read 20" in shown


def test_models_can_be_read_again(admin_client: Client, claude: SandboxServer) -> None:
    account = make_account("ada", secret="sk-sandbox-ada")
    shown = text(admin_client.post(page(account, "models"), follow=True))
    assert "Account ada: its models were read." in shown
    assert "Claude Opus 5.5" in shown


def test_models_that_cannot_be_read_stay_as_they_were(
    admin_client: Client, claude: SandboxServer
) -> None:
    account = make_account("ada", secret="sk-unknown", capabilities=[MODEL])
    shown = text(admin_client.post(page(account, "models"), follow=True))
    assert "the provider gave no list of models; what was known stays" in shown
    account.refresh_from_db()
    assert account.capabilities == [MODEL]


# --- refreshing


def test_refresh_gives_a_new_token(
    admin_client: Client, provider: SandboxServer
) -> None:
    account = sign_in(provider)
    before = account.access_token
    shown = text(admin_client.post(page(account, "refresh"), follow=True))
    assert "Account dorothy has a new token." in shown
    account.refresh_from_db()
    assert account.access_token != before
    assert account.last_refresh_at is not None


def test_refresh_that_fails_says_so_and_keeps_the_token(
    admin_client: Client, provider: SandboxServer
) -> None:
    account = sign_in(provider)
    provider.sandbox.script.add("dorothy", {"path": TOKEN_PATH, "status": 503})
    shown = text(admin_client.post(page(account, "refresh"), follow=True))
    assert "Account dorothy has no new token: the provider answered 503" in shown
    assert "The old one is used while it lives." in shown
    account.refresh_from_db()
    assert account.status == AccountStatus.ACTIVE


def test_refresh_does_not_wait_out_the_pause_after_trouble(
    admin_client: Client, provider: SandboxServer
) -> None:
    account = sign_in(
        provider,
        last_refresh_error="503",
        refresh_failures=3,
        refresh_retry_at=timezone.now() + timedelta(minutes=10),
    )
    shown = text(admin_client.post(page(account, "refresh"), follow=True))
    assert "has a new token" in shown


def test_refresh_that_is_refused_asks_for_a_new_sign_in(
    admin_client: Client, provider: SandboxServer
) -> None:
    account = sign_in(provider)
    provider.sandbox.oauth.revoke("dorothy")
    shown = text(admin_client.post(page(account, "refresh"), follow=True))
    assert "Account dorothy has to sign in again: 400 invalid_grant" in shown
    account.refresh_from_db()
    assert account.status == AccountStatus.INVALID


def test_refresh_that_is_under_way_is_not_waited_for(
    admin_client: Client, provider: SandboxServer
) -> None:
    account = sign_in(
        provider,
        refresh_lease="elsewhere",
        refresh_lease_until=timezone.now() + timedelta(minutes=1),
    )
    shown = text(admin_client.post(page(account, "refresh"), follow=True))
    assert "is being given a new token by somebody else" in shown


def test_refresh_is_not_tried_without_the_settings_it_needs(
    admin_client: Client, provider: SandboxServer, settings
) -> None:
    account = sign_in(provider)
    settings.OAUTH_TOKEN_URL = ""
    shown = text(admin_client.post(page(account, "refresh"), follow=True))
    assert "needs OAUTH_TOKEN_URL to be set" in shown
    account.refresh_from_db()
    assert account.last_refresh_error == ""


def test_refresh_of_a_key_says_that_there_is_nothing_to_refresh(
    admin_client: Client, provider: SandboxServer
) -> None:
    shown = text(admin_client.post(page(make_account(), "refresh"), follow=True))
    assert "Account ada has no token to refresh." in shown


def test_every_end_of_a_refresh_has_its_words() -> None:
    assert set(REFRESH_WORDS) == set(tokens.Outcome)


@pytest.mark.parametrize("name", ["refresh", "models"])
def test_a_credential_that_cannot_be_read_is_said(
    admin_client: Client,
    provider: SandboxServer,
    settings,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    account = make_dorothy()
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    for column in ("access_token", "refresh_token"):
        field = Account._meta.get_field(column)
        monkeypatch.delitem(field.__dict__, "cipher", raising=False)
    shown = text(admin_client.post(page(account, name), follow=True))
    for column in ("access_token", "refresh_token"):
        field = Account._meta.get_field(column)
        monkeypatch.delitem(field.__dict__, "cipher", raising=False)
    assert "cannot be read with the keys in ENCRYPTION_KEYS" in shown


# --- the database


def test_pages_take_as_many_queries_for_much_as_for_little(
    admin_client: Client,
) -> None:
    def count(url: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            assert admin_client.get(url).status_code == 200
        return len(queries)

    account = make_dorothy(capabilities=[MODEL], capabilities_at=timezone.now())
    before = [count(url) for url in (page(account), LIST)]
    account.capabilities = [MODEL] * 30
    account.save()
    for number in range(9):
        make_account(
            f"account {number}", kind=AccountKind.OAUTH, last_refresh_error="503"
        )
    assert [count(url) for url in (page(account), LIST)] == before
