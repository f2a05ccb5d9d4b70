"""The pages of a sign-in, over real sockets, as a browser gets them."""

import html
import re
from urllib.parse import urlsplit

import httpx
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.sandbox.oauth.client import (
    PATH,
    REDIRECT_URI,
    STATE,
    code_for,
    decide,
    query,
    returned,
)

CALLBACK_PATH = "/oauth/code/callback"


def hidden_fields(page: str) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
    return {name: html.unescape(value) for name, value in found}


def test_the_page_offers_everybody_and_a_way_out(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    page = http.get(PATH, params=query()).text
    buttons = re.findall(r">(Allow as [^<]+|Deny)</button>", page)
    names = [person.name for person in sandbox.oauth.people]
    assert buttons == [*(f"Allow as {name}" for name in names), "Deny"]


def test_the_page_says_that_it_is_the_sandbox(http: httpx.Client) -> None:
    answer = http.get(PATH, params=query())
    assert "stand-in for Claude" in answer.text
    assert answer.headers["x-claude-sandbox"] == "1"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


def test_every_button_is_described_by_who_it_stands_for(http: httpx.Client) -> None:
    page = http.get(PATH, params=query()).text
    described = re.findall(r'aria-describedby="([^"]+)"', page)
    assert len(described) == 5
    for name in described:
        assert page.count(f'id="{name}"') == 1


def test_the_pages_need_nothing_from_elsewhere(http: httpx.Client) -> None:
    for answer in (
        http.get(PATH, params=query(redirect_uri="http://localhost:1/")),
        http.get(PATH),
        http.get(CALLBACK_PATH, params={"code": "c", "state": "s"}),
    ):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert not re.search(r"<script|<link|<img|src=|style=|\son\w+=", answer.text)


def test_the_policy_lets_the_form_lead_back_to_the_client(http: httpx.Client) -> None:
    answer = http.get(PATH, params=query())
    policy = answer.headers["content-security-policy"]
    assert "form-action 'self' http://127.0.0.1:8000;" in policy


def test_the_policy_has_a_way_for_clients_at_an_ipv6_address(
    http: httpx.Client,
) -> None:
    answer = http.get(PATH, params=query(redirect_uri="http://[::1]:8000/cb"))
    policy = answer.headers["content-security-policy"]
    assert "form-action 'self' http:;" in policy


def test_the_form_sends_back_what_the_client_asked(http: httpx.Client) -> None:
    asked = query(state='"><b>', login_hint="radia")
    page = http.get(PATH, params=asked | {"code": "true"}).text
    assert hidden_fields(page) == asked
    assert "<b>" not in page


def test_whoever_is_hinted_at_comes_first(http: httpx.Client) -> None:
    hint = "hedy.lamarr@sandbox.example"
    page = http.get(PATH, params=query(login_hint=hint)).text
    buttons = re.findall(r'name="allow" value="([^"]+)"', page)
    assert set(buttons[:2]) == {"hedy-work", "hedy-home"}
    assert page.count("Suggested by the application") == 2


def test_allowing_goes_back_with_a_code_and_the_state(http: httpx.Client) -> None:
    answer = decide(http)
    assert answer.headers["location"].startswith(f"{REDIRECT_URI}?")
    back = returned(answer)
    assert set(back) == {"code", "state"}
    assert back["state"] == STATE
    assert answer.headers["cache-control"] == "no-store"


def test_denying_goes_back_with_the_reason_and_the_state(http: httpx.Client) -> None:
    back = returned(decide(http, "deny"))
    assert back == {"error": "access_denied", "state": STATE}


def test_a_query_in_the_redirect_uri_is_kept(http: httpx.Client) -> None:
    back = returned(decide(http, redirect_uri="http://localhost:8000/cb?own=1"))
    assert set(back) == {"own", "code", "state"}


def test_every_code_is_another_one(http: httpx.Client) -> None:
    assert code_for(http) != code_for(http)


def test_the_own_page_shows_code_and_state_for_pasting(
    server: SandboxServer, http: httpx.Client
) -> None:
    back = decide(http, redirect_uri=f"{server.url}{CALLBACK_PATH}")
    page = http.get(back.headers["location"])
    assert f'<code id="code">{returned(back)["code"]}#{STATE}</code>' in page.text


def test_the_own_page_tells_of_a_denial(
    server: SandboxServer, http: httpx.Client
) -> None:
    back = decide(http, "deny", redirect_uri=f"{server.url}{CALLBACK_PATH}")
    assert "access_denied" in http.get(back.headers["location"]).text


def test_the_own_page_escapes_what_it_shows(http: httpx.Client) -> None:
    page = http.get(CALLBACK_PATH, params={"code": "<i>", "state": "&"}).text
    assert "&lt;i&gt;#&amp;" in page


def test_the_own_page_needs_a_code(http: httpx.Client) -> None:
    answer = http.get(CALLBACK_PATH)
    assert answer.status_code == 400
    assert "code is missing" in answer.text


def test_the_own_page_counts_as_such_under_any_name_of_the_host(
    http: httpx.Client,
) -> None:
    asked = query(redirect_uri=f"http://claude.test{CALLBACK_PATH}")
    answer = http.get(PATH, params=asked, headers={"host": "claude.test"})
    assert answer.status_code == 200


BAD: list[tuple[dict[str, str | None], str]] = [
    ({"client_id": None}, "client_id is missing"),
    ({"client_id": "other"}, "client_id is not one"),
    ({"response_type": None}, "response_type is missing"),
    ({"response_type": "token"}, "response_type must be code"),
    ({"redirect_uri": None}, "redirect_uri is missing"),
    ({"redirect_uri": "http://example.com/cb"}, "must lead to this computer"),
    ({"redirect_uri": "http://127.0.0.1.example.com/"}, "must lead to this computer"),
    ({"redirect_uri": "http://10.0.0.1/"}, "must lead to this computer"),
    ({"redirect_uri": "javascript:alert(1)"}, "must be an http or https URI"),
    ({"redirect_uri": "/accounts/callback"}, "must be an http or https URI"),
    ({"redirect_uri": "http://[::1/"}, "is not a URI"),
    ({"redirect_uri": "http://localhost:port/"}, "is not a URI"),
    ({"redirect_uri": "http://localhost/#part"}, "no fragment"),
    ({"redirect_uri": "http://example.com@localhost/"}, "no fragment, user"),
    ({"redirect_uri": "http://localhost\\@example.com/"}, "redirect_uri"),
    ({"redirect_uri": "http://localhost/\r\nset-cookie: a=1"}, "odd characters"),
    ({"code_challenge": None}, "code_challenge is missing"),
    ({"code_challenge": "too-short"}, "code_challenge is not"),
    ({"code_challenge_method": None}, "code_challenge_method is missing"),
    ({"code_challenge_method": "plain"}, "code_challenge_method must be S256"),
    ({"state": None}, "state is missing"),
    ({"scope": "user:profile nonsense"}, "nonsense"),
]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(("fields", "reason"), BAD)
def test_what_is_wrong_is_said_on_a_page_and_leads_nowhere(
    http: httpx.Client, method: str, fields: dict[str, str | None], reason: str
) -> None:
    asked = query(**fields)
    if method == "GET":
        answer = http.get(PATH, params=asked)
    else:
        answer = http.post(PATH, data=asked | {"allow": "dorothy"})
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert reason in answer.text


def test_a_parameter_must_not_come_twice(http: httpx.Client) -> None:
    answer = http.get(PATH, params=[*query().items(), ("state", "other")])
    assert answer.status_code == 400
    assert "state: given more than once" in answer.text


@pytest.mark.parametrize(("button", "reason"), [({}, "allow"), ({"allow": "x"}, "x")])
def test_a_form_needs_a_decision_that_there_is(
    http: httpx.Client, button: dict[str, str], reason: str
) -> None:
    answer = http.post(PATH, data=query() | button)
    assert answer.status_code == 400
    assert reason in answer.text


@pytest.mark.parametrize("origin", ["http://example.com", "null"])
def test_a_form_from_another_site_is_refused(http: httpx.Client, origin: str) -> None:
    data = query() | {"allow": "dorothy"}
    answer = http.post(PATH, data=data, headers={"origin": origin})
    assert answer.status_code == 403
    assert "location" not in answer.headers


def test_a_form_from_the_page_itself_is_accepted(
    server: SandboxServer, http: httpx.Client
) -> None:
    data = query() | {"allow": "dorothy"}
    answer = http.post(PATH, data=data, headers={"origin": server.url})
    assert answer.status_code == 302


def test_another_client_id_can_be_set(http: httpx.Client, sandbox: Sandbox) -> None:
    sandbox.oauth.client_id = "own-client"
    assert http.get(PATH, params=query(client_id="own-client")).status_code == 200
    assert http.get(PATH, params=query()).status_code == 400


@pytest.mark.parametrize(
    ("path", "allowed"), [(PATH, "GET, POST"), (CALLBACK_PATH, "GET")]
)
def test_other_methods_are_refused(http: httpx.Client, path: str, allowed: str) -> None:
    answer = http.put(path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed


def test_no_code_gets_into_the_log(
    server: SandboxServer, http: httpx.Client, sandbox: Sandbox
) -> None:
    back = decide(http, redirect_uri=f"{server.url}{CALLBACK_PATH}")
    http.get(back.headers["location"])
    entry = sandbox.log.after()[-1]
    assert (entry.path, entry.query) == (CALLBACK_PATH, "")
    code = returned(back)["code"]
    assert code in urlsplit(back.headers["location"]).query
    assert code not in repr(sandbox.log.after())
