import ipaddress
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_limit import keys
from sessions_limit.keys import PARTS, Client, Scope

IP = ipaddress.ip_address("192.0.2.1")
SUBSETS = [c for n in range(1, 4) for c in combinations(PARTS, n)]


def identify(**fields: Any) -> Client:
    asked: dict[str, Any] = {
        "address": IP,
        "user_agent": b"claude-cli/2.1",
        "key_id": 7,
        "key_name": "ana",
        "parts": ("ip", "user_agent"),
        "ipv6_prefix": 64,
        **fields,
    }
    return keys.identify(asked.pop("address"), asked.pop("user_agent"), **asked)


OTHERS: dict[str, dict[str, Any]] = {
    "ip": {"address": ipaddress.ip_address("192.0.2.2")},
    "user_agent": {"user_agent": b"claude-cli/2.2"},
    "key": {"key_id": 8},
}


@pytest.mark.parametrize("parts", SUBSETS)
@pytest.mark.parametrize("changed", PARTS)
def test_a_session_is_made_by_its_parts_and_nothing_else(parts, changed):
    is_same = (
        identify(parts=parts).digest == identify(parts=parts, **OTHERS[changed]).digest
    )

    assert is_same is (changed not in parts)


def test_every_choice_of_parts_makes_other_sessions():
    digests = {identify(parts=parts).digest for parts in SUBSETS}

    assert len(digests) == len(SUBSETS)


@pytest.mark.parametrize("parts", SUBSETS)
def test_the_order_of_the_parts_says_nothing(parts):
    assert identify(parts=parts).digest == identify(parts=parts[::-1]).digest


def test_addresses_of_one_network_are_one_client():
    one, two, other = (
        identify(address=ipaddress.ip_address(text)).digest
        for text in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")
    )

    assert one == two != other


def test_a_client_without_address_is_one_too():
    assert identify(address=None).ip == ""


@given(st.binary(max_size=400), st.binary(max_size=400))
def test_other_user_agents_are_other_sessions(one, two):
    is_same = identify(user_agent=one).digest == identify(user_agent=two).digest

    assert is_same is (one == two)


@given(st.binary(max_size=2000))
def test_what_people_read_is_short_and_printable(user_agent):
    client = identify(user_agent=user_agent)

    assert len(client.user_agent) <= 200
    assert client.user_agent.isprintable()
    assert len(client.digest) == 32


def test_the_parts_stay_readable():
    client = identify()

    assert (client.ip, client.user_agent) == ("192.0.2.1", "claude-cli/2.1")
    assert (client.key_id, client.key_name) == (7, "ana")


def test_a_key_with_a_limit_of_its_own_is_a_scope_of_its_own():
    assert keys.scope_of(7, None, shared_limit=3) == Scope("global", 3)
    assert keys.scope_of(7, 5, shared_limit=3) == Scope("key:7", 5)
    assert keys.scope_of(8, 5, shared_limit=3) != keys.scope_of(7, 5, shared_limit=3)
