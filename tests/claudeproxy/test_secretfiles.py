import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.fernet import Fernet

from claudeproxy import secretfiles


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_secret_is_made_once(tmp_path):
    path = tmp_path / "secret"
    first = secretfiles.read_or_create(path, lambda: "one")

    assert first == "one"
    assert secretfiles.read_or_create(path, lambda: "two") == "one"


def test_a_secret_that_is_there_is_not_made_again(tmp_path):
    path = tmp_path / "secret"
    path.write_text("  there\n")

    assert secretfiles.read_or_create(path, lambda: pytest.fail("made")) == "there"


def test_only_the_owner_can_read_it_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        secretfiles.read_or_create(tmp_path / "var" / "secret", lambda: "one")
    finally:
        os.umask(before)

    assert mode(tmp_path / "var") == 0o700
    assert mode(tmp_path / "var" / "secret") == 0o600


def test_a_directory_that_is_there_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o750)
    secretfiles.ensure_directory(tmp_path)

    assert mode(tmp_path) == 0o750


def test_all_who_start_at_once_agree(tmp_path):
    path = tmp_path / "secret"
    names = [f"secret-{number}" for number in range(32)]
    with ThreadPoolExecutor(16) as threads:
        found = set(
            threads.map(
                lambda name: secretfiles.read_or_create(path, lambda: name), names
            )
        )

    assert len(found) == 1
    assert found <= set(names)
    assert os.listdir(tmp_path) == ["secret"]


def test_a_failure_leaves_no_draft(tmp_path):
    def fail():
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011  # it has no text
        secretfiles.read_or_create(tmp_path / "secret", fail)

    assert os.listdir(tmp_path) == []


def test_a_new_key_is_one_that_fernet_takes():
    keys = {secretfiles.new_fernet_key() for _ in range(10)}

    assert len(keys) == 10
    assert all(Fernet(key) for key in keys)
