import contextlib
import signal
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from claudeproxy.leases import lease
from claudeproxy.models import Lease
from tests.accounts import processes

MINUTE = timedelta(minutes=1)


def hold(name="tidy"):
    return lease(name, lasts=MINUTE)


@pytest.mark.django_db
def test_a_lease_that_is_held_is_not_had():
    with hold() as first, hold() as second:
        assert (first, second) == (True, False)


@pytest.mark.django_db
def test_leases_of_other_names_are_free():
    with hold() as first, hold("other") as second:
        assert (first, second) == (True, True)


@pytest.mark.django_db
@pytest.mark.parametrize("error", [None, KeyError])
def test_a_lease_ends_with_its_work_however_that_ends(error):
    try:
        with hold():
            if error:
                raise error
    except KeyError:
        pass

    assert not Lease.objects.exists()


@pytest.mark.django_db
def test_who_did_not_get_it_does_not_end_it():
    with hold():
        with hold():
            pass
        with hold() as third:
            assert third is False


@pytest.mark.django_db
def test_a_lease_that_has_run_out_can_be_had():
    Lease.objects.create(name="tidy", owner="dead", until=timezone.now())
    with hold() as is_mine:
        assert is_mine


@pytest.mark.django_db
def test_who_is_late_does_not_end_the_lease_of_the_next():
    with contextlib.ExitStack() as next_one:
        with hold():
            Lease.objects.update(until=timezone.now())
            assert next_one.enter_context(hold())

        assert Lease.objects.exists()
    assert not Lease.objects.exists()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def nursery(request: Any, tmp_path_factory: Any) -> Any:
    with processes.nursery_on(request.param, tmp_path_factory.mktemp("leases")) as it:
        yield it


@pytest.mark.processes
def test_of_many_processes_one_holds_it_at_a_time(nursery, tmp_path):
    path = str(tmp_path / "inside")
    ended = nursery.run("lease", count=6, name="tidy", times=90, path=path)

    assert ended.codes == [0] * 6
    assert sum(ended.results) >= 30


@pytest.mark.processes
def test_the_lease_of_a_process_that_died_ends_by_itself(nursery, tmp_path):
    asked = {"name": "dead", "times": 1, "path": str(tmp_path / "inside")}
    assert nursery.run("die with lease", name="dead").codes == [-signal.SIGKILL]

    assert nursery.one("lease", ahead=0.9 * MINUTE, **asked) == 0
    assert nursery.one("lease", ahead=1.1 * MINUTE, **asked) == 1
