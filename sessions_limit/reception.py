"""What the settings make of a request: whose session it is, and under which limit."""

from functools import lru_cache

from claudeproxy.conf import conf
from sessions_limit import addresses, keys
from sessions_limit.addresses import Headers
from sessions_limit.keys import Client, Scope

# Callers come again and again; those that name themselves at length are few.
_identify = lru_cache(maxsize=4096)(keys.identify)
_LONGEST_CACHED_BYTES = 512


def client_of(
    peer: str | None, headers: Headers, *, key_id: int, key_name: str
) -> Client:
    """Tell who calls; *headers* are the raw ones, names in lower case."""
    headers = list(headers)
    trusted = addresses.parse_networks(tuple(conf.trusted_proxies))
    user_agents = [value for name, value in headers if name == b"user-agent"]
    user_agent = b", ".join(user_agents)
    is_short = len(user_agent) <= _LONGEST_CACHED_BYTES
    return (_identify if is_short else keys.identify)(
        addresses.client_address(peer, headers, trusted),
        user_agent,
        key_id=key_id,
        key_name=key_name,
        parts=tuple(conf.session_identity),
        ipv6_prefix=conf.session_ipv6_prefix,
    )


def scope_of(key_id: int, own_limit: int | None) -> Scope:
    """Tell which limit a client key is under."""
    return keys.scope_of(key_id, own_limit, shared_limit=conf.session_max_concurrent)
