"""The log of requests, as people see it."""

from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page

from tests.browser.conftest import OpenPage
from tests.usage.cast import finished
from usage import pricing, recovery
from usage.models import RequestRow

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def hidden_of_log(page: Page, **fields: Any) -> int:
    """How many pixels of the log are out of sight."""
    RequestRow.objects.all().delete()
    recovery.store_finished([finished("a", **fields)], pricing.load())
    page.goto(reverse("admin:usage_requestrow_changelist"))
    log = page.locator("#result_list")
    return int(log.evaluate("it => it.offsetWidth - it.parentElement.clientWidth"))


def test_no_name_pushes_a_column_out_of_sight(log_in: OpenPage) -> None:
    page = log_in(viewport={"width": 1280, "height": 900})
    assert hidden_of_log(page, model_answered="claude-opus-5-5") <= 0
    hidden = hidden_of_log(
        page,
        key_name="k" * 100,
        account_name="a" * 100,
        model_answered="m" * 200,
    )
    assert hidden <= 0
