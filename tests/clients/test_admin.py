"""Client keys in the admin."""

import html
import re
from datetime import timedelta

import pytest
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

from clients import directory, issuing, keys
from clients.admin import ClientKeyAdmin
from clients.forms import AddClientKeyForm
from clients.models import ClientKey, ClientKeyRole
from tests.factories import make_client_key

pytestmark = pytest.mark.django_db

LIST = reverse("admin:clients_clientkey_changelist")
ADD = reverse("admin:clients_clientkey_add")
KEY = re.compile(r"cp_[0-9A-Za-z]{49}")


def page(key: ClientKey, name: str = "change") -> str:
    return reverse(f"admin:clients_clientkey_{name}", args=[key.pk])


def text(response) -> str:
    """What a reader sees: no tags, single blanks."""
    without_tags = re.sub(r"<[^>]+>", " ", response.content.decode())
    return re.sub(r"\s+", " ", html.unescape(without_tags))


def create(client: Client, **fields: str):
    return client.post(ADD, {"name": "alice", "role": "user", **fields})


def act(client: Client, action: str, *rows: ClientKey):
    return client.post(
        LIST,
        {"action": action, "_selected_action": [row.pk for row in rows]},
        follow=True,
    )


# --- creating


def test_created_key_is_shown_and_known_to_the_directory(admin_client: Client) -> None:
    shown = KEY.search(create(admin_client).content.decode())
    assert shown is not None
    known = directory.load()[keys.digest(shown[0])]
    assert (known.name, known.role, known.is_revoked) == ("alice", "user", False)


def test_created_key_is_in_no_second_page(admin_client: Client) -> None:
    shown = KEY.search(create(admin_client).content.decode())
    assert shown is not None
    row = ClientKey.objects.get()
    pages = [reverse("admin:index"), LIST, ADD]
    pages += [page(row, name) for name in ("change", "delete", "history")]
    for url in pages:
        content = admin_client.get(url).content.decode()
        assert not KEY.search(content), url
        assert row.digest.hex() not in content


def test_created_key_is_kept_nowhere_but_as_a_digest(
    admin_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    response = create(admin_client)
    shown = KEY.search(response.content.decode())
    assert shown is not None
    kept = [str(session.get_decoded()) for session in Session.objects.all()]
    kept += [str(vars(entry)) for entry in LogEntry.objects.all()]
    kept += [morsel.OutputString() for morsel in admin_client.cookies.values()]
    kept += [str(dict(response.headers)), caplog.text]
    assert LogEntry.objects.get().object_repr == "alice"
    assert not [entry for entry in kept if shown[0] in entry]


def test_page_with_the_key_may_not_be_stored(admin_client: Client) -> None:
    assert "no-store" in create(admin_client).headers["cache-control"]


def test_page_with_the_key_says_how_to_point_a_client_at_this_host(
    admin_client: Client, settings
) -> None:
    settings.ALLOWED_HOSTS = ["gateway.example"]
    response = admin_client.post(
        ADD, {"name": "alice", "role": "user"}, headers={"host": "gateway.example:4000"}
    )
    shown = html.unescape(response.content.decode())
    key = KEY.search(shown)
    assert key is not None
    assert "export ANTHROPIC_BASE_URL=http://gateway.example:4000\n" in shown
    assert f"export ANTHROPIC_AUTH_TOKEN={key[0]}\n" in shown
    assert f'base_url="http://gateway.example:4000", api_key="{key[0]}"' in shown


def test_reloading_the_page_with_the_key_makes_no_second_key(
    admin_client: Client,
) -> None:
    create(admin_client)
    response = create(admin_client)
    assert "A client key called 'alice' exists already" in text(response)
    assert not KEY.search(response.content.decode())
    assert ClientKey.objects.count() == 1


def test_a_key_can_end_at_a_time(admin_client: Client) -> None:
    create(admin_client, expires_at="2999-12-31T23:59")
    expires_at = ClientKey.objects.get().expires_at
    assert expires_at is not None
    assert expires_at.isoformat() == "2999-12-31T23:59:00+00:00"


def test_a_key_cannot_end_in_the_past(admin_client: Client) -> None:
    shown = text(create(admin_client, expires_at="2001-01-01T00:00"))
    assert "This time has passed; choose a later one." in shown
    assert not ClientKey.objects.exists()


def test_the_end_is_asked_for_in_one_field(admin_client: Client) -> None:
    content = admin_client.get(ADD).content.decode()
    assert content.count('type="datetime-local"') == 1
    assert "expires_at_0" not in content


def test_a_key_can_be_for_admins(admin_client: Client) -> None:
    create(admin_client, role="admin")
    assert ClientKey.objects.get().role == ClientKeyRole.ADMIN


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": " "}, "This field is required."),
        ({"name": "a\tb"}, "Use at most 100 printable characters on one line."),
        ({"role": "root"}, "Select a valid choice."),
        ({"expires_at": "soon"}, "Enter a valid date/time."),
    ],
)
def test_create_says_what_is_wrong_beside_the_field(
    admin_client: Client, fields: dict[str, str], message: str
) -> None:
    assert message in text(create(admin_client, **fields))
    assert not ClientKey.objects.exists()


def test_create_loses_the_race_for_a_name_with_an_error_on_the_form() -> None:
    form = AddClientKeyForm({"name": "alice", "role": "user"})
    assert form.is_valid()
    make_client_key("alice")
    assert form.save() is None
    assert form.errors["name"] == [
        "A client key called 'alice' exists already; choose another name."
    ]


def test_create_is_closed_to_those_who_may_only_look(client: Client) -> None:
    user = User.objects.create_user("victor", password="pw", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_clientkey"))
    client.force_login(user)
    assert client.get(LIST).status_code == 200
    assert create(client).status_code == 403
    assert not ClientKey.objects.exists()


# --- the list


def test_list_says_how_each_key_stands(admin_client: Client) -> None:
    now = timezone.now()
    make_client_key("forever")
    make_client_key("ending", expires_at=now + timedelta(days=3, hours=2, seconds=30))
    issuing.expire(make_client_key("ended").row, now=now)
    issuing.revoke(make_client_key("revoked").row, now=now)
    shown = text(admin_client.get(LIST))
    for words in ("valid", "never by itself", "expires in 3d 2h", "expired", "revoked"):
        assert words in shown


@pytest.mark.parametrize("status", ["valid", "expired", "revoked"])
def test_list_can_be_narrowed_to_a_status(admin_client: Client, status: str) -> None:
    now = timezone.now()
    make_client_key("key that is valid")
    issuing.expire(make_client_key("key that is expired").row, now=now)
    issuing.revoke(make_client_key("key that is revoked").row, now=now)
    shown = text(admin_client.get(LIST, {"status": status}))
    assert re.findall(r"key that is (\w+)", shown) == [status]


@pytest.mark.parametrize(
    "query", ["role__regex=(a", "digest__startswith=g", "name=a", "role__exact=%00"]
)
def test_list_refuses_a_filter_that_it_does_not_show(
    admin_client: Client, query: str
) -> None:
    make_client_key()
    assert admin_client.get(f"{LIST}?{query}").status_code == 400


def test_list_refuses_a_search_of_very_many_words(admin_client: Client) -> None:
    make_client_key()
    response = admin_client.get(LIST, {"q": "a " * 2000})
    assert response.status_code == 200
    assert "Search for at most 200 characters" in text(response)


def test_list_takes_a_search_of_as_many_words_as_fit(admin_client: Client) -> None:
    make_client_key()
    assert admin_client.get(LIST, {"q": "a " * 99}).status_code == 200


def test_list_takes_as_many_queries_for_many_keys_as_for_one(
    admin_client: Client,
) -> None:
    def count_queries() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert admin_client.get(LIST).status_code == 200
        return len(queries)

    make_client_key("first")
    before = count_queries()
    for number in range(9):
        make_client_key(f"key {number}")
    assert count_queries() == before


# --- changing


def test_change_renames_the_key_and_nothing_else(admin_client: Client) -> None:
    row = make_client_key("alice").row
    admin_client.post(
        page(row), {"name": " bob ", "role": "admin", "expires_at": "2999-01-01T00:00"}
    )
    row.refresh_from_db()
    assert (row.name, row.role, row.expires_at) == ("bob", ClientKeyRole.USER, None)


def test_a_key_may_have_a_session_limit_of_its_own(admin_client: Client) -> None:
    create(admin_client, session_limit="5")
    row = ClientKey.objects.get(session_limit=5)
    assert "5 of its own" in text(admin_client.get(LIST))
    admin_client.post(page(row), {"name": "alice", "session_limit": ""})
    assert ClientKey.objects.filter(session_limit=None).exists()
    assert "shared limit" in text(admin_client.get(LIST))


def test_a_session_limit_that_cannot_be_is_said_beside_the_field(
    admin_client: Client,
) -> None:
    assert "greater than or equal to 1" in text(create(admin_client, session_limit="0"))
    assert not ClientKey.objects.exists()


def test_change_does_not_undo_a_revocation_it_did_not_see() -> None:
    stale = make_client_key("alice").row
    issuing.revoke(stale, now=timezone.now())
    stale.name = "bob"
    model_admin = ClientKeyAdmin(ClientKey, admin.site)
    model_admin.save_model(RequestFactory().post("/"), stale, form=None, change=True)
    row = ClientKey.objects.get()
    assert row.name == "bob"
    assert row.revoked_at is not None


def test_change_refuses_a_name_of_two_lines(admin_client: Client) -> None:
    shown = text(admin_client.post(page(make_client_key().row), {"name": "a\nb"}))
    assert "Use at most 100 printable characters on one line." in shown


def test_delete_asks_first(admin_client: Client) -> None:
    row = make_client_key("alice").row
    assert "Are you sure" in text(admin_client.get(page(row, "delete")))
    admin_client.post(page(row, "delete"), {"post": "yes"})
    assert not ClientKey.objects.exists()


# --- actions


def test_revoke_ends_those_it_can_and_reports_the_others(admin_client: Client) -> None:
    first, second = make_client_key("alice").row, make_client_key("bob").row
    issuing.revoke(second, now=timezone.now())
    shown = text(act(admin_client, "revoke", first, second))
    assert "1 revoked, 1 skipped (ended before: bob)." in shown
    assert ClientKey.objects.revoked().count() == 2


def test_expire_ends_those_it_can_and_reports_the_others(admin_client: Client) -> None:
    first, second = make_client_key("alice").row, make_client_key("bob").row
    issuing.revoke(second, now=timezone.now())
    shown = text(act(admin_client, "expire", first, second))
    assert "1 expired, 1 skipped (ended before: bob)." in shown
    first.refresh_from_db()
    assert not first.is_valid(timezone.now())


def test_the_log_keeps_who_did_what_to_a_key(admin_client: Client) -> None:
    with capture_logs() as lines:
        create(admin_client)
        key = ClientKey.objects.get()
        act(admin_client, "revoke", key)
        act(admin_client, "revoke", key)
        admin_client.post(page(key, "delete"), {"post": "yes"})
    assert [
        (line["event"], line["key_id"], line["name"], line["actor"])
        for line in lines
        if line["event"].startswith("client_key")
    ] == [
        (f"client_key_{done}", key.pk, key.name, "admin")
        for done in ("issued", "revoked", "deleted")
    ]
