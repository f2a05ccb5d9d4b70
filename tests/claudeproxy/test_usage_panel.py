"""What was used, as the overview and the pages of accounts, keys and organizations
show it.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts.models import Account
from claudeproxy.dashboard import usage_panel
from claudeproxy.dashboard.usage_panel import UsagePanel
from clients.models import ClientKey
from tests.claudeproxy.test_admin import text
from tests.factories import make_account, make_client_key
from tests.usage.cast import finished
from usage import pricing, rollups, rows, store
from usage.reports import Only

pytestmark = pytest.mark.django_db

INDEX = reverse("admin:index")
LOG = "/admin/usage/requestrow/"


@pytest.fixture
def serve() -> Callable[..., None]:
    """Let an account have answered requests with a key, some time ago."""
    numbers = iter(range(1_000_000))

    def record(
        account: Account | None = None,
        key: ClientKey | None = None,
        *,
        count: int = 1,
        ago: timedelta = timedelta(0),
        **fields: Any,
    ) -> None:
        at = timezone.now() - ago
        made = [
            finished(
                f"req_{next(numbers)}",
                started_at=at,
                account_id=account and account.pk,
                account_name=account and account.name,
                account_kind=account and account.kind,
                key_id=key and key.pk,
                key_name=key and key.name,
                **fields,
            )
            for _ in range(count)
        ]
        store.insert([rows.of_finished(entry, pricing.load()) for entry in made])

    return record


def person(*permissions: str) -> User:
    user = User.objects.create_user("victor", password="pw", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return User.objects.get(pk=user.pk)


def load(span: str = "", only: Only | None = None) -> UsagePanel:
    user = User(username="root", is_superuser=True, is_active=True)
    panel = usage_panel.load(user, span=span, now=timezone.now(), only=only or Only())
    assert panel is not None
    return panel


def requests_in(panel: UsagePanel) -> str:
    return panel.tiles[0].value if panel.tiles else "0"


# --- the overview


def test_a_fresh_gateway_says_what_will_be_here(admin_client: Client) -> None:
    shown = text(admin_client.get(INDEX))
    assert "No request was recorded in this time" in shown
    assert "24 hours 7 days 30 days" in shown


def test_overview_says_what_was_used(admin_client: Client, serve: Any) -> None:
    ada, alice = make_account("ada"), make_client_key("alice").row
    serve(ada, alice, count=3)
    serve(ada, alice, end_reason="upstream_error", status=529)
    shown = text(admin_client.get(INDEX)).replace("\xa0", " ")
    assert "Requests 4" in shown
    assert "Error rate 25 %" in shown
    assert "nothing before" in shown
    assert "hours, UTC" in shown
    for title in ("Keys by cost", "Models by requests", "Accounts by cost"):
        assert title in shown


def test_what_is_not_summed_up_yet_counts(admin_client: Client, serve: Any) -> None:
    serve(make_account("ada"), count=2)
    rollups.roll_up(seconds=5)
    serve(make_account("grace"), count=3)
    assert requests_in(load()) == "5"


@pytest.mark.parametrize(("span", "count"), [("24h", "1"), ("7d", "3"), ("30d", "7")])
def test_a_span_has_what_came_in_it(serve: Any, span: str, count: str) -> None:
    ada = make_account("ada")
    for days, number in ((0, 1), (3, 2), (20, 4), (45, 8)):
        serve(ada, count=number, ago=timedelta(days=days))
    assert requests_in(load(span)) == count


def test_a_span_is_chosen_by_the_address(admin_client: Client, serve: Any) -> None:
    serve(make_account("ada"), ago=timedelta(days=3))
    assert "No request was recorded" in text(admin_client.get(INDEX))
    response = admin_client.get(INDEX, {"range": "7d"})
    assert "The last 7 days, by the day, in UTC" in text(response)
    assert "No request was recorded" not in text(response)


def test_usage_is_for_those_who_may_see_requests(client: Client, serve: Any) -> None:
    serve(make_account("secret project"), make_client_key("secret key").row)
    client.force_login(person("view_account"))
    assert "Usage" not in text(client.get(INDEX))


def test_names_are_for_those_who_may_see_accounts_and_keys(
    client: Client, serve: Any
) -> None:
    serve(make_account("secret project"), make_client_key("secret key").row)
    client.force_login(person("view_requestrow"))
    shown = text(client.get(INDEX))
    assert "Models by cost" in shown
    assert "secret" not in shown


def test_usage_takes_as_many_queries_for_many_rows_as_for_one(
    admin_client: Client, serve: Any
) -> None:
    def grow(rows: range) -> None:
        for number in rows:
            account = make_account(f"account {number}")
            serve(account, make_client_key(f"key {number}").row)
            rollups.roll_up(seconds=5)

    def count_queries() -> int:
        with CaptureQueriesContext(connection) as queries:
            admin_client.get(INDEX, {"range": "30d"})
        return len(queries)

    grow(range(1))
    before = count_queries()
    grow(range(1, 12))
    assert count_queries() == before


# --- names and links


def ranked(panel: UsagePanel, title: str) -> dict[str, str]:
    found = next(it for it in panel.rankings if it.title == title)
    return {entry.name: entry.url for entry in found.entries}


def test_names_are_those_of_today_and_lead_to_their_pages(serve: Any) -> None:
    ada, alice = make_account("ada"), make_client_key("alice").row
    serve(ada, alice)
    Account.objects.update(name="ada renamed")
    panel = load()
    page = reverse("admin:accounts_account_change", args=[ada.pk])
    assert ranked(panel, "Accounts by cost") == {"ada renamed": page}
    page = reverse("admin:clients_clientkey_change", args=[alice.pk])
    assert ranked(panel, "Keys by cost") == {"alice": page}
    log = f"{LOG}?model=claude-opus-5-5"
    assert ranked(panel, "Models by cost") == {"claude-opus-5-5": log}


def test_a_model_leads_to_the_requests_that_are_counted(serve: Any) -> None:
    ada = make_account("ada")
    serve(ada)
    log = f"{LOG}?account_id={ada.pk}&model=claude-opus-5-5"
    shown = load(only=Only(account_id=ada.pk))
    assert ranked(shown, "Models by cost") == {"claude-opus-5-5": log}


def test_what_was_deleted_keeps_its_name(serve: Any) -> None:
    ada = make_account("ada")
    serve(ada)
    ada.delete()
    assert ranked(load(), "Accounts by requests") == {"ada (deleted)": ""}


def test_requests_of_nobody_are_named(serve: Any) -> None:
    serve(end_reason="rejected", status=401, model_answered=None, model_asked=None)
    panel = load()
    assert ranked(panel, "Accounts by requests") == {"no account was reached": ""}
    assert ranked(panel, "Keys by requests") == {"no valid key": ""}
    assert ranked(panel, "Models by requests") == {"no model named": ""}


# --- pages of one


def test_page_of_an_account_shows_what_it_used(
    admin_client: Client, serve: Any
) -> None:
    ada, grace = make_account("ada"), make_account("grace")
    serve(ada, count=2)
    serve(grace, count=5)
    response = admin_client.get(reverse("admin:accounts_account_change", args=[ada.pk]))
    assert "Requests 2" in text(response)
    assert "Keys by cost" in text(response)
    assert "Accounts by cost" not in text(response)
    assert f'href="{LOG}?account_id={ada.pk}"' in response.content.decode()


def test_page_of_a_key_shows_what_was_used_with_it(
    admin_client: Client, serve: Any
) -> None:
    ada = make_account("ada")
    alice, bob = make_client_key("alice").row, make_client_key("bob").row
    serve(ada, alice, count=2, ago=timedelta(days=2))
    serve(ada, bob, count=5)
    page = reverse("admin:clients_clientkey_change", args=[alice.pk])
    response = admin_client.get(page, {"range": "7d"})
    assert "Requests 2" in text(response)
    assert "Accounts by cost" in text(response)
    assert "Keys by cost" not in text(response)
    assert f'href="{LOG}?key_id={alice.pk}"' in response.content.decode()


def test_page_of_an_account_keeps_usage_from_those_who_may_not_see_it(
    client: Client, serve: Any
) -> None:
    ada = make_account("ada")
    serve(ada)
    client.force_login(person("view_account"))
    page = client.get(reverse("admin:accounts_account_change", args=[ada.pk]))
    assert page.status_code == 200
    assert "Usage" not in text(page)


def test_page_of_an_organization_sums_up_its_accounts(
    admin_client: Client, serve: Any
) -> None:
    fields: dict[str, Any] = {
        "organization_uuid": "uuid-1",
        "organization_name": "Orbital Works",
    }
    ada = make_account("ada", holder="a", **fields)
    grace = make_account("grace", holder="b", **fields)
    serve(ada, count=2)
    serve(grace, count=3)
    serve(make_account("edsger"), count=4)
    url = reverse("admin:organization", args=["uuid-1"])
    shown = text(admin_client.get(url))
    assert "Orbital Works" in shown
    assert "Requests 5" in shown
    assert "edsger" not in shown
    assert "Request log" not in shown
    account = admin_client.get(reverse("admin:accounts_account_change", args=[ada.pk]))
    assert f'href="{url}"' in account.content.decode()


def test_page_of_an_organization_is_for_those_who_may_see_accounts(
    client: Client,
) -> None:
    make_account("ada", organization_uuid="uuid-1")
    url = reverse("admin:organization", args=["uuid-1"])
    assert client.get(url).status_code == 302
    client.force_login(person("view_requestrow"))
    assert client.get(url).status_code == 403


@pytest.mark.parametrize("uuid", ["unknown", "a/b", "%00"])
def test_an_organization_without_accounts_has_no_page(
    admin_client: Client, uuid: str
) -> None:
    make_account("ada")
    assert admin_client.get(f"/admin/organization/{uuid}/").status_code == 404
