"""The REST API as a whole: who may call, what errors look like, how it is described."""

import base64
import io
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.http import Http404
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, reverse
from django.utils import timezone
from rest_framework import exceptions
from structlog.testing import capture_logs

from accounts.models import Account
from accounts.status import AccountKind
from claudeproxy import urls
from claudeproxy.api import answer_error
from claudeproxy.crypto import Secret
from claudeproxy.errors import ClaudeProxyError, RequestRefusedError
from clients import issuing, keys
from clients.models import ClientKey, ClientKeyRole
from tests.factories import make_account, make_client_key

HOUR = timedelta(hours=1)
METHODS = ("get", "post", "put", "patch", "delete", "options", "head")
REQUEST_ID = re.compile(r"req_[0-9a-f]{24}")


def all_paths() -> list[str]:
    """Each address that the URL conf of the API knows."""
    return [
        reverse(f"api:{pattern.name}", args=[1] * pattern.pattern.regex.groups)
        for pattern in urls.api
        if isinstance(pattern, URLPattern)
    ]


def shown(key: str) -> dict[str, str]:
    return {"x-api-key": key}


def error_of(response, status: int) -> dict[str, Any]:
    """The error in an envelope that is as it must be."""
    body = response.json()
    assert response.status_code == status
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert REQUEST_ID.fullmatch(body["request_id"])
    assert response.headers["request-id"] == body["request_id"]
    assert response.headers["content-type"] == "application/json"
    assert body["error"]["type"]
    assert body["error"]["message"]
    error: dict[str, Any] = body["error"]
    return error


@pytest.fixture
def admin_key(db) -> str:
    return make_client_key("root", ClientKeyRole.ADMIN).key.reveal()


@pytest.fixture
def api(admin_key) -> Client:
    """Calls with an admin key."""
    return Client(headers=shown(admin_key))


# --- who may call


@pytest.mark.django_db
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", all_paths())
def test_nobody_gets_in_without_a_key(client, path, method):
    response = client.generic(method.upper(), path)

    if path == reverse("api:docs"):
        assert response.status_code == 302
        assert response.headers["location"] == f"/admin/login/?next={path}"
    else:
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Bearer realm="Claude Proxy"'


@pytest.mark.django_db
def test_who_shows_no_key_is_told_where_to_put_it(client):
    error = error_of(client.get("/api/accounts"), 401)

    assert error["type"] == "authentication_error"
    assert "X-API-Key" in error["message"]


@pytest.mark.parametrize("path", all_paths())
def test_a_user_key_is_refused_everywhere(db, client, path):
    key = make_client_key().key.reveal()
    error = error_of(client.get(path, headers=shown(key)), 403)

    assert error["type"] == "permission_error"
    assert "role admin" in error["message"]


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
def test_an_admin_key_opens_the_api_in_either_header(client, admin_key, header):
    value = admin_key if header == "x-api-key" else f"Bearer {admin_key}"

    assert client.get("/api/accounts", headers={header: value}).status_code == 200


def test_a_key_in_the_address_counts_for_nothing(client, admin_key):
    for name in ("key", "api_key", "x-api-key", "token", "access_token"):
        assert client.get("/api/accounts", {name: admin_key}).status_code == 401


def test_a_key_that_has_ended_is_refused_with_the_reason(client, admin_key):
    key = ClientKey.objects.get()
    issuing.expire(key, now=timezone.now() - HOUR)
    assert "has expired" in refused_key(client, admin_key)

    issuing.revoke(key, now=timezone.now())
    assert "been revoked" in refused_key(client, admin_key)

    key.delete()
    assert "does not know this key" in refused_key(client, admin_key)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cp_" + "a" * 49, "has a typo"),
        ("sk-ant-of-somebody", "not a key of this gateway"),
        ("ключ", "not a key of this gateway"),
    ],
)
def test_what_is_no_key_is_refused_with_the_reason(client, text, words):
    assert words in refused_key(client, text)


def refused_key(client: Client, key: str) -> str:
    response = client.get("/api/accounts", headers=shown(key))
    assert "www-authenticate" in response.headers
    error = error_of(response, 401)
    assert error["type"] == "authentication_error"
    assert key not in response.content.decode()
    return str(error["message"])


def test_a_wrong_key_is_not_saved_by_a_login(admin_client):
    response = admin_client.get("/api/accounts", headers=shown("cp_wrong"))

    error_of(response, 401)


def test_an_administrator_reads_with_their_login(admin_client):
    assert admin_client.get("/api/accounts").status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("rights", "status"),
    [
        ({"is_staff": True, "is_superuser": True}, 200),
        ({"is_staff": True, "is_superuser": False}, 403),
        ({"is_staff": False, "is_superuser": True}, 403),
        ({"is_staff": True, "is_superuser": True, "is_active": False}, 401),
    ],
)
def test_only_administrators_get_in_with_their_login(client, rights, status):
    client.force_login(User.objects.create_user("grace", **rights))

    assert client.get("/api/accounts").status_code == status


def test_a_login_changes_nothing_without_a_csrf_token(admin_user):
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    body = {"name": "alice"}

    refused = client.post("/api/tokens", body, content_type="application/json")
    assert "CSRF" in error_of(refused, 403)["message"]
    assert not ClientKey.objects.exists()

    script = client.get("/api/docs/?script=").content.decode()
    (token,) = re.findall(r'"X-CSRFTOKEN"\] = "(\w+)"', script)
    accepted = client.post(
        "/api/tokens",
        body,
        content_type="application/json",
        headers={"x-csrftoken": token},
    )
    assert accepted.status_code == 201


def test_a_key_needs_no_csrf_token(admin_key):
    client = Client(enforce_csrf_checks=True, headers=shown(admin_key))
    response = client.post(
        "/api/tokens", {"name": "alice"}, content_type="application/json"
    )

    assert response.status_code == 201


# --- errors


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error_type"),
    [
        ("get", "/api/accounts/999", None, 404, "not_found_error"),
        ("get", f"/api/accounts/{'9' * 30}", None, 404, "not_found_error"),
        ("get", f"/api/accounts/{'9' * 9000}", None, 404, "not_found_error"),
        ("get", "/api/accounts/ada", None, 404, "not_found_error"),
        ("get", "/api/accounts?page=2", None, 404, "not_found_error"),
        ("get", "/api", None, 404, "not_found_error"),
        ("get", "/api/nonsense", None, 404, "not_found_error"),
        ("post", "/api/accounts/1/nonsense", {}, 404, "not_found_error"),
        ("put", "/api/accounts", {}, 405, "invalid_request_error"),
        ("options", "/api/accounts", {}, 405, "invalid_request_error"),
        ("get", "/oauth/exchange", None, 405, "invalid_request_error"),
        ("post", "/api/tokens", "{", 400, "invalid_request_error"),
        ("post", "/api/tokens", "[]", 400, "invalid_request_error"),
        ("post", "/api/tokens", "\ud800", 400, "invalid_request_error"),
        ("post", "/api/tokens", "NaN", 400, "invalid_request_error"),
        ("post", "/api/tokens", "", 400, "invalid_request_error"),
        ("post", "/api/tokens", "[" * 200_000, 400, "invalid_request_error"),
        ("post", "/api/tokens", " " * 1024**2 + "{}", 413, "request_too_large"),
    ],
)
def test_every_error_has_the_envelope(api, method, path, body, status, error_type):
    text = body if isinstance(body, str) else json.dumps(body)
    data = text.encode("utf-8", "surrogatepass")
    response = api.generic(method.upper(), path, data, content_type="application/json")

    assert error_of(response, status)["type"] == error_type


def test_what_is_not_json_is_refused_with_the_remedy(api):
    error = error_of(api.post("/api/tokens", {"name": "alice"}), 415)

    assert "content-type: application/json" in error["message"]


def test_a_form_that_nobody_reads_is_refused(api):
    response = api.get("/api/accounts", headers={"accept": "text/csv"})

    assert error_of(response, 406)["type"] == "invalid_request_error"


def test_each_field_at_fault_is_named(api):
    body = {"role": "king", "expires_at": "soon"}
    response = api.post("/api/tokens", body, content_type="application/json")
    error = error_of(response, 400)

    assert set(error["fields"]) == {"name", "role", "expires_at"}
    assert error["fields"]["role"] == ["This must be one of: user, admin."]
    assert "role: This must be one of: user, admin." in error["message"]


def test_what_the_verbs_refuse_names_its_field_too(api):
    make_account("ada")
    body = {"name": "ada", "api_key": "sk-ant-x", "check": False}
    response = api.post("/api/accounts", body, content_type="application/json")
    error = error_of(response, 400)

    assert error["message"].startswith("name: an account called 'ada' exists")
    assert error["fields"] == {
        "name": ["an account called 'ada' exists already; choose another name."]
    }


@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (ClaudeProxyError("x"), 500, "api_error"),
        (
            RequestRefusedError("x", http_status=409, error_type="some_error"),
            409,
            "some_error",
        ),
        (Http404(), 404, "not_found_error"),
        (exceptions.Throttled(wait=1.5), 429, "rate_limit_error"),
        (exceptions.APIException(), 500, "api_error"),
        (exceptions.ValidationError("x"), 400, "invalid_request_error"),
        (exceptions.ValidationError({"a": "x"}), 400, "invalid_request_error"),
        (KeyError("sk-ant-x"), 500, "api_error"),
    ],
)
def test_each_kind_of_error_is_known(error, status, error_type):
    body = json.loads(answer_error(error, {}).content)

    assert answer_error(error, {}).status_code == status
    assert body["error"]["type"] == error_type
    assert "sk-ant-x" not in str(body)


def test_an_error_says_when_to_come_back():
    ours = ClaudeProxyError("x")
    ours.retry_after = timedelta(seconds=1.5)

    for error in (ours, exceptions.Throttled(wait=1.5)):
        assert answer_error(error, {}).headers["retry-after"] == "2"


def test_a_fault_of_ours_is_logged_under_the_id_the_caller_got(api):
    def fail(*_: object) -> None:
        raise RuntimeError("of all things")

    with capture_logs() as lines, connection.execute_wrapper(fail):
        response = api.get("/api/accounts")
    error = error_of(response, 500)
    line = next(line for line in lines if line["event"] == "api_request_failed")

    assert error["type"] == "api_error"
    assert "of all things" not in response.content.decode()
    assert str(line["exc_info"]) == "of all things"
    assert line["request_id"] == response.json()["request_id"]


# --- pages


def test_a_list_comes_in_pages(api):
    for number in range(5):
        make_account(f"account-{number}")
    first = api.get("/api/accounts?page_size=2").json()
    last = api.get("/api/accounts?page_size=2&page=3").json()

    assert set(first) == {"count", "next", "previous", "results"}
    assert (first["count"], first["previous"]) == (5, None)
    assert first["next"] == "http://testserver/api/accounts?page=2&page_size=2"
    assert [row["name"] for row in first["results"]] == ["account-0", "account-1"]
    assert [row["name"] for row in last["results"]] == ["account-4"]
    assert last["next"] is None


@pytest.mark.parametrize(
    ("asked", "given"), [("", 50), ("?page_size=500", 500), ("?page_size=9999", 500)]
)
def test_a_page_has_a_size_and_a_limit(api, asked, given):
    ClientKey.objects.bulk_create(
        ClientKey(name=f"key-{n}", digest=n.to_bytes(32)) for n in range(501)
    )

    assert len(api.get(f"/api/tokens{asked}").json()["results"]) == given


# Accounts have one more, for the limits that were seen of them.
@pytest.mark.parametrize(("path", "most"), [("/api/accounts", 4), ("/api/tokens", 3)])
def test_more_rows_take_no_more_queries(api, path, most):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert api.get(path).status_code == 200
        return len(captured)

    make_account("first")
    few = queries()
    for number in range(20):
        account = make_account(f"account-{number}")
        account.quota.create(name="5h", seen_at=timezone.now())
        make_client_key(f"key-{number}")

    assert queries() == few <= most


# --- addresses


def test_a_slash_at_the_end_makes_no_difference(api):
    account = make_account()
    for path in (
        "/api/accounts",
        f"/api/accounts/{account.pk}",
        f"/api/accounts/{account.pk}/events",
        "/api/tokens",
        "/api/schema",
    ):
        plain, with_slash = api.get(path), api.get(f"{path}/")
        assert plain.status_code == with_slash.status_code == 200
        assert plain.json() == with_slash.json()


# --- the description


def described() -> dict[str, Any]:
    """Path to methods, as the OpenAPI document has them."""
    out = io.StringIO()
    call_command("spectacular", format="openapi-json", stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def test_the_description_is_valid_and_without_a_warning(tmp_path):
    call_command(
        "spectacular", validate=True, fail_on_warn=True, file=str(tmp_path / "x")
    )


def test_every_path_is_described_and_wants_an_admin():
    document = described()
    undescribed = {reverse(f"api:{name}") for name in ("schema", "docs", "nothing")}
    served = {re.sub(r"/1(?=/|$)", "/{id}", path) for path in all_paths()}
    operations = [
        operation
        for methods in document["paths"].values()
        for operation in methods.values()
    ]

    assert set(document["paths"]) == served - undescribed
    for operation in operations:
        assert operation["security"] == [
            {"adminKey": []},
            {"bearerKey": []},
            {"cookieAuth": []},
        ]
        assert "default" in operation["responses"]
    assert document["components"]["securitySchemes"]["adminKey"] == {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "A client key with the role admin.",
    }


def test_the_manual_names_every_path():
    manual = (Path(django_settings.BASE_DIR) / "docs" / "api.md").read_text()
    for path, methods in described()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in manual


def test_the_description_is_served_as_json(api):
    response = api.get("/api/schema/")

    assert response.headers["content-type"] == "application/json"
    assert response.json()["openapi"].startswith("3.")


def test_the_page_keeps_to_the_policy_and_loads_nothing_from_elsewhere(admin_client):
    response = admin_client.get("/api/docs/")
    content = response.content.decode()

    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]
    assert not re.search(r"<style|\sstyle=|\son\w+=", content)
    assert all(" src=" in tag for tag in re.findall(r"<script\b[^>]*>", content))
    loaded = re.findall(r'(?:src|href)="([^"]+)"', content)
    assert len(loaded) == 5
    for address in loaded:
        assert address.startswith("/")
        answer = admin_client.get(address)
        assert answer.status_code == 200
        assert answer.getvalue()  # which also closes a file


def test_the_page_is_no_page_for_who_may_not_see_it(client, django_user_model):
    client.force_login(django_user_model.objects.create_user("grace"))

    error_of(client.get("/api/docs/"), 403)


# --- secrets


def plant(claude) -> list[str]:
    """Rows full of secrets; return everything that must not come out."""
    pair = claude.sandbox.oauth.issue("dorothy")
    hidden: dict[str, Any] = {
        "refresh_lease": "leased-by-9f8e",
        "sent_refresh_digest": "aa11" * 16,
        "refused_refresh_digest": "bb22" * 16,
    }
    make_account(
        "dorothy",
        kind=AccountKind.OAUTH,
        secret=pair.access_token,
        refresh_token=Secret(pair.refresh_token),
        holder="holder-of-dorothy",
        expires_at=timezone.now() + HOUR,
        **hidden,
    )
    make_account("ada", secret="sk-sandbox-ada", holder="key:cc33cc33")
    key = make_client_key("alice").key.reveal()
    digest = keys.digest(key)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT api_key, access_token, refresh_token FROM accounts_account"
        )
        sealed = [value for row in cursor.fetchall() for value in row if value]
    return [
        pair.access_token,
        pair.refresh_token,
        *hidden.values(),
        "holder-of-dorothy",
        "cc33cc33",
        "sk-sandbox-ada",
        "sk-sandbox-grace",
        key,
        digest.hex(),
        base64.b64encode(digest).decode(),
        *sealed,
    ]


def test_no_secret_is_in_any_answer_or_in_the_log(api, claude, admin_key, caplog):
    secrets = [*plant(claude), admin_key]
    bodies = {
        ("post", "/api/accounts"): {"name": "grace", "api_key": "sk-sandbox-grace"},
        ("post", "/api/tokens"): {"name": "bob"},
        ("patch", "/api/accounts/{id}"): {"name": "renamed"},
        ("patch", "/api/tokens/{id}"): {"name": "renamed"},
        ("post", "/oauth/exchange"): {"code": "sk-sandbox-grace#sk-sandbox-ada"},
    }
    operations = [
        (method, path)
        for path, methods in described()["paths"].items()
        for method in methods
    ]
    operations.sort(key=lambda operation: operation[0] == "delete")
    seen = []
    with capture_logs() as lines:
        for method, path in operations:
            model = ClientKey if "tokens" in path else Account
            rows = model.objects.exclude(name="root").values_list("pk", flat=True)
            for pk in list(rows) if "{id}" in path else [0]:
                response = api.generic(
                    method.upper(),
                    path.replace("{id}", str(pk)),
                    json.dumps(bodies.get((method, path), {})),
                    content_type="application/json",
                )
                assert response.status_code < 500
                seen.append(f"{response.headers}{response.content.decode()}")
    everything = f"{seen}{lines}{caplog.text}"

    assert len(seen) > 30
    assert lines
    assert [secret for secret in secrets if secret in everything] == []
