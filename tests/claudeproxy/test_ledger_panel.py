"""What the overview says when requests are not stored, or not summed up."""

import contextlib
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from claudeproxy.dashboard import ledger_panel
from tests.claudeproxy.test_admin import text
from tests.usage.cast import begun, finished
from usage import pricing, rollups, rows, store
from usage.journal import Journal, encode

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def directory(settings: Any, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path
    journal = tmp_path / "journal"
    journal.mkdir()
    return journal


@contextlib.contextmanager
def worker(directory: Path, *, minutes_ago: int) -> Iterator[Journal]:
    """A worker with requests that were over so long ago, none of them stored."""
    journal = Journal(directory)
    journal.open()
    at = timezone.now() - timedelta(minutes=minutes_ago)
    for number in range(3):
        journal.write(encode(finished(f"req_{number}", started_at=at, duration_ms=0.0)))
    yield journal
    journal.close()


def request(minutes_ago: int) -> None:
    at = timezone.now() - timedelta(minutes=minutes_ago)
    entry = finished(started_at=at)
    store.insert([rows.of_finished(entry, pricing.load())])


def test_nothing_is_said_while_all_is_well(directory: Path) -> None:
    request(minutes_ago=5)
    with (
        worker(directory, minutes_ago=90) as stored,
        worker(directory, minutes_ago=1),  # may still be stored in time
    ):
        stored.note_stored(stored.read(10))
        assert not ledger_panel.load(timezone.now())


def test_a_request_under_way_for_long_is_no_trouble(directory: Path) -> None:
    with worker(directory, minutes_ago=90) as journal:
        journal.note_stored(journal.read(10))
        at = timezone.now() - timedelta(minutes=9)
        journal.write(encode(begun("req_9", started_at=at)))
        assert not ledger_panel.load(timezone.now())


def test_many_requests_under_way_hide_none_that_waits(directory: Path) -> None:
    with worker(directory, minutes_ago=0) as journal:
        journal.note_stored(journal.read(10))
        for number in range(1200):
            journal.write(encode(begun(f"req_{number}")))
        at = timezone.now() - timedelta(minutes=9)
        journal.write(encode(finished(started_at=at, duration_ms=0.0)))
        assert ledger_panel.load(timezone.now()).waiting_since == at


def test_a_journal_of_another_user_is_told_by_its_last_line(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError

    with worker(directory, minutes_ago=9):
        monkeypatch.setattr("usage.journal._first_end", refuse)
        later = timezone.now() + timedelta(minutes=5)
        found = ledger_panel.load(later)
    assert found.waiting_since is not None
    assert timedelta(minutes=4) < later - found.waiting_since < timedelta(minutes=6)


def test_a_journal_that_is_not_stored_is_told_with_its_size(
    directory: Path, admin_client: Client
) -> None:
    with worker(directory, minutes_ago=9) as journal:
        found = ledger_panel.load(timezone.now())
        assert found.waiting_bytes == journal.size
        shown = text(admin_client.get(reverse("admin:index"))).replace("\xa0", " ")
    assert "not stored Requests wait in the journal, " in shown
    assert re.search("figures below lack them Since .+ 9 minutes ago · the log", shown)


def test_a_gateway_that_never_wrote_a_journal_has_no_trouble(directory: Path) -> None:
    directory.rmdir()
    assert not ledger_panel.load(timezone.now())


def test_sums_that_are_behind_are_told(admin_client: Client) -> None:
    request(minutes_ago=45)
    assert ledger_panel.load(timezone.now()).behind_since is not None
    assert "not summed up" in text(admin_client.get(reverse("admin:index")))
    rollups.roll_up(seconds=5)
    assert not ledger_panel.load(timezone.now())
