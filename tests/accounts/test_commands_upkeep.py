"""`refresh_accounts` and `recover_accounts`."""

import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from structlog.testing import capture_logs

from accounts.models import Account, AccountEvent
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Secret
from claudeproxy.sandbox.script import Step
from tests.factories import make_account

pytestmark = pytest.mark.django_db

NOW = timezone.now()
SOON = NOW + timedelta(minutes=30)
LATER = NOW + timedelta(hours=7)


@pytest.fixture
def provider(claude, settings):
    settings.OAUTH_CLIENT_ID = claude.sandbox.oauth.client_id
    settings.OAUTH_AUTHORIZE_URL = f"{claude.url}/oauth/authorize"
    settings.OAUTH_TOKEN_URL = f"{claude.url}/v1/oauth/token"
    return claude


def connect(provider, name="dorothy", *, expires_at=SOON, **fields):
    """An OAuth account with tokens that the provider knows."""
    pair = provider.sandbox.oauth.issue(
        name,
        access_token=f"planted-access-of-{name}",
        refresh_token=f"planted-refresh-of-{name}",
    )
    return make_account(
        name,
        kind=AccountKind.OAUTH,
        secret=pair.access_token,
        refresh_token=Secret(pair.refresh_token),
        expires_at=expires_at,
        **fields,
    )


class Run:
    """Runs the command; returns standard output and exit code, keeps all it wrote."""

    err = seen = ""

    def __init__(self, caplog):
        self._caplog = caplog

    def __call__(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        code: Any = 0
        with capture_logs() as lines:
            try:
                call_command(*arguments, stdout=out, stderr=err)
            except SystemExit as end:
                code = end.code
            finally:
                self.err = err.getvalue()
                self.seen = f"{out.getvalue()}{self.err}{self._caplog.text}{lines}"
        return out.getvalue(), code


@pytest.fixture
def run(caplog):
    return Run(caplog)


def the_account(**query) -> Any:
    return Account.objects.get(**query)


def refresh(run, *options):
    return run("refresh_accounts", *options)


# --- refresh_accounts


def test_tokens_that_end_soon_are_renewed_and_others_are_not(provider, run):
    due = connect(provider, "dorothy")
    fresh = connect(provider, "katherine", expires_at=LATER)
    printed, code = refresh(run)
    due.refresh_from_db()
    fresh.refresh_from_db()

    assert code == 0
    assert due.expires_at > LATER
    assert due.access_token != Secret("planted-access-of-dorothy")
    assert fresh.access_token == Secret("planted-access-of-katherine")
    assert "dorothy  active" in printed
    assert "refreshed" in printed
    assert "katherine" not in printed


def test_progress_is_told_account_by_account_on_standard_error(provider, run):
    connect(provider, "dorothy")
    connect(provider, "katherine")
    refresh(run)

    assert run.err.splitlines() == ["refreshing dorothy …", "refreshing katherine …"]


def test_an_account_that_is_named_and_fresh_stays_as_it_is(provider, run):
    account = connect(provider, expires_at=LATER)
    printed, code = refresh(run, "dorothy")

    assert code == 0
    assert "still fresh" in printed
    assert Account.objects.get().access_token == account.access_token


def test_force_renews_what_is_fresh(provider, run):
    connect(provider, expires_at=LATER)
    _, code = refresh(run, "dorothy", "--force")

    assert code == 0
    assert Account.objects.get().access_token != Secret("planted-access-of-dorothy")


def test_force_without_names_renews_every_account_in_use(provider, run):
    connect(provider, "dorothy", expires_at=LATER)
    connect(provider, "katherine", status=AccountStatus.INACTIVE)
    make_account("ada")
    printed, _ = refresh(run, "--force")

    assert "dorothy" in printed
    assert "katherine" not in printed
    assert "ada" not in printed


def test_an_account_that_is_refused_is_invalid_and_a_failure(provider, run):
    connect(provider)
    provider.sandbox.oauth.revoke("dorothy")
    printed, code = refresh(run)

    assert code == 1
    assert "dorothy  invalid" in printed
    assert "invalid_grant" in printed
    assert Account.objects.get().status == AccountStatus.INVALID


def test_a_provider_in_trouble_is_a_failure_that_changes_no_status(provider, run):
    connect(provider)
    provider.sandbox.script.add("*", Step(path="/v1/oauth/token", status=503))
    printed, code = refresh(run)

    assert code == 1
    assert "failed" in printed
    assert "503" in printed
    assert Account.objects.get().status == AccountStatus.ACTIVE


def test_one_failure_holds_up_nobody_else(provider, run):
    connect(provider, "dorothy")
    connect(provider, "katherine")
    provider.sandbox.oauth.revoke("dorothy")
    rows, code = refresh(run, "--json")
    outcomes = {row["name"]: row["outcome"] for row in json.loads(rows)}

    assert code == 1
    assert outcomes == {"dorothy": "invalid", "katherine": "refreshed"}


def test_json_shows_each_account_as_the_refresh_left_it(provider, run):
    connect(provider)
    printed, code = refresh(run, "--json")
    (row,) = json.loads(printed)
    account = the_account()

    assert code == 0
    assert (row["outcome"], row["message"]) == ("refreshed", "")
    assert row["expires_at"] == account.expires_at.isoformat()
    assert row["last_refresh_at"] == account.last_refresh_at.isoformat()


def test_no_token_is_printed_or_logged(provider, run):
    connect(provider, "dorothy")
    connect(provider, "katherine")
    provider.sandbox.oauth.revoke("katherine")
    refresh(run)
    account = the_account(name="dorothy")

    assert "planted" not in run.seen
    assert account.access_token.reveal() not in run.seen
    assert account.refresh_token.reveal() not in run.seen


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize(
    ("options", "words"), [([], "No access token ends soon"), (["--json"], "[]")]
)
def test_nothing_to_refresh_is_no_failure(run, options, words):
    printed, code = refresh(run, *options)

    assert code == 0
    assert words in printed


def test_a_name_that_is_no_oauth_account_is_an_error(provider, run):
    connect(provider)
    make_account("ada")
    with pytest.raises(CommandError, match="no OAuth account called ada, nobody; ther"):
        refresh(run, "dorothy", "ada", "nobody")


def test_settings_that_are_missing_are_named_before_a_token_is_used(
    provider, run, settings
):
    connect(provider)
    settings.OAUTH_CLIENT_ID = ""
    with pytest.raises(CommandError, match="needs OAUTH_CLIENT_ID to be set"):
        refresh(run)

    assert provider.sandbox.oauth.presented("planted-refresh-of-dorothy") == 0
    assert Account.objects.get().sent_refresh_digest == ""


@pytest.mark.parametrize("url", ["not-an-address", "http://[::1", "http://h:99999/"])
def test_a_token_address_that_is_wrong_uses_no_token_up(provider, run, settings, url):
    connect(provider)
    settings.OAUTH_TOKEN_URL = url
    _, code = refresh(run)
    account = the_account()

    assert code == 1
    assert account.sent_refresh_digest == ""
    assert account.refresh_retry_at < account.expires_at


# --- recover_accounts


def limited(name, until):
    return make_account(
        name,
        status=AccountStatus.RATE_LIMITED,
        rate_limited_until=until,
        secret=f"sk-of-{name}",
    )


def test_accounts_whose_limit_has_ended_are_active_again(run):
    limited("ada", NOW - timedelta(minutes=1))
    limited("grace", NOW + timedelta(hours=1))
    printed, code = run("recover_accounts")

    assert code == 0
    assert printed == "Active again: ada.\n"
    assert Account.objects.get(name="ada").status == AccountStatus.ACTIVE
    assert Account.objects.get(name="grace").status == AccountStatus.RATE_LIMITED
    assert AccountEvent.objects.get().reason == "rate limit ended"


def test_json_lists_those_that_recovered(run):
    limited("ada", NOW - timedelta(minutes=1))
    (row,) = json.loads(run("recover_accounts", "--json")[0])

    assert (row["name"], row["status"]) == ("ada", "active")
    assert row["rate_limited_until"] is None
    assert json.loads(run("recover_accounts", "--json")[0]) == []


def test_no_limit_that_ended_is_said_in_words(run):
    printed, code = run("recover_accounts")

    assert code == 0
    assert printed == "No rate limit has ended since the last look.\n"
