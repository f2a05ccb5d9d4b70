import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command

ROOT = Path(settings.BASE_DIR)
EXAMPLE = ROOT / ".env.example"
_LINE = re.compile(r"^#([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)

SHOW = """
import json
from claudeproxy import settings
print(json.dumps({name: str(getattr(settings, name)) for name in (
    "SECRET_KEY", "ENCRYPTION_KEYS", "DATABASES", "PORT", "UPSTREAM_BASE_URL",
    "ENVIRONMENT_PROBLEMS")}))
"""


def environment(data_dir, **variables):
    """A process environment in which only *variables* are set, whatever `.env` says."""
    blank = dict.fromkeys(settings.ENVIRONMENT_NAMES, "")
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, **blank, "DATA_DIR": str(data_dir), **variables}


def start(code, env):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def check(data_dir, **variables):
    return subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env=environment(data_dir, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# --- .env.example


def test_the_example_lists_exactly_what_is_read():
    names = [name for name, _ in _LINE.findall(EXAMPLE.read_text())]

    assert sorted(names) == sorted(settings.ENVIRONMENT_NAMES)


def test_the_example_sets_nothing():
    lines = EXAMPLE.read_text().splitlines()

    assert [line for line in lines if line and not line.startswith("#")] == []


def test_every_variable_of_the_example_is_explained():
    blocks = EXAMPLE.read_text().split("\n\n")
    unexplained = [
        block
        for block in blocks
        if _LINE.search(block) and not re.search(r"^# \w", block, re.MULTILINE)
    ]

    assert unexplained == []


def test_the_examples_values_are_the_defaults(tmp_path):
    given = {k: v for k, v in _LINE.findall(EXAMPLE.read_text()) if k != "DATA_DIR"}
    as_example = start(SHOW, environment(tmp_path, **given))
    as_default = start(SHOW, environment(tmp_path))

    assert read(as_example) == read(as_default)


# --- secrets


def test_two_processes_that_start_at_once_make_one_set_of_secrets(tmp_path):
    data_dir = tmp_path / "var"
    first, second = (start(SHOW, environment(data_dir)) for _ in range(2))
    one, two = read(first), read(second)

    assert one == two
    assert len(one["SECRET_KEY"]) >= 50
    assert mode(data_dir) == 0o700
    assert mode(data_dir / "secret_key") == 0o600
    assert mode(data_dir / "encryption_key") == 0o600
    assert sorted(path.name for path in data_dir.iterdir()) == [
        "encryption_key",
        "secret_key",
    ]
    assert one["SECRET_KEY"] == (data_dir / "secret_key").read_text().strip()


def test_secrets_that_are_given_are_not_made(tmp_path):
    keys = "A" * 43 + "=," + "B" * 43 + "="
    given = {"SECRET_KEY": "$given", "ENCRYPTION_KEYS": keys}
    shown = read(start(SHOW, environment(tmp_path, **given)))

    assert shown["SECRET_KEY"] == "$given"
    assert shown["ENCRYPTION_KEYS"] == str(keys.split(","))
    assert list(tmp_path.iterdir()) == []


# --- wrong values

WRONG = {
    "DEBUG": "maybe",
    "HTTPS": "tls",
    "PORT": "65536",
    "WEB_WORKERS": "0",
    "REQUEST_TIMEOUT": "5",
    "DRAIN_TIMEOUT": "soon",
    "ROUTING_STRATEGY": "random",
    "LOG_LEVEL": "loud",
    "LOG_FORMAT": "xml",
    "DATABASE_URL": "postgres://gateway:s3cret/x@db/name",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What `manage.py check` says when everything is wrong at once."""
    done = check(tmp_path_factory.mktemp("wrong"), **WRONG)
    assert done.returncode == 1
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_named_with_its_remedy(report, name):
    (line,) = re.findall(rf"\(claudeproxy\.E001\) ({name}: .+)", report)
    hints = re.findall(r"HINT: (.+)", report)

    assert len(line) > len(name) + 20
    assert any(f"Correct {name} in the environment or in .env" in h for h in hints)


def test_a_wrong_database_does_not_show_its_password(report):
    assert "s3cret" not in report


def test_nothing_else_is_reported(report):
    assert report.count("claudeproxy.E001") == len(WRONG)
    assert "Traceback" not in report


def test_a_wrong_encryption_key_and_upstream_are_reported(tmp_path):
    done = check(tmp_path, ENCRYPTION_KEYS="s3cret", UPSTREAM_BASE_URL="claude")

    assert done.returncode == 1
    assert "(claudeproxy.E002) UPSTREAM_BASE_URL must begin" in done.stderr
    assert "(claudeproxy.E003) ENCRYPTION_KEYS: key 1" in done.stderr
    assert "s3cret" not in done.stderr


# --- what holds whatever is set


def test_debug_is_off_unless_it_is_asked_for():
    assert settings.DEBUG is False


def test_sqlite_takes_its_write_lock_at_the_beginning_and_waits_for_it():
    options = settings.SQLITE_OPTIONS

    assert options["transaction_mode"] == "IMMEDIATE"
    assert options["timeout"] >= 5
    assert "journal_mode=WAL" in options["init_command"]


def test_a_job_is_not_started_twice_because_it_takes_long():
    cluster: dict[str, Any] = settings.Q_CLUSTER

    assert cluster["retry"] > cluster["timeout"]


@pytest.mark.django_db
def test_the_models_have_their_migrations():
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
