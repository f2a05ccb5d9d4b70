"""What the settings make of a request: whose session it is, and under which limit."""

from claudeproxy.conf import conf
from sessions_limit import addresses, keys
from sessions_limit.addresses import Headers
from sessions_limit.keys import Client, Scope


def client_of(
    peer: str | None, headers: Headers, *, key_id: int, key_name: str
) -> Client:
    """Tell who calls; *headers* are the raw ones, names in lower case."""
    headers = list(headers)
    trusted = addresses.parse_networks(tuple(conf.trusted_proxies))
    user_agents = [value for name, value in headers if name == b"user-agent"]
    return keys.identify(
        addresses.client_address(peer, headers, trusted),
        b", ".join(user_agents),
        key_id=key_id,
        key_name=key_name,
        parts=conf.session_identity,
        ipv6_prefix=conf.session_ipv6_prefix,
    )


def scope_of(key_id: int, own_limit: int | None) -> Scope:
    """Tell which limit a client key is under."""
    return keys.scope_of(key_id, own_limit, shared_limit=conf.session_max_concurrent)
