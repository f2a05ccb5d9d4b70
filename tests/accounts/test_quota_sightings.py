from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts import quota_sightings, removal
from accounts.models import QuotaWindow
from accounts.quota_sightings import Sighting, Sightings
from tests.factories import NOW, make_account

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
OPUS, HAIKU = "claude-opus-5-5", "claude-haiku-5-5"


def plan(used=0.1, window="5h", **more):
    pairs = {f"{window}-utilization": used, **more}
    prefix = "anthropic-ratelimit-unified-"
    return [
        (f"{prefix}{name}".encode(), str(it).encode()) for name, it in pairs.items()
    ]


def key(remaining=90):
    prefix = b"anthropic-ratelimit-requests-"
    return [(prefix + b"limit", b"100"), (prefix + b"remaining", b"%d" % remaining)]


def sighting(account, headers, at=NOW, group=""):
    return Sighting(account.pk, at, headers, group)


# --- in memory


def test_the_latest_answer_of_an_account_counts():
    it = Sightings()
    it.note(1, plan(0.1), NOW, model_group="")
    it.note(1, plan(0.2), NOW + SECOND, model_group="")
    it.note(2, plan(0.3), NOW, model_group="")

    assert [(one.account_id, one.windows[0].utilization) for one in it.take()] == [
        (1, 0.2),
        (2, 0.3),
    ]


def test_models_with_limits_of_their_own_are_kept_apart():
    it = Sightings()
    it.note(1, plan(0.1, "7d_opus"), NOW, model_group=OPUS)
    it.note(1, plan(0.2), NOW, model_group=HAIKU)

    assert [one.windows[0].name for one in it.take()] == ["7d_opus", "5h"]


def test_an_answer_that_tells_nothing_takes_nothing_away():
    it = Sightings()
    it.note(1, plan(), NOW, model_group="")
    it.note(1, [(b"content-type", b"text/html")], NOW + SECOND, model_group="")

    assert [one.seen_at for one in it.take()] == [NOW]


def test_what_was_taken_is_not_taken_again():
    it = Sightings()
    it.note(1, plan(), NOW, model_group="")
    it.take()

    assert it.take() == []


def test_what_could_not_be_written_waits_unless_newer_came():
    it = Sightings()
    it.note(1, plan(), NOW, model_group="")
    it.note(2, plan(), NOW, model_group="")
    taken = it.take()
    it.note(1, plan(), NOW + SECOND, model_group="")
    it.put_back(taken)

    assert {one.account_id: one.seen_at for one in it.take()} == {
        1: NOW + SECOND,
        2: NOW,
    }


def test_memory_is_bounded_and_what_is_in_it_stays_fresh():
    it = Sightings()
    for number in range(2_000):
        it.note(1, key(), NOW, model_group=f"model-{number}")
    it.note(1, key(), NOW + SECOND, model_group="model-0")

    taken = it.take()
    assert len(taken) == 1_000
    assert taken[0].seen_at == NOW + SECOND


# --- in the database


def stored(*names):
    return list(QuotaWindow.objects.order_by("pk").values_list(*names))


@pytest.mark.django_db
def test_what_was_seen_is_stored_by_window_and_group():
    account = make_account()
    quota_sightings.write([sighting(account, [*plan(), *key()], group=OPUS)])

    assert stored("account", "name", "model_group", "limit", "seen_at") == [
        (account.pk, "requests", OPUS, 100, NOW),
        (account.pk, "5h", "", None, NOW),
    ]


@pytest.mark.django_db
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_newest_sight_of_any_worker_counts(order):
    account = make_account()
    seen = [
        sighting(account, plan(0.1), NOW),
        sighting(account, plan(0.2), NOW + SECOND),
    ]
    for number in order:
        quota_sightings.write([seen[number]])

    assert stored("utilization", "seen_at") == [(0.2, NOW + SECOND)]


@pytest.mark.django_db
def test_of_one_worker_the_newest_sight_counts_for_each_window():
    account = make_account()
    quota_sightings.write(
        [
            sighting(account, plan(0.2), NOW + SECOND, HAIKU),
            sighting(account, [*plan(0.1), *plan(0.9, "7d_opus")], NOW, OPUS),
        ]
    )

    assert dict(stored("name", "utilization")) == {"5h": 0.2, "7d_opus": 0.9}


@pytest.mark.django_db
def test_a_window_that_is_shown_no_more_stays_as_it_was_seen():
    account = make_account()
    quota_sightings.write([sighting(account, plan(0.1, "7d"))])
    quota_sightings.write([sighting(account, plan(0.2), NOW + SECOND)])

    assert dict(stored("name", "seen_at")) == {"7d": NOW, "5h": NOW + SECOND}


def unused(reset, status="rejected"):
    """An answer that does not tell how much is used."""
    told = {"reset": int(reset.timestamp()), "status": status}
    return [
        (f"anthropic-ratelimit-unified-5h-{name}".encode(), str(it).encode())
        for name, it in told.items()
    ]


@pytest.mark.django_db
@pytest.mark.parametrize("is_one_batch", [True, False])
@pytest.mark.parametrize(("reset", "used"), [(NOW + HOUR, 0.9), (NOW + 2 * HOUR, None)])
def test_what_is_used_of_a_window_is_known_until_it_is_another(
    is_one_batch, reset, used
):
    account = make_account()
    first = plan(0.9, **{"5h-reset": int((NOW + HOUR).timestamp())})
    seen = [
        sighting(account, first),
        sighting(account, unused(reset), NOW + SECOND),
        sighting(account, unused(reset, "allowed"), NOW + 2 * SECOND),
    ]
    for batch in [seen] if is_one_batch else [[it] for it in seen]:
        quota_sightings.write(batch)

    assert stored("utilization", "resets_at", "status") == [(used, reset, "allowed")]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("later", "used", "seen_at"),
    [
        (MINUTE, 0.1, NOW),
        (MINUTE + SECOND, 0.1, NOW + MINUTE + SECOND),
        (SECOND, 0.2, NOW + SECOND),
    ],
)
def test_what_has_not_changed_is_stored_once_a_minute(later, used, seen_at):
    account = make_account()
    quota_sightings.write([sighting(account, plan(0.1))])
    quota_sightings.write([sighting(account, plan(used), NOW + later)])

    assert stored("seen_at") == [(seen_at,)]


@pytest.mark.django_db
def test_an_account_that_is_gone_holds_up_no_other():
    gone, account = make_account("gone"), make_account()
    seen = [sighting(gone, plan()), sighting(account, plan())]
    gone.delete()
    quota_sightings.write(seen)

    assert stored("account") == [(account.pk,)]


@pytest.mark.django_db
def test_what_was_seen_of_an_account_goes_with_it():
    account = make_account()
    quota_sightings.write([sighting(account, plan())])
    removal.delete(account, actor="admin")

    assert stored("pk") == []


@pytest.mark.django_db
def test_who_deletes_an_account_locks_it_first_like_who_writes_what_it_has():
    account = make_account()
    quota_sightings.write([sighting(account, plan())])
    with CaptureQueriesContext(connection) as captured:
        removal.delete(account, actor="admin")

    statements = [query["sql"] for query in captured.captured_queries]
    first, *_ = [it for it in statements if not it.startswith("SAVEPOINT")]
    assert first.startswith("SELECT")
    assert 'FROM "accounts_account"' in first


@pytest.mark.django_db
def test_of_very_many_windows_those_seen_last_are_kept():
    account = make_account()
    for number in range(70):
        at = NOW + number * SECOND
        quota_sightings.write([sighting(account, key(), at, f"model-{number}")])

    assert [group for (group,) in stored("model_group")] == [
        f"model-{number}" for number in range(10, 70)
    ]


@pytest.mark.django_db
def test_many_accounts_take_as_many_queries_as_one():
    accounts = [make_account(str(number)) for number in range(12)]

    def queries(accounts, at):
        seen = [sighting(account, plan(), at) for account in accounts]
        with CaptureQueriesContext(connection) as captured:
            quota_sightings.write(seen)
        return len(captured)

    quota_sightings.write([sighting(account, plan()) for account in accounts])
    few = queries(accounts[:1], NOW + HOUR)

    assert queries(accounts, NOW + 2 * HOUR) == few <= 5


@pytest.mark.django_db
def test_headers_that_cannot_be_read_ask_for_nothing(django_assert_num_queries):
    account = make_account()
    with django_assert_num_queries(0):
        quota_sightings.write([sighting(account, plan("garbage"))])
