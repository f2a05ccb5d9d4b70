"""Connecting an account: to the provider, and back."""

import html
import re
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
import time_machine
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts import registration
from accounts.models import Account, AccountEvent, PendingAuthorization
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Secret
from claudeproxy.sandbox.server import SandboxServer
from tests.factories import make_account

pytestmark = pytest.mark.django_db

CONNECT = reverse("admin:accounts_account_connect")
ENTER_CODE = reverse("admin:accounts_account_connect_code")
CALLBACK = reverse("oauth-callback")
SETTINGS = ["OAUTH_CLIENT_ID", "OAUTH_AUTHORIZE_URL", "OAUTH_TOKEN_URL"]
TOKEN_PATH = "/v1/oauth/token"


def text(response) -> str:
    """What a reader sees: no tags, single blanks."""
    without_tags = re.sub(r"<[^>]+>", " ", response.content.decode())
    return re.sub(r"\s+", " ", html.unescape(without_tags))


def page(account: Account, name: str = "change") -> str:
    return reverse(f"admin:accounts_account_{name}", args=[account.pk])


def log_in(username: str, *codenames: str) -> Client:
    """Log a person in who may do what is named, or everything."""
    user = User.objects.filter(username=username).first()
    if user is None:
        user = User.objects.create_user(username, password="pw", is_staff=True)
        user.is_superuser = not codenames
        user.save()
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client = Client(headers={"host": "localhost"})
    client.force_login(user)
    return client


@pytest.fixture
def provider(claude: SandboxServer, settings) -> SandboxServer:
    """The sandbox as the place to sign in at."""
    settings.OAUTH_CLIENT_ID = claude.sandbox.oauth.client_id
    settings.OAUTH_AUTHORIZE_URL = f"{claude.url}/oauth/authorize"
    settings.OAUTH_TOKEN_URL = f"{claude.url}{TOKEN_PATH}"
    return claude


@pytest.fixture
def ada() -> Client:
    return log_in("ada")


def begin(client: Client, name: str = "team") -> str:
    """Begin a sign-in; return the address at the provider that the page leads to."""
    return str(client.post(CONNECT, {"name": name}).context["url"])


def begin_again(client: Client, account: Account) -> str:
    return str(client.post(page(account, "sign_in")).context["url"])


def decide(url: str, **decision: str) -> dict[str, str]:
    """Decide at the provider; return what the browser is sent back with."""
    parts = urlsplit(url)
    reply = httpx.post(
        f"{parts.scheme}://{parts.netloc}{parts.path}",
        data={**dict(parse_qsl(parts.query)), **decision},
        trust_env=False,
    )
    assert reply.status_code == 302, reply.text
    return dict(parse_qsl(urlsplit(reply.headers["location"]).query))


def allow(url: str, person: str = "dorothy") -> dict[str, str]:
    return decide(url, allow=person)


def come_back(client: Client, answer: dict[str, str]):
    return client.get(CALLBACK, answer, follow=True)


def make_oauth_account(
    name: str = "dorothy's", *, person: str = "dorothy", provider: SandboxServer, **kw
) -> Account:
    who = provider.sandbox.oauth.people[person]
    return make_account(
        name,
        kind=AccountKind.OAUTH,
        refresh_token=Secret("rt-old"),
        expires_at=timezone.now() + timedelta(hours=1),
        organization_uuid=who.organization_id,
        organization_name=who.organization_name,
        holder=who.holder_id,
        holder_name=who.email,
        **kw,
    )


# --- before it begins


@pytest.mark.parametrize("missing", SETTINGS)
def test_connect_names_the_setting_that_is_missing_and_asks_nothing(
    ada: Client, provider: SandboxServer, settings, missing: str
) -> None:
    setattr(settings, missing, "")
    for response in (ada.get(CONNECT), ada.post(CONNECT, {"name": "team"})):
        shown = text(response)
        assert missing in shown
        assert not [name for name in SETTINGS if name != missing and name in shown]
        assert "docs/accounts.md" in shown
        assert 'name="name"' not in response.content.decode()
    assert not PendingAuthorization.objects.exists()


def test_signing_in_again_names_the_setting_that_is_missing(
    ada: Client, provider: SandboxServer, settings
) -> None:
    account = make_oauth_account(provider=provider)
    settings.OAUTH_CLIENT_ID = ""
    shown = text(ada.post(page(account, "sign_in"), follow=True))
    assert "needs OAUTH_CLIENT_ID to be set" in shown


def test_the_list_and_the_overview_lead_to_connect(ada: Client) -> None:
    for name in ("index", "accounts_account_changelist"):
        content = ada.get(reverse(f"admin:{name}")).content.decode()
        assert f'href="{CONNECT}"' in content


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "This field is required."),
        ("a\tb", "Use at most 100 printable characters on one line."),
        ("taken", "An account called 'taken' exists already"),
    ],
)
def test_connect_says_what_is_wrong_with_a_name(
    ada: Client, provider: SandboxServer, name: str, message: str
) -> None:
    make_account("taken")
    assert message in text(ada.post(CONNECT, {"name": name}))
    assert not PendingAuthorization.objects.exists()


@pytest.mark.parametrize("url", [CONNECT, ENTER_CODE])
def test_pages_are_closed_to_those_who_may_only_look(
    provider: SandboxServer, url: str
) -> None:
    victor = log_in("victor", "view_account")
    assert victor.get(url).status_code == 403
    assert victor.post(url, {"name": "team", "pasted": "a#b"}).status_code == 403
    assert victor.get(CALLBACK, {"state": "s", "code": "c"}).status_code == 302


@pytest.mark.parametrize("url", [CONNECT, ENTER_CODE])
def test_pages_are_closed_to_nobody_in_particular(client: Client, url: str) -> None:
    response = client.get(url)
    assert response.headers["location"].startswith(reverse("admin:login"))


def test_signing_in_again_takes_the_permission_to_change(
    provider: SandboxServer,
) -> None:
    account = make_oauth_account(provider=provider)
    adder = log_in("victor", "view_account", "add_account")
    assert adder.post(page(account, "sign_in")).status_code == 403


def test_signing_in_again_is_for_accounts_that_did_once(
    ada: Client, provider: SandboxServer
) -> None:
    assert ada.post(page(make_account(), "sign_in")).status_code == 404


def test_signing_in_again_answers_only_to_post(
    ada: Client, provider: SandboxServer
) -> None:
    account = make_oauth_account(provider=provider)
    assert ada.get(page(account, "sign_in")).status_code == 405


# --- the page that leads to the provider


def test_the_page_leads_to_the_provider_by_a_link(
    ada: Client, provider: SandboxServer
) -> None:
    response = ada.post(CONNECT, {"name": "team"})
    url = response.context["url"]
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert query["client_id"] == "sandbox-client"
    assert query["code_challenge_method"] == "S256"
    assert query["redirect_uri"] == f"http://localhost{CALLBACK}"
    content = response.content.decode()
    assert f'href="{html.escape(url)}" rel="noreferrer"' in content
    assert "form-action 'self'" in response.headers["content-security-policy"]
    assert "no-store" in response.headers["cache-control"]


def test_a_provider_that_shows_the_code_opens_beside_the_form(
    ada: Client, provider: SandboxServer, settings
) -> None:
    settings.OAUTH_REDIRECT_URI = f"{provider.url}/oauth/code/callback"
    response = ada.post(CONNECT, {"name": "team"})
    assert "redirect_uri=" in response.context["url"]
    assert "Then paste the code here" in text(response)
    assert 'target="_blank" rel="noopener noreferrer"' in response.content.decode()


def test_the_verifier_stays_on_the_server(ada: Client, provider: SandboxServer) -> None:
    response = ada.post(CONNECT, {"name": "team"})
    verifier = PendingAuthorization.objects.get().verifier
    assert verifier is not None
    kept = [str(session.get_decoded()) for session in Session.objects.all()]
    assert verifier.reveal() not in response.content.decode() + "".join(kept)


def test_the_owner_is_the_login_session_but_not_by_its_key(
    ada: Client, provider: SandboxServer
) -> None:
    begin(ada)
    begin(ada, "second")
    owners = set(PendingAuthorization.objects.values_list("owner", flat=True))
    assert len(owners) == 1
    assert "session:" in str(owners)
    assert str(ada.session.session_key) not in str(owners)


# --- back with a code


def test_coming_back_stores_the_account_and_tells_what_is_known(
    ada: Client, provider: SandboxServer
) -> None:
    response = come_back(ada, allow(begin(ada)))
    account = Account.objects.get()
    assert (account.name, account.kind) == ("team", AccountKind.OAUTH)
    assert account.status == AccountStatus.ACTIVE
    assert AccountEvent.objects.get().actor == "ada"
    assert LogEntry.objects.get().object_repr == "team"
    assert response.redirect_chain == [(page(account), 302)]
    shown = text(response)
    for words in (
        "Account team is connected. Its models were read: 3.",
        "Sandbox Orbits",
        account.organization_uuid,
        "dorothy.vaughan@sandbox.example",
        "Claude Opus 5.5",
        "1,000,000",
    ):
        assert words in shown


def test_coming_back_needs_no_list_of_models(
    ada: Client, provider: SandboxServer
) -> None:
    provider.sandbox.script.add("dorothy", {"path": "/v1/models", "status": 500})
    shown = text(come_back(ada, allow(begin(ada))))
    assert "Account team is connected. Its models are not known yet" in shown
    assert Account.objects.get().capabilities is None


def test_a_state_works_once(ada: Client, provider: SandboxServer) -> None:
    answer = allow(begin(ada))
    come_back(ada, answer)
    response = come_back(ada, answer)
    assert "This sign-in was not begun here, or has been used." in text(response)
    assert response.redirect_chain == [(CONNECT, 302)]
    assert Account.objects.count() == 1


def test_a_state_works_for_ten_minutes(ada: Client, provider: SandboxServer) -> None:
    answer = allow(begin(ada))
    with time_machine.travel(timezone.now() + timedelta(minutes=10, seconds=1)):
        shown = text(come_back(ada, answer))
    assert "took longer than ten minutes" in shown
    assert not Account.objects.exists()


def test_a_state_still_works_shortly_before_its_end(
    ada: Client, provider: SandboxServer
) -> None:
    answer = allow(begin(ada))
    with time_machine.travel(timezone.now() + timedelta(minutes=9)):
        come_back(ada, answer)
    assert Account.objects.exists()


@pytest.mark.parametrize("username", ["grace", "ada"])
def test_a_state_belongs_to_the_login_session_it_was_begun_in(
    ada: Client, provider: SandboxServer, username: str
) -> None:
    answer = allow(begin(ada))
    shown = text(come_back(log_in(username), answer))
    assert "was not begun here" in shown
    assert not Account.objects.exists()
    come_back(ada, answer)
    assert Account.objects.exists()


def test_a_state_ends_with_the_login(ada: Client, provider: SandboxServer) -> None:
    answer = allow(begin(ada))
    ada.logout()
    ada.force_login(User.objects.get(username="ada"))
    assert "was not begun here" in text(come_back(ada, answer))
    assert not Account.objects.exists()


def test_nobody_comes_back_without_a_login(
    ada: Client, provider: SandboxServer
) -> None:
    answer = allow(begin(ada))
    response = come_back(Client(headers={"host": "localhost"}), answer)
    assert "log in, then begin again" in text(response)
    (address, _), *_ = response.redirect_chain
    assert answer["code"] not in address
    assert answer["state"] not in address
    assert not Account.objects.exists()


def test_nobody_comes_back_whose_permission_is_gone(provider: SandboxServer) -> None:
    victor = log_in("victor", "add_account", "change_account")
    answer = allow(begin(victor))
    User.objects.get(username="victor").user_permissions.set(
        Permission.objects.filter(codename="change_account")
    )
    assert victor.get(CALLBACK, answer).status_code == 403
    assert not Account.objects.exists()


def test_whoever_may_add_and_not_look_comes_back_to_the_overview(
    provider: SandboxServer,
) -> None:
    victor = log_in("victor", "add_account")
    response = come_back(victor, allow(begin(victor)))
    assert response.redirect_chain == [(reverse("admin:index"), 302)]
    assert "Account team is connected." in text(response)


def test_a_state_nobody_knows_leads_whoever_may_only_change_to_the_overview(
    provider: SandboxServer,
) -> None:
    victor = log_in("victor", "change_account")
    response = come_back(victor, {"state": "unknown", "code": "any"})
    assert response.redirect_chain == [(reverse("admin:index"), 302)]
    assert "was not begun here" in text(response)


def test_coming_back_without_a_code_says_so(
    ada: Client, provider: SandboxServer
) -> None:
    answer = allow(begin(ada))
    shown = text(come_back(ada, {"state": answer["state"]}))
    assert "The provider sent no code." in shown
    assert "was not begun here" in text(come_back(ada, answer))


def test_the_way_back_is_get_and_is_not_kept(
    ada: Client, provider: SandboxServer
) -> None:
    answer = allow(begin(ada))
    assert ada.post(CALLBACK, answer).status_code == 405
    response = ada.get(CALLBACK, answer)
    assert response.status_code == 302
    assert "no-store" in response.headers["cache-control"]
    assert response.headers["referrer-policy"] == "same-origin"
    assert "?" not in response.headers["location"]


# --- back without one


def test_a_denied_sign_in_is_used_up_and_says_so(
    ada: Client, provider: SandboxServer
) -> None:
    url = begin(ada)
    response = come_back(ada, decide(url, deny="1"))
    assert "the provider says 'access_denied'" in text(response)
    assert response.redirect_chain == [(CONNECT, 302)]
    assert not PendingAuthorization.objects.exists()
    assert not Account.objects.exists()


def test_what_the_provider_says_is_shown_on_one_line_and_not_at_length(
    ada: Client, provider: SandboxServer
) -> None:
    answer = decide(begin(ada), deny="1")
    said = "<b>no</b>\n" + "x" * 999
    response = come_back(ada, {**answer, "error_description": said})
    assert "access_denied: <b>no</b> x" in html.unescape(response.content.decode())
    assert "<b>no</b>" not in response.content.decode()
    assert "x" * 200 not in text(response)


def test_nothing_is_repeated_for_a_state_that_is_not_known(
    ada: Client, provider: SandboxServer
) -> None:
    answer = {"state": "unknown", "error": "call +1 555 0100"}
    shown = text(come_back(ada, answer))
    assert "was not begun here" in shown
    assert "555" not in shown


def test_a_holder_who_is_here_already_is_refused_by_name(
    ada: Client, provider: SandboxServer
) -> None:
    make_oauth_account(provider=provider)
    shown = text(come_back(ada, allow(begin(ada))))
    assert """This is the account "dorothy's", which is here already""" in shown
    assert Account.objects.count() == 1


def test_the_same_holder_in_another_organization_is_another_account(
    ada: Client, provider: SandboxServer
) -> None:
    come_back(ada, allow(begin(ada, "work"), "hedy-work"))
    come_back(ada, allow(begin(ada, "home"), "hedy-home"))
    assert Account.objects.count() == 2


def test_a_name_that_was_taken_meanwhile_is_said(
    ada: Client, provider: SandboxServer
) -> None:
    answer = allow(begin(ada))
    make_account("team")
    assert "An account called 'team' exists already" in text(come_back(ada, answer))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"status": 503}, "Nothing was stored: the provider answered 503"),
        (
            {"status": 400, "error_type": "invalid_grant"},
            "The provider refused the code (400 invalid_grant",
        ),
    ],
)
def test_trouble_at_the_provider_is_said_in_words(
    ada: Client, provider: SandboxServer, step: dict[str, object], message: str
) -> None:
    provider.sandbox.script.add("dorothy", {"path": TOKEN_PATH, **step})
    response = come_back(ada, allow(begin(ada)))
    assert message in text(response)
    assert response.redirect_chain == [(CONNECT, 302)]
    assert not Account.objects.exists()


def test_a_provider_that_cannot_be_asked_is_said_in_words(
    ada: Client, provider: SandboxServer, settings
) -> None:
    answer = allow(begin(ada))
    settings.OAUTH_TOKEN_URL = "http://127.0.0.1:9/token"
    shown = text(come_back(ada, answer))
    assert "Nothing was stored: the provider could not be asked (ConnectError)" in shown


def test_a_code_that_the_provider_quotes_is_not_shown(
    ada: Client, provider: SandboxServer
) -> None:
    answer = allow(begin(ada))
    provider.sandbox.script.add(
        "dorothy",
        {
            "path": TOKEN_PATH,
            "status": 400,
            "error_type": "invalid_grant",
            "error_message": f"code {answer['code']} has expired",
        },
    )
    response = come_back(ada, answer)
    assert "has expired). Begin the sign-in again." in text(response)
    assert answer["code"] not in response.content.decode()


# --- a code that is pasted


def test_a_pasted_code_connects(ada: Client, provider: SandboxServer, settings) -> None:
    settings.OAUTH_REDIRECT_URI = f"{provider.url}/oauth/code/callback"
    answer = allow(begin(ada))
    pasted = f"  {answer['code']}#{answer['state']}\n"
    response = ada.post(ENTER_CODE, {"pasted": pasted}, follow=True)
    assert "Account team is connected." in text(response)
    assert Account.objects.get().holder_name == "dorothy.vaughan@sandbox.example"


@pytest.mark.parametrize("part", ["code", "state"])
def test_half_of_a_pasted_code_is_not_enough_and_is_not_given_back(
    ada: Client, provider: SandboxServer, part: str
) -> None:
    answer = allow(begin(ada))
    answer[part] = ""
    response = ada.post(ENTER_CODE, {"pasted": f"{answer['code']}#{answer['state']}"})
    assert "That is not all of it" in text(response)
    kept = next(value for value in answer.values() if value)
    assert kept not in response.content.decode()
    assert PendingAuthorization.objects.exists()


def test_a_pasted_code_belongs_to_the_login_session_too(
    ada: Client, provider: SandboxServer
) -> None:
    answer = allow(begin(ada))
    pasted = f"{answer['code']}#{answer['state']}"
    shown = text(log_in("grace").post(ENTER_CODE, {"pasted": pasted}, follow=True))
    assert "was not begun here" in shown
    assert not Account.objects.exists()


def test_a_code_is_not_pasted_from_a_foreign_page() -> None:
    user = User.objects.create_superuser("ada")
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    for url in (CONNECT, ENTER_CODE):
        assert client.post(url, {"pasted": "a#b", "name": "team"}).status_code == 403


# --- signing in again


@pytest.fixture
def invalid(provider: SandboxServer) -> Account:
    return make_oauth_account(provider=provider, status=AccountStatus.INVALID)


def test_signing_in_again_makes_an_invalid_account_serve(
    ada: Client, invalid: Account
) -> None:
    response = come_back(ada, allow(begin_again(ada, invalid)))
    invalid.refresh_from_db()
    assert invalid.status == AccountStatus.ACTIVE
    assert invalid.access_token is not None
    assert invalid.access_token.reveal().startswith("sk-sandbox-oat-")
    assert AccountEvent.objects.get().reason == "signed in again"
    assert LogEntry.objects.get().change_message == "Signed in again."
    assert response.redirect_chain == [(page(invalid), 302)]
    assert "has new tokens. Its models were read: 3." in text(response)


def test_whoever_may_change_comes_back_from_signing_in_again(invalid: Account) -> None:
    victor = log_in("victor", "change_account")
    come_back(victor, allow(begin_again(victor, invalid)))
    invalid.refresh_from_db()
    assert invalid.status == AccountStatus.ACTIVE


def test_signing_in_again_leaves_an_account_off_that_was_switched_off(
    ada: Client, provider: SandboxServer
) -> None:
    account = make_oauth_account(provider=provider, status=AccountStatus.INACTIVE)
    shown = text(come_back(ada, allow(begin_again(ada, account))))
    assert "stays inactive until somebody activates it" in shown
    account.refresh_from_db()
    assert account.status == AccountStatus.INACTIVE


def test_somebody_else_cannot_sign_in_again(ada: Client, invalid: Account) -> None:
    response = come_back(ada, allow(begin_again(ada, invalid), "katherine"))
    shown = text(response)
    assert "belongs to dorothy.vaughan@sandbox.example in Sandbox Orbits" in shown
    assert "Nothing was changed." in shown
    assert response.redirect_chain == [(page(invalid), 302)]
    invalid.refresh_from_db()
    assert invalid.status == AccountStatus.INVALID
    assert invalid.access_token == Secret("sk-ant-of-ada")


def test_a_denied_second_sign_in_leads_back_to_the_account(
    ada: Client, invalid: Account
) -> None:
    response = come_back(ada, decide(begin_again(ada, invalid), deny="1"))
    assert response.redirect_chain == [(page(invalid), 302)]


def test_an_account_that_was_deleted_meanwhile_does_not_come_back(
    ada: Client, invalid: Account
) -> None:
    answer = allow(begin_again(ada, invalid))
    invalid.delete()
    assert "was not begun here" in text(come_back(ada, answer))
    assert not Account.objects.exists()


# --- secrets


@pytest.mark.parametrize("way", ["callback", "pasted"])
def test_code_state_and_tokens_are_kept_nowhere_in_the_clear(
    ada: Client,
    provider: SandboxServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    way: str,
) -> None:
    caplog.set_level("INFO")
    answer = allow(begin(ada))
    come: dict[str, Callable[[], object]] = {
        "callback": lambda: ada.get(CALLBACK, answer),
        "pasted": lambda: ada.post(
            ENTER_CODE, {"pasted": f"{answer['code']}#{answer['state']}"}
        ),
    }
    answered = come[way]()
    again = come[way]()
    account = Account.objects.get()
    assert account.access_token is not None
    assert account.refresh_token is not None
    kept = [str(session.get_decoded()) for session in Session.objects.all()]
    kept += [morsel.OutputString() for morsel in ada.cookies.values()]
    kept += [str(vars(entry)) for entry in LogEntry.objects.all()]
    kept += [str(vars(event)) for event in AccountEvent.objects.all()]
    kept += [str(reply.headers) for reply in (answered, again)]  # type: ignore[attr-defined]
    for url in (page(account), page(account, "history"), CONNECT):
        kept.append(ada.get(url).content.decode())
    kept += [caplog.text, *capfd.readouterr()]
    secrets = [
        answer["code"],
        answer["state"],
        account.access_token.reveal(),
        account.refresh_token.reveal(),
    ]
    assert not [secret for secret in secrets if secret in "".join(kept)]


def test_a_stored_key_is_named_when_it_is_added_twice(
    ada: Client, provider: SandboxServer
) -> None:
    uuid = provider.sandbox.accounts["ada"].organization_id
    registration.add_api_key(
        "first",
        Secret("sk-sandbox-ada"),
        actor="ada",
        now=timezone.now(),
        organization_uuid=uuid,
    )
    response = ada.post(
        reverse("admin:accounts_account_add"),
        {"name": "second", "api_key": "sk-sandbox-ada", "check_first": "on"},
    )
    assert "This is the account 'first', which is here already" in text(response)
    assert Account.objects.count() == 1
