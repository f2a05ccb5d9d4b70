import json
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from accounts import oauth, pkce
from accounts.errors import (
    NoTokenReplyError,
    OAuthNotConfiguredError,
    TokenRefusedError,
)
from accounts.oauth import Identity
from claudeproxy.crypto import Secret
from tests.accounts import provider
from tests.factories import NOW

HOUR = timedelta(hours=1)
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


@pytest.fixture(autouse=True)
def _configured(settings):
    settings.OAUTH_CLIENT_ID = "client"
    settings.OAUTH_AUTHORIZE_URL = "https://provider.test/authorize"
    settings.OAUTH_TOKEN_URL = "https://provider.test/token"
    settings.OAUTH_SCOPE = "user:profile user:inference"


def address(**changes):
    asked = {
        "state": "the-state",
        "verifier": VERIFIER,
        "redirect_uri": provider.REDIRECT,
    }
    return oauth.authorization_url(**{**asked, **changes})


# --- the way there


def test_the_address_asks_for_a_code_with_a_challenge():
    url = urlsplit(address())

    assert url._replace(query="").geturl() == "https://provider.test/authorize"
    assert parse_qs(url.query) == {
        "code": ["true"],
        "client_id": ["client"],
        "response_type": ["code"],
        "redirect_uri": [provider.REDIRECT],
        "scope": ["user:profile user:inference"],
        "code_challenge": [pkce.challenge(VERIFIER)],
        "code_challenge_method": ["S256"],
        "state": ["the-state"],
    }


def test_the_verifier_is_not_in_the_address():
    assert VERIFIER not in address()


def test_what_the_configured_address_asks_already_is_kept(settings):
    settings.OAUTH_AUTHORIZE_URL = "https://provider.test/authorize?login_method=sso&a="
    query = parse_qs(urlsplit(address()).query, keep_blank_values=True)

    assert (query["login_method"], query["a"]) == (["sso"], [""])
    assert query["state"] == ["the-state"]


@pytest.mark.parametrize(
    "missing",
    [
        ["OAUTH_CLIENT_ID"],
        ["OAUTH_AUTHORIZE_URL"],
        ["OAUTH_TOKEN_URL"],
        ["OAUTH_CLIENT_ID", "OAUTH_TOKEN_URL"],
    ],
)
def test_without_its_settings_nobody_is_sent_anywhere(settings, missing):
    for name in missing:
        setattr(settings, name, "")
    with pytest.raises(OAuthNotConfiguredError) as caught:
        address()

    assert caught.value.missing == missing
    assert ", ".join(missing) in str(caught.value)


@pytest.mark.parametrize(
    ("pasted", "parts"),
    [
        ("code#state", ("code", "state")),
        (" code#state\n", ("code", "state")),
        ("code # state", ("code", "state")),
        ("code", ("code", "")),
        ("code#", ("code", "")),
        ("#state", ("", "state")),
        ("code#state#more", ("code", "state#more")),
        ("", ("", "")),
    ],
)
def test_a_pasted_code_is_split(pasted, parts):
    assert oauth.split_pasted_code(pasted) == parts


# --- what is sent


def test_a_code_is_exchanged_with_its_verifier_and_the_same_redirect():
    request = oauth.exchange_request(
        code=Secret("the-code"),
        state="the-state",
        verifier=Secret(VERIFIER),
        redirect_uri=provider.REDIRECT,
    )

    assert request == {
        "grant_type": "authorization_code",
        "code": "the-code",
        "state": "the-state",
        "redirect_uri": provider.REDIRECT,
        "client_id": "client",
        "code_verifier": VERIFIER,
    }


def test_a_refresh_asks_for_no_other_scope_than_was_granted():
    assert oauth.refresh_request(Secret("r")) == {
        "grant_type": "refresh_token",
        "refresh_token": "r",
        "client_id": "client",
    }


def test_a_token_request_is_json_from_a_plain_client(claude, settings):
    sandbox = provider.configure(settings, claude)
    pair = sandbox.oauth.issue("dorothy")
    oauth.post_token(oauth.refresh_request(Secret(pair.refresh_token)), now=NOW)
    (entry,) = sandbox.oauth.token_requests()
    headers = dict(entry.headers)

    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "claude-proxy"
    assert headers["anthropic-beta"] == "oauth-2025-04-20"
    assert entry.credential_headers == []


# --- what comes back


def read(fields, status=200, sent=()):
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return oauth.parse_token_reply(status, body, now=NOW, sent=sent)


def test_an_answer_is_read():
    tokens = read(
        {
            "access_token": "a",
            "refresh_token": "r",
            "expires_in": 28800,
            "token_type": "Bearer",
            "scope": "user:profile",
            "organization": {"uuid": "o-1", "name": "Orbits"},
            "account": {"uuid": "h-1", "email_address": "d@example.org"},
        }
    )

    assert (tokens.access_token, tokens.refresh_token) == (Secret("a"), Secret("r"))
    assert tokens.expires_at == NOW + 8 * HOUR
    assert tokens.identity == Identity("o-1", "Orbits", "h-1", "d@example.org")


@pytest.mark.parametrize("refresh_token", [None, "", 7, ["r"]])
def test_an_answer_may_lack_a_refresh_token(refresh_token):
    fields = {"access_token": "a", "refresh_token": refresh_token}

    assert read(fields).refresh_token is None


@pytest.mark.parametrize(
    ("expires_in", "life"),
    [
        (60, timedelta(minutes=1)),
        (0.5, timedelta(seconds=0.5)),
        (31536000, timedelta(days=365)),
        *[(None, HOUR), (0, HOUR), (-5, HOUR), ("3600", HOUR), ([], HOUR)],
        *[(1e12, HOUR), (float("nan"), HOUR)],
    ],
)
def test_the_life_of_a_token_is_as_said_or_an_hour(expires_in, life):
    fields = {"access_token": "a", "expires_in": expires_in}

    assert read(fields).expires_at == NOW + life


@pytest.mark.parametrize(
    "fields", [{}, {"organization": None, "account": []}, {"account": {"uuid": 7}}]
)
def test_an_answer_need_not_say_whose_it_is(fields):
    assert read({"access_token": "a", **fields}).identity == Identity()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"access_token": "a',
        b"null",
        b"[]",
        b"\xff",
        b"{}",
        b'{"access_token": ""}',
        b'{"access_token": 7}',
        b"[" * 100_000,
    ],
)
def test_an_answer_without_a_token_leaves_open_what_was_done(body):
    with pytest.raises(NoTokenReplyError, match="holds no access token") as caught:
        read(body)

    assert caught.value.was_processed is None


@pytest.mark.parametrize(
    ("status", "fields", "words"),
    [
        (400, {"error": "invalid_grant"}, "400 invalid_grant"),
        (401, {"error": "invalid_grant"}, "401 invalid_grant"),
        (
            400,
            {"error": "invalid_grant", "error_description": "it was used"},
            "400 invalid_grant: it was used",
        ),
        (
            403,
            {
                "error": {
                    "type": "permission_error",
                    "message": "on hold",
                    "details": {"error_code": "organization_on_hold"},
                }
            },
            "403 organization_on_hold: on hold",
        ),
    ],
)
def test_a_grant_that_is_no_good_is_told_from_trouble(status, fields, words):
    with pytest.raises(TokenRefusedError) as caught:
        read(fields, status)

    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("status", "fields", "words"),
    [
        (400, {"error": "invalid_client"}, "400 invalid_client"),
        (400, {"error": "unauthorized_client"}, "400 unauthorized_client"),
        (400, {"error": "invalid_scope"}, "400 invalid_scope"),
        (401, {}, "401 without an error code"),
        (403, b"<h1>Blocked</h1>", "403 without an error code"),
        (429, {"error": {"type": "rate_limit_error", "message": "m"}}, "429 rate_"),
        (500, {"error": "invalid_grant"}, "500 invalid_grant"),
        (503, {"error": 7}, "503 without an error code"),
        (302, b"", "302 without an error code"),
        (529, {"error": {"type": "overloaded_error"}}, "529 overloaded_error"),
    ],
)
def test_what_says_nothing_about_the_grant_is_trouble(status, fields, words):
    with pytest.raises(NoTokenReplyError, match=words) as caught:
        read(fields, status)

    assert caught.value.was_processed is False


@pytest.mark.parametrize("status", [502, 504, 520, 524])
def test_trouble_behind_a_proxy_leaves_open_what_was_done(status):
    with pytest.raises(NoTokenReplyError) as caught:
        read({}, status)

    assert caught.value.was_processed is None


@pytest.mark.parametrize("code", ["invalid_grant", "invalid_request"])
@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("no such token: r-secret", "no such token: [secret]"),
        ("r-secret, r-secret", "[secret], [secret]"),
        ("x" * 195 + "r-secret", "x" * 195 + "[secr"),
        ("sk-ant-ort01-of_another is odd", "[secret] is odd"),
        ("the risk-averse say no", "the risk-averse say no"),
    ],
)
def test_what_a_provider_says_is_told_without_secrets(code, said, told):
    with pytest.raises((TokenRefusedError, NoTokenReplyError)) as caught:
        read({"error": code, "error_description": said}, 400, sent=["r-secret"])

    assert str(caught.value).endswith(f": {told}")


def test_a_profile_is_read():
    body = json.dumps(
        {
            "account": {"uuid": "h-1", "email": "d@example.org"},
            "organization": {"uuid": "o-1", "name": "Orbits"},
        }
    )

    assert oauth.parse_profile(body.encode()) == Identity(
        "o-1", "Orbits", "h-1", "d@example.org"
    )


@pytest.mark.parametrize("scope", ["user:inference", "user:profile user:inference"])
def test_whose_a_token_is_is_asked_where_that_is_allowed(claude, scope):
    token = claude.sandbox.oauth.issue("dorothy", scope=scope).access_token
    identity = oauth.get_profile(Secret(token))
    holder = claude.sandbox.oauth.people["dorothy"].holder_id

    assert identity.holder == (holder if "profile" in scope else "")


def test_a_provider_that_cannot_be_asked_says_nothing_about_the_holder():
    assert oauth.get_profile(Secret("a")) == Identity()


# --- errors of the network

NOTHING_SENT = {
    *(httpx.ConnectError, httpx.ConnectTimeout),
    *(httpx.UnsupportedProtocol, httpx.InvalidURL),
}


def subclasses(cls: type[Exception]) -> set[type[Exception]]:
    return {cls}.union(*(subclasses(sub) for sub in cls.__subclasses__()))


@pytest.mark.parametrize(
    "cls",
    sorted(
        {*subclasses(httpx.HTTPError), httpx.InvalidURL} - {httpx.HTTPStatusError},
        key=repr,
    ),
    ids=lambda cls: cls.__name__,
)
def test_every_error_of_the_network_is_trouble_and_not_quoted(monkeypatch, cls):
    def fail(*_, **__):
        raise cls("r-secret in the text")

    monkeypatch.setattr(httpx.Client, "stream", fail)
    with pytest.raises(NoTokenReplyError) as caught:
        oauth.post_token({"refresh_token": "r-secret"}, now=NOW)

    assert caught.value.was_processed is (False if cls in NOTHING_SENT else None)
    assert str(caught.value) == f"the provider could not be asked ({cls.__name__})"


@pytest.mark.parametrize("url", ["", "provider.test/token", "http://[", "ftp://x/"])
def test_an_address_that_is_none_is_trouble_too(settings, url):
    settings.OAUTH_TOKEN_URL = url
    with pytest.raises(NoTokenReplyError) as caught:
        oauth.post_token({"refresh_token": "r-secret"}, now=NOW)

    assert caught.value.was_processed is False


def test_a_redirect_is_not_followed_with_a_token(claude, settings):
    sandbox = provider.configure(settings, claude)
    pair = sandbox.oauth.issue("dorothy")
    provider.script(
        sandbox, {"status": 307, "headers": {"location": "/elsewhere"}, "body": ""}
    )
    with pytest.raises(NoTokenReplyError, match="307"):
        oauth.post_token(oauth.refresh_request(Secret(pair.refresh_token)), now=NOW)

    assert len(sandbox.log.after()) == 1
