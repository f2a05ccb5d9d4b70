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


def width_of_log(page: Page, **fields: Any) -> int:
    RequestRow.objects.all().delete()
    recovery.store_finished([finished("a", **fields)], pricing.load())
    page.goto(reverse("admin:usage_requestrow_changelist"))
    return int(page.locator("#result_list").evaluate("it => it.offsetWidth"))


def test_no_name_pushes_the_other_columns_out_of_sight(log_in: OpenPage) -> None:
    page = log_in(viewport={"width": 1280, "height": 900})
    usual = width_of_log(page, model_answered="claude-opus-5-5")
    longest = width_of_log(
        page,
        key_name="k" * 100,
        account_name="a" * 100,
        model_answered="m" * 200,
    )
    assert longest <= usual + 30
