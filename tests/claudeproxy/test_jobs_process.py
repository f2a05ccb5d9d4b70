import pytest
from django.db import connections

from claudeproxy import process


def test_a_process_that_forks_uses_no_connection_pool(monkeypatch):
    options = connections["default"].settings_dict["OPTIONS"]
    monkeypatch.setitem(options, "pool", {"max_size": 8})
    with process.forkable_database():
        assert "pool" not in options
    assert options["pool"] == {"max_size": 8}


@pytest.mark.django_db(transaction=True)
def test_no_connection_is_open_when_it_forks():
    with process.forkable_database():
        connections["default"].ensure_connection()
    assert connections["default"].connection is None
