"""From what the upstream does to what becomes of each account and of the caller."""

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from datetime import timedelta

import httpx
import pytest
from django.test import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.status import AccountKind
from tests.proxy.scripted import (
    EAGER,
    MODEL,
    OF_ITS_LINE,
    OF_NEITHER,
    Pool,
    Said,
    error,
    stream,
)

KEY, OAUTH = AccountKind.API_KEY, AccountKind.OAUTH
UNIFIED = "anthropic-ratelimit-unified-"
PAGE = b"<!doctype html><title>Bad gateway</title>"
# Shorter than bursts last, longer than any of this takes.
TIMEOUT = timedelta(seconds=8)


@dataclass(frozen=True)
class Fate:
    """What becomes of an account that is asked, and of the caller.

    `asked` are the accounts in their order if only the first attempt meets it, and
    `asked_if_all` if each does; `status_if_all` is what the caller gets then, and
    `effects_if_all` what becomes of the accounts.
    """

    effect: str
    asked: list[int]
    asked_if_all: list[int]
    # 0: the status that the upstream said.
    status: int = 200
    status_if_all: int = 0
    effects_if_all: list[str] = field(default_factory=list)


ACTIVE = "active"
REQUEST = Fate(ACTIVE, [1], [1], status=0)
LIMITED = Fate("rate_limited", [1, 2], [1, 2, 3], status_if_all=429)
REFUSED = Fate(
    *("invalid", [1, 1, 2], [1, 1, 2, 2, 3]),
    status_if_all=503,
    effects_if_all=["invalid", "invalid", ACTIVE],
)
# The second account that says so is waited for, for which there is no time.
BURST = Fate(
    *("group limited", [1, 2], [1, 2]),
    status_if_all=503,
    effects_if_all=["group limited", "group limited", ACTIVE],
)
ACCOUNT_BURST = Fate(
    *("set aside", [1, 2], [1, 2]),
    status_if_all=503,
    effects_if_all=["set aside", "set aside", ACTIVE],
)
GROUP = Fate("group limited", [1, 2], [1, 2, 3], status_if_all=429)
LINE = Fate("line limited", [1, 2], [1, 2, 3], status_if_all=429)
THROTTLED = Fate("set aside", [1, 2], [1, 2, 3], status_if_all=429)
LACKS = Fate("lacks model", [1, 2], [1, 2, 3])
NOT_HERE = Fate(ACTIVE, [1, 2], [1, 2, 3])
NOT_READY = Fate(ACTIVE, [1, 2], [1, 2, 3], status_if_all=503)
TROUBLE = Fate(ACTIVE, [1, 2], [1, 2, 3, 1, 2])
BROKEN = Fate(ACTIVE, [1, 2], [1, 2, 3, 1, 2], status_if_all=503)
FINAL = Fate(ACTIVE, [1], [1], status=0)


def unified(status: str = "rejected", **values: str) -> dict[str, str]:
    pairs = {"status": status} | values
    return {UNIFIED + name.replace("_", "-"): value for name, value in pairs.items()}


def waits(seconds: str) -> dict[str, str]:
    return {"retry-after": seconds}


def event(kind: str, code: str = "") -> Said:
    return stream(b"event: error\ndata: " + error(kind, code=code) + b"\n\n")


IN_AN_HOUR = str(int(time.time()) + 3600)
Row = tuple[Said, AccountKind, Fate]
ROWS: dict[str, Row] = {
    # The request's own.
    "bad request": (Said(400, error("invalid_request_error")), KEY, REQUEST),
    "bad request, signed in": (Said(400, error()), OAUTH, REQUEST),
    "400 page": (Said(400, PAGE), KEY, REQUEST),
    "400 empty": (Said(400, b""), KEY, REQUEST),
    "thread continued": (
        *(Said(400, error(code="thread_already_continued")), KEY, REQUEST),
    ),
    "thread in flight": (
        *(Said(400, error(code="thread_continue_in_flight")), KEY, REQUEST),
    ),
    "thread fingerprint": (
        *(Said(400, error(code="thread_fingerprint_mismatch")), KEY, REQUEST),
    ),
    "thread unsupported": (
        Said(400, error("x", "data retention", "thread_unsupported_request")),
        *(KEY, REQUEST),
    ),
    "thread unknown": (
        *(Said(404, error("not_found_error", code="thread_not_found")), KEY, REQUEST),
    ),
    "file expired": (
        Said(404, error("not_found_error", "model input", "file_expired")),
        *(KEY, REQUEST),
    ),
    "path unknown": (Said(404, error("not_found_error")), KEY, REQUEST),
    "404 page": (Said(404, PAGE), KEY, REQUEST),
    **{
        f"status {status}": (Said(status, error()), KEY, REQUEST)
        for status in (405, 408, 409, 412, 413, 415, 422, 431, 499)
    },
    "extra usage": (Said(429, error("x", "Extra usage is required")), OAUTH, REQUEST),
    "long context": (Said(429, error("x", "No long context")), OAUTH, REQUEST),
    "words of the caller": (
        *(Said(400, error("x", "Your credit balance is too low: x")), KEY, REQUEST),
    ),
    # The credential's.
    "401": (Said(401, error("authentication_error")), KEY, REFUSED),
    "401 empty": (Said(401, b""), KEY, REFUSED),
    "403 of the credential": (Said(403, error("authentication_error")), KEY, REFUSED),
    "revoked": (Said(403, error("x", "API key has been revoked.")), KEY, REFUSED),
    "disabled": (
        *(Said(400, error("x", "This organization has been disabled.")), KEY, REFUSED),
    ),
    "on hold, 400": (Said(400, error(code="organization_on_hold")), KEY, REFUSED),
    "on hold, 403": (Said(403, error(code="organization_on_hold")), KEY, REFUSED),
    # Money.
    "402": (Said(402, error("billing_error")), KEY, LIMITED),
    "402 page": (Said(402, PAGE), KEY, LIMITED),
    "linked organization": (
        *(Said(402, error(code="linked_organization_past_due")), KEY, LIMITED),
    ),
    "credit": (Said(400, error(code="credit_balance_too_low")), KEY, LIMITED),
    "credit in words": (
        *(Said(400, error("x", "Your credit balance is too low.")), KEY, LIMITED),
    ),
    **{
        f"{code}, {status}": (Said(status, error(code=code)), kind, LIMITED)
        for code in ("enforced_spend_limit_reached", "contract_spend_limit_reached")
        for status, kind in ((400, KEY), (429, KEY), (429, OAUTH))
        if (status, kind) != (429, OAUTH) or code.startswith("enforced")
    },
    # Rates of an API key.
    "burst of 9 s": (Said(429, error(), waits("9")), KEY, BURST),
    "burst of 10 s": (Said(429, error(), waits("10")), KEY, BURST),
    "bucket of 11 s": (Said(429, error(), waits("11")), KEY, GROUP),
    "bucket of 60 s": (Said(429, error(), waits("60")), KEY, GROUP),
    "bucket in ms": (Said(429, error(), {"retry-after-ms": "30000"}), KEY, GROUP),
    "bucket, page": (Said(429, PAGE, waits("30")), KEY, GROUP),
    "61 s": (Said(429, error(), waits("61")), KEY, LIMITED),
    "an hour": (Said(429, error(), waits("3600")), KEY, LIMITED),
    "without an end": (Said(429, error("rate_limit_error")), KEY, LIMITED),
    "end unreadable": (Said(429, error(), waits("soon")), KEY, LIMITED),
    "429 empty": (Said(429, b""), KEY, LIMITED),
    "ramp": (Said(429, error(code="ramp_limit_exceeded")), KEY, THROTTLED),
    "ramp of 45 s": (
        Said(429, error(code="ramp_limit_exceeded"), waits("45")),
        *(KEY, THROTTLED),
    ),
    # Limits of a subscription.
    "throttle": (Said(429, error("rate_limit_error")), OAUTH, THROTTLED),
    "burst, signed in": (Said(429, error(), waits("9")), OAUTH, ACCOUNT_BURST),
    "60 s, signed in": (Said(429, error(), waits("60")), OAUTH, LIMITED),
    "plan allowed": (Said(429, error(), unified("allowed")), OAUTH, THROTTLED),
    "plan spent": (Said(429, error(), unified(reset=IN_AN_HOUR)), OAUTH, LIMITED),
    **{
        f"{claim} spent": (
            Said(429, error(), unified(representative_claim=claim, reset=IN_AN_HOUR)),
            *(OAUTH, LINE if claim.endswith("opus") else LIMITED),
        )
        for claim in (
            *("five_hour", "seven_day", "seven_day_opus", "overage"),
            "seven_day_overage_included",
        )
    },
    **{
        f"overage {status}": (
            *(Said(429, error(), unified(overage_status=status)), OAUTH, fate),
        )
        for status, fate in (
            ("allowed", THROTTLED),
            ("allowed_warning", THROTTLED),
            ("rejected", LIMITED),
        )
    },
    # The model's.
    "model unknown": (
        *(Said(404, error("not_found_error", f"model: {MODEL}")), KEY, LACKS),
    ),
    "data retention": (Said(400, error("x", "Data retention is short.")), KEY, LACKS),
    "not permitted": (Said(403, error("permission_error")), KEY, NOT_HERE),
    "bound to a client": (
        *(Said(400, error("x", "Only authorized for use with X")), OAUTH, NOT_HERE),
    ),
    # The upstream's.
    **{
        f"status {status}": (Said(status, error("api_error")), KEY, TROUBLE)
        for status in (500, 501, 502, 503, 504, 529, 599)
    },
    "500 page": (Said(500, PAGE), KEY, TROUBLE),
    "compaction": (Said(529, error(code="compaction_unavailable")), KEY, TROUBLE),
    "not to be retried": (
        *(Said(503, error(), {"x-should-retry": "false"}), KEY, FINAL),
    ),
    "cmek": (Said(503, error(code="cmek_key_disabled")), KEY, NOT_READY),
    "cmek, not to be retried": (
        Said(503, error(code="cmek_unreachable"), {"x-should-retry": "false"}),
        *(KEY, NOT_READY),
    ),
    "registration": (Said(503, error(code="registration_pending")), KEY, NOT_READY),
    # The network's.
    "403 page": (Said(403, PAGE), KEY, TROUBLE),
    "429 page": (Said(429, PAGE), KEY, TROUBLE),
    "429 page, signed in": (Said(429, PAGE), OAUTH, TROUBLE),
    "refused": (Said(raises=httpx.ConnectError), KEY, BROKEN),
    "reset": (Said(raises=httpx.ReadError), KEY, BROKEN),
    "nonsense": (Said(raises=httpx.RemoteProtocolError), KEY, BROKEN),
    "redirect": (
        Said(302, b"", {"location": "https://elsewhere.test"}),
        *(KEY, Fate(ACTIVE, [1], [1], status=503, status_if_all=503)),
    ),
    # In a stream, before its content.
    "stream: overloaded": (event("overloaded_error"), KEY, TROUBLE),
    "stream: api error": (event("api_error"), KEY, TROUBLE),
    "stream: unknown error": (event("strange_error"), KEY, TROUBLE),
    "stream: bad request": (event("invalid_request_error"), KEY, REQUEST),
    "stream: refused": (event("authentication_error"), KEY, REFUSED),
    "stream: billing": (event("billing_error"), KEY, LIMITED),
    "stream: spend limit": (
        *(event("rate_limit_error", "contract_spend_limit_reached"), KEY, LIMITED),
    ),
    "stream: too short": (stream(), KEY, BROKEN),
    "stream: no JSON": (
        stream(b"event: content_block_start\ndata: {oops\n\n"),
        *(KEY, BROKEN),
    ),
    "stream: no event": (stream(b'data: {"index": 0}\n\n'), KEY, BROKEN),
    "stream: no text": (stream(b": \xff\n\n"), KEY, BROKEN),
}


@pytest.fixture(autouse=True)
def _timeout(settings):
    settings.REQUEST_TIMEOUT = TIMEOUT


def test_the_table_is_long_enough_to_be_one():
    assert len(ROWS) >= 75


@pytest.mark.parametrize("name", ROWS)
async def test_what_one_account_meets_is_its_own(name):
    said, kind, fate = ROWS[name]
    # What is refused once may be a slip.
    is_refused = fate is REFUSED
    pool = Pool([said] * (2 if is_refused else 1), kind)
    status = await pool.run(is_stream=name.startswith("stream"))

    assert (pool.asked, pool.effects) == (fate.asked, [fate.effect, ACTIVE, ACTIVE])
    assert status == (fate.status or said.status)
    # One that serves another group is asked for it, the others are not.
    if fate.effect in {"group limited", "line limited"}:
        assert await pool.run(OF_NEITHER) == 200
        assert await pool.run(OF_ITS_LINE) == 200


@pytest.mark.parametrize("name", ROWS)
async def test_what_all_accounts_meet_is_told_to_the_caller(name):
    said, kind, fate = ROWS[name]
    pool = Pool(itertools.repeat(said), kind)
    status = await pool.run(is_stream=name.startswith("stream"))

    assert pool.asked == fate.asked_if_all
    assert pool.effects == (fate.effects_if_all or [fate.effect] * 3)
    assert status == (fate.status_if_all or said.status)


async def test_an_account_whose_group_is_limited_serves_other_groups():
    limit = Said(429, error(), waits("30"))
    pool = Pool([limit, limit, limit])

    assert await pool.run() == 429
    assert await pool.run() == 429
    assert pool.asked == [1, 2, 3]
    assert [await pool.run(OF_ITS_LINE) for _ in range(3)] == [200] * 3
    assert sorted(pool.asked[3:]) == [1, 2, 3]


async def test_a_bucket_without_a_model_is_the_accounts():
    pool = Pool([Said(429, error(), waits("30"))])

    assert await pool.run(None) == 200
    assert pool.effects == ["rate_limited", ACTIVE, ACTIVE]


OF_REQUESTS = [said for said, kind, fate in ROWS.values() if fate is REQUEST]
# A burst that is over at once, and an upstream that says nothing at all.
MORE = [Said(429, error(), {"retry-after-ms": "1"}), Said(is_silent=True)]
ANYTHING = st.sampled_from(
    [Said()] * 20 + [said for said, _, _ in ROWS.values()] + MORE
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    says=st.lists(ANYTHING, max_size=40),
    models=st.lists(
        st.sampled_from([MODEL, OF_ITS_LINE, OF_NEITHER, None]), min_size=1, max_size=12
    ),
    kind=st.sampled_from([KEY, OAUTH]),
)
@override_settings(REQUEST_TIMEOUT=timedelta(milliseconds=300))
def test_whatever_happens_to_the_pool_the_invariants_hold(says, models, kind):
    async def run():
        pool = Pool(says, kind)
        began = time.monotonic()
        for number, model in enumerate(models, 1):
            made, effects, at = len(pool.asked), pool.effects, time.monotonic()
            await pool.run(model, is_stream=bool(number % 2))

            said = pool.said[made:]
            assert len(said) <= EAGER.max_attempts
            assert pool.asked_while_benched == []
            # A pause that would outlast it is not begun.
            assert time.monotonic() - at < 2
            if all(each in OF_REQUESTS or each == Said() for each in said):
                assert pool.effects == effects
            passed = time.monotonic() - began
            assert pool.budget.taken <= 20 + 0.1 * number + passed + 1e-6

    asyncio.run(run())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(OF_REQUESTS), min_size=1, max_size=20))
def test_bad_requests_bench_nobody(says):
    async def run():
        pool = Pool(says)
        for _ in says:
            await pool.run()

        assert len(pool.asked) == len(says)
        assert pool.effects == [ACTIVE] * 3

    asyncio.run(run())


async def test_an_outage_costs_no_more_than_the_budget():
    pool = Pool(itertools.repeat(Said(500, error("api_error"))))
    began = time.monotonic()
    for _ in range(100):
        await pool.run()

    assert pool.budget.taken <= 20 + 0.1 * 100 + (time.monotonic() - began)
    assert pool.effects == [ACTIVE] * 3
