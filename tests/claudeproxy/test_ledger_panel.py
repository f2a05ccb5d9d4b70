"""What the overview says when requests are not stored, or not summed up."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from claudeproxy.dashboard import ledger_panel
from tests.claudeproxy.test_admin import text
from tests.usage.cast import finished
from usage import pricing, rollups, rows, store

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def directory(settings: Any, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path
    journal = tmp_path / "journal"
    journal.mkdir()
    return journal


def write(directory: Path, name: str, *, minutes_ago: int) -> None:
    path = directory / name
    path.write_bytes(b"x" * 2048)
    at = (timezone.now() - timedelta(minutes=minutes_ago)).timestamp()
    os.utime(path, (at, at))


def request(minutes_ago: int) -> None:
    at = timezone.now() - timedelta(minutes=minutes_ago)
    entry = finished(started_at=at)
    store.insert([rows.of_finished(entry, pricing.load())])


def test_nothing_is_said_while_all_is_well(directory: Path) -> None:
    write(directory, "aa.00000001.journal", minutes_ago=90)  # the one written to
    write(directory, "bb.00000003.journal", minutes_ago=1)
    write(directory, "bb.00000004.journal", minutes_ago=0)  # has just been begun
    write(directory, "aa.lock", minutes_ago=90)
    request(minutes_ago=5)
    assert not ledger_panel.load(timezone.now())


def test_a_journal_that_is_not_stored_is_told_with_its_size(
    directory: Path, admin_client: Client
) -> None:
    for number in (1, 2, 3):
        write(directory, f"aa.0000000{number}.journal", minutes_ago=9)
    assert ledger_panel.load(timezone.now()).waiting_bytes == 4096
    shown = text(admin_client.get(reverse("admin:index"))).replace("\xa0", " ")
    assert "not stored Requests wait in the journal, 4.0 KB" in shown


def test_a_gateway_that_never_wrote_a_journal_has_no_trouble(directory: Path) -> None:
    directory.rmdir()
    assert not ledger_panel.load(timezone.now())


def test_sums_that_are_behind_are_told(admin_client: Client) -> None:
    request(minutes_ago=45)
    assert ledger_panel.load(timezone.now()).behind_since is not None
    assert "not summed up" in text(admin_client.get(reverse("admin:index")))
    rollups.roll_up(seconds=5)
    assert not ledger_panel.load(timezone.now())
