"""What the endpoints do not accept, and the word they have for it."""

from typing import Any

import httpx
import pytest

from claudeproxy.sandbox.objects import disk, files, routes, skills
from claudeproxy.sandbox.state import Sandbox
from tests.sandbox.wire import ask, ended

BATCHES = "/v1/messages/batches"


def message_of(answer: httpx.Response, status: int = 400) -> str:
    assert answer.status_code == status
    return str(answer.json()["error"]["message"])


def one(custom_id: Any = "a", **fields: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "params": ask(), **fields}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": [one(), one()]}, "requests.1.custom_id"),
        ({"requests": [one("a b")]}, "requests.0.custom_id"),
        ({"requests": [one("")]}, "requests.0.custom_id"),
        ({"requests": [{"custom_id": "a"}]}, "params"),
        ([], "object"),
    ],
)
def test_a_bad_batch_is_refused(ada: httpx.Client, body: Any, field: str) -> None:
    assert field in message_of(ada.post(BATCHES, json=body))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff"])
def test_a_batch_that_is_no_json_is_refused(ada: httpx.Client, body: bytes) -> None:
    assert "JSON" in message_of(ada.post(BATCHES, content=body))


@pytest.mark.parametrize("name", ["after_id", "before_id"])
def test_an_unknown_cursor_is_refused(ada: httpx.Client, name: str) -> None:
    refused = ada.get(BATCHES, params={name: "msgbatch_none"})
    assert message_of(refused) == f"{name}: no batch msgbatch_none in this list"


@pytest.mark.parametrize("path", [BATCHES, "/v1/files", "/v1/skills"])
@pytest.mark.parametrize("limit", ["0", "1001", "many"])
def test_a_bad_limit_is_refused(ada: httpx.Client, path: str, limit: str) -> None:
    assert "limit" in message_of(ada.get(path, params={"limit": limit}))


@pytest.mark.parametrize("path", ["/v1/files", "/v1/skills"])
def test_a_page_token_is_good_for_its_own_list_only(
    ada: httpx.Client, path: str
) -> None:
    for _ in range(2):
        ada.post("/v1/files", files={"file": ("a", b"a")})
    token = ada.get("/v1/files", params={"limit": 1}).json()["next_page"]
    assert token.startswith("page_")
    headers = {"x-api-key": "sk-sandbox-grace"} if path == "/v1/files" else {}
    refused = ada.get(path, params={"page": token}, headers=headers)
    assert message_of(refused) == "page: not a token of this list"
    assert "page" in message_of(ada.get(path, params={"page": "page_2"}))


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"data": {"file": "not a form"}}, "multipart"),
        ({"files": {"other": ("a", b"a")}}, "file"),
        *(
            (
                {
                    "files": {"file": ("a", b"a")},
                    "data": {"expires_in_seconds": text},
                },
                "expires_in_seconds",
            )
            for text in ("3599", "7776001", "soon", "-1")
        ),
    ],
)
def test_a_bad_upload_is_refused(
    ada: httpx.Client, sandbox: Sandbox, fields: Any, name: str
) -> None:
    assert name in message_of(ada.post("/v1/files", **fields))
    assert sandbox.objects.owned() == []


@pytest.mark.parametrize(
    "query",
    [
        "ids[]=a&limit=1",
        "ids[]=a&page=page_x",
        "&".join(f"ids[]={number}" for number in range(101)),
    ],
)
def test_ids_exclude_pages(ada: httpx.Client, query: str) -> None:
    assert message_of(ada.get(f"/v1/files?{query}")).startswith("ids:")


@pytest.mark.parametrize(
    "names",
    [
        ["SKILL.md"],
        ["greet/more.md"],
        ["greet/SKILL.md", "other/more.md"],
        ["greet/SKILL.md", "greet/../more.md"],
        ["greet/sub/SKILL.md"],
    ],
)
def test_a_bad_skill_is_refused(ada: httpx.Client, names: list[str]) -> None:
    files = [("files[]", (name, b"Be kind.")) for name in names]
    assert message_of(ada.post("/v1/skills", files=files)).startswith("files:")


def test_a_skill_keeps_its_name(ada: httpx.Client) -> None:
    made = ada.post("/v1/skills", files={"files[]": ("greet/SKILL.md", b"")}).json()
    files = {"files[]": ("part/SKILL.md", b"")}
    refused = ada.post(f"/v1/skills/{made['id']}/versions", files=files)
    assert "greet" in message_of(refused)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_unknown_version_is_not_found(ada: httpx.Client, method: str) -> None:
    made = ada.post("/v1/skills", files={"files[]": ("greet/SKILL.md", b"")}).json()
    answer = ada.request(method, f"/v1/skills/{made['id']}/versions/none")
    assert message_of(answer, 404) == "Skill version not found: none"


def test_a_long_display_name_is_refused(ada: httpx.Client) -> None:
    files = {"files[]": ("greet/SKILL.md", b"")}
    refused = ada.post("/v1/skills", files=files, data={"display_name": "x" * 256})
    assert "display_name" in message_of(refused)


def test_an_upload_beyond_the_limit_is_too_large(
    ada: httpx.Client, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "UPLOAD_LIMITS", {files.upload: 100})
    answer = ada.post("/v1/files", files={"file": ("a", b"a" * 100)})
    assert message_of(answer, 413) == "Request exceeds the maximum size"
    assert ended(sandbox).body_bytes > 100


def test_all_files_together_are_limited(
    ada: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "CAPACITY_BYTES", 100)
    answer = ada.post("/v1/files", files={"file": ("a", b"a" * 100)})
    assert "keeps 100 bytes" in message_of(answer)


@pytest.mark.parametrize("path", [BATCHES, "/v1/files", "/v1/skills"])
def test_other_methods_are_refused(ada: httpx.Client, path: str) -> None:
    answer = ada.put(path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST, GET"


@pytest.mark.parametrize(
    "path", ["/v1/files/", "/v1/files/a/b", "/v1/skills/a/b", f"{BATCHES}/a/b"]
)
def test_paths_beside_these_are_not_found(ada: httpx.Client, path: str) -> None:
    assert message_of(ada.get(path), 404) == "Not found"


def test_an_upload_without_a_key_is_refused(ada: httpx.Client) -> None:
    form = {"file": ("a", b"a")}
    answer = ada.post("/v1/files", files=form, headers={"x-api-key": "none"})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "---\nname: a\ndescription: 'B: c.'\n---\n",
            {"name": "a", "description": "B: c."},
        ),
        ("---\r\nname: a\r\n---", {"name": "a"}),
        ("---\nname: a\n", {}),
        ("name: a", {}),
        ("", {}),
    ],
)
def test_front_matter_is_read(text: str, found: dict[str, str]) -> None:
    assert skills.front_matter(text) == found
