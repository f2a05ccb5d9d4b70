"""Client sessions in the admin, and on its overview."""

import html
import re
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from structlog.testing import capture_logs

from clients import issuing
from clients.models import ClientKey
from sessions_limit import references
from sessions_limit.backends.base import LiveSession
from sessions_limit.forms import EndSessionsForm
from sessions_limit.keys import SessionId
from tests.factories import make_account, make_client_key
from tests.sessions_limit import visits

pytestmark = pytest.mark.django_db

INDEX = reverse("admin:index")
LIST = reverse("admin:sessions_limit_clientsession_changelist")
MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["database", "redis"])
def store(request: Any, settings: Any) -> Iterator[str]:
    """Each kind of store in turn, as the settings name it."""
    if request.param == "database":
        yield request.param
        return
    with visits.in_redis() as url:
        settings.REDIS_URL = url
        yield request.param


def text(response: Any) -> str:
    """What a reader sees: no tags, single blanks."""
    without_tags = re.sub(r"<[^>]+>", " ", response.content.decode())
    return re.sub(r"\s+", " ", html.unescape(without_tags))


def rows(response: Any) -> list[str]:
    """The rows of the table, as a reader sees them."""
    body = re.search(r"<tbody>.*?</tbody>", response.content.decode(), re.DOTALL)
    found = re.findall(r"<tr>.*?</tr>", body[0], re.DOTALL) if body else []
    return [re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", row)).strip() for row in found]


def make_key(name: str, session_limit: int | None = None) -> ClientKey:
    return issuing.issue(name, "user", session_limit=session_limit).row  # type: ignore[arg-type]


def visit(last: int = 1, *, key: ClientKey | None = None, **fields: Any) -> SessionId:
    """A client at 192.0.2.*last*; with the key of alice, unless it is said whose."""
    if key is None:
        found = ClientKey.objects.filter(name="alice").first()
        key = found or make_client_key("alice").row
    return visits.visit(ip_address(f"192.0.2.{last}"), key=key, **fields)


def act(client: Client, action: str, *sessions: SessionId, **fields: str) -> Any:
    """Choose an action for ticked rows."""
    names = [references.write(session) for session in sessions]
    data = {"action": action, "_selected_action": names, **fields}
    return client.post(LIST, data, follow=True)


def end(client: Client, *sessions: SessionId, block: str = "", span: str = "") -> Any:
    """Choose to end, and confirm it."""
    return act(client, "end", *sessions, confirmed="yes", block=block, span=span)


def live() -> dict[SessionId, LiveSession]:
    with visits.opened() as store:
        return {session.id: session for session in store.live()}


def log_in(client: Client, *codenames: str) -> Client:
    user = User.objects.create_user("victor", password="pw", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client.force_login(user)
    return client


@pytest.fixture
def viewer(client: Client) -> Client:
    """Somebody who may look at sessions and do nothing else."""
    return log_in(client, "view_clientsession")


# --- the list


def test_list_says_who_is_here_and_what_they_do(
    admin_client: Client, store: str
) -> None:
    account = make_account("ada")
    key = make_client_key("alice").row
    visit(1, key=key, requests=42, running=2, account_names=("ada", "gone"))
    response = admin_client.get(LIST)
    (row,) = rows(response)

    for words in (
        "192.0.2.1 claude-cli/2.1",
        "alive",
        "alice",
        "1 of 3, shared",
        "ends in 4 minutes",
        "just now first just now",
        "42 2 running",
        "ada , gone",
    ):
        assert words in row
    content = response.content.decode()
    assert reverse("admin:clients_clientkey_change", args=[key.pk]) in content
    assert reverse("admin:accounts_account_change", args=[account.pk]) in content
    assert "1 of 3 in the shared limit." in text(response)


def test_list_begins_with_who_called_last(admin_client: Client, store: str) -> None:
    for last in (1, 2, 3):
        visit(last)
    visit(1)
    found = rows(admin_client.get(LIST))

    assert [re.findall(r"192\.0\.2\.\d", row)[0][-1] for row in found] == list("132")


def test_list_counts_a_key_with_a_limit_of_its_own_apart(admin_client: Client) -> None:
    visit(1)
    own = make_key("own", 5)
    visit(2, key=own)
    visit(3, key=own)
    shown = " ".join(rows(admin_client.get(LIST)))

    assert "1 of 3, shared" in shown
    assert shown.count("2 of 5, its own") == 2


def test_list_keeps_up_with_keys_that_change(admin_client: Client) -> None:
    freed, gone = make_key("freed", 5), make_key("gone")
    visit(1, key=freed)
    visit(2, key=gone)
    issuing.limit_sessions(freed, None)
    issuing.delete(gone, actor="ada")
    shown = " ".join(rows(admin_client.get(LIST)))

    assert "1, no limit of its own any more" in shown
    assert "gone (deleted)" in shown


def test_list_says_what_is_not_known(admin_client: Client) -> None:
    key = make_client_key("alice").row
    visits.visit(None, key=key, user_agent="")  # type: ignore[arg-type]
    (row,) = rows(admin_client.get(LIST))

    assert "address not known no user agent" in row
    assert "none so far" in row


def test_what_clients_say_of_themselves_is_no_markup(admin_client: Client) -> None:
    visit(1, user_agent="<script>alert(1)</script>")

    assert "<script>alert" not in admin_client.get(LIST).content.decode()


def test_list_without_sessions_says_so(admin_client: Client) -> None:
    assert "No client is here, and none is blocked." in text(admin_client.get(LIST))


def test_list_says_if_nobody_is_counted(admin_client: Client, settings: Any) -> None:
    settings.SESSION_ENABLED = False

    assert "Sessions are not limited" in text(admin_client.get(LIST))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", "1234"),
        ("state=alive", "134"),
        ("state=blocked", "2"),
        ("scope=shared", "12"),
        ("scope=own", "34"),
        ("scope=own&state=blocked", ""),
        ("q=192.0.2.3", "3"),
        ("q=ALICE", "12"),
        ("q=alice+curl", "2"),
        ("q=alice+bob", ""),
        ("q=cli%2F2", "134"),
        ("q=+", "1234"),
        ("key=999", ""),
        ("state=nonsense&scope=%00&key=x&p=x&other=1", "1234"),
        ("key=" + "9" * 9000, "1234"),
        ("p=7", "1234"),
    ],
)
def test_list_shows_what_is_asked_for(
    admin_client: Client, query: str, found: str
) -> None:
    visit(1)
    blocked = visit(2, user_agent="curl/8")
    visit(3, key=make_key("bob", 5))
    visit(4, key=make_key("carol", 5))
    end(admin_client, blocked, block="1h")
    response = admin_client.get(f"{LIST}?{query}")
    shown = [re.findall(r"192\.0\.2\.(\d)", row)[0] for row in rows(response)]

    assert "".join(sorted(shown)) == found


def test_list_of_one_key(admin_client: Client) -> None:
    visit(1)
    bob = make_key("bob")
    visit(2, key=bob)
    response = admin_client.get(f"{LIST}?key={bob.pk}&q=192")

    assert len(rows(response)) == 1
    content = response.content.decode()
    assert f'<li class="selected"><a href="?q=192&amp;key={bob.pk}">bob</a>' in content
    assert '<a href="?q=192">&#10006; Clear all filters</a>' in content
    assert f'<input type="hidden" name="key" value="{bob.pk}">' in content
    assert "1 result ( 2 total )" in text(response)


def test_a_search_that_is_too_long_is_left_out(admin_client: Client) -> None:
    visit(1)
    response = admin_client.get(LIST, {"q": "x" * 201})

    assert "Search for at most 200 characters" in text(response)
    assert len(rows(response)) == 1


def test_a_long_list_comes_in_pages_and_takes_no_more_queries(
    admin_client: Client,
) -> None:
    def shown(page: int) -> tuple[list[str], int]:
        with CaptureQueriesContext(connection) as queries:
            response = admin_client.get(f"{LIST}?p={page}&state=alive")
        return rows(response), len(queries)

    visit(0, account_names=("gone",))
    (_, few) = shown(1)
    for number in range(1, 250):
        make_account(f"account {number}")
        key = make_key(f"key {number}", 5 if number % 2 else None)
        visit(number, key=key, account_names=(f"account {number}",))
    pages = [shown(page) for page in (1, 2, 3, 4)]

    assert [len(found) for found, _ in pages] == [100, 100, 50, 50]
    assert {queries for _, queries in pages} == {few}
    content = admin_client.get(f"{LIST}?state=alive").content.decode()
    assert '<a href="?state=alive&amp;p=3">3</a>' in content
    assert "220 more: search for them" in content


# --- who may


def test_a_viewer_sees_no_button_and_can_do_nothing(viewer: Client) -> None:
    session = visit(1)
    response = viewer.get(LIST)

    assert len(rows(response)) == 1
    content = response.content.decode()
    assert "_selected_action" not in content
    assert 'name="end"' not in content
    assert act(viewer, "end", session).status_code == 403
    assert end(viewer, session).status_code == 403
    assert act(viewer, "unblock", session).status_code == 403
    assert live()[session].is_alive


def test_who_may_not_look_sees_nothing(client: Client) -> None:
    log_in(client, "view_account", "delete_clientsession")

    assert client.get(LIST).status_code == 403
    assert "in the shared limit" not in text(client.get(INDEX))


def test_nobody_adds_a_session(admin_client: Client) -> None:
    add = reverse("admin:sessions_limit_clientsession_add")

    assert admin_client.get(add).status_code == 403


def test_ending_needs_the_token_against_forgery(admin_user: User) -> None:
    session = visit(1)
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)

    assert end(client, session).status_code == 403
    assert live()[session].is_alive


def test_no_link_ends_anything(admin_client: Client) -> None:
    session = visit(1)
    query = {
        "action": "end",
        "confirmed": "yes",
        "end": references.write(session),
        "_selected_action": references.write(session),
    }

    assert admin_client.get(LIST, query).status_code == 200
    assert admin_client.put(LIST).status_code == 405
    assert live()[session].is_alive


# --- ending


def test_it_is_asked_first_what_will_be_cut(admin_client: Client, store: str) -> None:
    first, second = visit(1, running=2), visit(2, running=1)
    response = act(admin_client, "end", first, second, SessionId("global", "0" * 32))
    shown = text(response)

    assert "3 running requests will be cut off within a second." in shown
    assert "192.0.2.1 of alice, 2 running" in shown
    assert "1 that has ended already" in shown
    assert "End 3 sessions" in response.content.decode()
    assert live()[first].is_alive


def test_a_row_has_a_button_of_its_own(admin_client: Client) -> None:
    mine, other = visit(1), visit(2)
    data = {"end": references.write(mine), "_selected_action": references.write(other)}
    response = admin_client.post(LIST, data)

    assert response.context["chosen"] == [references.write(mine)]


def test_sessions_are_ended_and_it_is_told_how_many(
    admin_client: Client, store: str
) -> None:
    first, second = visit(1), visit(2)
    before = visit(3)
    kept = visit(4)
    end(admin_client, before)
    with capture_logs() as lines:
        response = end(admin_client, first, second, before)

    assert "2 ended, 1 had already ended." in text(response)
    assert set(live()) == {kept}
    assert [line for line in lines if line["event"].startswith("session_")] == [
        {
            "event": "session_ended",
            "log_level": "info",
            "scope": "global",
            "session": session.digest,
            "block": None,
            "actor": "admin",
        }
        for session in (first, second)
    ]


@pytest.mark.parametrize(
    ("block", "span", "words", "lasts"),
    [
        ("5m", "", "5m", 5 * MINUTE),
        ("1h", "", "1h", 60 * MINUTE),
        ("1d", "", "1d", 24 * 60 * MINUTE),
        ("own", " 30m ", "30m", 30 * MINUTE),
    ],
)
def test_a_session_is_blocked_for_a_time(
    admin_client: Client,
    store: str,
    block: str,
    span: str,
    words: str,
    lasts: timedelta,
) -> None:
    session = visit(1)
    with capture_logs() as lines:
        response = end(admin_client, session, block=block, span=span)
    (row,) = rows(response)
    found = live()[session]

    assert f"1 ended; 1 blocked for {words}." in text(response)
    assert "blocked free in" in row
    assert not found.is_alive
    assert found.blocked_until is not None
    assert abs(found.blocked_until - found.last_seen_at - lasts) < MINUTE
    assert [line["block"] for line in lines if line["event"] == "session_ended"] == [
        words
    ]


def test_who_had_ended_already_is_blocked_all_the_same(
    admin_client: Client, store: str
) -> None:
    session = visit(1)
    end(admin_client, session)
    with capture_logs() as lines:
        response = end(admin_client, session, block="1h")

    assert "0 ended, 1 had already ended; 1 blocked for 1h." in text(response)
    assert live()[session].blocked_until is not None
    assert "session_blocked" in [line["event"] for line in lines]


def test_ending_who_is_blocked_does_not_let_them_in(
    admin_client: Client, store: str
) -> None:
    session = visit(1)
    end(admin_client, session, block="1h")
    response = end(admin_client, session)

    assert "0 ended, 1 had already ended." in text(response)
    assert live()[session].blocked_until is not None


def test_blocked_sessions_are_let_in_again(admin_client: Client, store: str) -> None:
    blocked, alive = visit(1), visit(2)
    end(admin_client, blocked, block="1h")
    assert "Unblock" in rows(admin_client.get(LIST))[1]
    with capture_logs() as lines:
        response = act(admin_client, "unblock", blocked, alive)

    assert "1 unblocked, 1 was not blocked." in text(response)
    assert set(live()) == {alive}
    assert [line["event"] for line in lines if line["event"].startswith("session")] == [
        "session_unblocked"
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"block": "own"}, "Say for how long."),
        ({"block": "own", "span": "soon"}, "is not a duration"),
        ({"block": "own", "span": "0s"}, "at least 1s and at most 365d"),
        ({"block": "own", "span": "366d"}, "at least 1s and at most 365d"),
        ({"block": "own", "span": "9" * 30 + "d"}, "longer than any clock"),
        ({"block": "own", "span": "1" * 41}, "at most 40 characters"),
        ({"block": "1h", "span": "30m"}, "or leave this empty"),
        ({"block": "forever"}, "Select a valid choice"),
    ],
)
def test_a_block_that_makes_no_sense_is_refused(
    admin_client: Client, fields: dict[str, str], said: str
) -> None:
    session = visit(1)
    response = end(admin_client, session, **fields)

    assert said in text(response)
    assert "Please correct the error below." in text(response)
    assert live()[session].is_alive


def test_each_length_that_is_offered_is_one() -> None:
    for value, _ in EndSessionsForm.base_fields["block"].choices:  # type: ignore[attr-defined]
        form = EndSessionsForm({"block": value, "span": "1m" if value == "own" else ""})
        assert form.is_valid()
        assert bool(form.chosen_block) == bool(value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"action": "end"}, "Choose sessions first"),
        ({"action": "end", "_selected_action": ["nonsense", "1"]}, "Choose sessions"),
        (
            {"action": "", "_selected_action": [f"global.{'0' * 32}"]},
            "Choose an action",
        ),
        (
            {"action": "x", "_selected_action": [f"global.{'0' * 32}"]},
            "Choose an action",
        ),
    ],
)
def test_what_cannot_be_done_is_said(
    admin_client: Client, data: dict[str, Any], said: str
) -> None:
    assert said in text(admin_client.post(LIST, data, follow=True))


def test_filters_stay_after_an_action(admin_client: Client) -> None:
    session = visit(1)
    data = {
        "action": "end",
        "confirmed": "yes",
        "_selected_action": references.write(session),
    }
    response = admin_client.post(f"{LIST}?state=alive&q=192", data)

    assert response.headers["location"] == f"{LIST}?state=alive&q=192"


# --- the store away


def test_a_store_that_is_away_is_said_in_words(
    admin_client: Client, settings: Any
) -> None:
    settings.REDIS_URL = visits.NOBODY_THERE
    for response in (
        admin_client.get(LIST),
        act(admin_client, "end", SessionId("global", "0" * 32)),
        end(admin_client, SessionId("global", "0" * 32), block="1h"),
        act(admin_client, "unblock", SessionId("global", "0" * 32)),
    ):
        assert response.status_code == 200
        assert "The store of sessions does not answer (ConnectionError)" in text(
            response
        )
    assert "The store of sessions does not answer" in text(admin_client.get(INDEX))


# --- the overview


def test_overview_says_how_much_of_each_limit_is_used(
    admin_client: Client, store: str
) -> None:
    visit(1)
    visit(2)
    own = make_key("own", 5)
    make_key("idle", 7)
    visit(3, key=own)
    response = admin_client.get(INDEX)

    assert "2 of 3 in the shared limit 1 of 5 for own 0 of 7 for idle" in text(response)
    assert f"{LIST}?state=alive&amp;scope=own&amp;key={own.pk}" in (
        response.content.decode()
    )


def test_overview_says_if_sessions_are_not_limited(
    admin_client: Client, settings: Any
) -> None:
    settings.SESSION_ENABLED = False

    assert "Sessions are not limited" in text(admin_client.get(INDEX))


def test_overview_names_no_keys_to_whom_may_not_see_them(viewer: Client) -> None:
    visit(1, key=make_key("secret project", 5))
    shown = text(viewer.get(INDEX))

    assert "0 of 3 in the shared limit" in shown
    assert "secret project" not in shown


def test_overview_takes_as_many_queries_for_many_sessions_as_for_one(
    admin_client: Client,
) -> None:
    def count_queries() -> int:
        with CaptureQueriesContext(connection) as queries:
            admin_client.get(INDEX)
        return len(queries)

    visit(0, key=make_key("first", 5))
    before = count_queries()
    for number in range(1, 15):
        visit(number, key=make_key(f"key {number}", 5))
    assert count_queries() == before
    assert "5 more keys with a limit of their own" in text(admin_client.get(INDEX))
