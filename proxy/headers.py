"""Which headers cross the gateway, in either direction.

Towards the upstream an allow-list rules: what a caller adds for somebody else (cookies,
another gateway's credential, the address a proxy in front noted) stays here. Towards
the caller a list of exclusions rules, because new API headers should arrive; it holds
what is hop-by-hop (RFC 9110 §7.6.1) and what describes a pooled account.
`docs/headers.md` is the list for operators.
"""

from collections.abc import Iterable

from accounts.probe import OAUTH_BETA
from accounts.status import AccountKind
from claudeproxy.crypto import Secret

# Pairs as ASGI has them: names in lower case, order and duplicates kept.
Headers = list[tuple[bytes, bytes]]

_REQUEST_NAMES = frozenset(
    {b"accept", b"content-type", b"content-encoding", b"user-agent", b"x-app"}
    | {b"traceparent", b"tracestate", b"range", b"if-range"}
)
# What describes a body, or the part of an answer that is wanted.
_OF_ONE_REQUEST = frozenset(
    {b"content-type", b"content-encoding", b"range", b"if-range"}
)
_REQUEST_PREFIXES = (b"anthropic-", b"x-stainless-")
# They name objects of one organization; see `errors.names_an_organization`.
ORGANIZATION_HEADERS = frozenset(
    {b"anthropic-workspace-id", b"anthropic-user-profile-id"}
)

_HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"}
    | {b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_REPLY_DROPPED = _HOP_BY_HOP | {
    # The account's identity and its server's; ours are set instead.
    *(b"request-id", b"x-request-id", b"anthropic-organization-id"),
    *(b"anthropic-workspace-id", b"set-cookie", b"server", b"date", b"via"),
    # Promises about the upstream's host that would be applied to ours.
    *(b"alt-svc", b"strict-transport-security", b"nel", b"report-to"),
    *(b"reporting-endpoints", b"content-security-policy", b"public-key-pins"),
}
_REPLY_DROPPED_PREFIXES = (
    b"anthropic-ratelimit-",
    b"anthropic-priority-",
    b"anthropic-fast-",
    b"cf-",
    b"x-envoy-",
)


def for_upstream(received: Headers, kind: AccountKind, credential: Secret) -> Headers:
    """Return the headers of the upstream request, with the account's credential.

    `anthropic-version` and `anthropic-beta` pass verbatim; an OAuth account adds the
    beta value its credential needs, if no value of the list is that already.
    """
    dropped = ORGANIZATION_HEADERS | _named_by_connection(received)
    sent = [
        (name, value)
        for name, value in received
        if (name in _REQUEST_NAMES or name.startswith(_REQUEST_PREFIXES))
        and name not in dropped
    ]
    # Frames are read on the way through, which compressed bytes would not allow.
    sent.append((b"accept-encoding", b"identity"))
    if kind == AccountKind.API_KEY:
        sent.append((b"x-api-key", credential.reveal().encode()))
    else:
        sent.append((b"authorization", b"Bearer " + credential.reveal().encode()))
        _require_beta(sent, OAUTH_BETA.encode())
    return sent


def for_own_question(received: Headers) -> Headers:
    """Return a caller's headers for what the gateway asks by itself on its behalf."""
    return [pair for pair in received if pair[0] not in _OF_ONE_REQUEST]


def _require_beta(headers: Headers, beta: bytes) -> None:
    last = None
    for position, (name, value) in enumerate(headers):
        if name == b"anthropic-beta":
            if beta in (item.strip() for item in value.split(b",")):
                return
            last = position
    if last is None:
        headers.append((b"anthropic-beta", beta))
    else:
        headers[last] = (b"anthropic-beta", headers[last][1] + b"," + beta)


def for_caller(received: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers of the answer, without the upstream's own affairs."""
    pairs = [(name.lower(), value) for name, value in received]
    dropped = _REPLY_DROPPED | _named_by_connection(pairs)
    return [
        (name, value)
        for name, value in pairs
        if name not in dropped and not name.startswith(_REPLY_DROPPED_PREFIXES)
    ]


def _named_by_connection(pairs: Headers) -> set[bytes]:
    """The headers that a `Connection` header declares to be for one hop."""
    return {
        item.strip().lower()
        for name, value in pairs
        if name == b"connection"
        for item in value.split(b",")
    }


def first(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the first value of a header, or None."""
    for candidate, value in headers:
        if candidate == name:
            return value
    return None
