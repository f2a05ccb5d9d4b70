import re

import pytest

from accounts import pkce

# RFC 7636, appendix B.
OCTETS = bytes.fromhex(
    "7418dfb49799e0254ffa607dd8adbbba16d4254d69d6bff05b58055853848d79"
)
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_the_verifier_is_that_of_the_standard():
    assert pkce.make_verifier(lambda length: OCTETS[:length]) == VERIFIER


def test_the_challenge_is_that_of_the_standard():
    assert pkce.challenge(VERIFIER) == CHALLENGE


@pytest.mark.parametrize("make", [pkce.make_verifier, pkce.make_state])
def test_what_is_made_cannot_be_guessed_and_needs_no_escaping(make):
    texts = {make() for _ in range(100)}

    assert len(texts) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", text) for text in texts)
