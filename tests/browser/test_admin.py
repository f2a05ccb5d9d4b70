"""The admin as people use it, with the Content-Security-Policy that ships."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page, expect

from accounts import lifecycle
from accounts.status import AccountKind, AccountStatus
from claudeproxy.sandbox.server import SandboxServer
from tests.browser.conftest import OpenPage
from tests.factories import make_account, make_client_key

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PAGES = [
    "admin:index",
    "admin:accounts_account_changelist",
    "admin:accounts_account_add",
    "admin:accounts_account_connect",
    "admin:accounts_account_connect_code",
    "admin:accounts_accountevent_changelist",
    "admin:clients_clientkey_changelist",
    "admin:clients_clientkey_add",
    "admin:django_q_schedule_changelist",
    "admin:django_q_failure_changelist",
    "admin:auth_user_changelist",
    "admin:password_change",
]


def test_an_account_is_added_switched_off_and_on_again(log_in: OpenPage) -> None:
    page = log_in()
    page.get_by_role("link", name="Add account").click()
    page.get_by_label("Name").fill("console of Ada")
    page.get_by_label("API key").fill("sk-ant-not-real")
    page.get_by_label("Check it with the provider first").uncheck()
    page.get_by_role("button", name="Save").click()
    row = page.get_by_role("row", name="console of Ada")
    expect(row).to_contain_text("active")

    row.get_by_role("link", name="console of Ada").click()
    page.get_by_role("button", name="Deactivate").click()
    status = page.get_by_role("region", name="Status")
    expect(status).to_contain_text("inactive")
    page.get_by_role("button", name="Activate", exact=True).click()
    expect(status.get_by_role("button", name="Deactivate")).to_be_visible()

    history = page.get_by_role("region", name="What happened")
    expect(history.locator("tbody tr")).to_have_count(3)
    expect(history).to_contain_text("deactivated in the admin")
    expect(page.locator("body")).not_to_contain_text("sk-ant-not-real")


@pytest.fixture
def provider(claude: SandboxServer, settings: Any) -> SandboxServer:
    settings.OAUTH_CLIENT_ID = claude.sandbox.oauth.client_id
    settings.OAUTH_AUTHORIZE_URL = f"{claude.url}/oauth/authorize"
    settings.OAUTH_TOKEN_URL = f"{claude.url}/v1/oauth/token"
    return claude


def begin(page: Page, name: str) -> None:
    page.get_by_role("link", name="Connect account").first.click()
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Go on").click()


def test_an_account_is_connected_at_the_provider(
    log_in: OpenPage, provider: SandboxServer
) -> None:
    page = log_in()
    begin(page, "account of Dorothy")
    page.get_by_role("link", name="Continue at the provider").click()
    page.get_by_role("button", name="Allow as dorothy", exact=True).click()

    # The address is clean, and so is what other pages learn of it.
    page.wait_for_url(re.compile(r"/admin/accounts/account/\d+/change/$"))
    assert "state=" not in page.evaluate("document.referrer")
    expect(page.locator(".messagelist")).to_contain_text("is connected")
    expect(page.get_by_role("region", name="Models", exact=True)).to_contain_text(
        "Claude Opus 5.5"
    )
    page.get_by_role("link", name="Accounts").last.click()
    row = page.get_by_role("row", name="account of Dorothy")
    expect(row).to_contain_text("active")
    expect(row).to_contain_text("Sandbox Orbits")
    expect(row).to_contain_text("token ends in 7 hours")

    row.get_by_role("link", name="account of Dorothy").click()
    status = page.get_by_role("region", name="Status")
    page.get_by_role("button", name="Deactivate").click()
    expect(status).to_contain_text("inactive")
    page.get_by_role("button", name="Activate", exact=True).click()
    expect(status.get_by_role("button", name="Deactivate")).to_be_visible()
    page.get_by_role("button", name="Refresh token now").click()
    expect(page.locator(".messagelist")).to_contain_text("has a new token")
    history = page.get_by_role("region", name="What happened")
    expect(history.locator("tbody tr")).to_have_count(3)


def test_a_code_that_the_provider_shows_is_pasted(
    log_in: OpenPage, provider: SandboxServer, settings: Any
) -> None:
    settings.OAUTH_REDIRECT_URI = f"{provider.url}/oauth/code/callback"
    page = log_in()
    begin(page, "account of Hedy")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Continue at the provider").click()
    there = opened.value
    there.get_by_role("button", name="Allow as hedy-work", exact=True).click()
    page.get_by_role("textbox", name="Code").fill(there.locator("#code").inner_text())
    page.get_by_role("button", name="Connect").click()
    expect(page.locator(".messagelist")).to_contain_text("is connected")


def test_a_denied_sign_in_leads_back_to_where_it_begins(
    log_in: OpenPage, provider: SandboxServer
) -> None:
    page = log_in()
    begin(page, "account of nobody")
    page.get_by_role("link", name="Continue at the provider").click()
    page.get_by_role("button", name="Deny").click()
    expect(page.locator(".messagelist")).to_contain_text("access_denied")
    expect(page.get_by_role("heading", name="Connect account")).to_be_visible()


def test_the_overview_lets_an_idle_account_serve_again(log_in: OpenPage) -> None:
    account = make_account("ada")
    lifecycle.deactivate(account, actor="upkeep", reason="idle", now=timezone.now())
    page = log_in()
    notices = page.get_by_role("region", name="Needs attention")
    notices.get_by_role("button", name="Activate again ada").click()
    expect(page.locator(".messagelist")).to_contain_text("1 moved")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.get_by_role("button", name="Activate again")).to_have_count(0)


def test_a_client_key_is_shown_once_and_can_be_copied(log_in: OpenPage) -> None:
    page = log_in(permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("link", name="Create client key").click()
    page.get_by_label("Name").fill("laptop of Ada")
    page.get_by_label("Ends").fill("2999-12-31T23:59")
    page.get_by_role("button", name="Save").click()
    key = page.locator("#client-key").inner_text()
    assert re.fullmatch(r"cp_[0-9A-Za-z]{49}", key)
    assert key not in page.url

    copy = page.locator("[data-copy=client-key]")
    copy.click()
    expect(copy).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == key

    page.get_by_role("link", name="Done, it is copied").click()
    row = page.get_by_role("row", name="laptop of Ada")
    expect(row).to_contain_text("expires in")
    assert key not in page.content()
    row.get_by_role("link", name="laptop of Ada").click()
    assert key not in page.content()


def test_without_a_clipboard_the_text_is_selected(log_in: OpenPage) -> None:
    page = log_in()
    page.add_init_script(
        "delete Navigator.prototype.clipboard; document.execCommand = () => false;"
    )
    page.reload()
    copy = page.locator("[data-copy=connect-sdk]")
    copy.click()
    expect(copy).to_contain_text("press Ctrl+C")
    assert "Anthropic(" in page.evaluate("window.getSelection().toString()")


def test_an_action_runs_for_the_rows_that_are_ticked(log_in: OpenPage) -> None:
    make_account("ada")
    make_account("grace", status=AccountStatus.INACTIVE)
    page = log_in()
    page.goto(reverse("admin:accounts_account_changelist"))
    page.locator("#action-toggle").check()
    page.locator("select[name=action]").select_option("deactivate")
    page.get_by_role("button", name="Go").click()
    expect(page.locator(".messagelist")).to_contain_text("1 moved, 1 skipped")


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_no_page_is_wider_than_a_phone(log_in: OpenPage, color_scheme: str) -> None:
    account = make_account(
        "an account with a rather long name",
        status=AccountStatus.RATE_LIMITED,
        status_reason="the upstream answered 429: " + "its window is spent " * 8,
        rate_limited_until=timezone.now() + timedelta(hours=2),
    )
    lifecycle.activate(account, actor="ada", reason="tried", now=timezone.now())
    tokened = make_account(
        "another account with a long name",
        kind=AccountKind.OAUTH,
        status=AccountStatus.ACTIVE,
        organization_name="An organization of many words",
        organization_uuid="0b9b5b1e-8e2c-52ef-9d0b-2b1b5b9a6d10",
        holder_name="somebody.with.a.long.name@an-organization.example",
        last_refresh_error="the provider answered 503: " + "try again later " * 8,
        capabilities=[{"id": "claude-opus-5-5", "features": ["effort"] * 20}],
        capabilities_at=timezone.now(),
    )
    key = make_client_key("a client with a rather long name").row
    page = log_in(viewport={"width": 390, "height": 844}, color_scheme=color_scheme)
    addresses = [reverse(name) for name in PAGES]
    addresses.append(reverse("admin:accounts_account_change", args=[account.pk]))
    addresses.append(reverse("admin:accounts_account_change", args=[tokened.pk]))
    addresses.append(reverse("admin:accounts_account_delete", args=[tokened.pk]))
    addresses.append(reverse("admin:clients_clientkey_change", args=[key.pk]))
    for address in addresses:
        page.goto(address)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, address


def test_focus_can_be_seen(log_in: OpenPage) -> None:
    page = log_in()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_dark_mode_follows_the_system(log_in: OpenPage) -> None:
    page = log_in(color_scheme="dark")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(21, 25, 34)"
