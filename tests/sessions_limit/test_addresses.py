import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions_limit import addresses

PROXIES = addresses.parse_networks(("10.0.0.0/8", "127.0.0.1", "fd00::/8"))
PROXY = "10.0.0.1"
CLIENT = "192.0.2.7"


def find(peer: str | None, *headers: tuple[str, str]) -> str | None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    address = addresses.client_address(peer, raw, PROXIES)
    return None if address is None else str(address)


def xff(value: str) -> tuple[str, str]:
    return "x-forwarded-for", value


def forwarded(value: str) -> tuple[str, str]:
    return "forwarded", value


# --- the peer


@pytest.mark.parametrize(
    ("peer", "found"),
    [
        (CLIENT, CLIENT),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:192.0.2.7", CLIENT),
        ("fe80::1%eth0", "fe80::1"),
        (PROXY, PROXY),
        (None, None),
        ("", None),
        ("testclient", None),
    ],
)
def test_without_headers_the_client_is_the_peer(peer, found):
    assert find(peer) == found


@pytest.mark.parametrize("header", [xff(CLIENT), forwarded(f"for={CLIENT}")])
@pytest.mark.parametrize("peer", ["203.0.113.9", "2001:db8::9", None, "testclient"])
def test_a_peer_that_is_no_proxy_is_not_believed(peer, header):
    assert find(peer, header) == find(peer)


# --- X-Forwarded-For


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (CLIENT, CLIENT),
        (f" {CLIENT} ", CLIENT),
        (f"{CLIENT}:51234", CLIENT),
        (f"198.51.100.1, {CLIENT}", CLIENT),
        (f"{CLIENT}, 10.0.0.2, 10.0.0.3", CLIENT),
        (f"198.51.100.1,{CLIENT},10.0.0.2", CLIENT),
        (f",, {CLIENT},,", CLIENT),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1%7", "2001:db8::1"),
        (f"::ffff:{CLIENT}", CLIENT),
        (f"[::ffff:{CLIENT}]:80", CLIENT),
        (f"{CLIENT}, fd00::5", CLIENT),
        (f"{CLIENT}, ::ffff:10.0.0.2", CLIENT),
        ("10.0.0.9, 10.0.0.2", "10.0.0.9"),  # the client is in our own network
        ("", PROXY),
        (",", PROXY),
    ],
)
def test_the_client_is_the_first_hop_from_the_right_that_is_no_proxy(value, found):
    assert find(PROXY, xff(value)) == found
    assert find("::ffff:10.0.0.1", xff(value)) == found


@pytest.mark.parametrize(
    "garbage",
    [
        "unknown",
        "_hidden",
        "localhost",
        "1.2.3",
        "1.2.3.4.5",
        "01.2.3.4",
        "1.2.3.4:http",
        "[1.2.3.4]",
        "[2001:db8::1",
        "[2001:db8::1]x",
        "2001:db8::1::2",
        "\u0661.\u0662.\u0663.\u0664",
        "\x00",
        "1" * 5000,
    ],
)
def test_what_a_proxy_does_not_say_cannot_be_claimed_further_left(garbage):
    garbage = garbage.encode().decode("latin-1")

    assert find(PROXY, xff(f"{CLIENT}, {garbage}, 10.0.0.2")) == "10.0.0.2"


def test_several_lines_are_one_list_in_their_order():
    assert find(PROXY, xff("198.51.100.1"), xff(CLIENT), xff("10.0.0.2")) == CLIENT


# --- Forwarded


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (f"for={CLIENT}", CLIENT),
        (f"For={CLIENT};proto=https;by=10.0.0.1", CLIENT),
        (f'for="{CLIENT}:4711"', CLIENT),
        ('for="[2001:db8::1]:4711"', "2001:db8::1"),
        ('for="[2001:db8::1]"', "2001:db8::1"),
        (f"proto=http; for = {CLIENT} ", CLIENT),
        (f"for=198.51.100.1, for={CLIENT}, for=10.0.0.2", CLIENT),
        (f'for="198.51.100.1, for={CLIENT}', CLIENT),  # a quote that was left open
        (f"for=198.51.100.1;for=198.51.100.2, for={CLIENT}", CLIENT),
        (f"for={CLIENT}, for=unknown", PROXY),
        (f"for={CLIENT}, proto=https", PROXY),
        (f"for={CLIENT}, for=10.0.0.2;for=10.0.0.3", PROXY),
        (f"for={CLIENT}, for=_secret, for=10.0.0.2", "10.0.0.2"),
        ("", PROXY),
    ],
)
def test_forwarded_is_read_where_it_stands_alone(value, found):
    assert find(PROXY, forwarded(value)) == found


def test_a_forwarded_that_a_proxy_passed_on_does_not_count():
    assert find(PROXY, forwarded("for=198.51.100.1"), xff(CLIENT)) == CLIENT
    assert find(PROXY, xff(CLIENT), forwarded("for=198.51.100.1")) == CLIENT


# --- forgery

TEXT = st.text(st.characters(max_codepoint=255), max_size=60)
HEADERS = st.lists(st.tuples(st.sampled_from(["x-forwarded-for", "forwarded"]), TEXT))


@given(HEADERS)
def test_no_header_changes_where_a_stranger_comes_from(headers):
    assert find(CLIENT, *headers) == CLIENT


@given(st.lists(TEXT))
def test_no_forged_header_hides_a_client_behind_a_proxy(forged):
    lines = [xff(text) for text in forged]

    assert find(PROXY, *lines, xff(CLIENT)) == CLIENT
    assert find(PROXY, xff(",".join([*forged, f" {CLIENT}", "10.0.0.2"]))) == CLIENT
    assert find(PROXY, *[forwarded(text) for text in forged], xff(CLIENT)) == CLIENT


@given(st.lists(TEXT))
def test_no_forged_forwarded_hides_a_client_behind_a_proxy(forged):
    line = ", ".join([*forged, f"for={CLIENT};proto=https", 'for="10.0.0.2:80"'])

    assert find(PROXY, forwarded(line)) == CLIENT


@given(HEADERS, st.sampled_from([PROXY, "fd00::1", "127.0.0.1", "bogus", None]))
def test_nothing_in_a_header_raises(headers, peer):
    find(peer, *headers)


@given(st.ip_addresses())
def test_an_address_is_read_in_every_form(address):
    if any(address in network for network in PROXIES):
        return
    mapped = getattr(address, "ipv4_mapped", None)
    bracketed = f"[{address}]" if address.version == 6 else str(address)
    for text in (str(address), bracketed, f"{bracketed}:8080", address.exploded):
        assert find(PROXY, xff(text)) == str(mapped or address)


# --- what counts as one


@pytest.mark.parametrize(
    ("address", "prefix", "counted"),
    [
        (CLIENT, 64, CLIENT),
        ("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", 64, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:3:4:5:6", 56, "2001:db8:1::/56"),
        ("2001:db8::1", 128, "2001:db8::1"),
    ],
)
def test_an_address_of_ipv6_counts_by_its_network(address, prefix, counted):
    assert addresses.counted_as(ipaddress.ip_address(address), prefix) == counted


# --- networks


def test_networks_may_be_written_in_several_ways():
    networks = addresses.parse_networks(
        ("10.0.0.0/8", "192.0.2.1", "fd00::/8", "::ffff:192.0.2.0/120")
    )

    assert [str(network) for network in networks] == [
        "10.0.0.0/8",
        "192.0.2.1/32",
        "fd00::/8",
        "192.0.2.0/24",
    ]


@pytest.mark.parametrize("text", ["proxy", "10.0.0.1/8", "10.0.0.0/33"])
def test_what_is_no_network_is_named(text):
    with pytest.raises(ValueError, match=text):
        addresses.parse_networks((text,))
