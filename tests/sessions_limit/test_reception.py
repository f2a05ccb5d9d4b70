import pytest

from sessions_limit import reception
from sessions_limit.keys import Scope

HEADERS = [
    (b"user-agent", b"claude-cli/2.1"),
    (b"x-forwarded-for", b"198.51.100.4"),
]


def client(peer="10.0.0.1", headers=HEADERS, key_id=7):
    return reception.client_of(peer, headers, key_id=key_id, key_name="ana")


def test_a_client_is_its_address_and_its_user_agent():
    shown = client()

    assert (shown.ip, shown.user_agent) == ("10.0.0.1", "claude-cli/2.1")
    assert (shown.key_id, shown.key_name) == (7, "ana")
    assert client(key_id=8).digest == shown.digest
    assert client(peer="10.0.0.2").digest != shown.digest
    assert client(headers=HEADERS[1:]).digest != shown.digest


def test_what_trusted_proxies_say_is_believed(settings):
    settings.TRUSTED_PROXIES = ["10.0.0.0/8"]

    assert client().ip == "198.51.100.4"


def test_what_makes_a_session_can_be_chosen(settings):
    settings.SESSION_IDENTITY = ["key"]

    assert client(key_id=8).digest != client().digest
    assert client(peer="10.0.0.2").digest == client().digest


@pytest.mark.parametrize(
    ("prefix", "ip"), [(64, "2001:db8::/64"), (48, "2001:db8::/48")]
)
def test_how_much_of_an_address_counts_can_be_chosen(settings, prefix, ip):
    settings.SESSION_IPV6_PREFIX = prefix

    assert client(peer="2001:db8::1").ip == ip


def test_several_user_agents_are_one_text():
    headers = [(b"user-agent", b"a"), (b"user-agent", b"b")]

    assert client(headers=headers).user_agent == "a, b"


def test_a_key_without_a_limit_of_its_own_shares_that_of_the_gateway(settings):
    settings.SESSION_MAX_CONCURRENT = 9

    assert reception.scope_of(7, None) == Scope("global", 9)
    assert reception.scope_of(7, 2) == Scope("key:7", 2)
