"""The log of requests: found again, and told on a page of its own."""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from tests.usage.cast import AT, finished
from usage import request_log, rollups, rows, shipped, store, story
from usage.entries import Attempt
from usage.models import PriceRow, RequestRow
from usage.outcome import EndReason
from usage.prices import PriceTable
from usage.reports import Only
from usage.request_log import Place, Wanted
from usage.tokens import Tokens, Usage

pytestmark = pytest.mark.django_db

LIST = reverse("admin:usage_requestrow_changelist")
PRICES = PriceTable(shipped.prices())
MINUTE = timedelta(minutes=1)


def add(request_id: str = "req_a", **fields: Any) -> RequestRow:
    store.insert([rows.of_finished(finished(request_id, **fields), PRICES)])
    return RequestRow.objects.get(request_id=request_id)


def page_of(row: RequestRow) -> str:
    return reverse("admin:usage_requestrow_change", args=[row.pk])


def words_of(response: Any) -> str:
    """What a person reads, without tags and in one line."""
    assert response.status_code == 200
    return " ".join(re.sub(r"<[^>]*>", " ", response.content.decode()).split())


def listed(client: Client, **asked: Any) -> list[str]:
    response = client.get(LIST, asked)
    assert response.status_code == 200
    return [row.request_id for row in response.context["cl"].result_list]


# --- reading


def test_chunks_are_all_there_is_once_each_and_the_newest_first(monkeypatch):
    monkeypatch.setattr(request_log, "_CHUNK_ROWS", 3)
    for number in range(10):
        # Some begin at the same moment.
        add(f"req_{number}", started_at=AT + (number // 4) * MINUTE)
    found = [it.request_id for rows in request_log.chunks(Wanted()) for it in rows]

    assert found == [f"req_{number}" for number in reversed(range(10))]


def test_a_place_is_read_as_it_was_written():
    place = Place(AT, 17)

    assert Place.parse(str(place)) == place


@pytest.mark.parametrize(
    "text", ["", "1", "a-1", "1-a", "-1-1", "9" * 18 + "-1", "\u0661-\u0661"]
)
def test_anything_else_is_no_place(text):
    assert Place.parse(text) is None


def test_a_span_begins_with_its_first_moment_and_ends_before_its_last():
    add("req_a", started_at=AT)
    add("req_b", started_at=AT + MINUTE)
    found = [it.request_id for it in Wanted(AT, AT + MINUTE).rows()]

    assert found == ["req_a"]


@pytest.mark.parametrize(
    ("only", "ids"),
    [
        (Only(key_id=2), ["req_b"]),
        (Only(account_id=0), ["req_b"]),
        (Only(account_ids=(7, 8)), ["req_a"]),
        (Only(outcome="refused", model=""), ["req_b"]),
    ],
)
def test_only_what_was_asked_for_is_found(only, ids):
    add("req_a")
    rejected = {"end_reason": "rejected", "status": 429, "model_answered": None}
    add("req_b", key_id=2, account_id=None, usage=None, **rejected)

    assert [it.request_id for it in Wanted(only=only).rows()] == ids


@pytest.mark.parametrize("is_rolled_up", [False, True])
def test_a_name_means_who_bore_it_last(is_rolled_up):
    add("req_a", key_id=1, key_name="alice")
    add("req_b", key_id=5, key_name="alice", started_at=AT + timedelta(days=1))
    if is_rolled_up:
        rollups.roll_up(seconds=60)

    assert request_log.id_of("key", "alice") == 5
    assert request_log.id_of("key", "bob") is None


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ({}, 1),
        ({"attempts": (Attempt("ada", "upstream", "overloaded"),)}, 2),
        ({"attempts": (Attempt("ada", "request", "status 400"),), "status": 400}, 1),
        ({"account_id": None, "status": 429, "end_reason": "rejected"}, 0),
        ({"status": 499, "end_reason": "client_gone"}, 1),
    ],
)
def test_attempts_are_those_that_failed_and_the_one_that_answered(fields, made):
    assert request_log.attempts_made(add(**fields)) == made


# --- the list


def test_the_list_shows_what_matters_of_each_request(admin_client):
    add("req_a", attempts=(Attempt("bea", "upstream", "overloaded"),))
    words = words_of(admin_client.get(LIST))

    for expected in ("alice", "ada", "claude-opus-5-5", "served", "200, complete"):
        assert expected in words
    assert "20 in 10 out" in words
    assert "$0.0003" in words
    assert "300 ms" in words
    assert "1.2 s" in words


def test_what_is_not_there_is_said_in_words(admin_client):
    add(
        account_id=None,
        account_name=None,
        key_id=None,
        key_name=None,
        model_asked=None,
        model_answered=None,
        usage=None,
        first_byte_ms=None,
        status=0,
        end_reason="failed",
    )
    words = words_of(admin_client.get(LIST))

    assert "none sent, failed" in words
    assert "None" not in words


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        ({"outcome__exact": "refused"}, ["req_b"]),
        ({"outcome": "refused"}, ["req_b"]),
        ({"end_reason": "rejected"}, ["req_b"]),
        ({"end_reason": "client_gone"}, ["req_c"]),
        ({"end_reason": "nonsense"}, []),
        ({"account_id": "7"}, ["req_c", "req_a"]),
        ({"account_id": "ada"}, []),
        ({"account_id": "9" * 30}, []),
        ({"key_id": "2"}, ["req_b"]),
        ({"model": "claude-opus-5-5"}, ["req_c", "req_a"]),
        ({"organization_uuid": "org-1"}, ["req_a"]),
        ({"started_at__gte": "2026-11-25 12:31:00+00:00"}, ["req_c", "req_b"]),
        ({"started_at__lt": "2026-11-25 12:31:00+00:00"}, ["req_a"]),
        ({"q": "req_b"}, ["req_b"]),
        ({"q": " req_ "}, ["req_c", "req_b", "req_a"]),
        ({"q": "eq_"}, []),
        ({"q": "req%"}, []),
    ],
)
def test_the_list_is_narrowed(admin_client, asked, ids):
    add("req_a", organization_uuid="org-1")
    rejected = {"end_reason": "rejected", "status": 429, "model_answered": None}
    nobody = {"account_id": None, "account_name": None}
    later = {"started_at": AT + MINUTE}
    add("req_b", key_id=2, usage=None, **nobody, **rejected, **later)
    add("req_c", end_reason="client_gone", started_at=AT + 2 * MINUTE)
    rollups.roll_up(seconds=60)

    assert listed(admin_client, **asked) == ids


@pytest.mark.parametrize("reason", EndReason)
def test_every_reason_finds_its_requests(reason):
    for number, status in enumerate((200, 404, 503)):
        add(f"req_{number}", end_reason=reason.value, status=status)
    found = request_log.ended_so(RequestRow.objects.all(), reason)

    assert found.count() == 3


def test_the_list_takes_as_many_queries_for_many_requests(
    admin_client, django_assert_num_queries
):
    add("req_0")
    rollups.roll_up(seconds=60)
    admin_client.get(LIST)
    with django_assert_num_queries(7):
        admin_client.get(LIST)
    for number in range(1, 60):
        add(f"req_{number}", key_id=number, key_name=f"key {number}")
    rollups.roll_up(seconds=60)
    with django_assert_num_queries(7):
        admin_client.get(LIST)


def test_no_more_than_some_pages_are_counted(admin_client, monkeypatch):
    monkeypatch.setattr("usage.log_admin._MOST_LISTED", 60)
    for number in range(70):
        add(f"req_{number}")
    words = words_of(admin_client.get(LIST))

    assert "The latest 60 of these are listed." in words
    assert len(listed(admin_client, p="2")) == 10
    assert "are listed" not in words_of(admin_client.get(LIST, {"q": "req_1"}))


# --- the page of a request


def test_the_page_tells_the_whole_story(admin_client):
    row = add(
        attempts=(
            Attempt("bea", "upstream", "overloaded", 81.4, 1500),
            Attempt("cid", "network", "no connection"),
        ),
        routing="round_robin",
        usage=Usage(Tokens(input=1000, read=2_000_000, output=10), web_searches=2),
        stop_reason="end_turn",
        session_digest="0123456789abcdef",
        is_stream=True,
    )
    words = words_of(admin_client.get(page_of(row)))

    for expected in (
        "alice",
        "ada",
        "req_a",
        "as a stream",
        "The caller got the whole answer.",
        "Accounts take turns, and it was this one's.".replace("'", "&#x27;"),
        "1 bea upstream overloaded 81 ms 1.5 s",
        "2 cid network no connection not known no time",
        "Attempts 3",
        "2,000,000",
        "Web searches 2 $0.01 each $0.02",
        "end_turn",
        "0123456789ab",
    ):
        assert expected in words


def test_the_parts_of_a_cost_come_to_its_sum():
    tokens = Tokens(input=7, write_5m=11, write_1h=13, read=17, output=19)
    usage = Usage(tokens, web_searches=3, service_tier="batch", inference_geo="us")
    row = add(usage=usage)
    bill = story.bill(row, PRICES)

    assert bill.has_prices
    assert sum((it.cost or Decimal(0) for it in bill.lines), Decimal(0)) == row.cost


def test_a_cost_whose_price_has_changed_is_not_split(admin_client):
    row = add()
    PriceRow.objects.update(input=Decimal(99), is_own=True)
    words = words_of(admin_client.get(page_of(row)))

    assert "it is not split" in words
    assert "per million" not in words
    assert "$0.00028" in words


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_answered": "claude-unheard-of"}, "has no price"),
        ({"account_kind": "oauth"}, "Covered by the account's plan"),
        ({"usage": None}, "used nothing that costs anything"),
        ({"is_incomplete": True}, "may have used more than this"),
    ],
)
def test_what_is_special_about_a_cost_is_said(fields, said):
    assert said in story.bill(add(**fields), PRICES).words


@pytest.mark.parametrize("reason", EndReason)
@pytest.mark.parametrize("status", [0, 200, 429, 503])
def test_every_end_is_a_sentence(reason, status):
    assert story.end(add(end_reason=reason.value, status=status)).endswith(".")


@pytest.mark.parametrize("how", ["affinity", "round_robin", "owner", "nobody", "new"])
def test_every_way_to_an_account_has_words(how):
    assert story.routing(add(routing=how))
    assert story.routing(RequestRow()) == "No account was asked."


def test_names_are_not_markup(admin_client):
    row = add(key_name="<b>alice", account_name="<b>ada", model_answered="<b>m")
    rollups.roll_up(seconds=60)

    for path in (LIST, page_of(row)):
        assert "<b>" not in admin_client.get(path).content.decode()


def test_a_page_takes_few_queries(admin_client, django_assert_num_queries):
    row = add(attempts=(Attempt("bea", "upstream", "overloaded"),) * 5)
    with django_assert_num_queries(4):
        admin_client.get(page_of(row))


def test_nobody_changes_the_log(admin_client):
    row = add()

    assert admin_client.get(f"{LIST}add/").status_code == 403
    assert admin_client.post(page_of(row), {"key_name": "x"}).status_code == 403
    delete = reverse("admin:usage_requestrow_delete", args=[row.pk])
    assert admin_client.post(delete, {"post": "yes"}).status_code == 403
    assert RequestRow.objects.get().key_name == "alice"


def test_the_log_is_for_those_who_may_view_it(client):
    row = add()
    user = User.objects.create_user("grace", is_staff=True)
    client.force_login(user)
    assert client.get(LIST).status_code == 403
    assert client.get(page_of(row)).status_code == 403

    user.user_permissions.add(Permission.objects.get(codename="view_requestrow"))
    assert client.get(LIST).status_code == 200
    words = words_of(client.get(page_of(row)))
    assert "its requests" in words
    assert "its page" not in words


def test_a_request_that_is_not_there_leads_back(admin_client):
    response = admin_client.get(reverse("admin:usage_requestrow_change", args=[99]))

    assert response.status_code == 302
