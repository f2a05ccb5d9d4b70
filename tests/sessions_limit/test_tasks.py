from datetime import timedelta

import pytest

from claudeproxy import schedules
from claudeproxy.leases import lease
from sessions_limit import tasks
from sessions_limit.backends.database import DatabaseBackend
from tests.sessions_limit.stores import TTL, alive, enter


def jobs():
    return [(job.name, job.every) for job in schedules._session_jobs()]


@pytest.mark.django_db(transaction=True)
def test_the_job_forgets_sessions_that_have_ended():
    backend = DatabaseBackend()
    backend.offset = -2 * TTL
    enter(backend, "a", scope="key:1")
    backend.offset = timedelta()
    enter(backend, "b")

    assert tasks.prune_sessions() == "1 forgotten"
    assert alive(backend) == ["b"]


@pytest.mark.django_db(transaction=True)
def test_one_job_is_at_it_at_a_time():
    with lease("prune_sessions", lasts=TTL):
        assert tasks.prune_sessions() == "another cluster is at it"


def test_the_job_comes_as_often_as_the_settings_say(settings):
    settings.SESSION_CLEANUP_INTERVAL = timedelta(minutes=7)

    assert jobs() == [("prune_sessions", timedelta(minutes=7))]


@pytest.mark.parametrize("name", ["SESSION_ENABLED", "SESSION_CLEANUP_ENABLED"])
def test_the_job_can_be_left_out(settings, name):
    setattr(settings, name, False)

    assert jobs() == []
