"""Commands on a database that is not ready for them: what the operator is told."""

from pathlib import Path

import pytest
from django.core.management import CommandError
from django.db import DataError, InternalError, OperationalError, ProgrammingError

from claudeproxy.commands import DatabaseCommand, not_ready
from tests.claudeproxy.service import manage

COMMANDS: dict[str, list[str]] = {
    "add_account": ["ada", "--kind", "api_key", "--no-check"],
    "create_client_key": ["laptop"],
    "check_accounts": [],
    "refresh_accounts": [],
    "recover_accounts": [],
    "import_claude_proxy": [],
    "rotate_encryption_key": [],
    "jobs": [],
}


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("migrated")
    assert manage(data, "migrate", "-v0").returncode == 0
    return data


def arguments(command: str, directory: Path) -> list[str]:
    if command != "import_claude_proxy":
        return COMMANDS[command]
    path = directory / "tokens.json"
    path.write_text('[{"id": "1", "name": "a", "key": "tk_%s"}]' % ("0" * 64))
    return [str(path)]


def complaint(command: str, data: Path, files: Path, **env: str) -> str:
    done = manage(data, command, *arguments(command, files), **env)

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "CommandError: The database is not ready: " in done.stderr
    assert "start ./run once, or use manage.py migrate" in done.stderr
    assert "check DATABASE_URL" in done.stderr
    return done.stderr


@pytest.mark.processes
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_before_the_first_start_says_what_to_do(command, tmp_path):
    data = tmp_path / "data"
    data.mkdir(mode=0o700)

    complaint(command, data, tmp_path)


@pytest.mark.processes
@pytest.mark.parametrize("command", ["create_client_key", "jobs"])
def test_a_database_that_cannot_be_opened_is_told_with_its_setting(command, tmp_path):
    url = f"sqlite:///{tmp_path / 'nowhere' / 'x.sqlite3'}"

    assert "unable to open" in complaint(command, tmp_path, tmp_path, DATABASE_URL=url)


@pytest.mark.processes
@pytest.mark.parametrize("command", ["create_client_key", "jobs"])
def test_a_database_server_that_is_away_is_told_in_one_line(command, tmp_path):
    url = "postgres://gateway:hidden@127.0.0.1:9/x"
    told = complaint(command, tmp_path, tmp_path, DATABASE_URL=url)

    assert "Connection refused" in told
    assert len(told.splitlines()) == 1
    assert "hidden" not in told


@pytest.mark.processes
@pytest.mark.parametrize(
    "command", ["create_client_key", "import_claude_proxy", "jobs"]
)
def test_a_database_that_may_only_be_read_is_told(command, migrated, tmp_path):
    path = migrated / "claudeproxy.sqlite3"
    url = f"sqlite:///{path}?init_command=PRAGMA query_only=1"
    told = complaint(command, migrated, tmp_path, DATABASE_URL=url)

    assert "readonly database" in told


@pytest.mark.processes
def test_jobs_do_not_run_on_the_tables_of_an_older_version(tmp_path):
    assert manage(tmp_path, "migrate", "accounts", "0001", "-v0").returncode == 0

    assert "not migrated" in complaint("jobs", tmp_path, tmp_path)


class Failing(DatabaseCommand):
    requires_system_checks = ()

    def handle(self, *_, error, **__):
        raise error


@pytest.mark.parametrize("kind", [InternalError, OperationalError, ProgrammingError])
def test_what_a_database_in_trouble_says_becomes_an_error_of_the_command(kind):
    with pytest.raises(CommandError, match=r"The database is not ready: no\. To"):
        Failing().execute(error=kind("no."), no_color=True, force_color=False)


def test_a_fault_of_the_code_is_not_taken_for_one_of_the_database():
    with pytest.raises(DataError):
        Failing().execute(error=DataError("x"), no_color=True, force_color=False)


def test_a_statement_that_failed_is_not_repeated():
    said = not_ready(ProgrammingError("no such column\nLINE 1: VALUES ('s3cret')"))

    assert "no such column" in said
    assert "s3cret" not in said


def test_an_error_without_words_is_called_by_its_kind():
    assert "not ready: OperationalError." in not_ready(OperationalError())
