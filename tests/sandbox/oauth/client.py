"""The client's part of a sign-in, as tests play it."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from claudeproxy.sandbox.oauth import grants

CLIENT_ID = "sandbox-client"
REDIRECT_URI = "http://127.0.0.1:8000/accounts/callback"
VERIFIER = "a-verifier-that-is-long-enough-to-be-accepted-here"
STATE = "state-of-the-test"
PATH = "/oauth/authorize"
TOKEN_PATH = "/v1/oauth/token"


def query(**fields: str | None) -> dict[str, str]:
    """The parameters of a good request for authorization; None leaves one out."""
    parameters = {
        "client_id": CLIENT_ID,
        "response_type": "code",
        "redirect_uri": REDIRECT_URI,
        "scope": "user:profile user:inference",
        "code_challenge": grants.challenge_for(VERIFIER),
        "code_challenge_method": "S256",
        "state": STATE,
    } | fields
    return {name: value for name, value in parameters.items() if value is not None}


def decide(
    http: httpx.Client, decision: str = "dorothy", **fields: str
) -> httpx.Response:
    """Press one of the buttons of the page."""
    button = {"deny": "1"} if decision == "deny" else {"allow": decision}
    return http.post(PATH, data=query(**fields) | button)


def returned(answer: httpx.Response) -> dict[str, str]:
    """What a redirect brings back to the client."""
    assert answer.status_code == 302
    found = parse_qs(urlsplit(answer.headers["location"]).query)
    return {name: values[0] for name, values in found.items()}


def code_for(http: httpx.Client, person: str = "dorothy", **fields: str) -> str:
    """A code for somebody who has agreed."""
    return returned(decide(http, person, **fields))["code"]


def exchange_body(code: str, **fields: str | None) -> dict[str, str]:
    """A good exchange of a code; None leaves a parameter out."""
    body = {
        "grant_type": "authorization_code",
        "client_id": CLIENT_ID,
        "code": code,
        "redirect_uri": REDIRECT_URI,
        "code_verifier": VERIFIER,
        "state": STATE,
    } | fields
    return {name: value for name, value in body.items() if value is not None}


def refresh_body(refresh_token: str, **fields: str) -> dict[str, str]:
    """A good refresh."""
    return {
        "grant_type": "refresh_token",
        "client_id": CLIENT_ID,
        "refresh_token": refresh_token,
    } | fields


def refresh(http: httpx.Client, refresh_token: str, **fields: str) -> httpx.Response:
    """Refresh over the wire."""
    return http.post(TOKEN_PATH, json=refresh_body(refresh_token, **fields))


def refused(answer: httpx.Response) -> str:
    """The name under which the token endpoint refuses."""
    body: dict[str, Any] = answer.json()
    assert set(body) == {"error", "error_description"}
    assert answer.status_code == 400
    name: str = body["error"]
    return name


def bearer(
    access_token: str, *, beta: str | None = "oauth-2025-04-20"
) -> httpx.Headers:
    """The headers of a request with an access token."""
    headers = {
        "authorization": f"Bearer {access_token}",
        "anthropic-version": "2023-06-01",
    }
    return httpx.Headers(headers | ({"anthropic-beta": beta} if beta else {}))
