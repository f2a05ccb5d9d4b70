"""What a scope may say."""

import pytest

from claudeproxy.sandbox.errors import GrantError
from claudeproxy.sandbox.oauth import scopes

GRANTED = ("org:create_api_key", "user:profile", "user:inference")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("user:profile", "user:inference")),
        ("  ", ("user:profile", "user:inference")),
        ("user:inference", ("user:inference",)),
        ("user:inference user:inference", ("user:inference",)),
        ("org:create_api_key  user:profile", ("org:create_api_key", "user:profile")),
    ],
)
def test_a_scope_is_read(text: str, expected: tuple[str, ...]) -> None:
    assert scopes.read(text) == expected


@pytest.mark.parametrize("text", ["nonsense", "user:profile,user:inference", "USER:X"])
def test_an_unknown_scope_is_refused(text: str) -> None:
    with pytest.raises(GrantError, match="scope: unknown") as caught:
        scopes.read(text)
    assert caught.value.code == "invalid_scope"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, GRANTED),
        ("", GRANTED),
        ("user:inference", ("user:inference",)),
        ("user:inference user:profile", ("user:inference", "user:profile")),
    ],
)
def test_a_refresh_may_ask_for_less(
    text: str | None, expected: tuple[str, ...]
) -> None:
    assert scopes.narrow(text, GRANTED) == expected


@pytest.mark.parametrize("text", ["user:mcp_servers", "org:create_api_key", "x"])
def test_a_refresh_may_not_ask_for_more(text: str) -> None:
    with pytest.raises(GrantError) as caught:
        scopes.narrow(text, GRANTED)
    assert caught.value.code == "invalid_scope"
