"""What was used, on the overview and on pages of its own, as people see it."""

import os
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.urls import reverse
from playwright.sync_api import Page, expect

from accounts.models import Account
from clients.models import ClientKey
from tests.browser import traffic
from tests.browser.accessibility import faults
from tests.browser.conftest import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PERIOD_MS = 30_000
IMAGES = Path(settings.BASE_DIR) / "docs" / "images"
TAKES_PICTURES = os.environ.get("TAKE_PICTURES") == "1"


@pytest.fixture
def busy(transactional_db: Any) -> None:
    traffic.fill()


def tile(page: Page, name: str) -> Any:
    return page.locator(".tile").filter(has_text=name).locator(".tile-value")


def test_the_overview_says_what_was_used(busy: None, log_in: OpenPage) -> None:
    page = log_in()
    usage = page.get_by_role("region", name="Usage", exact=True)
    expect(usage.get_by_role("figure", name="Tokens by class")).to_be_visible()
    expect(usage.get_by_role("figure", name="Keys by cost")).to_contain_text(
        "laptop of Alice"
    )
    expect(tile(page, "Error rate")).to_contain_text("%")
    expect(tile(page, "Cost")).to_contain_text("$")
    shown = tile(page, "Requests").inner_text()
    usage.get_by_role("link", name="7 days").click()
    expect(usage.get_by_role("link", name="7 days")).to_have_attribute(
        "aria-current", "true"
    )
    assert tile(page, "Requests").inner_text() != shown


def test_figures_renew_themselves_and_keep_the_span(
    busy: None, log_in: OpenPage
) -> None:
    page = log_in()
    page.clock.install()
    page.goto(f"{reverse('admin:index')}?range=30d")
    before = tile(page, "Requests").inner_text()
    usage = page.get_by_role("region", name="Usage", exact=True)
    usage.get_by_role("link", name="30 days").focus()
    traffic.add(25)
    page.clock.fast_forward(PERIOD_MS)
    expect(page.locator("[data-refresh-time]")).to_contain_text("Updated")
    expect(tile(page, "Requests")).not_to_have_text(before)
    expect(usage.get_by_role("link", name="30 days")).to_be_focused()


def test_pages_of_an_account_and_a_key_lead_on_to_its_requests(
    busy: None, log_in: OpenPage
) -> None:
    page = log_in()
    account = Account.objects.get(name="plan of Ada")
    page.get_by_role("figure", name="Accounts by requests").get_by_role(
        "link", name="plan of Ada"
    ).click()
    expect(page.get_by_role("figure", name="Keys by cost")).to_be_visible()
    log = page.get_by_role("link", name="Request log")
    log.click()
    page.wait_for_url(f"**/requestrow/?account_id={account.pk}")
    page.go_back()
    page.get_by_role("link", name="Orbital Works as a whole").click()
    members = page.get_by_role("region", name="Accounts of this organization")
    expect(members.locator("li")).to_have_count(2)
    expect(page.get_by_role("figure", name="Accounts by cost")).to_be_visible()


def pages() -> list[str]:
    account = Account.objects.get(name="plan of Ada")
    key = ClientKey.objects.get(name="build server")
    return [
        f"{reverse('admin:index')}?range=30d",
        reverse("admin:accounts_account_change", args=[account.pk]),
        reverse("admin:clients_clientkey_change", args=[key.pk]),
        reverse("admin:organization", args=[account.organization_uuid]),
    ]


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_fault_with_what_was_used(
    busy: None, log_in: OpenPage, color_scheme: str, width: int
) -> None:
    page = log_in(color_scheme=color_scheme, viewport={"width": width, "height": 844})
    for address in pages():
        page.goto(address)
        assert faults(page) == [], address
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address


def test_without_scripts_a_span_is_a_link(busy: None, log_in: OpenPage) -> None:
    page = log_in(java_script_enabled=False)
    page.get_by_role("link", name="7 days").click()
    expect(page.get_by_role("figure", name="Requests", exact=True)).to_contain_text(
        "in all"
    )
    page.get_by_role("figure", name="Requests", exact=True).get_by_text(
        "Numbers"
    ).click()
    expect(page.locator("#requests-data tbody tr")).to_have_count(7)


@pytest.mark.skipif(not TAKES_PICTURES, reason="TAKE_PICTURES=1 takes them")
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_take_the_pictures_of_the_documentation(
    busy: None, log_in: OpenPage, color_scheme: str
) -> None:
    traffic.run_jobs()
    page = log_in(color_scheme=color_scheme, viewport={"width": 1280, "height": 925})
    page.wait_for_load_state("networkidle")
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / f"dashboard-{color_scheme}.png"
    page.screenshot(path=path)
    assert path.stat().st_size <= 150_000
