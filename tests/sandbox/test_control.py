"""The control side over HTTP."""

from datetime import UTC, datetime, timedelta
from time import perf_counter

import httpx
import pytest

from claudeproxy.sandbox.state import Sandbox
from tests.sandbox.wire import ask


def test_the_start_page_says_what_this_is(control: httpx.Client) -> None:
    page = control.get("/").json()
    assert "stand-in" in page["what"]
    assert [account["name"] for account in page["accounts"]] == [
        "ada",
        "grace",
        "edsger",
    ]
    assert page["requests"] == 0


def test_no_key_is_shown_anywhere(ada: httpx.Client, control: httpx.Client) -> None:
    ada.post("/v1/messages", json=ask())
    assert "sk-sandbox" not in control.get("/").text
    assert "sk-sandbox" not in control.get("/log").text


def test_the_log_keeps_headers_in_order_and_hides_credentials(
    ada: httpx.Client, control: httpx.Client
) -> None:
    request = ada.build_request("POST", "/v1/messages", json=ask(), params={"b": "1"})
    request.headers = httpx.Headers(
        [
            ("anthropic-beta", "one"),
            ("authorization", "Bearer sk-secret"),
            ("anthropic-beta", "two"),
            *request.headers.multi_items(),
        ]
    )
    ada.send(request)
    [entry] = control.get("/log").json()["requests"]
    names = ("anthropic-beta", "authorization", "x-api-key")
    assert [pair for pair in entry["headers"] if pair[0] in names] == [
        ["anthropic-beta", "one"],
        ["authorization", "[unknown]"],
        ["anthropic-beta", "two"],
        ["x-api-key", "[account ada]"],
    ]
    assert entry["credential_headers"] == ["authorization", "x-api-key"]
    assert (entry["path"], entry["query"]) == ("/v1/messages", "b=1")


def test_the_log_tells_body_and_outcome(
    ada: httpx.Client, control: httpx.Client
) -> None:
    answer = ada.post("/v1/messages", json=ask(stream=True))
    [entry] = control.get("/log").json()["requests"]
    assert entry["request_id"] == answer.headers["request-id"]
    assert entry["body_bytes"] == len(answer.request.content)
    assert len(entry["body_sha256"]) == 64
    assert (entry["model"], entry["stream"]) == ("claude-opus-5-5", True)
    assert (entry["status"], entry["outcome"]) == (200, "complete")
    assert entry["bytes_sent"] == len(answer.content)
    assert entry["frames_sent"] == answer.text.count("\n\n")
    assert entry["client_gone_after_ms"] is None


def test_the_log_can_be_read_on_from_a_number(
    ada: httpx.Client, control: httpx.Client
) -> None:
    for _ in range(3):
        ada.get("/v1/models")
    entries = control.get("/log", params={"after": 2}).json()["requests"]
    assert [entry["seq"] for entry in entries] == [3]


def test_a_cleared_log_counts_on(ada: httpx.Client, control: httpx.Client) -> None:
    ada.get("/v1/models")
    control.delete("/log")
    assert control.get("/log").json() == {"requests": []}
    ada.get("/v1/models")
    assert control.get("/log").json()["requests"][0]["seq"] == 2


def test_calls_of_the_control_side_are_not_logged(
    control: httpx.Client, sandbox: Sandbox
) -> None:
    control.get("/")
    assert sandbox.log.after() == []


def test_an_added_account_can_call_and_a_revoked_one_cannot(
    ada: httpx.Client, control: httpx.Client
) -> None:
    new = {"name": "barbara", "api_key": "sk-new", "models": ["claude-odd"]}
    assert control.post("/accounts", json=new).status_code == 201
    ada.headers["x-api-key"] = "sk-new"
    answer = ada.post("/v1/messages", json=ask(model="claude-odd"))
    assert "barbara" in answer.json()["content"][0]["text"]
    assert control.delete("/accounts/barbara").status_code == 200
    assert ada.post("/v1/messages", json=ask()).status_code == 401


def test_an_added_account_can_be_slow(ada: httpx.Client, control: httpx.Client) -> None:
    new = {"name": "slow", "api_key": "sk-slow", "latency_ms": 20}
    assert control.post("/accounts", json=new).json()["latency_ms"] == 20
    begun = perf_counter()
    answer = ada.get("/v1/models", headers={"x-api-key": "sk-slow"})
    assert answer.status_code == 200
    assert perf_counter() - begun >= 0.02


def test_revoking_an_account_forgets_its_steps(
    control: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {"status": 500})
    control.delete("/accounts/ada")
    assert control.get("/").json()["steps_pending"] == {}


def test_steps_are_appended_and_cleared(
    ada: httpx.Client, control: httpx.Client
) -> None:
    call = {"account": "ada", "steps": [{"status": 500}, {"status": 529}]}
    assert control.post("/script", json=call).json() == {"steps_pending": {"ada": 2}}
    assert ada.post("/v1/messages", json=ask()).status_code == 500
    control.delete("/script")
    assert ada.post("/v1/messages", json=ask()).status_code == 200


def test_clearing_can_spare_other_accounts(
    control: httpx.Client, sandbox: Sandbox
) -> None:
    sandbox.script.add("ada", {})
    sandbox.script.add("*", {})
    answer = control.delete("/script", params={"account": "ada"})
    assert answer.json() == {"steps_pending": {"*": 1}}


def test_the_start_page_tells_who_can_sign_in(control: httpx.Client) -> None:
    people = {found["name"]: found for found in control.get("/").json()["people"]}
    work, home = people["hedy-work"], people["hedy-home"]
    assert work["holder"] == home["holder"]
    assert work["holder"]["email"] == "hedy.lamarr@sandbox.example"
    assert work["organization"] != home["organization"]


def test_the_clock_can_be_read_and_moved(
    control: httpx.Client, sandbox: Sandbox
) -> None:
    moved = control.post("/clock", json={"advance_seconds": 86_400}).json()
    now = datetime.fromisoformat(control.get("/clock").json()["now"])
    assert now >= datetime.fromisoformat(moved["now"])
    assert timedelta(hours=23) < now - datetime.now(UTC) < timedelta(hours=25)
    assert now <= sandbox.clock.now()


def test_tokens_can_be_issued_expired_and_revoked(
    control: httpx.Client, sandbox: Sandbox
) -> None:
    call = {"person": "radia", "scope": "user:inference"}
    pair = control.post("/oauth/issue", json=call).json()
    found = sandbox.oauth.find_token(pair["access_token"])
    assert found
    assert (found.account.name, found.scope) == ("radia", ("user:inference",))
    assert control.post("/oauth/expire", json={"person": "radia"}).status_code == 200
    assert sandbox.oauth.is_family_alive(pair["refresh_token"])
    found = sandbox.oauth.find_token(pair["access_token"])
    assert found
    assert found.refusal
    assert control.post("/oauth/revoke", json={"person": "radia"}).status_code == 200
    assert not sandbox.oauth.is_family_alive(pair["refresh_token"])


def test_steps_can_be_added_for_a_person(
    control: httpx.Client, sandbox: Sandbox
) -> None:
    call = {"account": "dorothy", "steps": [{"status": 500}]}
    assert control.post("/script", json=call).status_code == 200
    assert sandbox.script.pending() == {"dorothy": 1}


def test_reset_goes_back_to_the_start(
    ada: httpx.Client, control: httpx.Client, sandbox: Sandbox
) -> None:
    start = control.get("/").json()
    ada.get("/v1/models")
    control.delete("/accounts/grace")
    sandbox.script.add("*", {"status": 500})
    pair = sandbox.oauth.issue("dorothy")
    control.post("/clock", json={"advance_seconds": 3600})
    assert control.post("/reset").status_code == 200
    assert control.get("/").json() == start
    assert not sandbox.oauth.is_family_alive(pair.refresh_token)
    assert sandbox.clock.now() - datetime.now(UTC) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("GET", "/nowhere", None, 404, "no such path"),
        ("PUT", "/log", None, 405, "use GET or DELETE"),
        ("GET", "/log?after=x", None, 400, "after: "),
        ("POST", "/accounts", {"name": "x"}, 400, "api_key"),
        ("POST", "/accounts", {"name": "a b", "api_key": "k"}, 400, "name: "),
        ("POST", "/accounts", {"name": "ada", "api_key": "k"}, 409, "name: "),
        (
            "POST",
            "/accounts",
            {"name": "x", "api_key": "sk-sandbox-ada"},
            409,
            "api_key: ",
        ),
        ("DELETE", "/accounts/nobody", None, 404, "nobody"),
        ("POST", "/accounts", {"name": "dorothy", "api_key": "k"}, 409, "dorothy"),
        ("POST", "/clock", {}, 400, "advance_seconds"),
        ("POST", "/clock", {"advance_seconds": "1"}, 400, "advance_seconds: "),
        ("POST", "/clock", {"advance_seconds": 1e18}, 400, "advance_seconds: "),
        ("POST", "/oauth/issue", {"person": "nobody"}, 400, "person: "),
        ("POST", "/oauth/issue", {"person": "radia", "scope": "x"}, 400, "scope: "),
        ("POST", "/oauth/expire", {"person": "nobody"}, 400, "person: "),
        ("POST", "/oauth/revoke", {"person": "nobody"}, 400, "person: "),
        ("POST", "/script", {"account": "nobody", "steps": []}, 400, "account: "),
        ("DELETE", "/script?account=nobody", None, 400, "account: "),
        (
            "POST",
            "/script",
            {"account": "*", "steps": [{}, {"status": 1}]},
            400,
            "steps.1.status: ",
        ),
    ],
)
def test_a_wrong_call_is_refused_with_a_reason(
    control: httpx.Client,
    method: str,
    path: str,
    body: object,
    status: int,
    reason: str,
) -> None:
    answer = control.request(method, path, json=body)
    assert answer.status_code == status
    assert reason in answer.json()["error"]
