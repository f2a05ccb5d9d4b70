"""The scopes that the sandbox knows."""

from typing import Final

from claudeproxy.sandbox.errors import GrantError

PROFILE: Final = "user:profile"
INFERENCE: Final = "user:inference"
# May be granted by a person, but not asked for with a refresh token.
CREATE_KEY: Final = "org:create_api_key"
KNOWN: Final = (
    CREATE_KEY,
    PROFILE,
    INFERENCE,
    "user:sessions:claude_code",
    "user:mcp_servers",
    "user:file_upload",
)
DEFAULT: Final = (PROFILE, INFERENCE)


def read(text: str) -> tuple[str, ...]:
    """Split a scope into its parts, each once; the default one if there are none.

    Errors: GrantError invalid_scope for a part that nobody knows.
    """
    parts = tuple(dict.fromkeys(text.split()))
    for part in parts:
        if part not in KNOWN:
            raise GrantError("invalid_scope", f"scope: unknown {part!r}")
    return parts or DEFAULT


def narrow(text: str | None, granted: tuple[str, ...]) -> tuple[str, ...]:
    """Read the scope of a refresh, which may only ask for less.

    Errors: GrantError invalid_scope for a part that was not granted.
    """
    if not text or not text.split():
        return granted
    asked = read(text)
    for part in asked:
        if part == CREATE_KEY or part not in granted:
            raise GrantError("invalid_scope", f"scope: {part} cannot be refreshed")
    return asked
