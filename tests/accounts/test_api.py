"""`/api/accounts` and `/oauth`, as a script uses them."""

import socket
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from structlog.testing import capture_logs

from accounts import lifecycle
from accounts.models import (
    Account,
    AccountEvent,
    PendingAuthorization,
    QuotaWindow,
)
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Secret
from clients.models import ClientKeyRole
from tests.factories import NOW, make_account, make_client_key

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
FIELDS = {
    "id",
    "name",
    "kind",
    "status",
    "status_reason",
    "status_changed_at",
    "rate_limited_until",
    "expires_at",
    "organization",
    "holder_name",
    "models",
    "capabilities_at",
    "quota",
    "last_used_at",
    "last_refresh_at",
    "last_refresh_error",
    "created_at",
    "updated_at",
}


class Api:
    """Calls with the admin key of one person, JSON both ways."""

    def __init__(self, name: str = "root") -> None:
        issued = make_client_key(name, ClientKeyRole.ADMIN)
        self.key_id = issued.row.pk
        self._client = Client(headers={"x-api-key": issued.key.reveal()})

    def get(self, path: str, **query: Any) -> Any:
        return self._client.get(path, query)

    def send(self, method: str, path: str, **body: Any) -> Any:
        return getattr(self._client, method)(
            path, body, content_type="application/json"
        )

    def post(self, path: str, **body: Any) -> Any:
        return self.send("post", path, **body)


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def nobody(settings):
    """An upstream that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    settings.UPSTREAM_BASE_URL = f"http://127.0.0.1:{port}"


@pytest.fixture
def provider(claude, settings):
    """The sandbox, also as the place where people sign in."""
    settings.OAUTH_CLIENT_ID = claude.sandbox.oauth.client_id
    settings.OAUTH_AUTHORIZE_URL = f"{claude.url}/oauth/authorize"
    settings.OAUTH_TOKEN_URL = f"{claude.url}/v1/oauth/token"
    return claude


def names(response: Any) -> list[str]:
    return [row["name"] for row in response.json()["results"]]


def refusal(response: Any, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status
    error: dict[str, Any] = response.json()["error"]
    return error


# --- look


def test_an_account_is_shown_without_its_credential(api):
    account = make_account(
        "ada",
        organization_uuid="org-1",
        organization_name="Engines",
        holder="key:abc",
        capabilities=[{"id": "claude-x"}, {"id": "claude-y"}],
        capabilities_at=NOW,
        last_used_at=NOW,
    )
    shown = api.get(f"/api/accounts/{account.pk}").json()

    assert set(shown) == FIELDS | {"event_count"}
    assert shown["kind"] == "api_key"
    assert shown["status_changed_at"] == "2026-03-01T12:00:00Z"
    assert shown["organization"] == {"uuid": "org-1", "name": "Engines"}
    assert shown["models"] == ["claude-x", "claude-y"]


def test_what_is_not_known_is_null(api):
    shown = api.get(f"/api/accounts/{make_account().pk}").json()
    unknown = {
        "rate_limited_until",
        "expires_at",
        "holder_name",
        "models",
        "capabilities_at",
        "last_used_at",
        "last_refresh_at",
        "last_refresh_error",
    }

    assert {name for name in shown if shown[name] is None} == unknown
    assert shown["organization"] == {"uuid": None, "name": None}


def test_what_was_seen_of_its_limits_is_shown(api):
    account = make_account()
    now = timezone.now()
    QuotaWindow.objects.create(
        account=account, name="7d", utilization=0.81, status="allowed", seen_at=now
    )
    QuotaWindow.objects.create(
        account=account,
        name="requests",
        model_group="Opus 4.5 to 4.8",
        utilization=0.25,
        limit=1000,
        remaining=750,
        resets_at=now - HOUR,
        seen_at=now - HOUR,
    )
    plan, bucket = api.get(f"/api/accounts/{account.pk}").json()["quota"]

    assert plan.pop("seen_at") is not None
    assert plan == {
        "name": "7d",
        "model_group": None,
        "utilization": 0.81,
        "limit": None,
        "remaining": None,
        "resets_at": None,
        "status": "allowed",
        "is_over": False,
    }
    # It was reset since: what was used then says nothing.
    assert (bucket["limit"], bucket["is_over"]) == (1000, True)
    assert bucket["utilization"] is bucket["remaining"] is bucket["status"] is None
    assert bucket["model_group"] == "Opus 4.5 to 4.8"


def test_the_list_shows_the_same_fields(api):
    make_account()
    (row,) = api.get("/api/accounts").json()["results"]

    assert set(row) == FIELDS


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["ada", "dorothy", "grace"]),
        ({"status": "active"}, ["ada", "dorothy"]),
        ({"status": "rate_limited"}, ["grace"]),
        ({"kind": "oauth"}, ["dorothy"]),
        ({"kind": "api_key", "status": "active"}, ["ada"]),
        ({"search": "DOR"}, ["dorothy"]),
        ({"search": "vaughan"}, ["dorothy"]),
        ({"search": "orbits"}, ["dorothy"]),
        ({"search": "nobody"}, []),
        ({"search": ""}, ["ada", "dorothy", "grace"]),
        ({"ordering": "-name"}, ["grace", "dorothy", "ada"]),
        ({"ordering": "last_used_at"}, ["ada", "grace", "dorothy"]),
        ({"ordering": "-last_used_at"}, ["grace", "ada", "dorothy"]),
    ],
)
def test_the_list_is_searched_and_sorted(api, query, found):
    make_account("grace", status=AccountStatus.RATE_LIMITED, last_used_at=NOW)
    make_account("ada", last_used_at=NOW - HOUR)
    make_account(
        "dorothy",
        kind=AccountKind.OAUTH,
        organization_name="Orbits",
        holder_name="Dorothy Vaughan",
    )

    assert names(api.get("/api/accounts", **query)) == found


@pytest.mark.parametrize("name", ["status", "kind", "ordering"])
def test_a_filter_that_means_nothing_is_refused_with_what_would_do(api, name):
    error = refusal(api.get("/api/accounts", **{name: "nonsense"}))

    assert set(error["fields"]) == {name}
    assert "must be one of: " in error["message"]


def test_a_blank_byte_in_a_search_is_refused(api):
    assert "search" in refusal(api.get("/api/accounts", search="\x00"))["fields"]


def test_the_history_of_an_account_comes_latest_first(api):
    account, other = make_account("ada"), make_account("grace")
    lifecycle.record_added(account, actor="grace", now=NOW)
    lifecycle.record_added(other, actor="grace", now=NOW)
    lifecycle.deactivate(account, actor="upkeep", reason="idle", now=NOW + HOUR)
    page = api.get(f"/api/accounts/{account.pk}/events").json()
    latest, first = page["results"]

    assert page["count"] == 2
    assert api.get(f"/api/accounts/{account.pk}").json()["event_count"] == 2
    assert first["from_status"] is None
    assert latest == {
        "id": latest["id"],
        "account_name": "ada",
        "at": "2026-03-01T13:00:00Z",
        "actor": "upkeep",
        "from_status": "active",
        "to_status": "inactive",
        "reason": "idle",
    }


def test_a_longer_history_takes_no_more_queries(api):
    account = make_account()

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert api.get(f"/api/accounts/{account.pk}/events").status_code == 200
        return len(captured)

    lifecycle.record_added(account, actor="grace", now=NOW)
    few = queries()
    for _ in range(20):
        lifecycle.record_added(account, actor="grace", now=NOW)

    assert queries() == few <= 4


# --- add


@pytest.mark.usefixtures("claude")
def test_an_account_is_added_with_its_organization_and_models(api):
    response = api.post("/api/accounts", name=" ada ", api_key="sk-sandbox-ada")
    account = Account.objects.get()
    shown = response.json()

    assert response.status_code == 201
    assert set(shown) == FIELDS
    assert (shown["name"], shown["status"]) == ("ada", "active")
    assert shown["organization"]["uuid"]
    assert "claude-opus-5-5" in shown["models"]
    assert account.api_key == Secret("sk-sandbox-ada")
    assert AccountEvent.objects.get().actor == "key root"
    assert response.headers["location"].endswith(f"/api/accounts/{account.pk}")


def test_the_location_of_a_new_account_leads_to_it(api):
    response = api.post("/api/accounts", name="ada", api_key="sk-x", check=False)

    assert api.get(response.headers["location"]).json()["name"] == "ada"


@pytest.mark.usefixtures("claude")
def test_a_key_that_the_provider_refuses_is_not_stored(api):
    error = refusal(api.post("/api/accounts", name="ada", api_key="sk-ant-no"))

    assert "401: invalid x-api-key" in error["fields"]["api_key"][0]
    assert "sk-ant-no" not in str(error)
    assert not Account.objects.exists()


@pytest.mark.usefixtures("nobody")
def test_a_key_that_cannot_be_checked_is_not_stored_unless_asked_for(api):
    error = refusal(api.post("/api/accounts", name="ada", api_key="sk-x"), 502)
    assert error["type"] == "api_error"
    assert '"check": false' in error["message"]
    assert not Account.objects.exists()

    added = api.post("/api/accounts", name="ada", api_key="sk-x", check=False)
    assert added.status_code == 201
    assert added.json()["models"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"api_key": "sk-x"}, "name"),
        ({"name": "ada"}, "api_key"),
        ({"name": "", "api_key": "sk-x"}, "name"),
        ({"name": "a\nb", "api_key": "sk-x"}, "name"),
        ({"name": "a" * 101, "api_key": "sk-x"}, "name"),
        ({"name": ["ada"], "api_key": "sk-x"}, "name"),
        ({"name": "ada", "api_key": "sk x"}, "api_key"),
        ({"name": "ada", "api_key": ""}, "api_key"),
        ({"name": "ada", "api_key": None}, "api_key"),
        ({"name": "taken", "api_key": "sk-x"}, "name"),
        ({"name": "ada", "api_key": "sk-x", "check": "perhaps"}, "check"),
        ({"name": "ada", "api_key": "sk-x", "status": "active"}, "status"),
        ({"name": "ada", "api_key": "sk-x", "kind": "oauth"}, "kind"),
    ],
)
def test_what_cannot_be_added_names_the_field(api, body, field):
    make_account("taken")
    error = refusal(api.post("/api/accounts", **{"check": False, **body}))

    assert set(error["fields"]) == {field}
    assert error["message"].startswith(f"{field}: ")
    assert Account.objects.count() == 1


def test_the_same_key_is_not_added_twice(api):
    api.post("/api/accounts", name="ada", api_key="sk-x", check=False)
    response = api.post("/api/accounts", name="ada2", api_key="sk-x", check=False)

    assert "account 'ada', which is here already" in refusal(response, 409)["message"]
    assert Account.objects.count() == 1


# --- change


def test_an_account_is_renamed_and_nothing_else(api):
    account = make_account("ada")
    path = f"/api/accounts/{account.pk}"
    response = api.send("patch", path, name="countess")

    assert response.json()["name"] == "countess"
    for name in ("status", "api_key", "id", "models"):
        error = refusal(api.send("patch", path, name="x", **{name: "active"}))
        assert set(error["fields"]) == {name}
    account.refresh_from_db()
    assert (account.name, account.status) == ("countess", "active")
    assert account.api_key == Secret("sk-ant-of-ada")


def test_an_account_cannot_take_the_name_of_another(api):
    make_account("grace")
    path = f"/api/accounts/{make_account('ada').pk}"

    assert "name" in refusal(api.send("patch", path, name="grace"))["fields"]
    assert "name" in refusal(api.send("patch", path))["fields"]


def test_a_deleted_account_leaves_its_history(api):
    account = make_account("ada")
    lifecycle.record_added(account, actor="grace", now=NOW)
    response = api.send("delete", f"/api/accounts/{account.pk}")
    event = AccountEvent.objects.get()

    assert (response.status_code, response.content) == (204, b"")
    assert not Account.objects.exists()
    assert (event.account, event.account_name) == (None, "ada")
    assert api.get(f"/api/accounts/{account.pk}").status_code == 404


def test_the_log_keeps_who_deleted_an_account(api):
    account = make_account("ada")
    with capture_logs() as lines:
        api.send("delete", f"/api/accounts/{account.pk}")

    assert {
        "event": "account_deleted",
        "account_id": account.pk,
        "name": "ada",
        "actor": "key root",
        "log_level": "info",
    } in lines


def test_an_account_is_taken_out_and_let_in_again(api):
    account = make_account()
    path = f"/api/accounts/{account.pk}"
    out = api.post(f"{path}/deactivate", reason="the contract ends").json()
    back = api.post(f"{path}/activate").json()
    latest, first = AccountEvent.objects.all()

    assert (out["status"], out["status_reason"]) == ("inactive", "the contract ends")
    assert (back["status"], back["status_reason"]) == (
        "active",
        "activated through the API",
    )
    assert (first.actor, latest.actor) == ("key root", "key root")


def test_a_person_is_named_in_the_history(admin_client, admin_user):
    account = make_account()
    admin_client.post(
        f"/api/accounts/{account.pk}/deactivate", content_type="application/json"
    )

    assert AccountEvent.objects.get().actor == admin_user.get_username()


def test_a_move_that_the_table_does_not_know_is_a_conflict(api):
    account = make_account()
    error = refusal(api.post(f"/api/accounts/{account.pk}/activate"), 409)

    assert "cannot go from active to active" in error["message"]
    assert not AccountEvent.objects.exists()


@pytest.mark.usefixtures("claude")
def test_an_invalid_account_serves_again_once_its_credential_works(api):
    account = make_account(status=AccountStatus.INVALID, secret="sk-sandbox-ada")

    assert api.post(f"/api/accounts/{account.pk}/activate").json()["status"] == "active"


@pytest.mark.usefixtures("claude")
@pytest.mark.parametrize("is_taken_out", [False, True])
def test_a_credential_that_is_still_refused_keeps_its_account_out(api, is_taken_out):
    account = make_account(status=AccountStatus.INVALID, secret="sk-unknown")
    path = f"/api/accounts/{account.pk}"
    if is_taken_out:
        api.post(f"{path}/deactivate")
    before = api.get(path).json()
    error = refusal(api.post(f"{path}/activate"), 409)

    assert error["type"] == "invalid_request_error"
    assert error["message"] == (
        f"Account ada stays {before['status']}: "
        "the upstream answered 401: invalid x-api-key"
    )
    assert api.get(path).json() == before


@pytest.mark.usefixtures("nobody")
def test_an_invalid_account_stays_out_while_nobody_can_be_asked(api):
    account = make_account(status=AccountStatus.INVALID)
    error = refusal(api.post(f"/api/accounts/{account.pk}/activate"), 502)

    assert error["type"] == "api_error"
    assert "stays invalid: http://127.0.0.1" in error["message"]
    assert Account.objects.get().status == AccountStatus.INVALID


@pytest.mark.usefixtures("claude")
def test_an_account_that_was_let_in_after_a_check_needs_none_again(api, settings):
    account = make_account(status=AccountStatus.INVALID, secret="sk-sandbox-ada")
    path = f"/api/accounts/{account.pk}"
    for move in ("deactivate", "activate", "deactivate"):
        assert api.post(f"{path}/{move}").status_code == 200
    settings.UPSTREAM_BASE_URL = "http://127.0.0.1:9"

    assert api.post(f"{path}/activate").json()["status"] == "active"


def test_a_lost_race_is_a_conflict(api):
    account = make_account()

    def be_faster(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE"):
            execute("UPDATE accounts_account SET status = 'invalid'", (), *rest[1:])
        return execute(sql, *rest)

    with connection.execute_wrapper(be_faster):
        response = api.post(f"/api/accounts/{account.pk}/deactivate")
    error = refusal(response, 409)

    assert "by somebody else" in error["message"]
    assert not AccountEvent.objects.exists()


@pytest.mark.parametrize("body", [{"reason": "x" * 301}, {"because": "x"}])
def test_a_move_takes_a_short_reason_and_nothing_else(api, body):
    account = make_account()

    assert set(
        refusal(api.post(f"/api/accounts/{account.pk}/deactivate", **body))["fields"]
    ) == set(body)
    assert Account.objects.get().status == AccountStatus.ACTIVE


# --- ask the provider


def signed_in(provider, person: str = "dorothy") -> Account:
    pair = provider.sandbox.oauth.issue(person)
    return make_account(
        person,
        kind=AccountKind.OAUTH,
        secret=pair.access_token,
        refresh_token=Secret(pair.refresh_token),
        expires_at=timezone.now() + HOUR,
    )


def test_a_token_is_refreshed_whatever_its_age(api, provider):
    account = signed_in(provider)
    answer = api.post(f"/api/accounts/{account.pk}/refresh").json()
    before, after = account.access_token, Account.objects.get().access_token

    assert (answer["outcome"], answer["message"]) == ("refreshed", "")
    assert answer["account"]["last_refresh_at"] is not None
    assert set(answer["account"]) == FIELDS
    assert after != before


def test_a_refresh_that_the_provider_refuses_says_so(api, provider):
    account = signed_in(provider)
    provider.sandbox.oauth.revoke("dorothy")
    answer = api.post(f"/api/accounts/{account.pk}/refresh").json()

    assert answer["outcome"] == "invalid"
    assert "invalid_grant" in answer["message"]
    assert answer["account"]["status"] == "invalid"


def test_a_refresh_by_somebody_else_is_not_waited_for_long(api, provider):
    account = signed_in(provider)
    # Half of the lease is over, which is longer than anybody waits.
    Account.objects.filter(pk=account.pk).update(
        refresh_lease="another", refresh_lease_until=timezone.now() + HOUR / 120
    )
    response = api.post(f"/api/accounts/{account.pk}/refresh")

    assert response.json()["outcome"] == "under_way"


def test_an_account_that_is_not_here_cannot_be_refreshed(api):
    refusal(api.post("/api/accounts/404/refresh"), 404)


def test_an_api_key_has_nothing_to_refresh(api):
    account = make_account("ada")
    error = refusal(api.post(f"/api/accounts/{account.pk}/refresh"))

    assert "'ada' has an API key" in error["message"]


@pytest.mark.usefixtures("claude")
def test_a_check_says_whether_the_credential_works(api):
    ada = make_account("ada", secret="sk-sandbox-ada")
    nobody = make_account("nobody", secret="sk-ant-no")

    assert api.post(f"/api/accounts/{ada.pk}/check").json() == {
        "works": True,
        "message": "works, 4 models",
    }
    assert api.post(f"/api/accounts/{nobody.pk}/check").json() == {
        "works": False,
        "message": "the upstream answered 401: invalid x-api-key",
    }
    assert not AccountEvent.objects.exists()


@pytest.mark.usefixtures("claude")
def test_models_are_read_again(api):
    account = make_account("ada", secret="sk-sandbox-ada", capabilities=[{"id": "old"}])
    answer = api.post(f"/api/accounts/{account.pk}/capabilities").json()

    assert answer["was_read"] is True
    assert "claude-opus-5-5" in answer["account"]["models"]
    assert "old" not in answer["account"]["models"]


@pytest.mark.usefixtures("nobody")
def test_models_that_cannot_be_read_stay_as_they_were(api):
    account = make_account("ada", capabilities=[{"id": "old"}])
    answer = api.post(f"/api/accounts/{account.pk}/capabilities").json()

    assert answer["was_read"] is False
    assert answer["account"]["models"] == ["old"]


def test_a_secret_that_cannot_be_read_names_the_setting(api):
    account = make_account()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE accounts_account SET api_key = 'of another key'")
    error = refusal(api.post(f"/api/accounts/{account.pk}/check"), 500)

    assert "ENCRYPTION_KEYS" in error["message"]


# --- sign in


def allow(begun: dict[str, Any], person: str) -> dict[str, str]:
    """Do what a person does in the browser; return code and state."""
    url = begun["authorization_url"]
    form = {**dict(httpx.URL(url).params), "allow": person}
    answer = httpx.post(url.partition("?")[0], data=form)
    sent_to = answer.headers["location"]
    assert sent_to.startswith(begun["redirect_uri"])
    query = parse_qs(urlsplit(sent_to).query)
    return {"code": query["code"][0], "state": query["state"][0]}


@pytest.fixture
def own_host(settings):
    # The sandbox sends people back to loopback addresses only.
    settings.OAUTH_REDIRECT_URI = "http://127.0.0.1:4000/oauth/callback"


def test_a_sign_in_begins_with_an_address_for_the_browser(api, provider):
    response = api.get("/oauth/authorize", name="ada")
    begun = response.json()
    query = parse_qs(urlsplit(begun["authorization_url"]).query)

    assert begun["authorization_url"].startswith(provider.url)
    assert begun["expires_in"] == 600
    assert begun["redirect_uri"] == "http://testserver/oauth/callback"
    assert query["state"] == [begun["state"]]
    assert query["redirect_uri"] == [begun["redirect_uri"]]
    assert response.headers["cache-control"] == "no-store"
    assert PendingAuthorization.objects.get().owner == f"key:{api.key_id}"


@pytest.mark.usefixtures("own_host")
@pytest.mark.parametrize("is_pasted", [False, True])
def test_a_code_becomes_an_account(api, provider, is_pasted):
    begun = api.get("/oauth/authorize", name="ada").json()
    answer = allow(begun, "dorothy")
    if is_pasted:
        answer = {"code": f" {answer['code']}#{answer['state']}\n"}
    shown = api.post("/oauth/exchange", **answer).json()

    assert set(shown) == FIELDS
    assert (shown["name"], shown["kind"], shown["status"]) == ("ada", "oauth", "active")
    assert shown["organization"]["name"] == "Sandbox Orbits"
    assert shown["models"]
    assert datetime.fromisoformat(shown["expires_at"]) > timezone.now()
    assert AccountEvent.objects.get().actor == "key root"


@pytest.mark.usefixtures("own_host")
def test_an_account_signs_in_again(api, provider):
    first = allow(api.get("/oauth/authorize", name="ada").json(), "dorothy")
    account = Account.objects.get(pk=api.post("/oauth/exchange", **first).json()["id"])
    lifecycle.invalidate(account, actor="x", reason="refused", now=timezone.now())
    begun = api.get("/oauth/authorize", account=account.pk).json()
    shown = api.post("/oauth/exchange", **allow(begun, "dorothy")).json()

    assert (shown["id"], shown["status"]) == (account.pk, "active")


@pytest.mark.usefixtures("own_host")
def test_only_who_began_a_sign_in_ends_it_and_once(api, provider):
    answer = allow(api.get("/oauth/authorize", name="ada").json(), "dorothy")

    stranger = refusal(Api("stranger").post("/oauth/exchange", **answer))
    assert "was not begun here" in stranger["fields"]["state"][0]
    assert api.post("/oauth/exchange", **answer).status_code == 200
    again = refusal(api.post("/oauth/exchange", **answer))
    assert "state" in again["fields"]


def test_a_person_owns_the_sign_in_they_began(admin_client, admin_user, provider):
    assert admin_client.get("/oauth/authorize?name=ada").status_code == 200
    assert PendingAuthorization.objects.get().owner == f"user:{admin_user.pk}"


def test_signing_in_without_settings_names_them(api, settings):
    settings.OAUTH_CLIENT_ID = ""
    settings.OAUTH_TOKEN_URL = ""
    settings.OAUTH_AUTHORIZE_URL = "https://claude.test"
    error = refusal(api.get("/oauth/authorize", name="ada"))

    assert "OAUTH_CLIENT_ID, OAUTH_TOKEN_URL" in error["message"]


@pytest.mark.usefixtures("provider")
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({}, "either name"),
        ({"name": "ada", "account": "1"}, "either name"),
        ({"account": "999"}, "does not exist"),
        ({"account": "ada"}, "account: "),
        ({"name": "taken"}, "'taken' exists already"),
        ({"name": "a\nb"}, "name: "),
    ],
)
def test_a_sign_in_that_cannot_begin_says_why(api, query, words):
    account = make_account("taken")
    if query.get("account") == "1":
        query = {**query, "account": account.pk}

    assert words in refusal(api.get("/oauth/authorize", **query))["message"]
    assert not PendingAuthorization.objects.exists()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"state": "x"}, "code"),
        ({"code": "x"}, "state"),
        ({"code": "x#y", "state": "z"}, "state"),
        ({"code": "x", "state": "y"}, "state"),
        ({"code": "x", "state": "y", "owner": "z"}, "owner"),
        ({"code": "\ud800", "state": "y"}, "code"),
    ],
)
def test_a_code_that_leads_nowhere_names_the_field(api, body, field):
    assert set(refusal(api.post("/oauth/exchange", **body))["fields"]) == {field}


@pytest.mark.usefixtures("own_host")
def test_a_code_that_the_provider_refuses_is_told_in_its_words(api, provider):
    begun = api.get("/oauth/authorize", name="ada").json()
    response = api.post("/oauth/exchange", code="no-code", state=begun["state"])

    assert "invalid_grant" in refusal(response)["message"]
    assert "no-code" not in response.content.decode()
    assert not Account.objects.exists()
