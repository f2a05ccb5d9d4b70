"""`rotate_encryption_key`, the file of the keys, and the check that they fit."""

import errno
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import checks as django_checks
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test import override_settings
from django.utils import timezone
from django_q.models import Success
from structlog.testing import capture_logs

from accounts.models import Account, PendingAuthorization
from accounts.status import AccountKind
from claudeproxy import checks, jobs, rotation
from claudeproxy.crypto import Cipher, Secret, WrongEncryptionKeyError
from claudeproxy.rotation import Column
from claudeproxy.secretfiles import new_fernet_key
from tests.claudeproxy.service import MANAGE, ROOT, environment, eventually, started
from tests.factories import make_account

OLD, NEW, LOST = (new_fernet_key() for _ in range(3))


@pytest.fixture
def use_keys(monkeypatch):
    """Let this process encrypt with the first key and decrypt with any."""

    def use_keys(*keys):
        for column in rotation.columns():
            field = column.model._meta.get_field(column.name)
            monkeypatch.setattr(field, "cipher", Cipher(list(keys)))

    return use_keys


@pytest.fixture
def key_file(tmp_path, settings, use_keys):
    """A DATA_DIR whose only key is the old one, and nobody who serves."""
    path = tmp_path / "encryption_key"
    path.write_text(f"{OLD}\n")
    path.chmod(0o600)
    settings.DATA_DIR, settings.ENCRYPTION_KEY_FILE = tmp_path, path
    settings.ENCRYPTION_KEYS = [OLD]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        settings.HOST, settings.PORT = listener.getsockname()
    use_keys(OLD)
    return path


@pytest.fixture
def given_keys(tmp_path, settings):
    """Keys that the operator set."""
    settings.DATA_DIR, settings.ENCRYPTION_KEY_FILE = tmp_path, None
    settings.ENCRYPTION_KEYS = [NEW, OLD]


def keys_in(path):
    return path.read_text().splitlines()


def make_accounts(count):
    return [
        make_account(
            f"account-{n}",
            kind=AccountKind.OAUTH,
            secret=f"planted-access-{n}",
            refresh_token=Secret(f"planted-refresh-{n}"),
        )
        for n in range(count)
    ]


def sealed():
    """Every stored ciphertext, by column and row."""
    return {
        (str(column), pk): secret.sealed
        for column in rotation.columns()
        for pk, secret in column.filled().values_list("pk", column.name)
    }


def readable_with(key):
    """What one key alone can read of what is stored."""
    cipher, found = Cipher([key]), {}
    for place, token in sealed().items():
        try:
            found[place] = cipher.decrypt(token)
        except WrongEncryptionKeyError:
            continue
    return found


def quiet(*_):
    """Progress that nobody looks at."""


@contextmanager
def at_update(number, act):
    """Do *act* right before the update of that number is sent to the database."""
    seen = 0

    def wrapper(execute, sql, params, many, context):
        nonlocal seen
        if sql.startswith("UPDATE"):
            seen += 1
            if seen == number:
                act()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        yield


def interrupt():
    raise KeyboardInterrupt


class Run:
    """Runs the command; returns standard output and exit code, keeps all it wrote."""

    err = seen = ""

    def __init__(self, caplog):
        self._caplog = caplog

    def __call__(self, *arguments):
        out, err = io.StringIO(), io.StringIO()
        code: Any = 0
        with capture_logs() as lines:
            try:
                call_command(
                    "rotate_encryption_key", *arguments, stdout=out, stderr=err
                )
            except SystemExit as end:
                code = end.code
            finally:
                self.err = err.getvalue()
                self.seen = f"{out.getvalue()}{self.err}{self._caplog.text}{lines}"
        return out.getvalue(), code


@pytest.fixture
def run(caplog):
    return Run(caplog)


# --- re-encrypting


def test_every_encrypted_field_is_found():
    assert {str(column) for column in rotation.columns()} == {
        "accounts.Account.api_key",
        "accounts.Account.access_token",
        "accounts.Account.refresh_token",
        "accounts.PendingAuthorization.verifier",
    }


@pytest.mark.django_db
def test_everything_is_readable_with_the_new_key_alone(use_keys):
    use_keys(OLD)
    make_accounts(3)
    make_account("ada", secret="planted-key")
    report = rotation.rotate([NEW, OLD], quiet)

    assert (report.reencrypted, report.current, report.unreadable) == (7, 0, [])
    assert sorted(readable_with(NEW).values()) == sorted(
        [f"planted-{kind}-{n}" for kind in ("access", "refresh") for n in range(3)]
        + ["planted-key"]
    )
    assert readable_with(OLD) == {}


@pytest.mark.django_db
def test_what_is_current_is_left_alone(use_keys):
    use_keys(NEW)
    make_accounts(2)
    before = sealed()
    report = rotation.rotate([NEW, OLD], quiet)

    assert (report.reencrypted, report.current) == (0, 4)
    assert sealed() == before


@pytest.mark.django_db
def test_what_no_key_opens_is_named_and_left_as_it_is(use_keys):
    use_keys(LOST)
    make_account("lost", secret="planted")
    before = sealed()
    use_keys(OLD)
    make_account("ada", secret="planted-key")
    report = rotation.rotate([NEW, OLD], quiet)

    assert [str(found) for found in report.unreadable] == ["lost (api_key)"]
    assert report.reencrypted == 1
    assert before.items() <= sealed().items()


@pytest.mark.django_db
@pytest.mark.parametrize("size", [1, 2, 5, 6, 100])
def test_batches_of_any_size_reach_every_row(use_keys, monkeypatch, size):
    monkeypatch.setattr(rotation, "BATCH_SIZE", size)
    use_keys(OLD)
    make_accounts(5)
    told = []
    report = rotation.rotate([NEW, OLD], lambda *progress: told.append(progress))

    assert report.reencrypted == 10
    assert len(readable_with(NEW)) == 10
    assert told[-1][1:] == (5, 5)


@pytest.mark.django_db
def test_a_refresh_in_between_is_never_overwritten(use_keys):
    use_keys(OLD)
    (account,) = make_accounts(1)

    def refresh():
        Account.objects.update(
            access_token=Secret("newer-access"), refresh_token=Secret("newer-refresh")
        )

    with at_update(1, refresh):
        rotation.rotate([NEW, OLD], quiet)

    assert sorted(readable_with(NEW).values()) == ["newer-access", "newer-refresh"]
    assert Account.objects.get().pk == account.pk


@pytest.mark.django_db
def test_an_account_that_is_deleted_in_between_is_no_trouble(use_keys):
    use_keys(OLD)
    make_accounts(2)
    with at_update(1, lambda: Account.objects.all().delete()):
        report = rotation.rotate([NEW, OLD], quiet)

    assert (report.reencrypted, report.unreadable) == (0, [])
    assert sealed() == {}


@pytest.mark.django_db
def test_an_update_that_comes_too_late_changes_nothing(use_keys):
    use_keys(OLD)
    make_accounts(1)
    column = Column(Account, "access_token")
    ((pk, secret),) = column.filled().values_list("pk", "access_token")
    before = sealed()

    assert not rotation._replace(column, pk, secret.sealed + "x", secret)
    assert sealed() == before
    assert rotation._replace(column, pk, secret.sealed, secret)


@pytest.mark.django_db
@pytest.mark.parametrize("number", range(1, 11))
def test_an_interrupted_rotation_loses_nothing_and_is_finished_by_the_next(
    use_keys, monkeypatch, number
):
    monkeypatch.setattr(rotation, "BATCH_SIZE", 2)
    use_keys(OLD)
    make_accounts(5)
    with pytest.raises(KeyboardInterrupt), at_update(number, interrupt):
        rotation.rotate([NEW, OLD], quiet)

    assert len(readable_with(NEW)) == number - 1
    assert len(readable_with(OLD)) == 11 - number
    report = rotation.rotate([NEW, OLD], quiet)
    assert (report.reencrypted, report.current) == (11 - number, number - 1)
    assert len(readable_with(NEW)) == 10


@pytest.mark.django_db
def test_nothing_else_of_a_row_is_touched(use_keys):
    use_keys(OLD)
    make_accounts(1)
    names = [
        field.name
        for field in Account._meta.concrete_fields
        if field.name not in {"access_token", "refresh_token", "api_key"}
    ]
    before = Account.objects.values(*names).get()
    rotation.rotate([NEW, OLD], quiet)

    assert Account.objects.values(*names).get() == before


# --- the file of the keys


def test_keys_are_written_one_on_a_line_for_the_owner_alone(key_file):
    rotation.write_keys(key_file, [NEW, OLD])

    assert keys_in(key_file) == rotation.read_keys(key_file) == [NEW, OLD]
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert [path.name for path in key_file.parent.iterdir()] == ["encryption_key"]


def test_a_file_that_cannot_be_replaced_stays_as_it_was(key_file, monkeypatch):
    def replace(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(key_file))

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="No space"):
        rotation.write_keys(key_file, [NEW, OLD])

    assert keys_in(key_file) == [OLD]
    assert [path.name for path in key_file.parent.iterdir()] == ["encryption_key"]


def test_a_file_behind_a_link_is_replaced_where_it_is(key_file, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(key_file)
    rotation.write_keys(link, [NEW, OLD])

    assert link.is_symlink()
    assert keys_in(key_file) == [NEW, OLD]


def test_two_rotations_never_run_at_a_time(tmp_path):
    with (
        rotation.alone(tmp_path),
        pytest.raises(rotation.RotationUnderWayError),
        rotation.alone(tmp_path),
    ):
        pytest.fail("the second one ran")
    with rotation.alone(tmp_path):
        pass


# --- the command


@pytest.mark.django_db
@pytest.mark.usefixtures("given_keys")
def test_keys_that_are_given_are_used_as_they_are(run, use_keys):
    use_keys(OLD)
    make_accounts(1)
    printed, code = run()

    assert code == 0
    assert printed.startswith("2 re-encrypted, 0 already current, 0 unreadable.")
    assert len(readable_with(NEW)) == 2


@pytest.mark.django_db
@pytest.mark.usefixtures("given_keys")
@pytest.mark.parametrize("option", ["--new-key", "--drop-old"])
def test_keys_that_are_given_are_the_operators_to_change(run, option):
    with pytest.raises(CommandError, match="ENCRYPTION_KEYS is set"):
        run(option)


@pytest.mark.django_db
def test_a_new_key_is_put_in_front_and_used(run, key_file):
    make_accounts(2)
    printed, code = run("--new-key")
    new, old = keys_in(key_file)

    assert code == 0
    assert old == OLD
    assert len(readable_with(new)) == 4
    assert "4 re-encrypted" in printed
    assert "Keys in use: 2." in printed


@pytest.mark.django_db
def test_old_keys_go_when_nothing_needs_them(run, key_file):
    make_accounts(2)
    run("--new-key")
    _, code = run("--drop-old")
    (new,) = keys_in(key_file)

    assert code == 0
    assert new != OLD
    assert len(readable_with(new)) == 4


@pytest.mark.django_db
def test_all_of_it_can_be_done_at_once(run, key_file):
    make_accounts(2)
    _, code = run("--new-key", "--drop-old")
    (new,) = keys_in(key_file)

    assert code == 0
    assert len(readable_with(new)) == 4


@pytest.mark.django_db
def test_the_only_key_is_never_dropped(run, key_file):
    make_accounts(1)
    run("--drop-old")

    assert keys_in(key_file) == [OLD]


@pytest.mark.django_db
def test_keys_stay_while_a_secret_cannot_be_read(run, key_file, use_keys):
    use_keys(LOST)
    make_account("lost", secret="planted")
    use_keys(OLD)
    make_account("ada", secret="planted-key")
    printed, code = run("--new-key", "--drop-old")

    assert code == 1
    assert len(keys_in(key_file)) == 2
    assert "1 unreadable" in printed
    assert "No key opens the secrets of lost (api_key)" in run.err
    assert "No key was removed" in run.err


@pytest.mark.django_db
def test_a_secret_written_with_an_old_key_meanwhile_keeps_that_key(run, key_file):
    make_accounts(1)
    rotation.write_keys(key_file, [NEW, OLD])
    written = 0

    def write_with_the_old_key():
        nonlocal written
        written += 1
        Account.objects.update(access_token=Secret(f"written-late-{written}"))

    def wrapper(execute, sql, params, many, context):
        # Somebody who does not know the new key writes once before every pass.
        if "COUNT" in sql and "access_token" in sql:
            write_with_the_old_key()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        run("--drop-old")

    assert keys_in(key_file) == [NEW, OLD]
    assert f"written-late-{written}" in {
        Cipher([NEW, OLD]).decrypt(token) for token in sealed().values()
    }


@pytest.mark.django_db
def test_no_key_and_no_secret_is_printed_or_logged(run, key_file):
    make_accounts(2)
    run("--new-key", "--drop-old")

    assert "planted" not in run.seen
    assert OLD not in run.seen
    assert keys_in(key_file)[0] not in run.seen
    assert not [token for token in sealed().values() if token in run.seen]


@pytest.mark.django_db
def test_json_says_it_for_programs(run, key_file, use_keys):
    use_keys(LOST)
    lost = make_account("lost", secret="planted")
    use_keys(OLD)
    make_account("ada", secret="planted-key")
    printed, code = run("--new-key", "--json")

    assert code == 1
    assert len(keys_in(key_file)) == 2
    assert json.loads(printed) == {
        "reencrypted": 1,
        "current": 0,
        "unreadable": [
            {
                "model": "accounts.Account",
                "id": lost.pk,
                "name": "lost",
                "field": "api_key",
            }
        ],
        "keys": 2,
        "needs_restart": False,
    }


@pytest.mark.django_db
@pytest.mark.usefixtures("key_file")
def test_progress_goes_to_standard_error(run, monkeypatch):
    monkeypatch.setattr(rotation, "BATCH_SIZE", 2)
    make_accounts(3)
    run()

    assert "accounts.Account.access_token: 2 of 3\n" in run.err
    assert "accounts.Account.access_token: 3 of 3\n" in run.err


@pytest.mark.django_db
@pytest.mark.parametrize("number", range(1, 5))
def test_an_interrupted_command_is_finished_by_the_next(run, key_file, number):
    make_accounts(2)
    with (
        at_update(number, interrupt),
        pytest.raises(CommandError, match="Interrupted") as caught,
    ):
        run("--new-key", "--drop-old")
    assert caught.value.returncode == 130
    assert len(keys_in(key_file)) == 2
    _, code = run("--drop-old")

    assert code == 0
    assert len(readable_with(*keys_in(key_file))) == 4


@pytest.mark.django_db
def test_a_new_key_is_on_disk_before_anything_needs_it(run, key_file, monkeypatch):
    def replace(*_):
        raise OSError(errno.EROFS, "Read-only file system", str(key_file))

    make_accounts(1)
    before = sealed()
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(CommandError, match=r"Read-only file system: .*encryption_key"):
        run("--new-key")

    assert keys_in(key_file) == [OLD]
    assert sealed() == before


@pytest.mark.django_db
def test_a_crash_before_the_old_key_is_dropped_keeps_both(run, key_file, monkeypatch):
    def replace(*_):
        raise KeyboardInterrupt

    make_accounts(1)
    run("--new-key")
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(CommandError, match="Interrupted"):
        run("--drop-old")

    assert len(keys_in(key_file)) == 2


@pytest.mark.django_db
@pytest.mark.usefixtures("key_file")
def test_a_database_in_trouble_is_told_with_what_to_do(run):
    def fail():
        raise OperationalError("database is locked")

    make_accounts(1)
    with (
        at_update(1, fail),
        pytest.raises(CommandError, match=r"is locked.*run the command again"),
    ):
        run("--new-key")


@pytest.mark.django_db
def test_sign_ins_whose_time_is_up_do_not_stand_in_the_way(run, key_file, use_keys):
    use_keys(LOST)
    PendingAuthorization.objects.create(
        state_digest="0" * 64,
        owner="session:x",
        verifier=Secret("planted"),
        redirect_uri="http://localhost/",
        account_name="dorothy",
        expires_at=timezone.now() - timedelta(seconds=1),
    )
    use_keys(OLD)
    _, code = run("--new-key", "--drop-old")

    assert code == 0
    assert len(keys_in(key_file)) == 1


# --- beside a gateway that runs


def beat(*keys, func="claudeproxy.jobs.heartbeat", result=None, ago=0):
    """A job that ended in a process that was started with *keys*."""
    at = timezone.now() - timedelta(seconds=ago)
    with override_settings(ENCRYPTION_KEYS=list(keys)):
        Success.objects.create(
            id=f"{Success.objects.count()}",
            name="beat",
            func=func,
            started=at,
            stopped=at,
            success=True,
            result=jobs.heartbeat() if result is None else result,
        )


@contextmanager
def open_port(settings):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings.PORT = listener.getsockname()[1]
        yield


@pytest.mark.django_db
def test_a_gateway_that_runs_is_restarted_before_anything_needs_the_new_key(
    run, key_file
):
    make_accounts(1)
    before = sealed()
    beat(OLD, ago=1)
    _, code = run("--new-key", "--drop-old")

    assert code == 0
    assert len(keys_in(key_file)) == 2
    assert sealed() == before
    assert "Restart it, then run the command again without --new-key" in run.err
    beat(*keys_in(key_file))
    run()
    assert len(readable_with(keys_in(key_file)[0])) == 2


@pytest.mark.django_db
def test_a_gateway_without_jobs_is_seen_by_its_port(run, key_file, settings):
    make_accounts(1)
    before = sealed()
    with open_port(settings):
        printed, _ = run("--new-key", "--json")

    assert json.loads(printed)["needs_restart"] is True
    assert sealed() == before


def test_a_heartbeat_names_its_keys_and_shows_none(settings):
    settings.ENCRYPTION_KEYS = [NEW, OLD]
    new, old = jobs.heartbeat().split(",")

    assert new != old
    assert {len(new), len(old)} == {12}
    assert new not in NEW
    settings.ENCRYPTION_KEYS = [OLD]
    assert jobs.heartbeat() == old


@pytest.mark.django_db
@pytest.mark.parametrize("arguments", [[], ["--drop-old"]])
@pytest.mark.parametrize(
    ("keys", "job"),
    [
        ([OLD], {}),
        ([LOST, OLD], {}),
        ([], {"result": ""}),  # of a version that did not name its keys
        ([NEW, OLD], {"func": "accounts.tasks.refresh_tokens"}),
    ],
)
def test_beside_a_gateway_without_the_first_key_nothing_is_done(
    run, key_file, arguments, keys, job
):
    rotation.write_keys(key_file, [NEW, OLD])
    make_accounts(1)
    before = sealed()
    beat(NEW, OLD, ago=170 if "func" not in job else 190)
    beat(*keys, **job)
    with pytest.raises(CommandError, match="Restart the gateway, then run the comm"):
        run(*arguments)

    assert sealed() == before
    assert keys_in(key_file) == [NEW, OLD]


@pytest.mark.django_db
@pytest.mark.parametrize("arguments", [[], ["--drop-old"]])
def test_beside_a_gateway_that_was_restarted_it_goes_on(run, key_file, arguments):
    rotation.write_keys(key_file, [NEW, OLD])
    make_accounts(1)
    beat(OLD, ago=60)
    beat(NEW, OLD)
    beat(func="accounts.tasks.refresh_tokens", result="")
    run(*arguments)

    assert len(readable_with(NEW)) == 2
    assert keys_in(key_file) == ([NEW] if arguments else [NEW, OLD])


@pytest.mark.django_db
def test_a_gateway_that_still_writes_with_an_old_key_keeps_it(run, key_file):
    rotation.write_keys(key_file, [NEW, OLD])
    make_accounts(1)
    beat(OLD, NEW)
    with pytest.raises(CommandError, match="would encrypt with the first key"):
        run("--drop-old")
    run()

    assert keys_in(key_file) == [NEW, OLD]
    assert len(readable_with(NEW)) == 2


@pytest.mark.django_db
@pytest.mark.parametrize("arguments", [[], ["--drop-old"]])
def test_a_gateway_that_shows_only_its_port_is_not_trusted(
    run, key_file, settings, arguments
):
    rotation.write_keys(key_file, [NEW, OLD])
    make_accounts(1)
    before = sealed()
    beat(NEW, OLD, ago=190)
    with open_port(settings), pytest.raises(CommandError, match=r"port \d+ is open"):
        run(*arguments)

    assert sealed() == before
    assert keys_in(key_file) == [NEW, OLD]


@pytest.mark.django_db
@pytest.mark.usefixtures("given_keys")
def test_keys_that_the_operator_set_are_asked_for_as_well(run, use_keys):
    use_keys(OLD)
    make_accounts(1)
    beat(OLD)
    with pytest.raises(CommandError, match="Restart the gateway"):
        run()
    beat(NEW, OLD)
    run()

    assert len(readable_with(NEW)) == 2


@pytest.mark.django_db
def test_force_asks_nobody(run, key_file, settings):
    make_accounts(1)
    beat(OLD)
    with open_port(settings):
        run("--new-key", "--drop-old", "--force")
    (key,) = keys_in(key_file)

    assert key != OLD
    assert len(readable_with(key)) == 2


@pytest.mark.django_db
def test_one_key_alone_endangers_nobody(run, key_file):
    make_accounts(1)
    beat(LOST)
    _, code = run("--drop-old")

    assert code == 0
    assert keys_in(key_file) == [OLD]


# --- the check


def found_by_check(*, databases=("default",)):
    return [
        message
        for message in django_checks.run_checks(databases=databases)
        if message.id == "claudeproxy.E005"
    ]


@pytest.mark.django_db
def test_keys_that_fit_say_nothing(use_keys):
    use_keys(OLD)
    make_accounts(2)
    use_keys(NEW, OLD)

    assert found_by_check() == []


@pytest.mark.django_db
@pytest.mark.usefixtures("key_file")
def test_a_wrong_key_is_an_error_that_names_the_accounts(use_keys, settings):
    use_keys(OLD)
    make_account("ada", secret="planted")
    make_accounts(1)
    use_keys(NEW)
    make_account("grace", secret="planted-too")
    (error,) = found_by_check()

    assert isinstance(error, django_checks.Error)
    assert error.msg.endswith(": ada, account-0.")
    assert str(settings.ENCRYPTION_KEY_FILE) in error.msg
    assert "Put back the key" in str(error.hint)
    assert "planted" not in f"{error.msg} {error.hint}"


@pytest.mark.django_db
@pytest.mark.usefixtures("given_keys")
def test_many_accounts_are_counted(use_keys):
    use_keys(OLD)
    make_accounts(13)
    use_keys(NEW)
    (error,) = found_by_check()

    assert "keys in ENCRYPTION_KEYS: account-0, " in error.msg
    assert error.msg.endswith("account-9 and 3 more.")


@pytest.mark.django_db
def test_the_database_is_only_asked_when_it_is_meant(use_keys):
    use_keys(OLD)
    make_accounts(1)
    use_keys(NEW)

    assert found_by_check(databases=None) == []
    assert list(checks.check_stored_secrets()) == []


@pytest.mark.django_db
def test_a_sign_in_that_is_lost_is_no_error(use_keys):
    use_keys(OLD)
    PendingAuthorization.objects.create(
        state_digest="0" * 64,
        owner="session:x",
        verifier=Secret("planted"),
        redirect_uri="http://localhost/",
        account_name="dorothy",
        expires_at=timezone.now(),
    )
    use_keys(NEW)

    assert found_by_check() == []


@pytest.mark.django_db
def test_keys_that_are_none_are_reported_once(settings):
    make_accounts(1)
    settings.ENCRYPTION_KEYS = ["short"]

    assert found_by_check() == []


@pytest.mark.django_db
def test_a_database_that_is_away_is_left_to_whoever_needs_it():
    def away(*_):
        raise OperationalError("no connection")

    with connection.execute_wrapper(away):
        assert found_by_check() == []


def test_no_key_at_all_is_an_error(settings):
    settings.ENCRYPTION_KEYS = []
    (error,) = checks.check_encryption_keys()

    assert error.id == "claudeproxy.E003"
    assert "there is no key" in error.msg


# --- with real processes


def manage(data, *arguments, stdin="", **env):
    return subprocess.run(
        [sys.executable, *MANAGE, *arguments],
        cwd=ROOT,
        env=environment(data, **env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A data directory with one account; made once, copied for each test."""
    data = tmp_path_factory.mktemp("template")
    assert manage(data, "migrate", "--verbosity", "0").returncode == 0
    added = manage(
        data,
        *("add_account", "ada", "--kind", "api_key", "--no-check"),
        stdin="planted-key\n",
    )
    assert added.returncode == 0, added.stderr
    return data


@pytest.fixture
def stored(template, tmp_path):
    return Path(shutil.copytree(template, tmp_path / "data"))


@pytest.mark.processes
def test_a_first_start_has_nothing_to_check(tmp_path):
    done = manage(tmp_path, "check", "--database", "default")

    assert done.returncode == 0, done.stderr


@pytest.mark.processes
def test_tables_of_an_older_version_are_not_checked_yet(tmp_path):
    manage(tmp_path, "migrate", "accounts", "0001", "--verbosity", "0")
    done = manage(tmp_path, "check", "--database", "default")

    assert done.returncode == 0, done.stderr


@pytest.mark.processes
@pytest.mark.parametrize(
    "command", [["serve"], ["jobs"], ["migrate"], ["check", "--database", "default"]]
)
def test_nothing_starts_with_a_wrong_key(stored, command):
    before = (stored / "claudeproxy.sqlite3").read_bytes()
    done = manage(stored, *command, ENCRYPTION_KEYS=NEW)

    assert done.returncode == 1
    assert "(claudeproxy.E005)" in done.stderr
    assert "keys in ENCRYPTION_KEYS: ada." in done.stderr
    assert "Traceback" not in done.stderr
    assert NEW not in done.stdout + done.stderr
    assert (stored / "claudeproxy.sqlite3").read_bytes() == before


@pytest.mark.processes
def test_who_has_lost_the_key_can_start_without_the_check(stored):
    command = [*MANAGE, "serve", "--web-only", "--skip-checks"]
    with started(command, stored, ENCRYPTION_KEYS=NEW) as service:
        assert service.get("/health")


@pytest.mark.processes
def test_a_whole_rotation_in_the_data_directory(stored):
    path = stored / "encryption_key"
    (old,) = keys_in(path)
    added = manage(stored, "rotate_encryption_key", "--new-key")
    new, kept = keys_in(path)
    dropped = manage(stored, "rotate_encryption_key", "--drop-old")
    checked = manage(stored, "check", "--database", "default")

    assert (added.returncode, dropped.returncode) == (0, 0), added.stderr
    assert kept == old
    assert keys_in(path) == [new]
    assert checked.returncode == 0, checked.stderr
    assert old not in added.stderr + dropped.stderr


@pytest.mark.processes
def test_a_whole_rotation_beside_a_gateway_that_runs(stored):
    path = stored / "encryption_key"
    with started([*MANAGE, "jobs"], stored) as service:
        eventually(lambda: service.successes_since(0))
        added = manage(stored, "rotate_encryption_key", "--new-key")
        refused = manage(stored, "rotate_encryption_key", "--drop-old")
        both = keys_in(path)
    asked_at = time.time()
    with started([*MANAGE, "jobs"], stored) as service:
        eventually(lambda: service.successes_since(asked_at))
        dropped = eventually(lambda: succeeded(stored, "--drop-old"))

    assert added.returncode == 0, added.stderr
    assert refused.returncode == 1
    assert "Restart the gateway" in refused.stderr
    assert len(both) == 2
    assert keys_in(path) == both[:1], dropped.stderr


def succeeded(data, *arguments):
    done = manage(data, "rotate_encryption_key", *arguments)
    return done if done.returncode == 0 else None


@pytest.mark.processes
def test_a_rotation_needs_tables(tmp_path):
    done = manage(tmp_path, "rotate_encryption_key", "--new-key")

    assert done.returncode == 1
    assert "manage.py migrate" in done.stderr
    assert len(keys_in(tmp_path / "encryption_key")) == 1
    assert "Traceback" not in done.stderr
