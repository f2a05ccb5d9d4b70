import pytest

from proxy.affinity import Affinity


@pytest.mark.parametrize("key", [(1, b"a"), (2, b"b")])
def test_a_conversation_that_was_never_served_has_no_account(key):
    assert Affinity().find(key) is None


def test_a_conversation_is_remembered():
    affinity = Affinity()
    affinity.bind((1, b"a"), 7)

    assert affinity.find((1, b"a")) == 7


def test_a_conversation_moves_to_the_account_that_served_it_last():
    affinity = Affinity()
    affinity.bind((1, b"a"), 7)
    affinity.bind((1, b"a"), 8)

    assert affinity.find((1, b"a")) == 8


def test_two_callers_never_meet_in_one_conversation():
    affinity = Affinity()
    affinity.bind((1, b"a"), 7)

    assert affinity.find((2, b"a")) is None


def test_the_least_recently_used_conversation_goes_first():
    affinity = Affinity(capacity=2)
    affinity.bind((1, b"old"), 1)
    affinity.bind((1, b"used"), 2)
    affinity.find((1, b"old"))
    affinity.bind((1, b"new"), 3)

    assert affinity.find((1, b"used")) is None
    assert affinity.find((1, b"old")) == 1
    assert affinity.find((1, b"new")) == 3


def test_binding_again_takes_no_second_place():
    affinity = Affinity(capacity=2)
    for _ in range(5):
        affinity.bind((1, b"a"), 1)
    affinity.bind((1, b"b"), 2)

    assert affinity.find((1, b"a")) == 1
