import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.status import AccountKind
from claudeproxy.crypto import Secret
from proxy import headers

KEY = Secret("sk-ant-the-account")
OAUTH_VALUE = b"oauth-2025-04-20"
IDENTITY = (b"accept-encoding", b"identity")


def sent(received, kind=AccountKind.API_KEY):
    return headers.for_upstream(received, kind, KEY)


@pytest.mark.parametrize(
    "name",
    [
        b"accept",
        b"content-type",
        b"content-encoding",
        b"user-agent",
        b"x-app",
        b"traceparent",
        b"tracestate",
        b"anthropic-version",
        b"anthropic-beta",
        b"anthropic-dangerous-direct-browser-access",
        b"anthropic-something-new",
        b"x-stainless-lang",
        b"x-stainless-retry-count",
        b"x-stainless-timeout",
    ],
)
def test_what_the_api_reads_passes(name):
    assert (name, b"a value") in sent([(name, b"a value")])


@pytest.mark.parametrize(
    "name",
    [
        b"authorization",
        b"x-api-key",
        b"cookie",
        b"host",
        b"content-length",
        b"connection",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        b"proxy-authorization",
        b"proxy-connection",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-real-ip",
        b"via",
        b"accept-encoding",
        b"origin",
        b"referer",
        b"x-claude-code-session-id",
        b"x-claude-code-agent-id",
        b"x-stainless",
        b"xanthropic-version",
        b"x-anthropic-billing",
        b"anthropic-workspace-id",
        b"anthropic-user-profile-id",
        b"x-custom",
        b"",
    ],
)
def test_everything_else_stays_here(name):
    assert b"a value" not in [value for _, value in sent([(name, b"a value")])]


def test_order_and_duplicates_are_kept():
    received = [
        (b"anthropic-beta", b"one"),
        (b"user-agent", b"curl"),
        (b"anthropic-beta", b"two"),
        (b"anthropic-beta", b"one"),
    ]

    assert sent(received) == [
        *received,
        IDENTITY,
        (b"x-api-key", b"sk-ant-the-account"),
    ]


def test_an_api_key_travels_as_x_api_key_alone():
    assert sent([]) == [IDENTITY, (b"x-api-key", b"sk-ant-the-account")]


def test_an_access_token_travels_as_bearer_alone():
    assert sent([], AccountKind.OAUTH) == [
        IDENTITY,
        (b"authorization", b"Bearer sk-ant-the-account"),
        (b"anthropic-beta", OAUTH_VALUE),
    ]


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ([], [OAUTH_VALUE]),
        ([b"one"], [b"one," + OAUTH_VALUE]),
        ([b"one", b"two"], [b"one", b"two," + OAUTH_VALUE]),
        ([OAUTH_VALUE], [OAUTH_VALUE]),
        ([b"one, %b ,two" % OAUTH_VALUE], [b"one, %b ,two" % OAUTH_VALUE]),
        ([OAUTH_VALUE, b"one"], [OAUTH_VALUE, b"one"]),
        # Only a whole value counts.
        ([b"oauth-2025-04-20-x"], [b"oauth-2025-04-20-x," + OAUTH_VALUE]),
    ],
)
def test_an_oauth_account_adds_its_beta_value_once(received, expected):
    pairs = [(b"anthropic-beta", value) for value in received]

    assert [
        value
        for name, value in sent(pairs, AccountKind.OAUTH)
        if name == b"anthropic-beta"
    ] == expected


def test_an_api_key_account_leaves_the_beta_header_alone():
    assert sent([(b"anthropic-beta", b"one")])[0] == (b"anthropic-beta", b"one")


def test_what_was_received_is_not_changed():
    received = [(b"anthropic-beta", b"one")]
    sent(received, AccountKind.OAUTH)

    assert received == [(b"anthropic-beta", b"one")]


def test_a_header_named_by_connection_ends_here():
    received = [(b"connection", b"close, X-App"), (b"x-app", b"cli")]

    assert (b"x-app", b"cli") not in sent(received)


secret_names = st.sampled_from(
    [b"authorization", b"x-api-key", b"cookie", b"proxy-authorization", b"x-auth"]
) | st.from_regex(rb"x-[a-z]{1,8}", fullmatch=True).filter(
    lambda name: name != b"x-app"
)
other_names = st.sampled_from([b"accept", b"anthropic-beta", b"user-agent", b"x-app"])
planted = b"cp_PLANTED"


@given(
    pairs=st.lists(
        st.tuples(other_names, st.binary(max_size=12))
        | st.tuples(secret_names, st.just(b"Bearer " + planted) | st.just(planted))
    ),
    kind=st.sampled_from(AccountKind),
)
def test_no_secret_of_the_caller_reaches_the_upstream(pairs, kind):
    assert planted not in b"".join(value for _, value in sent(pairs, kind))


# --- the answer


@pytest.mark.parametrize(
    "name",
    [
        b"content-type",
        b"content-encoding",
        b"content-length",
        b"cache-control",
        b"retry-after",
        b"x-should-retry",
        b"anthropic-version",
        b"anthropic-something-new",
        b"location",
    ],
)
def test_what_the_answer_is_made_of_passes(name):
    assert headers.for_caller([(name, b"v")]) == [(name, b"v")]


@pytest.mark.parametrize(
    "name",
    [
        b"Request-Id",
        b"x-request-id",
        b"Anthropic-Organization-Id",
        b"anthropic-workspace-id",
        b"anthropic-ratelimit-requests-remaining",
        b"Anthropic-RateLimit-Unified-Reset",
        b"anthropic-priority-input-tokens-limit",
        b"anthropic-fast-output-tokens-limit",
        b"Set-Cookie",
        b"server",
        b"date",
        b"via",
        b"cf-ray",
        b"CF-Cache-Status",
        b"x-envoy-upstream-service-time",
        b"Connection",
        b"keep-alive",
        b"Transfer-Encoding",
        b"trailer",
        b"te",
        b"upgrade",
        b"proxy-authenticate",
        b"alt-svc",
        b"strict-transport-security",
        b"content-security-policy",
        b"nel",
        b"report-to",
    ],
)
def test_what_is_the_upstreams_own_affair_stays_here(name):
    assert headers.for_caller([(name, b"v")]) == []


def test_headers_named_by_connection_stay_here():
    received = [
        (b"Connection", b"close, X-Hop"),
        (b"connection", b"x-other"),
        (b"X-Hop", b"1"),
        (b"x-other", b"2"),
        (b"x-stays", b"3"),
    ]

    assert headers.for_caller(received) == [(b"x-stays", b"3")]


def test_names_of_the_answer_become_lower_case_and_values_stay():
    received = [(b"Link", b"<A>"), (b"LINK", b"\xe9")]

    assert headers.for_caller(received) == [(b"link", b"<A>"), (b"link", b"\xe9")]


@pytest.mark.parametrize(
    ("pairs", "value"),
    [([], None), ([(b"a", b"1"), (b"b", b"2"), (b"b", b"3")], b"2")],
)
def test_first_is_the_first_value_or_none(pairs, value):
    assert headers.first(pairs, b"b") == value
