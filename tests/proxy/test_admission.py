from datetime import timedelta

import pytest

from clients import keys
from clients.directory import KnownKey
from proxy import admission
from tests.factories import NOW

SECOND = timedelta(seconds=1)
GOOD, OTHER, REVOKED, EXPIRED, UNKNOWN = (keys.generate() for _ in range(5))
TYPO = GOOD[:10] + ("A" if GOOD[10] != "A" else "B") + GOOD[11:]


def known(id, name, *, expires_at=None, is_revoked=False):
    return KnownKey(id, name, "user", expires_at, is_revoked)


DIRECTORY = {
    keys.digest(GOOD): known(1, "good", expires_at=NOW + SECOND),
    keys.digest(OTHER): known(2, "other"),
    keys.digest(REVOKED): known(3, "revoked", is_revoked=True),
    keys.digest(EXPIRED): known(4, "expired", expires_at=NOW),
}


def bearer(text, scheme="Bearer"):
    return (b"authorization", f"{scheme} {text}".encode("latin-1"))


def x_api_key(text):
    return (b"x-api-key", text.encode("latin-1"))


@pytest.mark.parametrize(
    ("received", "texts"),
    [
        ([], []),
        ([bearer("a")], ["a"]),
        ([x_api_key("a")], ["a"]),
        ([bearer("a"), x_api_key("b")], ["a", "b"]),
        ([x_api_key("b"), bearer("a")], ["a", "b"]),
        ([x_api_key("b"), bearer("a"), x_api_key("c"), bearer("d")], list("adbc")),
        ([bearer("a", "bearer")], ["a"]),
        ([bearer("a", "BEARER")], ["a"]),
        ([bearer("  a  ")], ["a"]),
        ([x_api_key(" a ")], ["a"]),
        ([bearer("a", "Basic")], []),
        ([(b"authorization", b"Bearer")], []),
        ([(b"authorization", b"Bearer ")], []),
        ([(b"authorization", b"a")], []),
        ([(b"authorization", b"")], []),
        ([x_api_key("")], []),
        ([x_api_key("   ")], []),
        ([x_api_key("\xff")], ["\xff"]),
        ([(b"proxy-authorization", b"Bearer a"), (b"cookie", b"x-api-key=a")], []),
    ],
)
def test_candidates_are_tried_bearer_first(received, texts):
    assert admission.candidates(received) == texts


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        ([GOOD], "good"),
        ([GOOD, OTHER], "good"),
        ([OTHER, GOOD], "other"),
        ([UNKNOWN, GOOD], "good"),
        ([REVOKED, OTHER], "other"),
        ([EXPIRED, OTHER], "other"),
        ([TYPO, "sk-ant-x", OTHER], "other"),
        ([], None),
        ([UNKNOWN], None),
        ([REVOKED], None),
        ([EXPIRED], None),
        ([TYPO], None),
        (["\xff\u20ac"], None),
        ([GOOD.lower()], None),
    ],
)
def test_the_first_valid_key_wins(texts, name):
    key = admission.find(texts, DIRECTORY, NOW)

    assert (key and key.name) == name


def test_a_key_ends_at_its_time():
    assert admission.find([GOOD], DIRECTORY, NOW) is not None
    assert admission.find([GOOD], DIRECTORY, NOW + SECOND) is None


@pytest.mark.parametrize(
    ("texts", "answer"),
    [
        ([UNKNOWN], True),
        ([GOOD, UNKNOWN], True),
        ([REVOKED], False),
        ([GOOD], False),
        ([TYPO], False),
        (["sk-ant-x"], False),
        ([], False),
    ],
)
def test_only_an_intact_key_that_is_not_known_may_be_new(texts, answer):
    assert admission.may_be_new(texts, DIRECTORY) is answer


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([], "No key was sent"),
        ([UNKNOWN], "does not know this key"),
        ([REVOKED], "has been revoked"),
        ([EXPIRED], "has expired"),
        ([TYPO], "has a typo"),
        ([GOOD[:-1]], "has a typo"),
        (["sk-ant-api03-x"], "keys begin with cp_"),
        # The candidate that came closest is spoken of.
        (["sk-ant-x", TYPO, UNKNOWN, EXPIRED], "has expired"),
        (["sk-ant-x", TYPO, UNKNOWN], "does not know"),
        (["sk-ant-x", TYPO], "has a typo"),
    ],
)
def test_a_refusal_says_why(texts, words):
    error = admission.refusal(texts, DIRECTORY, NOW)

    assert words in str(error)
    assert (error.http_status, error.error_type) == (401, "authentication_error")
    assert error.should_retry is False


@pytest.mark.parametrize("text", [UNKNOWN, REVOKED, EXPIRED, TYPO, "sk-ant-secret"])
def test_a_refusal_does_not_repeat_the_key(text):
    assert text not in str(admission.refusal([text], DIRECTORY, NOW))
