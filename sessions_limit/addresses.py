"""Where a request comes from, as far as that can be known.

The TCP peer cannot be forged, headers can. They are read only if the peer is a proxy of
the operator's, and from the right: each proxy appends whom it got the request from, so
all that such proxies wrote is at the end, and the first address from there that is none
of theirs is the client. What stands further left is the client's own claim.

`X-Forwarded-For` is what nearly every proxy writes. `Forwarded` (RFC 7239) is read only
where the other is missing: a proxy that writes one may pass on a forged other.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

_MAPPED = IPv6Network("::ffff:0:0/96")
# An address in brackets with a port and an IPv6 zone is shorter.
_LONGEST_HOP = 100


@lru_cache(maxsize=16)
def parse_networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Read addresses and CIDRs; ValueError names the first that is neither."""
    return tuple(_parse_network(text) for text in texts)


def _parse_network(text: str) -> Network:
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        address = network.network_address.ipv4_mapped
        return IPv4Network(f"{address}/{network.prefixlen - _MAPPED.prefixlen}")
    return network


def client_address(
    peer: str | None, headers: Headers, trusted: Sequence[Network]
) -> Address | None:
    """Return the address of the client; None if not even the peer has one.

    Source: RFC 7239 sections 4 and 6; `X-Forwarded-For` as nginx and others write it.
    """
    nearest = _parse_address(peer) if peer else None
    if nearest is None or not _is_trusted(nearest, trusted):
        return nearest
    for hop in reversed(_hops(headers)):
        address = _parse_address(hop)
        if address is None:
            break  # a proxy does not say from whom; whatever is left of it is a claim
        nearest = address
        if not _is_trusted(address, trusted):
            break
    return nearest


def counted_as(address: Address, ipv6_prefix: int) -> str:
    """Say as what an address counts: an IPv4 address alone, an IPv6 one by its network.

    A single machine may use any address of its network, and changes it by itself.
    """
    if isinstance(address, IPv4Address) or ipv6_prefix == address.max_prefixlen:
        return str(address)
    return str(IPv6Network((address, ipv6_prefix), strict=False))


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _hops(headers: Headers) -> list[str]:
    """The hops that were reported, the nearest last."""
    listed: dict[bytes, list[str]] = {b"x-forwarded-for": [], b"forwarded": []}
    for name, value in headers:
        if name in listed:
            listed[name] += value.decode("latin-1").split(",")
    plain, elements = (
        [text for raw in texts if (text := raw.strip())] for texts in listed.values()
    )
    return plain or [_for_of(element) for element in elements]


def _for_of(element: str) -> str:
    """The `for` of one element of `Forwarded`; empty if it has none or several.

    Elements are told apart by commas alone: no address holds one, and a quote that the
    client left open must not swallow what a proxy appended.
    """
    found = [
        value.strip().strip('"')
        for name, _, value in (pair.partition("=") for pair in element.split(";"))
        if name.strip().lower() == "for"
    ]
    return found[0] if len(found) == 1 else ""


def _parse_address(text: str) -> Address | None:
    """Read an address with or without port, brackets and zone; None if it is none."""
    return None if len(text) > _LONGEST_HOP else _parse_short(text)


# Peers and proxies come again and again.
@lru_cache(maxsize=4096)
def _parse_short(text: str) -> Address | None:
    host, port = _split_port(text.strip())
    if port and not (port.isascii() and port.isdigit()):
        return None
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def _split_port(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        is_sound = bracket and ":" in host and (not rest or rest.startswith(":"))
        return (host, rest[1:]) if is_sound else ("", "")
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, ""
