import json
import subprocess

import pytest

from bench.targets import Gateway, Nginx, blanked, plain_environment


def test_a_targets_environment_holds_none_of_the_callers_settings(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://real")

    assert "DATABASE_URL" not in plain_environment()
    assert "PATH" in plain_environment()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# NAME=comment\n\n", {}),
        ("DATABASE_URL=postgres://real\n", {"DATABASE_URL": ""}),
        ("export REDIS_URL='redis://real'\n", {"REDIS_URL": ""}),
        ("A=b=c\nD_FILE = /run/d\n", {"A": "", "D_FILE": ""}),
    ],
)
def test_what_an_env_file_sets_is_blanked(tmp_path, text, expected):
    env_file = tmp_path / ".env"
    env_file.write_text(text)

    assert blanked(env_file) == expected


def test_a_missing_env_file_blanks_nothing(tmp_path):
    assert blanked(tmp_path / ".env") == {}


def test_the_gateway_keeps_its_data_apart_and_talks_to_our_upstream(tmp_path):
    gateway = Gateway(tmp_path, "http://127.0.0.1:9")
    environment = gateway.environment()

    assert environment["DATA_DIR"].startswith(str(tmp_path))
    assert environment["UPSTREAM_BASE_URL"] == "http://127.0.0.1:9"


def test_the_gateway_is_given_accounts_and_a_key_before_it_starts(
    tmp_path, monkeypatch
):
    calls = []

    def run(command, *, input, **options):
        calls.append((command[2:], input))
        answer = json.dumps({"key": "made"})
        return subprocess.CompletedProcess(command, 0, answer, "")

    monkeypatch.setattr(subprocess, "run", run)
    gateway = Gateway(tmp_path, "http://127.0.0.1:9")
    gateway.prepare(2)

    names = [command[0] for command, _ in calls]
    assert names == ["migrate", "add_account", "add_account", "create_client_key"]
    secrets = [text for _, text in calls[1:3]]
    assert all(text.startswith("sk-ant-api03-") for text in secrets)
    assert not any(text in command for command, _ in calls for text in secrets)
    assert gateway.headers == {"x-api-key": "made"}


@pytest.mark.skipif(Nginx.executable() is None, reason="nginx is not installed")
def test_nginx_accepts_its_configuration(tmp_path):
    nginx = Nginx(tmp_path, "http://127.0.0.1:9")
    nginx.prepare(0)

    done = subprocess.run(
        [*nginx.command(), "-t"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
