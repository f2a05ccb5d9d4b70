import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts import foreign


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Try again.", "Try again."),
        ("a\x00b\nc\ud800d\x7f", "abcd"),
        ("naïve 你好", "naïve 你好"),
        ("x" * 300, "x" * 200),
        (None, ""),
        (7, ""),
        (["x"], ""),
    ],
)
def test_what_is_kept_of_a_text(text, kept):
    assert foreign.clean(text) == kept


@given(st.text(alphabet=st.characters(codec=None)))
def test_what_is_kept_can_be_stored_and_shown(text):
    kept = foreign.clean(text)

    kept.encode()
    assert kept == "" or kept.isprintable()


def test_secrets_are_left_out_of_what_is_quoted():
    said = "invalid x-api-key: sk-ant-0123456789, not our own s3cret"

    quoted = foreign.quote(said, sent=["s3cret"])

    assert quoted == "invalid x-api-key: [secret], not our own [secret]"


@pytest.mark.parametrize(
    ("text", "is_word"),
    [
        ("sk-ant-1", True),
        ("", False),
        ("two words", False),
        ("x\ny", False),
        ("é", False),
        (None, False),
        (7, False),
    ],
)
def test_what_could_be_a_credential(text, is_word):
    assert foreign.is_word(text) is is_word
