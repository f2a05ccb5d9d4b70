import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.db import OperationalError, connections
from django_q.models import Schedule

from claudeproxy import bootstrap, schedules
from claudeproxy.bootstrap import BootstrapError


@pytest.mark.django_db
def test_the_first_admin_can_log_in_with_the_password_it_was_given():
    admin = bootstrap.make_first_admin()
    assert admin is not None
    user = authenticate(username=admin.name, password=admin.password.reveal())
    assert user is not None
    assert user.is_superuser
    assert len(admin.password.reveal()) >= 20


@pytest.mark.django_db
def test_the_password_of_the_first_admin_shows_in_no_log():
    admin = bootstrap.make_first_admin()
    assert admin is not None
    assert admin.password.reveal() not in repr(admin)


@pytest.mark.django_db
def test_no_admin_is_made_where_there_is_a_superuser():
    User.objects.create_superuser("ada", password="secret")
    assert bootstrap.make_first_admin() is None
    assert User.objects.count() == 1


@pytest.mark.django_db
def test_somebody_who_only_has_the_name_is_not_promoted():
    User.objects.create_user("admin", password="secret")
    assert bootstrap.make_first_admin() is None
    assert not User.objects.get().is_superuser


@pytest.mark.django_db(transaction=True)
def test_one_admin_is_made_when_several_start_at_once():
    gate = threading.Barrier(4)

    def start(_: int) -> bool:
        try:
            gate.wait(timeout=10)
            return bootstrap.make_first_admin() is not None
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(start, range(4)))
    assert made.count(True) == 1
    assert User.objects.filter(is_superuser=True).count() == 1


@pytest.mark.django_db(transaction=True)
def test_preparing_leaves_schedules_and_an_admin_and_can_be_repeated():
    Schedule.objects.all().delete()
    assert bootstrap.prepare() is not None
    assert Schedule.objects.count() == len(schedules.SCHEDULES)
    assert bootstrap.prepare() is None


@pytest.mark.django_db
def test_a_database_that_refuses_is_named_with_the_remedy(monkeypatch):
    def refuse() -> None:
        raise OperationalError("connection refused\nsecond line")

    monkeypatch.setattr(schedules, "sync", refuse)
    with pytest.raises(
        BootstrapError, match=r"connection refused\. Check DATABASE_URL"
    ):
        bootstrap.prepare()


@pytest.mark.django_db
def test_who_waits_too_long_for_another_start_is_told(monkeypatch):
    monkeypatch.setattr(bootstrap, "_LOCK_SECONDS", 0.2)
    with bootstrap._alone(), pytest.raises(BootstrapError, match="Another process"):
        bootstrap.prepare()
