"""How sessions are named in addresses."""

import pytest

from sessions_limit import references
from sessions_limit.keys import SessionId

DIGEST = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("session", "text"),
    [
        (SessionId("global", DIGEST), f"global.{DIGEST}"),
        (SessionId("key:7", DIGEST), f"key-7.{DIGEST}"),
        (SessionId(f"key:{2**63 - 1}", DIGEST), f"key-9223372036854775807.{DIGEST}"),
    ],
)
def test_a_session_is_found_again_by_its_name(session: SessionId, text: str) -> None:
    assert references.write(session) == text
    assert references.read(text) == session


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        DIGEST,
        f"global.{DIGEST}\n",
        f"global.{DIGEST}0",
        f"global.{DIGEST[1:]}",
        f"global.{DIGEST.upper()}",
        f"global:{DIGEST}",
        f"key:7.{DIGEST}",
        f"key-.{DIGEST}",
        f"key-0.{DIGEST}",
        f"key-07.{DIGEST}",
        f"key-٣.{DIGEST}",
        f"key-{'9' * 5000}.{DIGEST}",
        f"other.{DIGEST}",
        f"global.{DIGEST}\x00",
    ],
)
def test_what_can_be_no_name_is_none(text: str) -> None:
    assert references.read(text) is None
