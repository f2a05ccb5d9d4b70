import io
import json
import socket
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from accounts.management.commands import add_account
from accounts.models import Account, AccountEvent
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Secret
from claudeproxy.sandbox.accounts import stable_id
from tests.factories import make_account

pytestmark = pytest.mark.django_db

KEY = "sk-sandbox-ada"
ADAS_ORGANIZATION = stable_id("ada")


@pytest.fixture
def run(monkeypatch):
    """Run a command with a piped standard input; return what it printed."""

    def run(*arguments, stdin=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        out = io.StringIO()
        call_command(*arguments, stdout=out, stderr=io.StringIO())
        return out.getvalue()

    return run


def add(run, *options, name="ada", stdin=f"{KEY}\n"):
    return run("add_account", name, "--kind", "api_key", *options, stdin=stdin)


def refusal(run, *options, **arguments):
    with pytest.raises(CommandError) as caught:
        add(run, *options, **arguments)
    assert not AccountEvent.objects.exists()
    return str(caught.value)


@pytest.fixture
def nobody(settings):
    """An upstream that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    settings.UPSTREAM_BASE_URL = f"http://127.0.0.1:{port}"


# --- add_account


@pytest.mark.usefixtures("claude")
def test_an_account_is_added_and_its_key_is_not_printed(run):
    printed = add(run)
    account = Account.objects.get()

    assert account.api_key == Secret(KEY)
    assert (account.kind, account.status) == (AccountKind.API_KEY, AccountStatus.ACTIVE)
    assert AccountEvent.objects.get().actor == "add_account"
    assert "'ada' is active" in printed
    assert KEY not in printed


@pytest.mark.usefixtures("claude")
def test_json_says_what_was_added_without_the_key(run):
    printed = add(run, "--json")
    account: Any = Account.objects.get()
    fields = json.loads(printed)

    assert fields == {
        "id": account.pk,
        "name": "ada",
        "kind": "api_key",
        "status": "active",
        "status_reason": "added",
        "status_changed_at": account.status_changed_at.isoformat(),
        "rate_limited_until": None,
        "expires_at": None,
        "created_at": account.created_at.isoformat(),
        "organization_uuid": ADAS_ORGANIZATION,
        "organization_name": "",
        "holder_name": "",
        "last_used_at": None,
        "last_refresh_at": None,
        "last_refresh_error": "",
        "models": [model["id"] for model in account.capabilities],
        "quota": [],
    }
    assert fields["models"]
    assert KEY not in printed


@pytest.mark.usefixtures("nobody")
def test_models_that_nobody_asked_for_are_not_known(run):
    fields = json.loads(add(run, "--no-check", "--json"))

    assert fields["models"] is None
    assert fields["organization_uuid"] == ""


@pytest.mark.usefixtures("claude")
def test_a_key_is_not_added_twice_under_two_names(run):
    add(run)
    with pytest.raises(CommandError, match="the account 'ada', which is here already"):
        add(run, name="lovelace")

    assert Account.objects.count() == 1


@pytest.mark.usefixtures("claude")
def test_a_key_that_the_upstream_refuses_is_not_stored(run):
    message = refusal(run, stdin="sk-ant-not-a-key\n")

    assert "401" in message
    assert "Nothing was stored" in message
    assert "sk-ant-not-a-key" not in message
    assert not Account.objects.exists()


@pytest.mark.usefixtures("nobody")
def test_a_key_that_cannot_be_checked_is_not_stored(run):
    message = refusal(run)

    assert "could not be asked" in message
    assert "--no-check" in message
    assert not Account.objects.exists()


@pytest.mark.usefixtures("nobody")
def test_a_key_can_be_stored_unchecked(run):
    add(run, "--no-check")

    assert Account.objects.get().api_key == Secret(KEY)


def test_a_name_that_is_taken_is_refused_before_the_key_is_asked_for(run):
    make_account("ada", secret="before")

    assert "'ada' exists already" in refusal(run, stdin="")
    assert Account.objects.get().api_key == Secret("before")


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101])
def test_a_bad_name_is_refused(run, name):
    assert refusal(run, name=name).startswith("name: ")


@pytest.mark.parametrize("stdin", ["", "\n", "sk ant\n", "sk-é\n"])
def test_a_bad_key_is_refused(run, stdin):
    assert refusal(run, "--no-check", stdin=stdin).startswith("api_key: ")
    assert not Account.objects.exists()


def test_blanks_around_a_key_are_trimmed(run):
    add(run, "--no-check", stdin=f"  {KEY}\t\r\n")

    assert Account.objects.get().api_key == Secret(KEY)


def test_a_key_is_never_an_argument():
    parser = add_account.Command().create_parser("manage.py", "add_account")
    names = {action.dest for action in parser._actions}

    assert {"name", "kind", "no_check", "json"} <= names
    assert not [name for name in names if "key" in name or "secret" in name]
    with pytest.raises(CommandError, match="unrecognized arguments"):
        parser.parse_args(["ada", KEY, "--kind", "api_key"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["ada"],
        ["ada", "--kind", "saml"],
        ["ada", "--kind", "api_key", "--from-json", "-"],
    ],
)
def test_only_a_kind_that_can_be_added_so_is_taken(run, arguments):
    with pytest.raises(CommandError, match="--kind"):
        run("add_account", *arguments)


# --- check_accounts


def check(run, *options):
    """What the command printed, and with what it exited."""
    out = io.StringIO()
    try:
        call_command("check_accounts", *options, stdout=out, stderr=io.StringIO())
    except SystemExit as end:
        return out.getvalue(), end.code
    return out.getvalue(), 0


@pytest.mark.usefixtures("claude")
def test_accounts_that_all_work_are_a_success(run):
    make_account("ada", secret="sk-sandbox-ada")
    make_account("grace", secret="sk-sandbox-grace")
    printed, code = check(run)
    head, _, ada, grace = printed.splitlines()

    assert code == 0
    assert head.split() == [
        *("account", "kind", "status", "works"),
        *("what", "the", "upstream", "says"),
    ]
    assert ada.split()[:4] == ["ada", "api_key", "active", "yes"]
    assert grace.split()[:4] == ["grace", "api_key", "active", "yes"]


@pytest.mark.usefixtures("claude")
def test_one_account_that_does_not_work_is_a_failure(run):
    make_account("ada", secret="sk-sandbox-ada")
    make_account("nobody", secret="sk-ant-nobody")
    printed, code = check(run)

    assert code == 1
    assert "nobody   api_key  active  NO     the upstream answered 401" in printed
    assert "sk-" not in printed


@pytest.mark.usefixtures("claude")
def test_json_says_it_for_programs(run):
    make_account("ada", secret="sk-sandbox-ada")
    make_account("nobody", secret="sk-ant-nobody", status=AccountStatus.INACTIVE)
    printed, code = check(run, "--json")
    ada, nobody = json.loads(printed)

    assert code == 1
    assert (ada["name"], ada["works"]) == ("ada", True)
    assert (nobody["status"], nobody["works"]) == ("inactive", False)
    assert "401" in nobody["message"]
    assert "sk-" not in printed


@pytest.mark.usefixtures("claude")
def test_only_the_accounts_that_were_named_are_checked(run):
    make_account("ada", secret="sk-sandbox-ada")
    make_account("nobody", secret="sk-ant-nobody")
    printed, code = check(run, "ada")

    assert code == 0
    assert "nobody" not in printed


def test_a_name_that_does_not_exist_is_an_error(run):
    make_account("ada")
    with pytest.raises(CommandError, match="no account called grace; there are ada"):
        check(run, "ada", "grace")


@pytest.mark.parametrize(
    ("options", "words"), [([], "no accounts yet"), (["--json"], "[]")]
)
def test_an_empty_pool_is_no_failure(run, options, words):
    printed, code = check(run, *options)

    assert code == 0
    assert words in printed


@pytest.mark.usefixtures("nobody")
def test_checking_changes_nothing(run):
    account = make_account()
    _, code = check(run)

    assert code == 1
    assert Account.objects.get().updated_at == account.updated_at
    assert not AccountEvent.objects.exists()
