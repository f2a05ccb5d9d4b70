"""Accounts in the admin."""

import html
import re
from datetime import timedelta

import pytest
from cryptography.fernet import Fernet
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from structlog.testing import capture_logs

from accounts import lifecycle, ownership
from accounts.admin import AccountAdmin
from accounts.forms import AddAccountForm
from accounts.models import Account, AccountEvent
from accounts.status import AccountKind, AccountStatus, ObjectKind
from claudeproxy.crypto import Secret
from claudeproxy.sandbox.server import SandboxServer
from tests.factories import NOW, make_account

pytestmark = pytest.mark.django_db

LIST = reverse("admin:accounts_account_changelist")
ADD = reverse("admin:accounts_account_add")
EVENTS = reverse("admin:accounts_accountevent_changelist")
KEY = "sk-sandbox-ada"
BUTTONS = ["activate", "deactivate", "check", "refresh", "models"]


def page(account: Account, name: str = "change") -> str:
    return reverse(f"admin:accounts_account_{name}", args=[account.pk])


def text(response) -> str:
    """What a reader sees: no tags, single blanks."""
    without_tags = re.sub(r"<[^>]+>", " ", response.content.decode())
    return re.sub(r"\s+", " ", html.unescape(without_tags))


def add(client: Client, **fields: str):
    return client.post(ADD, {"name": "ada", "api_key": KEY, **fields}, follow=True)


def act(client: Client, action: str, *accounts: Account):
    return client.post(
        LIST,
        {"action": action, "_selected_action": [account.pk for account in accounts]},
        follow=True,
    )


def count_queries(client: Client, url: str) -> int:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert client.get(url).status_code == 200
    return len(queries)


@pytest.fixture
def viewer(client: Client) -> Client:
    """Somebody who may look at accounts and do nothing else."""
    user = User.objects.create_user("victor", password="pw", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(
            codename__in=["view_account", "view_accountevent"],
        )
    )
    client.force_login(user)
    return client


# --- the list


def test_list_says_status_reason_and_deadline_in_words(admin_client: Client) -> None:
    make_account(
        status=AccountStatus.RATE_LIMITED,
        status_reason="its window is spent",
        rate_limited_until=timezone.now() + timedelta(hours=2, minutes=30, seconds=30),
    )
    shown = text(admin_client.get(LIST))
    assert "rate limited" in shown
    assert "its window is spent" in shown
    assert "in 2 hours, 30 minutes" in shown.replace("\xa0", " ")


def test_list_says_no_limit_for_an_account_without_one(admin_client: Client) -> None:
    make_account()
    assert "no limit" in text(admin_client.get(LIST))


def test_list_says_when_a_rate_limit_is_over(admin_client: Client) -> None:
    make_account(status=AccountStatus.RATE_LIMITED, rate_limited_until=NOW)
    assert "over, serves again" in text(admin_client.get(LIST))


def test_list_says_whose_an_account_is_and_when_it_was_used(
    admin_client: Client,
) -> None:
    make_account(
        organization_name="Analytical Engines",
        organization_uuid="uuid-of-engines",
        last_used_at=timezone.now() - timedelta(minutes=5, seconds=30),
    )
    shown = text(admin_client.get(LIST)).replace("\xa0", " ")
    assert "Analytical Engines uuid-of-engines" in shown
    assert "5 minutes ago" in shown


def test_list_takes_as_many_queries_for_many_accounts_as_for_one(
    admin_client: Client,
) -> None:
    make_account("first")
    before = count_queries(admin_client, LIST)
    for number in range(9):
        make_account(f"account {number}")
    assert count_queries(admin_client, LIST) == before


def test_list_finds_an_account_by_name(admin_client: Client) -> None:
    make_account("ada")
    make_account("grace")
    shown = text(admin_client.get(LIST, {"q": "grac"}))
    assert "grace" in shown
    assert "1 account" in shown


# --- what the address of the list may hold


@pytest.mark.parametrize(
    "query", ["status__regex=(a", "api_key__startswith=g", "name=a", "kind__exact=%00"]
)
def test_list_refuses_a_filter_that_it_does_not_show(
    admin_client: Client, query: str
) -> None:
    make_account()
    assert admin_client.get(f"{LIST}?{query}").status_code == 400


def test_list_refuses_a_search_of_very_many_words(admin_client: Client) -> None:
    make_account()
    response = admin_client.get(LIST, {"q": "a " * 2000})
    assert response.status_code == 200
    assert "Search for at most 200 characters" in text(response)


def test_list_takes_a_search_of_as_many_words_as_fit(admin_client: Client) -> None:
    make_account()
    assert admin_client.get(LIST, {"q": "a " * 99}).status_code == 200


# --- adding


def test_add_stores_an_active_account_and_who_added_it(admin_client: Client) -> None:
    add(admin_client)
    account = Account.objects.get()
    assert account.api_key is not None
    assert account.api_key.reveal() == KEY
    assert account.status == AccountStatus.ACTIVE
    assert AccountEvent.objects.get().actor == "admin"
    assert LogEntry.objects.get().object_repr == "ada"


def test_add_checks_the_key_when_asked(
    admin_client: Client, claude: SandboxServer
) -> None:
    add(admin_client, check_first="on")
    assert Account.objects.get().name == "ada"


def test_add_keeps_what_the_check_found_out(
    admin_client: Client, claude: SandboxServer
) -> None:
    shown = text(add(admin_client, check_first="on"))
    account = Account.objects.get()
    assert account.organization_uuid == claude.sandbox.accounts["ada"].organization_id
    assert len(account.capabilities or ()) == 4
    assert "Its models were read: 4." in shown


def test_add_succeeds_without_a_list_of_models(
    admin_client: Client, claude: SandboxServer
) -> None:
    checked, listed = {"path": "/v1/models"}, {"path": "/v1/models", "status": 500}
    claude.sandbox.script.add("ada", checked, listed)
    shown = text(add(admin_client, check_first="on"))
    assert "Its models are not known yet" in shown
    assert Account.objects.get().capabilities is None


def test_add_asks_nothing_of_the_provider_when_told_so(
    admin_client: Client, claude: SandboxServer
) -> None:
    assert "models" not in text(add(admin_client)).partition("was added")[0]
    assert len(claude.sandbox.log) == 0


def test_add_refuses_a_key_that_is_here_already(
    admin_client: Client, claude: SandboxServer
) -> None:
    add(admin_client, check_first="on")
    shown = text(add(admin_client, name="grace", check_first="on"))
    assert "This is the account 'ada', which is here already" in shown
    assert Account.objects.count() == 1


def test_add_repeats_what_the_provider_said_about_a_refused_key(
    admin_client: Client, claude: SandboxServer
) -> None:
    shown = text(add(admin_client, api_key="sk-unknown", check_first="on"))
    assert (
        "This key was refused: the upstream answered 401: invalid x-api-key." in shown
    )
    assert not Account.objects.exists()


def test_add_says_how_to_go_on_when_the_provider_cannot_be_asked(
    admin_client: Client,
) -> None:
    shown = text(add(admin_client, check_first="on"))
    assert "could not be asked" in shown
    assert "untick the box below" in shown
    assert not Account.objects.exists()


def test_add_does_not_give_a_refused_key_back(
    admin_client: Client, claude: SandboxServer
) -> None:
    response = add(admin_client, api_key="sk-unknown", check_first="on")
    assert "sk-unknown" not in response.content.decode()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": " "}, "This field is required."),
        ({"name": "a\tb"}, "Use at most 100 printable characters on one line."),
        ({"name": "taken"}, "An account called 'taken' exists already"),
        ({"api_key": ""}, "This field is required."),
        ({"api_key": "two words"}, "A key is one word of plain characters"),
    ],
)
def test_add_says_what_is_wrong_beside_the_field(
    admin_client: Client, fields: dict[str, str], message: str
) -> None:
    make_account("taken")
    assert message in text(add(admin_client, **fields))
    assert Account.objects.count() == 1


def test_add_does_not_ask_the_provider_about_a_form_with_errors(
    admin_client: Client,
) -> None:
    shown = text(add(admin_client, name=" ", check_first="on"))
    assert "could not be asked" not in shown


def test_add_loses_the_race_for_a_name_with_an_error_on_the_form() -> None:
    form = AddAccountForm({"name": "ada", "api_key": KEY})
    assert form.is_valid()
    make_account("ada")
    assert form.save(actor="admin", now=NOW) is None
    assert form.errors["name"] == [
        "An account called 'ada' exists already; choose another name."
    ]


def test_add_asks_for_the_key_in_a_password_field_without_completion(
    admin_client: Client,
) -> None:
    field = re.search(
        r'<input type="password"[^>]*>', admin_client.get(ADD).content.decode()
    )
    assert field is not None
    assert 'autocomplete="off"' in field[0]


def test_add_is_closed_to_those_who_may_only_look(viewer: Client) -> None:
    assert viewer.get(ADD).status_code == 403
    assert viewer.post(ADD, {"name": "ada", "api_key": KEY}).status_code == 403
    assert not Account.objects.exists()


# --- the page of an account


def test_change_renames_the_account(admin_client: Client) -> None:
    account = make_account("ada")
    admin_client.post(page(account), {"name": " ada of the console "})
    account.refresh_from_db()
    assert account.name == "ada of the console"


def test_change_takes_nothing_but_the_name(admin_client: Client) -> None:
    account = make_account("ada")
    admin_client.post(
        page(account),
        {"name": "ada", "status": "inactive", "kind": "oauth", "api_key": "sk-other"},
    )
    account.refresh_from_db()
    assert account.status == AccountStatus.ACTIVE
    assert account.kind == AccountKind.API_KEY
    assert account.api_key is not None
    assert account.api_key.reveal() == "sk-ant-of-ada"


def test_change_keeps_a_status_that_moved_while_the_page_was_open() -> None:
    stale = make_account("ada")
    lifecycle.deactivate(
        Account.objects.get(pk=stale.pk), actor="admin", reason="", now=NOW
    )
    stale.name = "renamed"
    model_admin = AccountAdmin(Account, admin.site)
    model_admin.save_model(RequestFactory().post("/"), stale, form=None, change=True)
    assert list(Account.objects.values_list("name", "status")) == [
        ("renamed", AccountStatus.INACTIVE)
    ]


def test_change_refuses_a_name_that_is_taken(admin_client: Client) -> None:
    account = make_account("ada")
    make_account("grace")
    assert "already exists" in text(admin_client.post(page(account), {"name": "grace"}))


def test_change_refuses_a_name_of_two_lines(admin_client: Client) -> None:
    account = make_account("ada")
    shown = text(admin_client.post(page(account), {"name": "a\nb"}))
    assert "Use at most 100 printable characters on one line." in shown


def test_change_shows_what_happened_to_the_account(admin_client: Client) -> None:
    account = make_account("ada")
    lifecycle.deactivate(account, actor="grace", reason="left the team", now=NOW)
    shown = text(admin_client.get(page(account)))
    assert "left the team" in shown
    assert "grace" in shown


def test_change_says_when_an_access_token_ends(admin_client: Client) -> None:
    account = make_account(
        kind=AccountKind.OAUTH,
        expires_at=timezone.now() + timedelta(minutes=90, seconds=30),
    )
    shown = text(admin_client.get(page(account))).replace("\xa0", " ")
    assert "Access token, set; ends" in shown
    assert "in 1 hour, 30 minutes" in shown


def test_change_shows_all_limits_that_were_seen(admin_client: Client) -> None:
    account = make_account("ada")
    assert "Nothing so far. What answers say" in text(admin_client.get(page(account)))
    now = timezone.now()
    account.quota.create(
        name="input-tokens",
        model_group="Opus 4.5 to 4.8",
        utilization=0.25,
        limit=1000,
        remaining=750,
        resets_at=now + timedelta(minutes=1),
        seen_at=now,
    )
    account.quota.create(
        name="7d_opus", utilization=1.2, status="rejected", seen_at=now
    )
    account.quota.create(name="5h", utilization=0.5, resets_at=now, seen_at=now)
    shown = " ".join(text(admin_client.get(page(account))).replace("\xa0", " ").split())
    assert "input tokens Opus 4.5 to 4.8 25 % 750 of 1,000" in shown
    assert "7 d, Opus 120 % not known spent not known" in shown
    assert "5 h reset, not seen since" in shown


def test_change_takes_as_many_queries_for_many_limits_as_for_one(
    admin_client: Client,
) -> None:
    account = make_account("ada")
    account.quota.create(name="5h", seen_at=timezone.now())
    before = count_queries(admin_client, page(account))
    for number in range(9):
        account.quota.create(name=f"{number}d", seen_at=timezone.now())
    assert count_queries(admin_client, page(account)) == before


def test_change_takes_as_many_queries_for_many_events_as_for_one(
    admin_client: Client,
) -> None:
    account = make_account("ada")
    lifecycle.record_added(account, actor="admin", now=NOW)
    before = count_queries(admin_client, page(account))
    for _ in range(9):
        lifecycle.record_added(account, actor="admin", now=NOW)
    assert count_queries(admin_client, page(account)) == before


def test_change_answers_an_unknown_account_with_a_redirect(
    admin_client: Client,
) -> None:
    url = reverse("admin:accounts_account_change", args=[404])
    assert admin_client.get(url).status_code == 302


def test_change_offers_no_button_to_those_who_may_only_look(viewer: Client) -> None:
    account = make_account()
    response = viewer.get(page(account))
    assert response.status_code == 200
    assert page(account, "deactivate") not in response.content.decode()


def test_delete_keeps_what_happened(admin_client: Client) -> None:
    account = make_account("ada")
    lifecycle.record_added(account, actor="admin", now=NOW)
    admin_client.post(page(account, "delete"), {"post": "yes"})
    assert not Account.objects.exists()
    assert "ada (deleted)" in text(admin_client.get(EVENTS))


@pytest.mark.parametrize("is_action", [False, True])
def test_delete_is_in_the_log(admin_client: Client, is_action: bool) -> None:
    account = make_account("ada")
    with capture_logs() as lines:
        if is_action:
            admin_client.post(
                LIST,
                {
                    "action": "delete_selected",
                    "_selected_action": [account.pk],
                    "post": "yes",
                },
            )
        else:
            admin_client.post(page(account, "delete"), {"post": "yes"})
    assert not Account.objects.exists()
    assert [
        (line["account_id"], line["name"], line["actor"])
        for line in lines
        if line["event"] == "account_deleted"
    ] == [(account.pk, "ada", "admin")]


@pytest.mark.parametrize("way", ["page", "action"])
def test_delete_says_beforehand_what_becomes_of_the_history(
    admin_client: Client, way: str
) -> None:
    account = make_account("ada")
    for _ in range(2):
        lifecycle.record_added(account, actor="admin", now=NOW)
    if way == "page":
        shown = text(admin_client.get(page(account, "delete")))
        assert "That is 2 events." in shown
    else:
        shown = text(act(admin_client, "delete_selected", account))
    assert "stays in the history , under the name it had" in shown
    assert "The credential is deleted." in shown
    assert Account.objects.exists()


@pytest.mark.parametrize("way", ["page", "action"])
def test_delete_counts_the_objects_of_an_account_and_lists_none(
    admin_client: Client, way: str
) -> None:
    account = make_account("ada")
    seen = [
        ownership.Possession(f"file_{number}", ObjectKind.FILE, account.pk)
        for number in range(3)
    ]
    ownership.remember(seen, now=NOW)
    if way == "page":
        shown = text(admin_client.get(page(account, "delete")))
    else:
        shown = text(act(admin_client, "delete_selected", account))

    assert "objects at the provider that are found through it: 3" in shown.lower()
    assert "file_1" not in shown


@pytest.mark.parametrize("pk", ["404", "nonsense"])
def test_delete_answers_an_unknown_account_with_a_redirect(
    admin_client: Client, pk: str
) -> None:
    url = reverse("admin:accounts_account_delete", args=[pk])
    assert admin_client.get(url).status_code == 302


# --- moves


def test_deactivate_moves_those_it_can_and_reports_the_others(
    admin_client: Client,
) -> None:
    active = make_account("ada")
    inactive = make_account("grace", status=AccountStatus.INACTIVE)
    shown = text(act(admin_client, "deactivate", active, inactive))
    assert "1 moved, 1 skipped" in shown
    assert "grace" in shown
    active.refresh_from_db()
    assert active.status == AccountStatus.INACTIVE


def test_activate_moves_those_it_can_and_reports_the_others(
    admin_client: Client,
) -> None:
    accounts = [
        make_account("ada"),
        make_account("grace", status=AccountStatus.INACTIVE),
        make_account("barbara", status=AccountStatus.RATE_LIMITED),
    ]
    assert "2 moved, 1 skipped" in text(act(admin_client, "activate", *accounts))
    assert Account.objects.active().count() == 3


def test_activate_lets_an_invalid_account_serve_only_if_it_works_now(
    admin_client: Client, claude: SandboxServer
) -> None:
    works = make_account("edsger", status=AccountStatus.INVALID, secret=KEY)
    fails = make_account("grace", status=AccountStatus.INVALID, secret="sk-unknown")
    shown = text(act(admin_client, "activate", works, fails))
    assert "1 moved, 0 skipped" in shown
    assert (
        "Account grace stays invalid: the upstream answered 401: invalid x-api-key"
        in shown
    )
    assert list(Account.objects.active()) == [works]


def test_activate_checks_an_account_that_was_switched_off_while_invalid(
    admin_client: Client, claude: SandboxServer
) -> None:
    account = make_account(status=AccountStatus.INVALID, secret="sk-unknown")
    act(admin_client, "deactivate", account)
    shown = text(act(admin_client, "activate", account))
    assert "Account ada stays inactive: the upstream answered 401" in shown
    account.refresh_from_db()
    assert account.status == AccountStatus.INACTIVE


def test_activate_leaves_an_invalid_account_when_the_provider_cannot_be_asked(
    admin_client: Client,
) -> None:
    account = make_account(status=AccountStatus.INVALID)
    shown = text(admin_client.post(page(account, "activate"), follow=True))
    assert "stays invalid: http://127.0.0.1:9 could not be asked" in shown
    assert "moved" not in shown
    assert not AccountEvent.objects.exists()


def test_a_move_names_the_person_who_made_it(admin_client: Client) -> None:
    act(admin_client, "deactivate", make_account())
    event = AccountEvent.objects.get()
    assert (event.actor, event.from_status, event.to_status) == (
        "admin",
        AccountStatus.ACTIVE,
        AccountStatus.INACTIVE,
    )


def test_actions_are_not_offered_to_those_who_may_only_look(viewer: Client) -> None:
    account = make_account()
    act(viewer, "deactivate", account)
    account.refresh_from_db()
    assert account.status == AccountStatus.ACTIVE


def test_buttons_move_one_account_and_come_back_to_its_page(
    admin_client: Client,
) -> None:
    account = make_account()
    response = admin_client.post(page(account, "deactivate"))
    assert response.headers["location"] == page(account)
    account.refresh_from_db()
    assert account.status == AccountStatus.INACTIVE
    admin_client.post(page(account, "activate"))
    account.refresh_from_db()
    assert account.status == AccountStatus.ACTIVE


def test_buttons_of_the_overview_come_back_to_it(admin_client: Client) -> None:
    account = make_account(status=AccountStatus.INACTIVE)
    response = admin_client.post(page(account, "activate"), {"back": "overview"})
    assert response.headers["location"] == reverse("admin:index")


@pytest.mark.parametrize("name", BUTTONS)
def test_buttons_answer_only_to_post(admin_client: Client, name: str) -> None:
    assert admin_client.get(page(make_account(), name)).status_code == 405


@pytest.mark.parametrize("name", BUTTONS)
def test_buttons_refuse_those_who_may_only_look(viewer: Client, name: str) -> None:
    assert viewer.post(page(make_account(), name)).status_code == 403


def test_buttons_do_not_work_from_a_foreign_page(admin_user: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post(page(make_account(), "deactivate")).status_code == 403


# --- checking


def test_check_reports_for_each_account_what_the_provider_said(
    admin_client: Client, claude: SandboxServer
) -> None:
    good = make_account("ada", secret=KEY)
    bad = make_account("grace", secret="sk-unknown")
    shown = text(act(admin_client, "check_credential", good, bad))
    assert "Account ada: works" in shown
    assert "Account grace: the upstream answered 401: invalid x-api-key" in shown


def test_check_button_reports_for_the_account(
    admin_client: Client, claude: SandboxServer
) -> None:
    account = make_account("ada", secret=KEY)
    response = admin_client.post(page(account, "check"), follow=True)
    assert "Account ada: works" in text(response)


def test_check_says_when_the_stored_secret_cannot_be_read(
    admin_client: Client, settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = make_account("ada")
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    field = Account._meta.get_field("api_key")
    monkeypatch.delitem(field.__dict__, "cipher")
    shown = text(act(admin_client, "check_credential", account))
    monkeypatch.delitem(field.__dict__, "cipher")
    assert "cannot be read with the keys in ENCRYPTION_KEYS" in shown


# --- events


@pytest.mark.parametrize("name", ["add", "delete"])
def test_events_cannot_be_made_or_removed(admin_client: Client, name: str) -> None:
    lifecycle.record_added(make_account(), actor="admin", now=NOW)
    args = [] if name == "add" else [AccountEvent.objects.get().pk]
    url = reverse(f"admin:accounts_accountevent_{name}", args=args)
    assert admin_client.get(url).status_code == 403


def test_events_cannot_be_edited(admin_client: Client) -> None:
    lifecycle.record_added(make_account(), actor="admin", now=NOW)
    event = AccountEvent.objects.get()
    url = reverse("admin:accounts_accountevent_change", args=[event.pk])
    assert admin_client.post(url, {"reason": "another"}).status_code == 403
    assert admin_client.get(url).status_code == 200


def test_events_can_be_narrowed_to_an_account(admin_client: Client) -> None:
    for name in ("ada", "grace"):
        lifecycle.record_added(make_account(name), actor="admin", now=NOW)
    account = Account.objects.get(name="ada")
    shown = text(admin_client.get(EVENTS, {"account__id__exact": account.pk}))
    assert "1 account event" in shown


def test_events_take_as_many_queries_for_many_accounts_as_for_one(
    admin_client: Client,
) -> None:
    lifecycle.record_added(make_account("first"), actor="admin", now=NOW)
    lifecycle.record_added(make_account("second"), actor="admin", now=NOW)
    before = count_queries(admin_client, EVENTS)
    for number in range(8):
        account = make_account(f"account {number}")
        lifecycle.record_added(account, actor="admin", now=NOW)
    assert count_queries(admin_client, EVENTS) == before


# --- secrets


def test_no_page_shows_a_secret(admin_client: Client, claude: SandboxServer) -> None:
    secrets = ["sk-planted-api-key", "planted-access", "planted-refresh"]
    accounts = [
        make_account("keyed", secret=secrets[0]),
        make_account(
            "tokened",
            kind=AccountKind.OAUTH,
            secret=secrets[1],
            refresh_token=Secret(secrets[2]),
        ),
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            "select api_key, access_token, refresh_token from accounts_account"
        )
        secrets += [sealed for row in cursor.fetchall() for sealed in row if sealed]
    pages = [reverse("admin:index"), LIST, EVENTS]
    for account in accounts:
        pages += [page(account, name) for name in ("change", "delete", "history")]
    contents = [admin_client.get(url).content.decode() for url in pages]
    for action in ("check_credential", "deactivate", "activate", "delete_selected"):
        contents.append(act(admin_client, action, *accounts).content.decode())
    assert len(secrets) == 6
    assert not [secret for secret in secrets if secret in "".join(contents)]


def test_an_added_key_is_in_no_session_log_or_cookie(
    admin_client: Client, claude: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    add(admin_client, api_key="sk-unknown", check_first="on")
    add(admin_client, api_key="sk-unknown")
    kept = [str(session.get_decoded()) for session in Session.objects.all()]
    kept += [str(vars(entry)) for entry in LogEntry.objects.all()]
    kept += [morsel.OutputString() for morsel in admin_client.cookies.values()]
    kept += [caplog.text]
    assert LogEntry.objects.count() == 1
    assert not [entry for entry in kept if "sk-unknown" in entry]
