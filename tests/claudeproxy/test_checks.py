from datetime import timedelta

import pytest
from django.core import checks as django_checks

from claudeproxy import checks
from claudeproxy.environment import Problem
from claudeproxy.secretfiles import new_fernet_key
from proxy.upstream import Upstream


def test_every_mistake_of_the_environment_is_reported_with_its_remedy(settings):
    settings.ENVIRONMENT_PROBLEMS = [
        Problem("PORT", "'x' is not a whole number"),
        Problem("DEBUG", "'x' is neither on nor off"),
    ]
    found = list(checks.check_environment())

    assert [error.id for error in found] == ["claudeproxy.E001"] * 2
    assert found[0].msg == "PORT: 'x' is not a whole number."
    assert "Correct PORT in the environment or in .env" in str(found[0].hint)
    assert "DEBUG" in str(found[1].hint)


def test_a_mistake_in_the_env_file_is_reported_with_its_place(settings):
    settings.ENVIRONMENT_PROBLEMS = [Problem(".env", "not NAME=value: line 3")]
    (error,) = checks.check_environment()

    assert error.msg == ".env: not NAME=value: line 3."
    assert error.hint == "Correct .env, beside manage.py; see .env.example."


def test_a_sound_environment_says_nothing(settings):
    settings.ENVIRONMENT_PROBLEMS = []

    assert list(checks.check_environment()) == []


@pytest.mark.parametrize(
    "url",
    [
        "https://api.anthropic.com",
        "https://gateway.example:8443/a/path",
        "http://127.0.0.1:4010",
        "http://localhost",
        "http://[::1]:4010",
        "https://[2001:db8::1]",
    ],
)
async def test_a_sound_upstream_says_nothing_and_can_be_opened(settings, url):
    settings.UPSTREAM_BASE_URL = url

    assert list(checks.check_upstream()) == []
    await Upstream(url, read_timeout=timedelta(seconds=1)).aclose()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.anthropic.com",
        "//api.anthropic.com",
        "ftp://api.anthropic.com",
        "https://",
        "https://:443",
        "https:///v1",
        "https://host:port",
        "https://host:99999",
        "https://[::1",
        "https://user:pass@host",
        "https://user@host",
        "https://host?x=1",
        "https://host/#x",
        "https://host/?",
        "https://host/#",
        "https://@host",
        "https://ho st",
        "https://ho\tst",
        "https://host\\evil.test",
        "https://host/a b",
    ],
)
def test_a_wrong_upstream_is_reported(settings, url):
    settings.UPSTREAM_BASE_URL = url
    (error,) = checks.check_upstream()

    assert error.id == "claudeproxy.E002"
    assert error.msg.startswith("UPSTREAM_BASE_URL ")
    assert "https://api.anthropic.com" in str(error.hint)


def test_what_stands_in_a_wrong_upstream_is_not_repeated(settings):
    settings.UPSTREAM_BASE_URL = "https://user:s3cret@host"
    (error,) = checks.check_upstream()

    assert "s3cret" not in f"{error.msg} {error.hint}"


def test_an_upstream_without_tls_is_a_warning(settings):
    settings.UPSTREAM_BASE_URL = "http://gateway.example"
    (warning,) = checks.check_upstream()

    assert warning.id == "claudeproxy.W001"
    assert isinstance(warning, django_checks.Warning)


def test_sound_encryption_keys_say_nothing(settings):
    settings.ENCRYPTION_KEYS = [new_fernet_key(), new_fernet_key()]

    assert list(checks.check_encryption_keys()) == []


@pytest.mark.parametrize("key", ["", "short", "x" * 44, "é" * 44, "A" * 43])
def test_a_wrong_encryption_key_is_reported_by_its_place(settings, key):
    settings.ENCRYPTION_KEYS = [new_fernet_key(), key]
    (error,) = checks.check_encryption_keys()

    assert error.id == "claudeproxy.E003"
    assert "key 2" in error.msg
    assert "Put back the key" in str(error.hint)
    assert key == "" or key not in f"{error.msg} {error.hint}"


def test_the_checks_are_registered():
    ours = {
        checks.check_environment,
        checks.check_upstream,
        checks.check_data_dir,
        checks.check_provider,
        checks.check_session_identity,
        checks.check_trusted_proxies,
        checks.check_redis,
        checks.check_encryption_keys,
    }

    assert ours <= set(django_checks.registry.registry.get_checks())


def test_an_upstream_that_ends_with_the_api_version_is_warned_of(settings):
    settings.UPSTREAM_BASE_URL = "https://api.anthropic.com/v1"
    (warning,) = checks.check_upstream()

    assert warning.id == "claudeproxy.W002"


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o770, 0o702])
def test_a_data_directory_that_others_may_use_is_warned_of(settings, tmp_path, mode):
    settings.DATA_DIR = tmp_path
    tmp_path.chmod(mode)
    (warning,) = checks.check_data_dir()

    assert warning.id == "claudeproxy.W003"
    assert isinstance(warning, django_checks.Warning)
    assert f"mode {mode:04o}" in warning.msg
    assert warning.hint == f"chmod 700 {tmp_path}"


@pytest.mark.parametrize("mode", [0o700, 0o1700])
def test_a_data_directory_of_its_own_says_nothing(settings, tmp_path, mode):
    settings.DATA_DIR = tmp_path
    tmp_path.chmod(mode)

    assert list(checks.check_data_dir()) == []


PROVIDER = ("OAUTH_AUTHORIZE_URL", "OAUTH_TOKEN_URL", "OAUTH_REDIRECT_URI")


@pytest.mark.parametrize("name", PROVIDER)
@pytest.mark.parametrize(
    "url", ["", "https://claude.example/path?a=b", "http://localhost:4000/callback"]
)
def test_a_sound_address_of_the_provider_says_nothing(settings, name, url):
    setattr(settings, name, url)

    assert list(checks.check_provider()) == []


@pytest.mark.parametrize("name", PROVIDER)
@pytest.mark.parametrize(
    "url",
    [
        "s3cret",
        "javascript:s3cret()",
        "ftp://host/s3cret",
        "https:///s3cret",
        "https://host:s3cret",
        "https://s3cret@host/",
        "https://host/#s3cret",
        "https://host/s3 cret",
    ],
)
def test_a_wrong_address_of_the_provider_is_reported_by_its_name(settings, name, url):
    setattr(settings, name, url)
    (error,) = checks.check_provider()

    assert error.id == "claudeproxy.E006"
    assert error.msg.startswith(f"{name} ")
    assert f"Set {name} to" in str(error.hint)
    assert "s3cret" not in f"{error.msg} {error.hint}"


def test_tokens_without_tls_are_a_warning(settings):
    for name in PROVIDER:
        setattr(settings, name, "http://claude.example/path")
    (warning,) = checks.check_provider()

    assert warning.id == "claudeproxy.W004"
    assert isinstance(warning, django_checks.Warning)
    assert "OAUTH_TOKEN_URL" in warning.msg


@pytest.mark.parametrize("parts", [["ip"], ["key", "ip"], ["ip", "user_agent", "key"]])
def test_what_can_make_a_session_says_nothing(settings, parts):
    settings.SESSION_IDENTITY = parts

    assert list(checks.check_session_identity()) == []


@pytest.mark.parametrize("parts", [[], ["ip", "host"], ["IP"], ["ip", "ip"]])
def test_what_cannot_make_a_session_is_reported(settings, parts):
    settings.SESSION_IDENTITY = parts
    (error,) = checks.check_session_identity()

    assert error.id == "claudeproxy.E007"
    assert error.msg.startswith("SESSION_IDENTITY: ")
    assert "ip, user_agent, key" in str(error.hint)


def test_addresses_and_networks_can_be_trusted(settings):
    settings.TRUSTED_PROXIES = ["127.0.0.1", "10.0.0.0/8", "::1", "fd00::/8"]

    assert list(checks.check_trusted_proxies()) == []


@pytest.mark.parametrize("text", ["proxy", "10.0.0.1/8", "10.0.0.0/33", "*", "10.0.0"])
def test_what_is_no_network_cannot_be_trusted(settings, text):
    settings.TRUSTED_PROXIES = ["127.0.0.1", text]
    (error,) = checks.check_trusted_proxies()

    assert error.id == "claudeproxy.E008"
    assert error.msg.startswith(f"TRUSTED_PROXIES: {text!r} ")


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0"])
def test_trust_in_everybody_is_warned_of(settings, text):
    settings.TRUSTED_PROXIES = [text]
    (warning,) = checks.check_trusted_proxies()

    assert warning.id == "claudeproxy.W005"
    assert isinstance(warning, django_checks.Warning)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis://127.0.0.1",
        "redis://:secret@redis.example:6379/0",
        "rediss://user:secret@[::1]:6380/15",
        "unix:///run/redis.sock",
    ],
)
def test_a_sound_address_of_redis_says_nothing(settings, url):
    settings.REDIS_URL = url

    assert list(checks.check_redis()) == []


@pytest.mark.parametrize(
    "url",
    [
        "s3cret",
        "http://s3cret@host",
        "redis://",
        "redis://:s3cret@host:port/0",
        "redis://:s3cret@host/name",
        "redis://[s3cret",
        "redis://ho st/s3cret",
        "unix://",
    ],
)
def test_a_wrong_address_of_redis_is_reported_without_its_password(settings, url):
    settings.REDIS_URL = url
    (error,) = checks.check_redis()

    assert error.id == "claudeproxy.E009"
    assert error.msg.startswith("REDIS_URL ")
    assert "s3cret" not in f"{error.msg} {error.hint}"
