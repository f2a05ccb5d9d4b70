import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients import keys

KEY = keys.generate()


def test_a_key_is_one_word_of_letters_and_digits():
    assert KEY.startswith("cp_")
    assert len(KEY) == 3 + 43 + 6
    assert KEY[3:].isalnum()
    assert KEY.isascii()


def test_keys_do_not_repeat():
    assert len({keys.generate() for _ in range(1000)}) == 1000


def test_every_place_of_a_key_is_chosen_among_62_characters():
    asked = []

    def choose(alphabet):
        asked.append(len(set(alphabet)))
        return "A"

    keys.generate(choose)

    assert asked == [62] * 43


@given(choice=st.randoms())
def test_every_key_the_gateway_makes_is_intact(choice):
    assert keys.is_intact(keys.generate(choice.choice))


@pytest.mark.parametrize("place", range(3, 52))
def test_a_typo_anywhere_is_seen(place):
    wrong = "0" if KEY[place] != "0" else "1"

    assert not keys.is_intact(KEY[:place] + wrong + KEY[place + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        *("", "cp_", KEY[:-1], KEY + "0", " " + KEY, KEY + "\n", KEY.upper()),
        *(KEY[3:], "sk-ant-" + KEY[3:], KEY.replace("cp_", "cp-"), "cp_" + "é" * 49),
    ],
)
def test_anything_else_is_not_intact(text):
    assert not keys.is_intact(text)


def test_two_neighbours_that_changed_places_are_seen():
    place = next(i for i in range(3, 40) if KEY[i] != KEY[i + 1])
    swapped = KEY[:place] + KEY[place + 1] + KEY[place] + KEY[place + 2 :]

    assert not keys.is_intact(swapped)


def test_the_digest_is_sha_256():
    assert keys.digest(KEY) == hashlib.sha256(KEY.encode()).digest()


@given(raw=st.binary())
def test_no_header_makes_the_digest_fail(raw):
    assert len(keys.digest(raw.decode("latin-1"))) == 32
