"""What was seen of limits, on the dashboard."""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page

from accounts.models import QuotaWindow
from tests.browser.conftest import OpenPage
from tests.factories import make_account

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def hidden_of_accounts(page: Page, model_group: str) -> int:
    """How many pixels of the table of accounts are out of sight."""
    QuotaWindow.objects.update(model_group=model_group)
    page.goto(reverse("admin:index"))
    table = page.locator("table", has=page.locator(".quota"))
    return int(table.evaluate("it => it.offsetWidth - it.parentElement.clientWidth"))


def test_no_name_of_models_makes_the_table_of_accounts_wider(log_in: OpenPage) -> None:
    now = timezone.now()
    make_account().quota.create(
        name="requests",
        utilization=0.1,
        limit=10,
        remaining=9,
        resets_at=now + timedelta(minutes=9),
        seen_at=now,
    )
    page = log_in(viewport={"width": 1280, "height": 900})
    assert hidden_of_accounts(page, "Opus 4.5 to 4.8") <= 0
    assert hidden_of_accounts(page, "m" * 200) <= 0
