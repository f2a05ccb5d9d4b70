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


def manage(data_dir, command, **variables):
    return subprocess.run(
        [sys.executable, "manage.py", command],
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
    "DRAIN_TIMEOUT": "999999d",
    "ROUTING_STRATEGY": "random",
    "SESSION_ENABLED": "perhaps",
    "SESSION_MAX_CONCURRENT": "0",
    "SESSION_TTL": "1s",
    "SESSION_CLEANUP_ENABLED": "perhaps",
    "SESSION_CLEANUP_INTERVAL": "90s",
    "SESSION_IPV6_PREFIX": "129",
    "SESSION_MAX_REQUESTS": "-1",
    "LOG_LEVEL": "loud",
    "LOG_FORMAT": "xml",
    "DATABASE_URL": "postgres://gateway:s3cret/x@db/name",
    "TIME_ZONE": "Berlin",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What `manage.py check` says when everything is wrong at once."""
    done = manage(tmp_path_factory.mktemp("wrong"), "check", **WRONG)
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


def test_a_wrong_key_or_address_is_reported(tmp_path):
    given = {
        "ENCRYPTION_KEYS": "s3cret",
        "UPSTREAM_BASE_URL": "claude",
        "SESSION_IDENTITY": "ip,name",
        "TRUSTED_PROXIES": "10.0.0.1/8",
        "REDIS_URL": "redis://:s3cret@host:port",
    }
    done = manage(tmp_path, "check", **given)

    assert done.returncode == 1
    assert "(claudeproxy.E002) UPSTREAM_BASE_URL must begin" in done.stderr
    assert "(claudeproxy.E003) ENCRYPTION_KEYS: key 1" in done.stderr
    assert "(claudeproxy.E007) SESSION_IDENTITY: 'name'" in done.stderr
    assert "(claudeproxy.E008) TRUSTED_PROXIES: '10.0.0.1/8'" in done.stderr
    assert "(claudeproxy.E009) REDIS_URL is not the address" in done.stderr
    assert "s3cret" not in done.stderr


def a_file(path):
    path.touch()
    return path


def below_a_file(path):
    return a_file(path) / "data"


def with_a_secret_that_cannot_be_read(path):
    (path / "secret_key").mkdir(parents=True)
    return path


@pytest.mark.parametrize("command", ["check", "serve", "migrate", "create_client_key"])
@pytest.mark.parametrize(
    "make",
    [
        a_file,
        below_a_file,
        with_a_secret_that_cannot_be_read,
        lambda _: Path("/proc/claudeproxy"),
    ],
    ids=["file", "below a file", "secret is a directory", "cannot be made"],
)
def test_a_data_directory_that_cannot_be_used_is_one_line(tmp_path, make, command):
    data_dir = make(tmp_path / "x")
    done = manage(data_dir, command)

    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"DATA_DIR: {data_dir} cannot be used (")
    assert "Set DATA_DIR to a directory" in line


def test_a_key_file_that_is_no_text_is_reported(tmp_path):
    (tmp_path / "encryption_key").write_bytes(b"\xff\xfe\x00")
    done = manage(tmp_path, "check")

    assert done.returncode == 1
    assert "(claudeproxy.E003)" in done.stderr
    assert "Traceback" not in done.stderr


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
