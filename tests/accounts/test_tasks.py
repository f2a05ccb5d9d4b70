import multiprocessing
from datetime import timedelta
from queue import Queue
from typing import Any

import pytest
from django.utils import timezone
from django.utils.module_loading import import_string
from django_q.models import OrmQ, Task
from django_q.monitor import monitor
from django_q.worker import worker

from accounts import ownership, signin, tasks, tokens
from accounts.models import Account
from accounts.ownership import Possession
from accounts.status import AccountStatus, ObjectKind
from accounts.tasks import RefreshFailedError
from claudeproxy.leases import lease
from tests.accounts import provider
from tests.factories import NOW, make_account

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
the_cluster_closes_connections = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sandbox(claude, settings):
    return provider.configure(settings, claude)


def queued() -> list[tuple[str, tuple[Any, ...], str]]:
    packs = [row.task for row in OrmQ.objects.order_by("pk")]
    return [(pack["func"], pack["args"], pack["group"]) for pack in packs]


def run_queued():
    """Run what is queued with the cluster's own code, but here and now."""
    waiting: Queue[Any] = Queue()
    done: Queue[Any] = Queue()
    for row in OrmQ.objects.order_by("pk"):
        waiting.put(row.task)
    waiting.put("STOP")
    worker(waiting, done, multiprocessing.Value("f", -1))
    done.put("STOP")
    monitor(done)


def results():
    return {task.args: (task.success, task.result) for task in Task.objects.all()}


# --- tokens


def test_each_token_that_ends_soon_is_a_job_of_its_own(sandbox):
    dorothy = provider.signed_in(sandbox, "dorothy")
    radia = provider.signed_in(sandbox, "radia")
    provider.signed_in(sandbox, "katherine", ends_in=8 * HOUR)
    make_account()

    assert tasks.refresh_tokens() == "2 queued"
    assert queued() == [
        ("accounts.tasks.refresh_token", (account.pk,), "claudeproxy:refresh_token")
        for account in (dorothy, radia)
    ]


@the_cluster_closes_connections
def test_a_refresh_that_fails_is_shown_as_failed_and_stops_no_other(sandbox):
    dorothy = provider.signed_in(sandbox, "dorothy")
    radia = provider.signed_in(sandbox, "radia")
    provider.script(sandbox, {"status": 500})
    tasks.refresh_tokens()
    run_queued()
    found = results()

    assert found[(radia.pk,)] == (True, "refreshed")
    is_success, said = found[(dorothy.pk,)]
    assert not is_success
    assert "RefreshFailedError: the provider answered 500" in said


def test_a_failed_refresh_that_is_tried_again_waits_for_its_time(sandbox):
    account = provider.signed_in(sandbox)
    provider.script(sandbox, {"status": 500})
    with pytest.raises(RefreshFailedError):
        tasks.refresh_token(account.pk)

    assert tasks.refresh_token(account.pk) == "postponed"
    assert len(provider.outcomes(sandbox)) == 1


@pytest.mark.parametrize(
    ("ends_in", "said"), [(HOUR, "refreshed"), (8 * HOUR, "still fresh")]
)
def test_a_job_that_runs_twice_refreshes_once(sandbox, ends_in, said):
    account = provider.signed_in(sandbox, ends_in=ends_in)

    assert tasks.refresh_token(account.pk) == said
    assert tasks.refresh_token(account.pk) == "still fresh"


def test_a_job_waits_for_nobody(sandbox):
    account = provider.signed_in(sandbox)
    until = timezone.now() + HOUR
    Account.objects.update(refresh_lease="another", refresh_lease_until=until)

    assert tasks.refresh_token(account.pk) == "under way"


def test_a_job_for_an_account_that_was_deleted_does_nothing(sandbox):
    account = provider.signed_in(sandbox)
    Account.objects.all().delete()

    assert tasks.refresh_token(account.pk) == "gone"
    assert tasks.refresh_account_capabilities(account.pk) == "nothing to do"


def test_a_refusal_is_a_result_and_is_not_tried_again(sandbox):
    account = provider.signed_in(sandbox)
    sandbox.oauth.revoke("dorothy")

    assert tasks.refresh_token(account.pk) == "invalid"
    assert tasks.refresh_tokens() == "0 queued"


def test_what_the_queue_holds_is_ids(sandbox):
    account = provider.signed_in(sandbox)
    tasks.refresh_tokens()
    tasks.refresh_capabilities()

    assert {args for _, args, _ in queued()} == {(account.pk,)}


# --- models


def test_each_account_that_may_serve_has_its_models_read_by_a_job(sandbox):
    serving = [
        make_account("active", secret="sk-sandbox-ada"),
        make_account(
            "over",
            secret="sk-sandbox-grace",
            status=AccountStatus.RATE_LIMITED,
            rate_limited_until=timezone.now(),
        ),
    ]
    make_account("off", status=AccountStatus.INACTIVE)
    make_account("broken", status=AccountStatus.INVALID)

    assert tasks.refresh_capabilities() == "2 queued"
    assert [args for _, args, _ in queued()] == [(a.pk,) for a in serving]


@the_cluster_closes_connections
def test_a_list_that_cannot_be_read_is_shown_as_failed_and_stops_no_other(sandbox):
    bad = make_account("bad", secret="sk-nobody")
    good = make_account("good", secret="sk-sandbox-ada")
    tasks.refresh_capabilities()
    run_queued()
    found = results()

    assert found[(good.pk,)] == (True, "read")
    assert Account.objects.get(name="good").capabilities
    is_success, said = found[(bad.pk,)]
    assert not is_success
    assert "the model list could not be read" in said
    assert "sk-" not in said


def test_the_models_of_one_account_are_read_by_one_job_at_a_time(sandbox):
    account = make_account(secret="sk-sandbox-ada")
    with lease(f"capabilities:{account.pk}", lasts=HOUR):
        assert tasks.refresh_account_capabilities(account.pk) == "nothing to do"

    assert sandbox.log.after() == []
    assert tasks.refresh_account_capabilities(account.pk) == "read"


# --- the others


def test_accounts_whose_limit_has_ended_are_recovered():
    until = timezone.now()
    status = AccountStatus.RATE_LIMITED
    make_account("over", status=status, rate_limited_until=until)
    make_account("not over", status=status, rate_limited_until=until + HOUR)

    assert tasks.recover_accounts() == "1 recovered"
    assert tasks.recover_accounts() == "0 recovered"


def test_idle_accounts_are_switched_off(settings):
    settings.ACCOUNTS_AUTO_DEACTIVATE = True
    settings.ACCOUNTS_IDLE_THRESHOLD = HOUR
    make_account()

    assert tasks.deactivate_idle_accounts() == "1 switched off"
    assert tasks.deactivate_idle_accounts() == "0 switched off"


@pytest.mark.parametrize("name", ["recover_accounts", "deactivate_idle_accounts"])
def test_what_another_cluster_is_at_is_left_to_it(name):
    with lease(name, lasts=HOUR):
        assert getattr(tasks, name)() == "another cluster is at it"


def test_sign_ins_that_never_came_back_are_forgotten(sandbox):
    now = timezone.now()
    for at in (now, now - signin.LIFETIME):
        signin.begin(
            owner="grace", redirect_uri=provider.REDIRECT, name="dorothy", now=at
        )

    assert tasks.prune_sign_ins() == "1 forgotten"


def test_whose_objects_were_that_have_expired_is_forgotten():
    account = make_account()
    seen = [Possession("msg_1", ObjectKind.THREAD, account.pk, NOW)]
    ownership.remember(seen, now=NOW)

    assert tasks.prune_owned_objects() == "1 forgotten"


@pytest.mark.parametrize("func", ["refresh_token", "refresh_account_capabilities"])
def test_every_job_that_is_queued_exists(func):
    assert callable(import_string(f"accounts.tasks.{func}"))


@the_cluster_closes_connections
def test_a_failure_tells_no_token(sandbox):
    account = provider.signed_in(sandbox)
    text = account.refresh_token.reveal()
    error = {"status": 400, "error_type": "invalid_request", "error_message": text}
    provider.script(sandbox, error)
    tasks.refresh_tokens()
    run_queued()
    (said,) = [result for _, result in results().values()]

    assert "[secret]" in said
    assert text not in said
    assert tokens.digest_of(account.refresh_token) not in said
