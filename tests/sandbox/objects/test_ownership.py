"""What belongs to one account is unknown to every other, and said so over HTTP."""

from typing import Any

import httpx
import pytest

from claudeproxy.sandbox.log import Outcome
from claudeproxy.sandbox.objects import store
from claudeproxy.sandbox.state import Sandbox
from tests.sandbox.wire import ask, ended

GRACE = {"x-api-key": "sk-sandbox-grace"}
THREADS = {"anthropic-beta": "message-threads-2026-08-12"}
SKILL = {"files[]": ("greet/SKILL.md", b"Be kind.")}
BATCH = {"requests": [{"custom_id": "a", "params": ask()}]}
CALLS = {
    "message_batch": [
        ("GET", "/v1/messages/batches/{id}"),
        ("GET", "/v1/messages/batches/{id}/results"),
        ("POST", "/v1/messages/batches/{id}/cancel"),
        ("DELETE", "/v1/messages/batches/{id}"),
    ],
    "file": [
        ("GET", "/v1/files/{id}"),
        ("GET", "/v1/files/{id}/content"),
        ("DELETE", "/v1/files/{id}"),
    ],
    "skill": [
        ("GET", "/v1/skills/{id}"),
        ("GET", "/v1/skills/{id}/versions"),
        ("GET", "/v1/skills/{id}/versions/latest"),
        ("GET", "/v1/skills/{id}/versions/latest/content"),
        ("POST", "/v1/skills/{id}/versions"),
        ("DELETE", "/v1/skills/{id}/versions/latest"),
        ("DELETE", "/v1/skills/{id}"),
    ],
}
EACH_CALL = [(kind, *call) for kind, calls in CALLS.items() for call in calls]


def make(client: httpx.Client, kind: str) -> str:
    if kind == "message_batch":
        answer = client.post("/v1/messages/batches", json=BATCH)
    elif kind == "file":
        answer = client.post("/v1/files", files={"file": ("a.txt", b"Hello")})
    elif kind == "skill":
        answer = client.post("/v1/skills", files=SKILL)
    else:
        answer = client.post("/v1/messages", json=ask(container={}))
        return str(answer.json()["container"]["id"])
    return str(answer.json()["id"])


@pytest.mark.parametrize(("kind", "method", "path"), EACH_CALL)
def test_an_object_of_another_account_is_as_unknown_as_none(
    ada: httpx.Client, kind: str, method: str, path: str
) -> None:
    name = make(ada, kind)
    for unknown in (name, f"{kind}_none"):
        answer = ada.request(method, path.format(id=unknown), headers=GRACE)
        noun = kind.replace("_", " ").capitalize()
        assert answer.status_code == 404
        assert answer.json()["error"] == {
            "type": "not_found_error",
            "message": f"{noun} not found: {unknown}",
        }
    assert ada.get(CALLS[kind][0][1].format(id=name)).status_code == 200


@pytest.mark.parametrize("kind", CALLS)
def test_lists_have_only_the_account_s_own(ada: httpx.Client, kind: str) -> None:
    name = make(ada, kind)
    path = CALLS[kind][0][1].removesuffix("/{id}")
    assert [item["id"] for item in ada.get(path).json()["data"]] == [name]
    assert ada.get(path, headers=GRACE).json()["data"] == []


def image(name: str) -> Any:
    return {"type": "image", "source": {"type": "file", "file_id": name}}


NAMING = {
    "image": ("file", lambda name: {"content": [image(name)]}),
    "upload": (
        "file",
        lambda name: {"content": [{"type": "container_upload", "file_id": name}]},
    ),
    "tool result": (
        "file",
        lambda name: {
            "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [image(name)]}
            ]
        },
    ),
    "document": (
        "file",
        lambda name: {
            "content": [
                {
                    "type": "document",
                    "source": {"type": "content", "content": [image(name)]},
                }
            ]
        },
    ),
    "container": ("container", lambda name: {"container": name}),
    "container object": ("container", lambda name: {"container": {"id": name}}),
    "skill": (
        "skill",
        lambda name: {"container": {"skills": [{"type": "custom", "skill_id": name}]}},
    ),
}


@pytest.mark.parametrize("way", NAMING)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_a_message_may_name_only_the_account_s_own(
    ada: httpx.Client, way: str, path: str
) -> None:
    kind, write = NAMING[way]
    name = make(ada, kind)
    fields = write(name)
    if "content" in fields:
        fields = {"messages": [{"role": "user", **fields}]}
    assert ada.post(path, json=ask(**fields)).status_code == 200
    refused = ada.post(path, json=ask(**fields), headers=GRACE)
    assert refused.status_code == 404
    assert refused.json()["error"] == {
        "type": "not_found_error",
        "message": f"{kind.capitalize()} not found: {name}",
    }


def test_what_a_tool_is_called_with_names_no_file(ada: httpx.Client) -> None:
    call = {"type": "tool_use", "id": "t", "name": "n", "input": {"image": image("x")}}
    turns = [{"role": "assistant", "content": [call]}, {"role": "user", "content": "?"}]
    assert ada.post("/v1/messages", json=ask(messages=turns)).status_code == 200


def test_a_file_of_another_account_is_an_errored_result(ada: httpx.Client) -> None:
    name = make(ada, "file")
    turn = {"role": "user", "content": [image(name)]}
    body = {"requests": [{"custom_id": "a", "params": ask(messages=[turn])}]}
    made = ada.post("/v1/messages/batches", json=body, headers=GRACE).json()
    ended = ada.get(f"/v1/messages/batches/{made['id']}", headers=GRACE).json()
    assert ended["request_counts"]["errored"] == 1


def test_built_in_skills_are_everybody_s(ada: httpx.Client) -> None:
    asked = {"skills": [{"type": "anthropic", "skill_id": "pdf"}]}
    answer = ada.post("/v1/messages", json=ask(container=asked))
    (loaded,) = answer.json()["container"]["skills"]
    assert (loaded["skill_id"], loaded["type"]) == ("pdf", "anthropic")
    asked = {"skills": [{"type": "anthropic", "skill_id": "none"}]}
    assert ada.post("/v1/messages", json=ask(container=asked)).status_code == 404


def test_an_unknown_thread_is_told_by_its_code(ada: httpx.Client) -> None:
    thread = {"type": "continue", "previous_message_id": "msg_none"}
    answer = ada.post("/v1/messages", json=ask(thread=thread), headers=THREADS)
    assert answer.status_code == 404
    assert answer.json() == {
        "type": "error",
        "error": {
            "type": "not_found_error",
            "message": "thread: no usable state was found for msg_none",
            "details": {"error_code": "thread_not_found"},
        },
        "request_id": answer.headers["request-id"],
    }


def test_the_control_side_tells_whose_everything_is(
    ada: httpx.Client, control: httpx.Client, sandbox: Sandbox
) -> None:
    names = {kind: make(ada, kind) for kind in (*CALLS, "container")}
    body = ask(thread={"type": "create"})
    answer = ada.post("/v1/messages", json=body, headers=THREADS | GRACE)
    names["thread"] = answer.json()["id"]
    told = control.get("/objects").json()["objects"]
    assert {item["kind"]: item["id"] for item in told} == names
    owners = {item["kind"]: item["account"] for item in told}
    assert owners.pop("thread") == "grace"
    assert set(owners.values()) == {"ada"}
    sandbox.reset()
    assert control.get("/objects").json()["objects"] == []


def test_the_control_side_sets_how_objects_behave(
    ada: httpx.Client, control: httpx.Client
) -> None:
    asked = {"batch_seconds": 60, "uploads_are_downloadable": False}
    assert control.post("/objects", json=asked).json() == {"objects": [], **asked}
    path = f"/v1/messages/batches/{make(ada, 'message_batch')}"
    assert ada.get(path).json()["processing_status"] == "in_progress"
    assert ada.get(f"/v1/files/{make(ada, 'file')}/content").status_code == 400
    refused = control.post("/objects", json={"batch_seconds": -1})
    assert refused.status_code == 400
    assert "batch_seconds" in refused.json()["error"]


@pytest.mark.parametrize(("kind", "method", "path"), EACH_CALL)
def test_the_script_reaches_every_call(
    ada: httpx.Client, sandbox: Sandbox, kind: str, method: str, path: str
) -> None:
    name = make(ada, kind)
    sandbox.script.add("ada", {"path": path.format(id=name), "status": 529})
    answer = ada.request(method, path.format(id=name))
    assert answer.status_code == 529
    entry = ended(sandbox)
    assert (entry.account, entry.status) == ("ada", 529)


def test_a_break_before_the_head_leaves_no_object(
    ada: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {"path": "/v1/files", "cut_at_byte": "before_head"})
    with pytest.raises(httpx.RemoteProtocolError):
        make(ada, "file")
    assert ended(sandbox).outcome is Outcome.CUT
    assert sandbox.objects.owned() == []


def test_a_download_can_be_cut_in_the_middle(
    ada: httpx.Client, sandbox: Sandbox
) -> None:
    content = b"x" * 300_000
    name = ada.post("/v1/files", files={"file": ("a", content)}).json()["id"]
    sandbox.script.add("ada", {"path": "/v1/files", "cut_at_byte": 100_000})
    with pytest.raises(httpx.RemoteProtocolError):
        ada.get(f"/v1/files/{name}/content")
    assert ended(sandbox).bytes_sent == 100_000
    assert ada.get(f"/v1/files/{name}/content").content == content


def test_the_account_s_room_is_limited(
    ada: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LIMIT", 1)
    name = make(ada, "file")
    refused = ada.post("/v1/files", files={"file": ("a.txt", b"Hello")})
    assert refused.status_code == 400
    details = refused.json()["error"]["details"]
    assert details == {"error_code": "storage_quota_exceeded"}
    ada.delete(f"/v1/files/{name}")
    make(ada, "file")


def test_the_oldest_container_makes_room(
    ada: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LIMIT", 1)
    first, second = make(ada, "container"), make(ada, "container")
    assert ada.post("/v1/messages", json=ask(container=first)).status_code == 404
    assert ada.post("/v1/messages", json=ask(container=second)).status_code == 200
