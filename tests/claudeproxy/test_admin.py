"""The admin site as a whole, and its overview."""

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django_q.models import Task

from accounts import lifecycle, upkeep
from accounts.models import Account
from accounts.status import AccountKind, AccountStatus
from claudeproxy.admin import GatewayAdminSite
from claudeproxy.dashboard import overview
from claudeproxy.dashboard.accounts_panel import Health, judge
from clients import issuing
from tests.factories import NOW, make_account, make_client_key

INDEX = reverse("admin:index")


def text(response) -> str:
    """What a reader sees: no tags, single blanks."""
    without_tags = re.sub(r"<[^>]+>", " ", response.content.decode())
    return re.sub(r"\s+", " ", html.unescape(without_tags))


def all_pages() -> list[str]:
    """Each address of the admin that needs no row."""
    pages = [INDEX, reverse("admin:password_change")]
    pages += [reverse(f"admin:accounts_account_connect{end}") for end in ("", "_code")]
    for model in admin.site._registry:
        for name in ("changelist", "add"):
            pages.append(
                reverse(
                    f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}"
                )
            )
        try:
            pages.append(reverse("admin:app_list", args=[model._meta.app_label]))
        except NoReverseMatch:
            continue
    return sorted(set(pages))


# --- pages


def test_what_holds_for_users_does_not_for_models_registered_with_them() -> None:
    site = GatewayAdminSite()
    site.register([User, Group], admin.ModelAdmin)

    assert site.get_model_admin(User).readonly_fields == ("last_login", "date_joined")
    assert site.get_model_admin(Group).readonly_fields == ()


# --- health


def counts(
    active: int = 0, inactive: int = 0, rate_limited: int = 0, invalid: int = 0
) -> dict[AccountStatus, int]:
    return {
        AccountStatus.ACTIVE: active,
        AccountStatus.INACTIVE: inactive,
        AccountStatus.RATE_LIMITED: rate_limited,
        AccountStatus.INVALID: invalid,
    }


@pytest.mark.parametrize(
    ("usable", "found", "health"),
    [
        (
            0,
            counts(),
            Health(
                "unhealthy",
                "No account has been added yet, so no request can be served.",
            ),
        ),
        (
            0,
            counts(inactive=1, rate_limited=2, invalid=1),
            Health(
                "unhealthy",
                "No account can serve. "
                "Not serving: 1 inactive, 2 rate limited, 1 invalid.",
            ),
        ),
        (
            1,
            counts(active=1),
            Health(
                "degraded", "The only account can serve; a second one would back it up."
            ),
        ),
        (
            1,
            counts(active=1, invalid=1),
            Health(
                "degraded",
                "1 of 2 accounts can serve, and none backs it up. "
                "Not serving: 1 invalid.",
            ),
        ),
        (2, counts(active=2), Health("healthy", "2 of 2 accounts can serve. ")),
        (
            2,
            counts(active=1, rate_limited=2),
            Health(
                "healthy", "2 of 3 accounts can serve. Not serving: 1 rate limited."
            ),
        ),
    ],
)
def test_health_is_judged_by_the_accounts_that_can_serve(
    usable: int, found: dict[AccountStatus, int], health: Health
) -> None:
    assert judge(usable, found) == health


@pytest.mark.django_db
def test_a_rate_limit_that_is_over_counts_as_usable() -> None:
    make_account(
        status=AccountStatus.RATE_LIMITED, rate_limited_until=NOW - timedelta(seconds=1)
    )
    assert Account.objects.usable(NOW).count() == 1
    assert Account.objects.usable(NOW - timedelta(seconds=2)).count() == 0


# --- the overview


@pytest.mark.django_db
def test_overview_of_an_empty_gateway_says_what_to_do_next(
    admin_client: Client,
) -> None:
    response = admin_client.get(INDEX)
    shown = text(response)
    assert "unhealthy" in shown
    assert "No account has been added yet" in shown
    assert "Nobody can call the gateway yet" in shown
    assert reverse("admin:accounts_account_add") in response.content.decode()
    assert reverse("admin:clients_clientkey_add") in response.content.decode()


@pytest.mark.django_db
def test_overview_says_where_clients_reach_the_gateway(
    admin_client: Client, settings
) -> None:
    settings.ALLOWED_HOSTS = ["gateway.example"]
    response = admin_client.get(INDEX, headers={"host": "gateway.example:4000"})
    shown = html.unescape(response.content.decode())
    assert "export ANTHROPIC_BASE_URL=http://gateway.example:4000\n" in shown
    assert "export ANTHROPIC_AUTH_TOKEN=your-client-key\n" in shown
    assert 'Anthropic(base_url="http://gateway.example:4000"' in shown


@pytest.mark.django_db
def test_overview_shows_accounts_counts_keys_and_events(admin_client: Client) -> None:
    account = make_account("ada")
    make_account("grace", status=AccountStatus.INVALID, status_reason="it was revoked")
    lifecycle.deactivate(account, actor="edsger", reason="on holiday", now=NOW)
    make_client_key("alice")
    issuing.revoke(make_client_key("bob").row, now=NOW)
    shown = text(admin_client.get(INDEX))
    for words in (
        "0 active 1 inactive 0 rate limited 1 invalid",
        "1 valid 0 expired 1 revoked",
        "it was revoked",
        "on holiday",
        "edsger",
    ):
        assert words in shown


@pytest.mark.django_db
def test_overview_shows_first_what_needs_a_person(admin_client: Client) -> None:
    make_account("a", status=AccountStatus.ACTIVE)
    make_account("b", status=AccountStatus.INACTIVE)
    make_account("c", status=AccountStatus.RATE_LIMITED)
    make_account("d", status=AccountStatus.INVALID)
    names = Account.objects.most_urgent_first().values_list("name", flat=True)
    assert list(names) == ["d", "c", "b", "a"]


@pytest.mark.django_db
def test_overview_names_how_many_accounts_it_leaves_out(admin_client: Client) -> None:
    for number in range(23):
        make_account(f"account {number}")
    assert "3 more: see all accounts" in text(admin_client.get(INDEX))


@pytest.mark.django_db
def test_overview_shows_what_was_seen_of_limits(admin_client: Client) -> None:
    now = timezone.now()
    account = make_account()
    account.quota.create(
        name="5h",
        utilization=0.42,
        resets_at=now + timedelta(minutes=80, seconds=30),
        seen_at=now - timedelta(minutes=25),
    )
    account.quota.create(
        name="7d", utilization=0.97, resets_at=now - timedelta(minutes=1), seen_at=now
    )
    shown = " ".join(text(admin_client.get(INDEX)).replace("\xa0", " ").split())

    assert "5 h: 42 % resets in 1 hour, 20 minutes seen 25 minutes ago" in shown
    assert "7 d: reset, not seen since" in shown
    assert "97 %" not in shown


@pytest.mark.django_db
def test_overview_shows_no_limits_that_nobody_saw(admin_client: Client) -> None:
    make_account()

    assert "nothing so far" in text(admin_client.get(INDEX))


@pytest.mark.django_db
def test_overview_takes_as_many_queries_for_many_rows_as_for_one(
    admin_client: Client,
) -> None:
    def grow(rows: range) -> None:
        for number in rows:
            account = make_account(f"account {number}")
            account.quota.create(name="5h", seen_at=timezone.now())
            lifecycle.record_added(account, actor="admin", now=NOW)
            make_client_key(f"key {number}")

    def count_queries() -> int:
        with CaptureQueriesContext(connection) as queries:
            admin_client.get(INDEX)
        return len(queries)

    grow(range(1))
    before = count_queries()
    grow(range(1, 12))
    assert count_queries() == before


@pytest.mark.django_db
def test_overview_keeps_to_what_a_person_may_see(client: Client) -> None:
    make_account("secret project")
    make_client_key("alice")
    user = User.objects.create_user("victor", password="pw", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_clientkey"))
    client.force_login(user)
    response = client.get(INDEX)
    shown = text(response)
    assert "secret project" not in shown
    assert "can serve" not in shown
    assert "1 valid" in shown
    assert reverse("admin:clients_clientkey_add") not in response.content.decode()


@pytest.mark.django_db
def test_overview_is_empty_for_nobody() -> None:
    page = overview.load(AnonymousUser(), base_url="", now=timezone.now())
    assert page.accounts is None
    assert page.keys is None
    assert page.jobs is None
    assert page.ledger is None
    assert page.usage is None


# --- what needs attention


def make_run(name: str, *, success: bool, minutes_ago: int = 1, **fields) -> Task:
    at = timezone.now() - timedelta(minutes=minutes_ago, seconds=30)
    return Task.objects.create(
        **{
            "id": f"{name}-{minutes_ago}",
            "name": name,
            "func": "math.sqrt",
            "group": f"claudeproxy:{name}",
            "success": success,
            "started": at,
            "stopped": at,
            **fields,
        }
    )


def shown_on_overview(client: Client) -> str:
    return text(client.get(INDEX)).replace("\xa0", " ")


@pytest.mark.django_db
def test_overview_is_quiet_when_all_is_well(admin_client: Client) -> None:
    make_account()
    make_run("heartbeat", success=True)
    assert "Needs attention" not in shown_on_overview(admin_client)


@pytest.mark.django_db
def test_overview_offers_to_activate_what_was_idle(
    admin_client: Client, settings
) -> None:
    now = timezone.now()
    account = make_account("ada")
    upkeep.deactivate_idle(now=now - timedelta(days=2, seconds=30))
    shown = shown_on_overview(admin_client)
    assert "switched off ada : idle: unused for 7d" in shown
    assert "2 days ago" in shown
    assert "Activate again" in shown
    url = reverse("admin:accounts_account_activate", args=[account.pk])
    response = admin_client.post(url, {"back": "overview"}, follow=True)
    assert response.redirect_chain == [(INDEX, 302)]
    assert "1 moved, 0 skipped" in text(response)
    assert "Activate again" not in text(response)


@pytest.mark.django_db
def test_overview_does_not_offer_what_a_person_switched_off(
    admin_client: Client,
) -> None:
    account = make_account("ada")
    upkeep.deactivate_idle(now=timezone.now() - timedelta(days=2))
    account.refresh_from_db()
    lifecycle.activate(account, actor="ada", reason="", now=timezone.now())
    lifecycle.deactivate(account, actor="ada", reason="mine", now=timezone.now())
    assert "Activate again" not in shown_on_overview(admin_client)


@pytest.mark.django_db
def test_overview_forgets_after_a_week_what_was_idle(admin_client: Client) -> None:
    make_account("ada")
    upkeep.deactivate_idle(now=timezone.now() - timedelta(days=8))
    assert Account.objects.get().status == AccountStatus.INACTIVE
    assert "Activate again" not in shown_on_overview(admin_client)


@pytest.mark.django_db
def test_overview_lets_invalid_accounts_sign_in_again(admin_client: Client) -> None:
    token = make_account(
        "tokened",
        kind=AccountKind.OAUTH,
        status=AccountStatus.INVALID,
        status_reason="its grant was revoked",
    )
    key = make_account("keyed", status=AccountStatus.INVALID)
    response = admin_client.get(INDEX)
    content = response.content.decode()
    assert "invalid tokened : its grant was revoked" in text(response)
    assert reverse("admin:accounts_account_sign_in", args=[token.pk]) in content
    assert reverse("admin:accounts_account_sign_in", args=[key.pk]) not in content


@pytest.mark.django_db
def test_overview_names_refreshes_that_fail(admin_client: Client) -> None:
    fields: dict[str, Any] = {
        "kind": AccountKind.OAUTH,
        "last_refresh_error": "answered 503",
    }
    account = make_account(
        "ada", refresh_retry_at=timezone.now() + timedelta(minutes=9), **fields
    )
    make_account("grace", status=AccountStatus.INACTIVE, **fields)
    response = admin_client.get(INDEX)
    shown = text(response).replace("\xa0", " ")
    assert "refresh failed ada : answered 503 Next attempt" in shown
    assert shown.count("answered 503") == 1
    url = reverse("admin:accounts_account_refresh", args=[account.pk])
    assert url in response.content.decode()


@pytest.mark.django_db
def test_overview_says_when_the_next_rate_limit_ends(admin_client: Client) -> None:
    for hours in (9, 2):
        make_account(
            f"account {hours}",
            status=AccountStatus.RATE_LIMITED,
            rate_limited_until=timezone.now() + timedelta(hours=hours, seconds=30),
        )
    make_account("over", status=AccountStatus.RATE_LIMITED, rate_limited_until=NOW)
    shown = shown_on_overview(admin_client)
    assert re.search(r"The next rate limit ends [-\d]+ [:\d]+ UTC in 2 hours", shown)
    assert "over, serves again" in shown


@pytest.mark.django_db
def test_overview_says_when_a_limited_account_serves_again(
    admin_client: Client,
) -> None:
    make_account(
        "ada",
        status=AccountStatus.RATE_LIMITED,
        status_reason="five-hour limit reached",
        rate_limited_until=timezone.now() + timedelta(hours=2, seconds=30),
    )
    make_account("over", status=AccountStatus.RATE_LIMITED, rate_limited_until=NOW)
    shown = shown_on_overview(admin_client)
    assert "rate limited ada : five-hour limit reached Serves again" in shown
    assert shown.count("Serves again") == 1


@pytest.mark.django_db
def test_overview_names_jobs_whose_last_run_failed(admin_client: Client) -> None:
    make_run("heartbeat", success=True)
    failed = make_run("recover_accounts", success=False, minutes_ago=2)
    make_run("recover_accounts", success=False, minutes_ago=3)
    make_run("recover_accounts", success=True, minutes_ago=4)
    make_run("refresh_tokens", success=False, minutes_ago=9)
    make_run("refresh_tokens", success=True, minutes_ago=8)
    response = admin_client.get(INDEX)
    shown = text(response)
    assert shown.count("its last run failed") == 1
    assert "job failed recover_accounts : its last run failed" in shown
    url = reverse("admin:django_q_failure_change", args=[failed.id])
    assert url in response.content.decode()


@pytest.mark.django_db
def test_overview_names_a_failed_job_of_no_group_by_its_function(
    admin_client: Client,
) -> None:
    make_run("one-off", success=False, group=None)
    assert "math.sqrt : its last run failed" in shown_on_overview(admin_client)


@pytest.mark.django_db
def test_overview_says_when_jobs_have_stopped(admin_client: Client) -> None:
    assert "No background job has run yet" in shown_on_overview(admin_client)
    make_run("heartbeat", success=True, minutes_ago=12)
    make_run("heartbeat", success=False, minutes_ago=1)
    shown = shown_on_overview(admin_client)
    assert "No background job has ended well for a while" in shown
    assert "12 minutes ago" in shown


@pytest.mark.django_db
def test_overview_offers_no_button_to_those_who_may_only_look(client: Client) -> None:
    account = make_account("ada", kind=AccountKind.OAUTH, status=AccountStatus.INVALID)
    make_account("grace", kind=AccountKind.OAUTH, last_refresh_error="503")
    make_run("heartbeat", success=False)
    user = User.objects.create_user("victor", password="pw", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_account"))
    client.force_login(user)
    response = client.get(INDEX)
    assert "Needs attention" in text(response)
    assert "heartbeat" not in text(response)
    content = response.content.decode()
    assert reverse("admin:accounts_account_sign_in", args=[account.pk]) not in content
    assert "Refresh now" not in content
    assert reverse("admin:accounts_account_connect") not in content


@pytest.mark.django_db
def test_notices_take_as_many_queries_for_many_as_for_one(
    admin_client: Client,
) -> None:
    def grow(rows: range) -> None:
        for number in rows:
            make_account(f"bad {number}", status=AccountStatus.INVALID)
            make_account(
                f"limited {number}",
                status=AccountStatus.RATE_LIMITED,
                rate_limited_until=timezone.now() + timedelta(hours=1),
            )
            make_account(
                f"late {number}", kind=AccountKind.OAUTH, last_refresh_error="503"
            )
            idle = make_account(f"idle {number}")
            lifecycle.deactivate(
                idle, actor=upkeep.ACTOR, reason="idle", now=timezone.now()
            )
            make_run(f"job {number}", success=False)

    def count_queries() -> int:
        with CaptureQueriesContext(connection) as queries:
            admin_client.get(INDEX)
        return len(queries)

    grow(range(1))
    before = count_queries()
    grow(range(1, 13))
    assert count_queries() == before


# --- every page


@pytest.mark.django_db
@pytest.mark.parametrize("url", all_pages())
def test_nobody_sees_a_page_without_logging_in(client: Client, url: str) -> None:
    response = client.get(url)
    assert response.status_code == 302
    assert response.headers["location"].startswith(reverse("admin:login"))


@pytest.mark.django_db
@pytest.mark.parametrize("url", all_pages())
def test_every_page_keeps_to_the_content_security_policy(
    admin_client: Client, url: str
) -> None:
    make_account()
    make_client_key()
    response = admin_client.get(url)
    assert "default-src 'self'" in response.headers["content-security-policy"]
    content = response.content.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", content)
    assert all(" src=" in tag for tag in re.findall(r"<script\b[^>]*>", content))
    assert not re.search(r'(?:src|href)="(?:https?:)?//', content)


@pytest.mark.django_db
def test_login_page_carries_the_name_and_the_theme(client: Client) -> None:
    content = client.get(reverse("admin:login")).content.decode()
    assert "Claude Proxy" in content
    assert "claudeproxy/theme.css" in content
    assert "claudeproxy/favicon.svg" in content


@pytest.mark.django_db
@pytest.mark.parametrize(
    "name",
    [
        "theme.css",
        "components.css",
        "charts.css",
        "usage.css",
        "copy.js",
        "refresh.js",
        "favicon.svg",
    ],
)
def test_static_files_are_served(client: Client, name: str) -> None:
    response = client.get(f"/static/claudeproxy/{name}")
    assert response.status_code == 200
    assert response.getvalue()


@pytest.mark.django_db
def test_apps_come_in_the_order_in_which_people_need_them(
    admin_client: Client,
) -> None:
    labels = [
        app["app_label"] for app in admin_client.get(INDEX).context["available_apps"]
    ]
    assert labels[:3] == ["accounts", "clients", "usage"]
    assert labels[-2:] == ["django_q", "auth"]
