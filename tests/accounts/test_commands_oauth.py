"""`add_account --kind oauth`: a sign-in by hand, and tokens that are there already."""

import io
import json
import socket
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from structlog.testing import capture_logs

from accounts import signin
from accounts.models import Account, AccountEvent, PendingAuthorization
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Secret
from tests.factories import make_account

pytestmark = pytest.mark.django_db

ACCESS = "planted-access-token-of-dorothy"
REFRESH = "planted-refresh-token-of-dorothy"


@pytest.fixture
def provider(claude, settings):
    """The sandbox, as the provider that the settings name."""
    settings.OAUTH_CLIENT_ID = claude.sandbox.oauth.client_id
    settings.OAUTH_AUTHORIZE_URL = f"{claude.url}/oauth/authorize"
    settings.OAUTH_TOKEN_URL = f"{claude.url}/v1/oauth/token"
    settings.OAUTH_REDIRECT_URI = ""
    settings.HOST, settings.PORT = "127.0.0.1", 4000
    return claude


class Run:
    """Runs add_account; returns standard output, keeps all that was written."""

    seen = ""

    def __init__(self, monkeypatch, caplog):
        self._monkeypatch, self._caplog = monkeypatch, caplog

    def __call__(self, *options, name="dorothy", stdin=None):
        out, err = io.StringIO(), io.StringIO()
        typed = stdin(out, err) if stdin else io.StringIO()
        self._monkeypatch.setattr("sys.stdin", typed)
        arguments = ["add_account", name, "--kind", "oauth", *options]
        with capture_logs() as lines:
            try:
                call_command(*arguments, stdout=out, stderr=err)
            finally:
                written = out.getvalue() + err.getvalue()
                self.seen = f"{written}{self._caplog.text}{lines}"
        return out.getvalue()


@pytest.fixture
def run(monkeypatch, caplog):
    return Run(monkeypatch, caplog)


def the_account() -> Any:
    """The one account there is."""
    return Account.objects.get()


class Person(io.StringIO):
    """Somebody who opens the printed address, signs in and pastes what comes of it."""

    who = "dorothy"
    pasted = ""

    def __init__(self, *printed):
        super().__init__()
        self.printed = printed

    def readline(self, *_):
        text = "".join(sink.getvalue() for sink in self.printed)
        (url,) = (word for word in text.split() if word.startswith("http"))
        Person.pasted = self.paste(self.open(url))
        return f"{Person.pasted}\n"

    def open(self, url):
        parts = urlsplit(url)
        reply = httpx.post(
            parts._replace(query="").geturl(),
            data={**dict(parse_qsl(parts.query)), "allow": self.who},
        )
        assert reply.status_code == 302, reply.text
        return reply.headers["location"]

    def paste(self, location):
        return location


class Copyist(Person):
    """Pastes code and state as a provider's page shows them."""

    def paste(self, location):
        query = parse_qs(urlsplit(location).query)
        return f"  {query['code'][0]}#{query['state'][0]} "


class Decliner(Person):
    def open(self, url):
        query = dict(parse_qsl(urlsplit(url).query))
        return f"{query['redirect_uri']}?error=access_denied&state={query['state']}"


class Forger(Person):
    def paste(self, location):
        query = parse_qs(urlsplit(location).query)
        return f"planted-code-of-nobody#{query['state'][0]}"


def types(text):
    return lambda *_: io.StringIO(text)


# --- signing in


@pytest.mark.parametrize("person", [Person, Copyist])
def test_a_person_signs_in_and_the_account_is_there(provider, run, person):
    printed = run(stdin=person)
    account = the_account()

    assert (account.kind, account.status) == (AccountKind.OAUTH, AccountStatus.ACTIVE)
    assert account.holder_name == "dorothy.vaughan@sandbox.example"
    assert account.organization_name == "Sandbox Orbits"
    assert account.capabilities
    assert AccountEvent.objects.get().actor == "add_account"
    assert provider.sandbox.oauth.find_token(account.access_token.reveal())
    assert not PendingAuthorization.objects.exists()
    assert "'dorothy' is active. It belongs to dorothy.vaughan@" in printed


@pytest.mark.usefixtures("provider")
def test_no_secret_of_a_sign_in_is_printed_or_logged(run):
    run(stdin=Person)
    account = the_account()
    code = parse_qs(urlsplit(Person.pasted).query)["code"][0]

    assert code not in run.seen
    assert account.access_token.reveal() not in run.seen
    assert account.refresh_token.reveal() not in run.seen
    assert "[secret]" not in run.seen


@pytest.mark.usefixtures("provider")
def test_json_stands_alone_on_standard_output(run):
    fields = json.loads(run("--json", stdin=Person))
    account = the_account()

    assert fields["id"] == account.pk
    assert fields["kind"] == "oauth"
    assert fields["expires_at"] == account.expires_at.isoformat()
    assert fields["organization_uuid"] == account.organization_uuid
    assert fields["organization_name"] == "Sandbox Orbits"
    assert fields["holder_name"] == "dorothy.vaughan@sandbox.example"
    assert fields["models"] == [model["id"] for model in account.capabilities]
    assert (fields["last_refresh_at"], fields["last_refresh_error"]) == (None, "")


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize(
    ("host", "redirect_uri", "expected"),
    [
        ("127.0.0.1", "", "http://127.0.0.1:4000/oauth/callback"),
        ("0.0.0.0", "", "http://localhost:4000/oauth/callback"),
        ("::1", "", "http://[::1]:4000/oauth/callback"),
        ("127.0.0.1", "http://127.0.0.1:9/back", "http://127.0.0.1:9/back"),
    ],
)
def test_the_provider_leads_back_to_where_the_settings_say(
    run, settings, host, redirect_uri, expected
):
    settings.HOST, settings.OAUTH_REDIRECT_URI = host, redirect_uri
    run(stdin=Person)

    assert Person.pasted.partition("?")[0] == expected


@pytest.mark.usefixtures("provider")
def test_who_declines_adds_nothing(run):
    with pytest.raises(CommandError, match="the provider says 'access_denied'"):
        run(stdin=Decliner)

    assert not Account.objects.exists()


@pytest.mark.usefixtures("provider")
def test_a_code_that_the_provider_refuses_is_not_repeated(run):
    with pytest.raises(CommandError, match=r"^code: the provider refused it") as caught:
        run(stdin=Forger)

    assert "planted-code-of-nobody" not in str(caught.value) + run.seen
    assert not Account.objects.exists()


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize(
    "pasted",
    ["", "\n", "code-only\n", "#state-only\n", "http://[::1\n", "http://x/?code=c\n"],
)
def test_half_a_code_is_refused_with_what_to_paste(run, pasted):
    with pytest.raises(CommandError, match=r"^code: that is not all of it"):
        run(stdin=types(pasted))

    assert not Account.objects.exists()


@pytest.mark.usefixtures("provider")
def test_the_code_of_another_sign_in_is_refused(run):
    other = signin.begin(
        owner="session:somebody",
        redirect_uri="http://localhost/x",
        name="other",
        now=timezone.now(),
    )
    with pytest.raises(CommandError, match="was not begun here"):
        run(stdin=types(f"a-code#{other.state}\n"))

    assert not Account.objects.exists()


@pytest.mark.usefixtures("provider")
def test_one_person_is_not_added_twice(run):
    run(stdin=Person)
    with pytest.raises(CommandError, match="the account 'dorothy', which is here"):
        run(name="vaughan", stdin=Person)

    assert Account.objects.count() == 1


@pytest.mark.usefixtures("provider")
def test_a_taken_name_is_refused_before_anybody_signs_in(run):
    make_account("dorothy")
    with pytest.raises(CommandError, match="'dorothy' exists already"):
        run(stdin=types(""))

    assert not PendingAuthorization.objects.exists()


def test_settings_that_are_missing_are_named(run, settings):
    settings.OAUTH_CLIENT_ID = settings.OAUTH_TOKEN_URL = ""
    settings.OAUTH_AUTHORIZE_URL = "http://127.0.0.1:9/oauth/authorize"
    with pytest.raises(CommandError, match="OAUTH_CLIENT_ID, OAUTH_TOKEN_URL to be"):
        run(stdin=types(""))


# --- tokens there are already


def issue(provider, **options):
    return provider.sandbox.oauth.issue(
        "dorothy", access_token=ACCESS, refresh_token=REFRESH, **options
    )


def token_set(**fields):
    return json.dumps(
        {"access_token": ACCESS, "refresh_token": REFRESH, "expires_in": 3600} | fields
    )


def claude_code(**fields):
    """Tokens as Claude Code keeps them."""
    inner = {
        "accessToken": ACCESS,
        "refreshToken": REFRESH,
        "expiresAt": 1_800_000_000_123,
        "scopes": ["user:profile", "user:inference"],
        "subscriptionType": "team",
    }
    return json.dumps({"claudeAiOauth": inner | fields, "mcpOAuth": {}})


def test_tokens_from_a_pipe_are_added_and_never_printed(provider, run):
    issue(provider)
    printed = run("--from-json", "-", stdin=types(token_set()))
    account = the_account()

    assert account.access_token == Secret(ACCESS)
    assert account.refresh_token == Secret(REFRESH)
    assert account.organization_name == "Sandbox Orbits"
    assert account.holder_name == "dorothy.vaughan@sandbox.example"
    assert account.capabilities
    assert "'dorothy' is active" in printed
    assert "planted" not in run.seen


def test_tokens_from_a_file_are_added(provider, run, tmp_path):
    issue(provider)
    path = tmp_path / "credentials.json"
    path.write_text(claude_code())
    run("--from-json", str(path))
    account = the_account()

    assert account.access_token == Secret(ACCESS)
    assert account.refresh_token == Secret(REFRESH)
    assert account.expires_at == datetime(2027, 1, 15, 8, 0, 0, 123_000, tzinfo=UTC)


def test_tokens_are_not_used_up_by_adding_them(provider, run):
    issue(provider)
    run("--from-json", "-", stdin=types(token_set()))

    assert provider.sandbox.oauth.presented(REFRESH) == 0


def test_tokens_for_inference_only_are_added_with_what_is_known(provider, run):
    issue(provider, scope="user:inference")
    run("--from-json", "-", stdin=types(token_set()))
    account = the_account()

    assert account.organization_uuid
    assert account.holder_name == ""


@pytest.mark.usefixtures("provider")
def test_tokens_that_the_upstream_refuses_are_not_stored(run):
    with pytest.raises(CommandError, match=r"^access_token: .* 401") as caught:
        run("--from-json", "-", stdin=types(token_set()))

    assert "--no-check stores it unchecked" in str(caught.value)
    assert "planted" not in str(caught.value) + run.seen
    assert not Account.objects.exists()


def test_the_same_person_is_not_added_twice_by_tokens(provider, run):
    issue(provider)
    run("--from-json", "-", stdin=types(token_set()))
    with pytest.raises(CommandError, match="the account 'dorothy', which is here"):
        run("--from-json", "-", name="vaughan", stdin=types(token_set()))


@pytest.fixture
def offline(settings):
    """Neither an upstream nor a provider that anybody listens at."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    settings.UPSTREAM_BASE_URL = address
    settings.OAUTH_CLIENT_ID = ""


@pytest.mark.usefixtures("offline")
def test_tokens_can_be_stored_unchecked_without_any_call(run):
    whose = {
        "organization": {"uuid": "o-1", "name": "Orbits"},
        "account": {"uuid": "a-1", "email": "d@example.org"},
    }
    run("--from-json", "-", "--no-check", stdin=types(token_set(**whose)))
    account = the_account()

    assert account.access_token == Secret(ACCESS)
    assert (account.organization_uuid, account.holder) == ("o-1", "a-1")
    assert account.capabilities is None


@pytest.mark.usefixtures("offline")
def test_settings_that_a_refresh_will_need_are_named(run):
    run("--from-json", "-", "--no-check", stdin=types(token_set()))

    assert "Until then its tokens are not refreshed" in run.seen
    assert "OAUTH_CLIENT_ID" in run.seen


@pytest.mark.usefixtures("offline")
def test_tokens_without_a_refresh_token_are_taken_with_a_word(run):
    text = token_set(refresh_token=None)
    run("--from-json", "-", "--no-check", stdin=types(text))

    assert the_account().refresh_token is None
    assert "It has no refresh token" in run.seen


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ({"expires_at": "2027-01-15T08:00:00Z"}, "2027-01-15T08:00:00+00:00"),
        ({"expires_at": "2027-01-15T09:00:00+01:00"}, "2027-01-15T08:00:00+00:00"),
        ({"expires_at": 1_800_000_000}, "2027-01-15T08:00:00+00:00"),
        ({"expires_at": 1_800_000_000_000}, "2027-01-15T08:00:00+00:00"),
        ({"expires_at": 1_800_000_000, "expires_in": 5}, "2027-01-15T08:00:00+00:00"),
    ],
)
def test_the_end_of_a_token_is_read_in_every_notation(run, end, expected):
    run("--from-json", "-", "--no-check", stdin=types(token_set(**end)))

    assert the_account().expires_at == datetime.fromisoformat(expected)


@pytest.mark.usefixtures("offline")
def test_a_life_in_seconds_counts_from_now(run):
    run("--from-json", "-", "--no-check", stdin=types(token_set(expires_in=3600)))
    left = the_account().expires_at - timezone.now()

    assert timedelta(minutes=59) < left <= timedelta(hours=1)


@pytest.mark.usefixtures("offline")
def test_a_token_whose_end_nobody_knows_is_refreshed_before_its_use(run):
    run("--from-json", "-", "--no-check", stdin=types(token_set(expires_in=None)))

    assert the_account().expires_at <= timezone.now()


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "tokens"),
        ("planted", "tokens"),
        ("[1]", "tokens"),
        ('{"claudeAiOauth": null}', "tokens"),
        ("[" * 100_000, "tokens"),
        ("{}", "access_token"),
        (token_set(access_token=7), "access_token"),
        (token_set(access_token="planted one"), "access_token"),
        (token_set(access_token="planted-é"), "access_token"),
        (token_set(refresh_token=["planted"]), "refresh_token"),
        (token_set(expires_at="planted"), "expires_at"),
        (token_set(expires_at="2027-01-15T08:00:00"), "expires_at"),
        (token_set(expires_at=True), "expires_at"),
        (token_set(expires_at=10**30), "expires_at"),
        (token_set(expires_at=float("nan")), "expires_at"),
        (token_set(refresh_token="", expires_in=None), "expires_at"),
    ],
)
def test_tokens_that_cannot_be_read_are_refused_by_field(run, text, field):
    with pytest.raises(CommandError, match=f"^{field}: ") as caught:
        run("--from-json", "-", "--no-check", stdin=types(text))

    assert "planted" not in str(caught.value) + run.seen
    assert not Account.objects.exists()


def test_a_file_that_is_not_there_is_named(run, tmp_path):
    with pytest.raises(CommandError, match=r"none\.json cannot be read: No such file"):
        run("--from-json", str(tmp_path / "none.json"))


def test_a_file_that_is_no_text_is_named(run, tmp_path):
    path = tmp_path / "tokens.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CommandError, match=r"tokens\.json cannot be read: it is no te"):
        run("--from-json", str(path))


def test_tokens_are_not_typed_where_they_would_be_seen(run):
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    with pytest.raises(CommandError, match="not from the keyboard"):
        run("--from-json", "-", stdin=lambda *_: Tty(token_set()))
