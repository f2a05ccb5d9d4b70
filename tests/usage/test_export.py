"""`manage.py export_usage`."""

import io
import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from claudeproxy import terminal
from tests.usage.cast import AT, finished
from usage import export, request_log, rollups, rows, shipped, store
from usage.management.commands import export_usage
from usage.prices import PriceTable
from usage.reports import Only
from usage.request_log import Wanted

pytestmark = pytest.mark.django_db

PRICES = PriceTable(shipped.prices())
DAY = timedelta(days=1)


def add(request_id: str = "req_a", **fields: Any) -> None:
    store.insert([rows.of_finished(finished(request_id, **fields), PRICES)])


def export_to_text(*arguments: str) -> str:
    out = io.StringIO()
    call_command("export_usage", *arguments, stdout=out)
    return out.getvalue()


def ids(text: str) -> list[str]:
    return [json.loads(line)["request_id"] for line in text.splitlines()]


def test_requests_come_as_csv():
    add("req_a", key_name="@x")
    head, line, rest = export_to_text().split("\r\n")

    assert head == ",".join(export.REQUEST_COLUMNS)
    assert line.startswith("req_a,2026-11-25T12:30:15.250000Z,ada,'@x,claude-opus-5-5,")
    assert rest == ""


@pytest.mark.parametrize("option", [["--json"], ["--format", "json"]])
def test_requests_come_as_lines_of_json(option):
    add("req_a", account_id=None, account_name=None, usage=None)
    add("req_b", started_at=AT + DAY)
    first, second = map(json.loads, export_to_text(*option).splitlines())

    assert list(first) == list(export.REQUEST_COLUMNS)
    assert (first["request_id"], first["cost"]) == ("req_b", "0.00028")
    assert (second["account"], second["cost"]) == (None, None)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--from", "2026-11-26"], ["req_b"]),
        (["--to", "2026-11-25"], ["req_a"]),
        (["--account", "ada"], ["req_b", "req_a"]),
        (["--key", "bob"], ["req_b"]),
        (["--key", "1"], ["req_a"]),
        (["--model", "m"], ["req_b"]),
        (["--outcome", "failed"], []),
        (["--request-id", "req_a"], ["req_a"]),
    ],
)
def test_only_what_was_asked_for_is_written(options, found):
    add("req_a")
    bob = {"key_id": 2, "key_name": "bob", "model_answered": "m"}
    add("req_b", started_at=AT + DAY, **bob)

    assert ids(export_to_text("--json", *options)) == found


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--from", "soon"], "--from"),
        (["--to", "2026-02-30"], "--to"),
        (["--from", "2026-02-02", "--to", "2026-02-01"], "--from"),
        (["--account", "nobody"], "--account"),
        (["--key", "nobody"], "--key"),
    ],
)
def test_a_wrong_option_is_named(options, named):
    with pytest.raises(CommandError, match=named):
        export_to_text(*options)


def test_a_file_is_for_its_owner_alone(tmp_path):
    add()
    path = tmp_path / "usage.csv"
    assert export_to_text("--output", str(path)) == ""

    assert path.read_bytes() == export_to_text().encode()
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["usage.csv"]


def test_a_file_that_is_there_stays_unless_it_is_meant(tmp_path):
    path = tmp_path / "usage.csv"
    path.write_text("mine")
    with pytest.raises(CommandError, match="--force"):
        export_to_text("--output", str(path))
    assert path.read_text() == "mine"

    export_to_text("--output", str(path), "--force")
    assert path.read_text().startswith("request_id,")


@pytest.mark.parametrize("name", ["pipe", "directory"])
def test_what_is_no_file_is_never_replaced(tmp_path, name):
    path = tmp_path / name
    path.mkdir() if name == "directory" else os.mkfifo(path)
    with pytest.raises(CommandError, match="no file"):
        export_to_text("--output", str(path), "--force")

    assert path.exists()
    assert not path.is_file()


@pytest.mark.parametrize("was_there", [False, True])
def test_what_fails_half_way_leaves_nothing_behind(tmp_path, monkeypatch, was_there):
    monkeypatch.setattr(request_log, "_CHUNK_ROWS", 1)
    for number in range(3):
        add(f"req_{number}")
    path = tmp_path / "usage.csv"
    if was_there:
        path.write_text("mine")
    chunk, calls = request_log.chunk, []

    def failing(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return chunk(*args)

    monkeypatch.setattr(request_log, "chunk", failing)
    with pytest.raises(KeyboardInterrupt):
        export_to_text("--output", str(path), "--force")

    assert os.listdir(tmp_path) == (["usage.csv"] if was_there else [])
    assert not was_there or path.read_text() == "mine"


def test_a_directory_that_is_not_there_is_said(tmp_path):
    with pytest.raises(CommandError, match="No such file or directory"):
        export_to_text("--output", str(tmp_path / "none" / "usage.csv"))


def test_the_estimate_is_what_sums_say_and_leaves_out_what_is_pruned():
    for number in range(3):
        add(f"req_{number}", started_at=AT + number * DAY)
    rollups.roll_up(seconds=60)
    estimate = export_usage._estimate
    assert estimate(Wanted()) == 3
    assert estimate(Wanted(since=AT + DAY)) == 2
    assert estimate(Wanted(since=AT + 9 * DAY)) == 0
    assert estimate(Wanted(only=Only(key_id=9))) == 0

    rollups.prune(now=AT + 2 * DAY, retention=DAY, seconds=60)
    assert estimate(Wanted()) == 2


class Screen(io.StringIO):
    """A stream of a command; a terminal or not."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def test_people_see_how_far_it_is():
    add()
    shown = Screen(is_terminal=True)
    call_command("export_usage", stdout=io.StringIO(), stderr=shown)

    assert "1 of about 1 rows, 100 %" in shown.getvalue()


def test_scripts_see_nothing_but_the_data():
    add()
    shown = Screen(is_terminal=False)
    call_command("export_usage", stdout=io.StringIO(), stderr=shown)

    assert shown.getvalue() == ""


@pytest.mark.parametrize(
    ("done", "total", "words"),
    [
        (0, 100, "[........................] 0 of about 100 rows, 0 %"),
        (50, 100, "[############............] 50 of about 100 rows, 50 %"),
        (101, 100, "101 rows"),
        (1000, 0, "1,000 rows"),
    ],
)
def test_progress_is_told_as_far_as_it_is_known(done, total, words):
    assert terminal.progress_line(done, total).rstrip() == words


@pytest.mark.django_db(transaction=True)
def test_a_reader_that_has_enough_ends_it_quietly(settings):
    add()
    name = settings.DATABASES["default"]["NAME"]
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        url = f"sqlite:///{name}"
    else:
        pytest.skip("once is enough")
    command = [sys.executable, "manage.py", "export_usage"]
    process = subprocess.Popen(
        command,
        cwd=settings.BASE_DIR,
        env={**os.environ, "DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()

    assert process.wait(timeout=60) == 1
    assert said == b""
