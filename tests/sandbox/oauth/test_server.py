"""The authorization server as Python code uses it, and what always holds for it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from claudeproxy.sandbox.errors import ControlError, GrantError
from claudeproxy.sandbox.oauth import grants
from claudeproxy.sandbox.oauth.requests import TokenRequest
from claudeproxy.sandbox.oauth.server import AuthorizationServer
from claudeproxy.sandbox.state import Sandbox


def refresh(server: AuthorizationServer, refresh_token: str) -> str | None:
    """The new refresh token, None if the old one is refused."""
    asked = TokenRequest(
        grant_type="refresh_token",
        client_id=server.client_id,
        refresh_token=refresh_token,
    )
    try:
        return server.grant(asked).refresh_token
    except GrantError:
        return None


def is_good(server: AuthorizationServer, access_token: str) -> bool:
    found = server.find_token(access_token)
    return found is not None and found.refusal is None


# The challenge to a verifier that the standard gives as its example.
def test_a_challenge_is_made_as_the_standard_says() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    expected = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert grants.challenge_for(verifier) == expected


def test_issued_tokens_are_good() -> None:
    sandbox = Sandbox()
    pair = sandbox.oauth.issue("dorothy")
    assert is_good(sandbox.oauth, pair.access_token)
    assert refresh(sandbox.oauth, pair.refresh_token)
    assert pair.person == "dorothy"
    assert pair.scope == "user:profile user:inference"
    assert pair.expires_at <= sandbox.clock.now() + timedelta(hours=8)


def test_own_tokens_can_be_issued() -> None:
    oauth = Sandbox().oauth
    pair = oauth.issue("dorothy", access_token="own-a", refresh_token="own-r")
    assert (pair.access_token, pair.refresh_token) == ("own-a", "own-r")
    assert is_good(oauth, "own-a")
    assert refresh(oauth, "own-r")


@pytest.mark.parametrize(
    ("person", "scope", "reason"),
    [
        ("nobody", "", "person: nobody here is called nobody"),
        ("dorothy", "nonsense", "scope: unknown"),
    ],
)
def test_nothing_is_issued_for_unknown_names(
    person: str, scope: str, reason: str
) -> None:
    with pytest.raises(ControlError, match=reason):
        Sandbox().oauth.issue(person, scope=scope)


def test_expiring_spares_refresh_tokens_and_other_people() -> None:
    oauth = Sandbox().oauth
    pair, other = oauth.issue("dorothy"), oauth.issue("katherine")
    oauth.expire_access_tokens("dorothy")
    assert not is_good(oauth, pair.access_token)
    assert is_good(oauth, other.access_token)
    assert refresh(oauth, pair.refresh_token)


def test_revoking_ends_all_of_a_person_and_nothing_of_others() -> None:
    oauth = Sandbox().oauth
    pairs = [oauth.issue("hedy-work"), oauth.issue("hedy-work")]
    other = oauth.issue("hedy-home")
    oauth.revoke("hedy-work")
    for pair in pairs:
        assert not is_good(oauth, pair.access_token)
        assert not oauth.is_family_alive(pair.refresh_token)
        assert refresh(oauth, pair.refresh_token) is None
    assert is_good(oauth, other.access_token)
    assert is_good(oauth, oauth.issue("hedy-work").access_token)


def test_an_unknown_token_has_no_living_family() -> None:
    assert not Sandbox().oauth.is_family_alive("unknown")


def test_a_reset_forgets_tokens_and_own_settings() -> None:
    sandbox = Sandbox(client_id="first")
    pair = sandbox.oauth.issue("dorothy")
    sandbox.oauth.client_id = "second"
    sandbox.oauth.access_token_lifetime = timedelta(seconds=1)
    sandbox.reset()
    assert sandbox.oauth.client_id == "first"
    assert sandbox.oauth.access_token_lifetime == timedelta(hours=8)
    assert sandbox.oauth.find_token(pair.access_token) is None
    assert sandbox.oauth.presentations() == {}


def test_of_refreshes_in_many_threads_one_is_honoured() -> None:
    oauth = Sandbox().oauth
    token = oauth.issue("dorothy").refresh_token
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: refresh(oauth, token), range(64)))
    assert sum(new is not None for new in found) == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=12))
def test_only_the_newest_refresh_token_works_and_any_other_ends_them_all(
    choices: list[int],
) -> None:
    oauth = Sandbox().oauth
    tokens = [oauth.issue("dorothy").refresh_token]
    is_alive = True
    for choice in choices:
        token = tokens[choice % len(tokens)]
        should_work = is_alive and token == tokens[-1]
        new = refresh(oauth, token)
        assert (new is not None) == should_work
        is_alive = should_work
        if new is not None:
            tokens.append(new)
        assert oauth.is_family_alive(tokens[0]) == is_alive
