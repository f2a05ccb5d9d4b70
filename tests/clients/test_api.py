"""`/api/tokens`, as a script uses it."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from structlog.testing import capture_logs

from clients import issuing, keys
from clients.models import ClientKey, ClientKeyRole
from tests.factories import make_client_key

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
FIELDS = {
    "id",
    "name",
    "role",
    "state",
    "session_limit",
    "expires_at",
    "revoked_at",
    "created_at",
}


class Api:
    """Calls with an admin key, JSON both ways."""

    def __init__(self) -> None:
        issued = make_client_key("root", ClientKeyRole.ADMIN)
        self.path = f"/api/tokens/{issued.row.pk}"
        self._client = Client(headers={"x-api-key": issued.key.reveal()})

    def get(self, path: str = "/api/tokens") -> Any:
        return self._client.get(path)

    def send(self, method: str, path: str, **body: Any) -> Any:
        return getattr(self._client, method)(
            path, body, content_type="application/json"
        )

    def post(self, path: str = "/api/tokens", **body: Any) -> Any:
        return self.send("post", path, **body)


@pytest.fixture
def api() -> Api:
    return Api()


def refusal(response: Any, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status
    error: dict[str, Any] = response.json()["error"]
    return error


def test_a_key_is_shown_once(api):
    response = api.post(name=" alice ")
    issued = response.json()
    row = ClientKey.objects.get(name="alice")

    assert response.status_code == 201
    assert set(issued) == FIELDS | {"key"}
    assert bytes(row.digest) == keys.digest(issued["key"])
    assert (issued["role"], issued["state"]) == ("user", "valid")
    assert response.headers["cache-control"] == "no-store"
    assert set(api.get(response.headers["location"]).json()) == FIELDS


def test_a_key_has_the_role_and_the_end_that_were_asked_for(api):
    ends = timezone.now().replace(microsecond=0) + HOUR
    issued = api.post(name="alice", role="admin", expires_at=ends.isoformat()).json()
    row = ClientKey.objects.get(name="alice")

    assert (issued["role"], row.role, row.expires_at) == ("admin", "admin", ends)
    opened = Client(headers={"x-api-key": issued["key"]}).get("/api/tokens")
    assert opened.status_code == 200


def test_the_list_shows_the_state_of_every_key(api):
    make_client_key("alice")
    make_client_key("bob", expires_at=timezone.now() - HOUR)
    issuing.revoke(make_client_key("carol").row, now=timezone.now())
    rows = api.get().json()["results"]

    assert [(row["name"], row["state"]) for row in rows] == [
        ("alice", "valid"),
        ("bob", "expired"),
        ("carol", "revoked"),
        ("root", "valid"),
    ]
    assert all(set(row) == FIELDS for row in rows)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "root"}, "name"),
        ({"name": "alice", "role": "king"}, "role"),
        ({"name": "alice", "role": None}, "role"),
        ({"name": "alice", "role": ["admin"]}, "role"),
        ({"name": "alice", "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "alice", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "alice", "key": "cp_mine"}, "key"),
        ({"name": "alice", "session_limit": 0}, "session_limit"),
        ({"name": "alice", "session_limit": 100_001}, "session_limit"),
        ({"name": "alice", "session_limit": "many"}, "session_limit"),
    ],
)
def test_a_key_that_cannot_be_issued_names_the_field(api, body, field):
    assert set(refusal(api.post(**body))["fields"]) == {field}
    assert ClientKey.objects.count() == 1


def test_a_key_is_renamed_and_nothing_else(api):
    key = make_client_key("alice").row
    path = f"/api/tokens/{key.pk}"
    shown = api.send("patch", path, name="alicia").json()

    assert (set(shown), shown["name"]) == (FIELDS, "alicia")
    assert "role" in refusal(api.send("patch", path, name="x", role="admin"))["fields"]
    key.refresh_from_db()
    assert (key.name, key.role) == ("alicia", "user")


def test_a_session_limit_is_set_and_taken_away(api):
    issued = api.post(name="alice", session_limit=5).json()
    path = f"/api/tokens/{issued['id']}"
    assert issued["session_limit"] == 5
    assert api.send("patch", path, session_limit=7).json()["session_limit"] == 7

    assert api.send("patch", path, name="alicia").json()["session_limit"] == 7
    assert api.send("patch", path, session_limit=None).json()["session_limit"] is None
    refused = refusal(api.send("patch", path, session_limit=0))
    assert set(refused["fields"]) == {"session_limit"}


@pytest.mark.parametrize("name", ["root", "", "a\x00"])
def test_a_name_that_cannot_be_had_is_refused(api, name):
    path = f"/api/tokens/{make_client_key('alice').row.pk}"

    assert "name" in refusal(api.send("patch", path, name=name))["fields"]
    assert ClientKey.objects.filter(name="alice").exists()


def test_a_revoked_key_keeps_the_time_it_was(api):
    path = f"/api/tokens/{make_client_key('alice').row.pk}"
    first = api.post(f"{path}/revoke").json()
    second = api.post(f"{path}/revoke").json()

    assert first["state"] == "revoked"
    assert first["revoked_at"] is not None
    assert second == first


def test_a_key_can_end_itself(api):
    assert api.post(f"{api.path}/revoke").status_code == 200
    assert "revoked" in refusal(api.get(), 401)["message"]


def test_a_deleted_key_is_gone(api):
    path = f"/api/tokens/{make_client_key('alice').row.pk}"

    assert api.send("delete", path).status_code == 204
    assert api.get(path).status_code == 404
    assert not ClientKey.objects.filter(name="alice").exists()


def test_the_log_keeps_who_did_what_to_a_key_and_never_the_key(api):
    with capture_logs() as lines:
        issued = api.post(name="alice").json()
        path = f"/api/tokens/{issued['id']}"
        api.post(f"{path}/revoke")
        api.post(f"{path}/revoke")
        api.send("delete", path)

    assert [
        (line["event"], line["key_id"], line["name"], line["actor"])
        for line in lines
        if line["event"].startswith("client_key")
    ] == [
        (f"client_key_{done}", issued["id"], "alice", "key root")
        for done in ("issued", "revoked", "deleted")
    ]
    assert issued["key"] not in str(lines)
