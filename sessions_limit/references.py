"""Pure: how a session is named in an address, such as `global.0f3c…` or `key-7.0f3c…`.

Its scope and its digest, so the name stays the same for as long as the client does.
"""

import re

from sessions_limit.keys import SessionId

_REFERENCE = re.compile(r"(global|key-[1-9][0-9]{0,18})\.([0-9a-f]{32})")


def write(session: SessionId) -> str:
    """Name a session."""
    return f"{session.scope.replace(':', '-')}.{session.digest}"


def read(text: str) -> SessionId | None:
    """Return the session of that name; None if no session can be called so."""
    found = _REFERENCE.fullmatch(text)
    return SessionId(found[1].replace("-", ":"), found[2]) if found else None
