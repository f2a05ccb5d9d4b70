from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts import quota
from accounts.quota import UNIFIED, Window
from tests.factories import NOW

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SOON = NOW + HOUR
UNIX = str(int(SOON.timestamp()))
RFC3339 = "2026-03-01T13:00:00Z"


def headers(prefix: str, **values: str) -> list[tuple[bytes, bytes]]:
    """Headers from Python names: `a__b` is `a-b`."""
    return [
        (f"{prefix}{name.lstrip('_').replace('__', '-')}".encode(), value.encode())
        for name, value in values.items()
    ]


def unified(**values: str) -> list[tuple[bytes, bytes]]:
    return headers("anthropic-ratelimit-unified-", **values)


def bucket(name: str, **values: str) -> list[tuple[bytes, bytes]]:
    return headers(f"anthropic-ratelimit-{name}-", **values)


PLAN = unified(
    status="allowed_warning",
    reset=UNIX,
    representative__claim="seven_day",
    fallback="available",
    _5h__status="allowed",
    _5h__reset=UNIX,
    _5h__utilization="0.42",
    _7d__status="allowed_warning",
    _7d__reset=UNIX,
    _7d__utilization="0.81",
    _7d__surpassed__threshold="0.75",
)
KEY = [
    *bucket("requests", limit="1000", remaining="988", reset=RFC3339),
    *bucket("input-tokens", limit="450000", remaining="450000", reset=RFC3339),
]


def test_a_plan_shows_its_windows():
    assert quota.read(PLAN, NOW) == (
        Window("5h", "", 0.42, resets_at=SOON, status="allowed"),
        Window("7d", "", 0.81, resets_at=SOON, status="allowed_warning"),
    )


@pytest.mark.parametrize(
    ("own", "window"),
    [
        (
            unified(_5h__utilization="1.0"),
            Window("5h", "", 1.0, resets_at=SOON, status="rejected"),
        ),
        (
            unified(_5h__reset=str(int((NOW + DAY).timestamp()))),
            Window("5h", "", None, resets_at=NOW + DAY, status="rejected"),
        ),
        (
            unified(_5h__status="allowed_warning"),
            Window("5h", "", None, resets_at=SOON, status="allowed_warning"),
        ),
    ],
)
def test_what_a_window_does_not_tell_itself_is_told_of_it_as_the_one_that_counts(
    own, window
):
    claim = unified(status="rejected", reset=UNIX, representative__claim="five_hour")

    assert quota.read([*own, *claim], NOW) == (window,)


def test_a_key_shows_its_buckets_and_whose_they_are():
    requests, tokens = quota.read(KEY, NOW, model_group="Sonnet 4.x")

    assert requests.utilization == pytest.approx(0.012)
    assert tokens == Window(
        "input-tokens",
        "Sonnet 4.x",
        0.0,
        limit=450000,
        remaining=450000,
        resets_at=SOON,
    )


def test_buckets_of_a_path_of_its_own_are_left_out():
    assert quota.read([*KEY, *PLAN], NOW, model_group=None) == quota.read(PLAN, NOW)


def names(pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {window.name: window.status for window in quota.read(pairs, NOW)}


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([], {}),
        ([(b"content-type", b"text/html")], {}),
        # Windows of later days.
        (unified(_7d_opus__utilization="0.5"), {"7d_opus": ""}),
        (unified(_7d_oi__utilization="1.2", _7d_oi__status="x"), {"7d_oi": "x"}),
        (unified(_30d_team__reset=UNIX), {"30d_team": ""}),
        (unified(grace__5h__utilization="0"), {"grace-5h": ""}),
        (unified(slow__budget__utilization="0.1"), {"slow-budget": ""}),
        # Paid usage may be told by a word alone; of others that says too little.
        (unified(overage__status="rejected"), {"overage": "rejected"}),
        (unified(grace__status="allowed", slow__status="x"), {}),
        # The limit that counts may have no headers of its own.
        (unified(status="rejected", reset=UNIX), {"plan": "rejected"}),
        (
            unified(status="rejected", reset=UNIX, representative__claim="five_hour"),
            {"5h": "rejected"},
        ),
        (
            unified(
                status="rejected",
                reset=UNIX,
                representative__claim="seven_day_opus",
                _5h__utilization="0.1",
            ),
            {"5h": "", "7d_opus": "rejected"},
        ),
        (
            unified(
                status="rejected",
                reset=UNIX,
                representative__claim="seven_day_overage_included",
            ),
            {"7d_oi": "rejected"},
        ),
        (unified(status="rejected", reset=UNIX, _5h__utilization="0.1"), {"5h": ""}),
        # A key's other buckets.
        (
            headers("anthropic-priority-input-tokens-", limit="9", remaining="1"),
            {"priority-input-tokens": ""},
        ),
        (headers("anthropic-fast-output-tokens-", limit="0", remaining="0"), {}),
        (headers("anthropic-fast-", mode="on"), {}),
        # Half of a bucket is none.
        (bucket("requests", limit="9"), {}),
        (bucket("requests", remaining="9"), {}),
        # Names that are none.
        ([(UNIFIED + b"utilization", b"0.5")], {}),
        ([(UNIFIED + b"-utilization", b"0.5")], {}),
        ([(UNIFIED + b"5h\x00-utilization", b"0.5")], {}),
        ([(UNIFIED + b"\xff-utilization", b"0.5")], {}),
        ([(UNIFIED + b"5" * 60 + b"-utilization", b"0.5")], {}),
        ([(UNIFIED, b"0.5")], {}),
    ],
)
def test_what_is_found_in_headers(pairs, found):
    assert names(pairs) == found


@pytest.mark.parametrize(
    ("raw", "share"),
    [
        ("0", 0.0),
        ("1", 1.0),
        ("0.4235", 0.4235),
        (" 0.5 ", 0.5),
        ("1.07", 1.07),
        ("", None),
        ("42 %", None),
        ("-0.1", None),
        ("nan", None),
        ("inf", None),
        ("1e300", None),
        ("11", None),
    ],
)
def test_a_share_is_a_fraction_or_not_known(raw, share):
    (window,) = quota.read(unified(_5h__utilization=raw, _5h__reset=UNIX), NOW)

    assert window.utilization == share


@pytest.mark.parametrize(
    ("limit", "remaining", "share"),
    [
        ("1000", "250", 0.75),
        ("1000", "0", 1.0),
        ("1400", "2000", 0.0),  # rounded to thousands
        ("0", "0", None),
        ("-1", "0", None),
        ("1000", "1.5", None),
        ("1000", "many", None),
        ("9" * 30, "1", None),
    ],
)
def test_a_bucket_that_cannot_be_read_is_not_known(limit, remaining, share):
    found = quota.read(bucket("requests", limit=limit, remaining=remaining), NOW)

    assert [window.utilization for window in found] == [share] * (share is not None)


@pytest.mark.parametrize(
    ("raw", "at"),
    [
        (UNIX, SOON),
        (f"{UNIX}.0", SOON),
        (str(int((NOW - HOUR / 2).timestamp())), NOW - HOUR / 2),
        ("0", None),
        (f"{UNIX}000", None),  # milliseconds
        ("", None),
        ("soon", None),
        ("nan", None),
        ("-1e400", None),
        (RFC3339, None),
    ],
)
def test_a_plan_resets_at_a_time_that_can_be(raw, at):
    (window,) = quota.read(unified(_5h__utilization="0.5", _5h__reset=raw), NOW)

    assert window.resets_at == at


@pytest.mark.parametrize(
    ("raw", "at"),
    [
        (RFC3339, SOON),
        ("2026-03-01t13:00:00z", SOON),
        ("2026-03-01T14:00:00+01:00", SOON),
        ("2026-03-01T13:00:00.5Z", SOON + timedelta(seconds=0.5)),
        ("2026-03-01T13:00:00", None),
        ("2026-03-01", None),
        ("2026-13-01T13:00:00Z", None),
        ("0001-01-01T00:00:00+10:00", None),
        ("2999-01-01T00:00:00Z", None),
        (UNIX, None),
        ("", None),
    ],
)
def test_a_bucket_resets_at_a_time_that_can_be(raw, at):
    found = quota.read(bucket("requests", limit="9", remaining="1", reset=raw), NOW)

    assert [window.resets_at for window in found] == [at]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("allowed", "allowed"),
        (" Rejected ", "rejected"),
        ("of_the_future", "of_the_future"),
        ("<b>", ""),
        ("x" * 31, ""),
        ("", ""),
    ],
)
def test_a_status_is_a_word(raw, status):
    (window,) = quota.read(unified(_5h__utilization="0.5", _5h__status=raw), NOW)

    assert window.status == status


def test_of_a_header_that_comes_twice_the_first_counts():
    pairs = unified(_5h__utilization="0.1") + unified(_5h__utilization="0.9")

    assert [window.utilization for window in quota.read(pairs, NOW)] == [0.1]


@pytest.mark.parametrize("group", ["x\x00", "x" * 201, "ä"])
def test_buckets_of_models_whose_name_cannot_be_stored_are_left_out(group):
    assert quota.read(KEY, NOW, model_group=group) == ()


def test_a_window_and_a_bucket_of_one_name_are_one():
    pairs = unified(requests__utilization="0.1") + KEY

    assert [window.name for window in quota.read(pairs, NOW)] == [
        "requests",
        "input-tokens",
    ]


def test_no_answer_has_many_windows():
    pairs = [(UNIFIED + b"%dh-utilization" % n, b"0.5") for n in range(1000)]

    assert len(quota.read(pairs, NOW)) == 24


@pytest.mark.parametrize(
    ("pairs", "is_told"), [(PLAN, True), (KEY, True), ([(b"date", b"x")], False)]
)
def test_an_answer_tells_of_limits_or_not(pairs, is_told):
    assert quota.is_told(pairs) == is_told


WILD_NAMES = st.one_of(
    st.builds(
        lambda prefix, name, fact: prefix + name + fact,
        st.sampled_from(
            [
                UNIFIED,
                b"anthropic-ratelimit-",
                b"anthropic-priority-",
                b"anthropic-fast-",
            ]
        ),
        st.one_of(st.sampled_from([b"5h", b"7d", b"requests"]), st.binary(max_size=50)),
        st.sampled_from(
            [b"-utilization", b"-reset", b"-status", b"-limit", b"-remaining", b""]
        ),
    ),
    st.just(UNIFIED + b"representative-claim"),
    st.binary(max_size=60),
)
WILD_VALUES = st.one_of(
    st.binary(max_size=40),
    st.floats().map(lambda number: str(number).encode()),
    st.integers().map(lambda number: str(number).encode()),
    st.datetimes().map(lambda at: f"{at.isoformat()}Z".encode()),
    st.sampled_from([b"five_hour", b"seven_day_opus", b"allowed"]),
)


@given(
    st.lists(st.tuples(WILD_NAMES, WILD_VALUES), max_size=60),
    st.timedeltas(-2000 * DAY, 20_000 * DAY).map(lambda passed: NOW + passed),
    st.one_of(st.none(), st.text(max_size=10)),
)
def test_whatever_comes_is_read_as_something_that_can_be_stored(pairs, now, group):
    found = quota.read(pairs, now, model_group=group)

    assert len(found) <= 24
    assert len({(it.name, it.model_group) for it in found}) == len(found)
    for window in found:
        assert window.name.isascii()
        assert 0 < len(window.name) <= 40
        assert window.status.isascii()
        assert window.utilization is None or 0 <= window.utilization <= 10
        assert window.limit is None or 0 < window.limit < 10**15
        assert window.remaining is None or 0 <= window.remaining < 10**15
        assert window.resets_at is None or abs(window.resets_at - now) <= 400 * DAY
