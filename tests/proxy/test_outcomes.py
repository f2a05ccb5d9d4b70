import json
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.status import AccountKind
from proxy import outcomes
from proxy.errors import (
    MalformedReplyError,
    Stage,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from proxy.outcomes import Answer, Blame, Effect, Step, judge_answer, judge_error
from tests.factories import NOW

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
KEY, OAUTH = AccountKind.API_KEY, AccountKind.OAUTH


def error(type="some_error", message="Words.", code=None) -> bytes:
    said: dict[str, Any] = {"type": type, "message": message}
    if code is not None:
        said["details"] = {"error_code": code}
    return json.dumps({"type": "error", "error": said}).encode()


def headers(**values) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), v.encode()) for name, v in values.items()]


def unified(status="rejected", **values) -> list[tuple[bytes, bytes]]:
    pairs = headers(status=status, **values)
    return [(b"anthropic-ratelimit-unified-" + name, value) for name, value in pairs]


def in_unix(span) -> str:
    return str(int((NOW + span).timestamp()))


REQUEST = (Blame.REQUEST, Effect.NOTHING, Step.RELAY)
REFUSE = (Blame.CREDENTIAL, Effect.REFUSE, Step.HOP)
LIMIT = (Blame.ACCOUNT, Effect.LIMIT, Step.HOP)
COOL = (Blame.ACCOUNT, Effect.COOL, Step.HOP)
COOL_GROUP = (Blame.ACCOUNT, Effect.COOL_GROUP, Step.HOP)
COOL_LINE = (Blame.ACCOUNT, Effect.COOL_LINE, Step.HOP)
LACK = (Blame.MODEL, Effect.LACK_MODEL, Step.HOP)
NOT_HERE = (Blame.MODEL, Effect.NOTHING, Step.HOP)
UPSTREAM = (Blame.UPSTREAM, Effect.TROUBLE, Step.WAIT)
FINAL = (Blame.UPSTREAM, Effect.NOTHING, Step.RELAY)
BESIDE = (Blame.UPSTREAM, Effect.NOTHING, Step.WAIT)
NOT_READY = (Blame.ACCOUNT, Effect.TROUBLE, Step.HOP)
FILTER = (Blame.NETWORK, Effect.NOTHING, Step.WAIT)
PAGE = b"<html><body>Bad gateway</body></html>"

# Status, headers, body, kind of account; who is to blame, effect, step; until when.
CASES: list[tuple[Any, ...]] = [
    # The request's own.
    (400, [], error("invalid_request_error"), KEY, REQUEST, None),
    (400, [], b"", KEY, REQUEST, None),
    (400, [], PAGE, OAUTH, REQUEST, None),
    (400, [], error(message="prompt is too long"), OAUTH, REQUEST, None),
    (400, [], error(code="thread_already_continued"), KEY, REQUEST, None),
    (404, [], error("not_found_error", "File x not found"), KEY, REQUEST, None),
    (404, [], error("not_found_error", code="thread_not_found"), KEY, REQUEST, None),
    (404, [], b"not found", KEY, REQUEST, None),
    (
        *(404, [], error("not_found_error", "model file", code="file_expired"), KEY),
        *(REQUEST, None),
    ),
    *(
        (400, [], error("x", "Data retention", code), KEY, REQUEST, None)
        for code in ("thread_continue_in_flight", "thread_unsupported_request")
    ),
    (405, [], b"", KEY, REQUEST, None),
    (408, [], error("timeout_error"), KEY, REQUEST, None),
    (409, [], error("conflict_error"), KEY, REQUEST, None),
    (412, [], b"", KEY, REQUEST, None),
    (413, [], error("request_too_large"), KEY, REQUEST, None),
    (422, [], error("invalid_request_error"), KEY, REQUEST, None),
    (431, [], b"", KEY, REQUEST, None),
    (499, [], b"", KEY, REQUEST, None),
    (429, [], error(message="Extra usage is required"), OAUTH, REQUEST, None),
    (429, [], error(message="… for long context requests"), OAUTH, REQUEST, None),
    # The request's own, whatever a caller makes the upstream say.
    *(
        (400, [], error(message=f"{name}: Extra inputs"), KEY, REQUEST, None)
        for name in (
            "Your credit balance is too low",
            "This organization has been disabled",
            "OAuth token has been revoked",
        )
    ),
    (403, [], error("permission_error", "API key is disabled: x"), KEY, NOT_HERE, None),
    (400, [], error(message="data retention: Extra inputs"), KEY, NOT_HERE, HOUR),
    # The credential's.
    (401, [], error("authentication_error"), KEY, REFUSE, None),
    (401, [], error("authentication_error"), OAUTH, REFUSE, None),
    (401, [], b"", KEY, REFUSE, None),
    (401, [], PAGE, KEY, REFUSE, None),
    (403, [], error("authentication_error"), OAUTH, REFUSE, None),
    (
        *(403, [], error(message="The OAuth access token has been revoked."), OAUTH),
        *(REFUSE, None),
    ),
    (403, [], error(message="This account has been suspended."), KEY, REFUSE, None),
    (400, [], error(message="This organization has been disabled."), KEY, REFUSE, None),
    (400, [], error(code="organization_on_hold"), KEY, REFUSE, None),
    (403, [], error(code="organization_on_hold"), OAUTH, REFUSE, None),
    # The account's: credit and spending.
    (402, [], error("billing_error"), KEY, LIMIT, HOUR),
    (402, [], b"", KEY, LIMIT, HOUR),
    (402, [], error(code="linked_organization_suspended"), KEY, LIMIT, HOUR),
    (
        *(400, [], error(message="Your credit balance is too low to go on."), KEY),
        *(LIMIT, HOUR),
    ),
    (400, [], error(code="credit_balance_too_low"), KEY, LIMIT, HOUR),
    (400, [], error(code="enforced_spend_limit_reached"), KEY, LIMIT, HOUR),
    (429, [], error(code="enforced_spend_limit_reached"), KEY, LIMIT, HOUR),
    (429, [], error(code="contract_spend_limit_reached"), OAUTH, LIMIT, HOUR),
    # The account's: rates.
    (429, headers(retry_after="60"), error(), KEY, COOL_GROUP, 60 * SECOND),
    (429, headers(retry_after="11"), error(), KEY, COOL_GROUP, 11 * SECOND),
    (429, headers(retry_after="11"), PAGE, KEY, COOL_GROUP, 11 * SECOND),
    (429, headers(retry_after_ms="60001"), error(), KEY, LIMIT, 60.001 * SECOND),
    (429, headers(retry_after="61"), error(), KEY, LIMIT, 61 * SECOND),
    (429, headers(retry_after="60"), error(), OAUTH, LIMIT, 60 * SECOND),
    (429, headers(retry_after="11"), PAGE, OAUTH, LIMIT, 11 * SECOND),
    (429, headers(retry_after="10"), error(), KEY, COOL_GROUP, 10 * SECOND),
    (429, headers(retry_after="0"), error(), KEY, COOL_GROUP, timedelta()),
    (429, headers(retry_after_ms="1500"), error(), KEY, COOL_GROUP, 1.5 * SECOND),
    (429, headers(retry_after="-5"), error(), KEY, COOL_GROUP, timedelta()),
    (429, headers(retry_after="10"), error(), OAUTH, COOL, 10 * SECOND),
    (429, headers(retry_after="9999999999"), error(), KEY, LIMIT, outcomes.LONGEST),
    (429, [], error("rate_limit_error"), KEY, LIMIT, HOUR),
    (429, [], b"", KEY, LIMIT, HOUR),
    # Growth that is too fast.
    (429, [], error(code="ramp_limit_exceeded"), KEY, COOL, outcomes.THROTTLE),
    (
        *(429, headers(retry_after="45"), error(code="ramp_limit_exceeded"), KEY),
        *(COOL, 45 * SECOND),
    ),
    (
        *(429, headers(retry_after="600"), error(code="ramp_limit_exceeded"), KEY),
        *(LIMIT, 600 * SECOND),
    ),
    (429, headers(retry_after="soon"), error(), KEY, LIMIT, HOUR),
    (429, [], error("rate_limit_error"), OAUTH, COOL, outcomes.THROTTLE),
    (429, unified("allowed"), error(), OAUTH, COOL, outcomes.THROTTLE),
    (429, unified(reset=in_unix(3 * HOUR)), error(), OAUTH, LIMIT, 3 * HOUR),
    (429, unified(reset=in_unix(-HOUR)), error(), OAUTH, LIMIT, HOUR),
    (429, unified(reset="never"), error(), OAUTH, LIMIT, HOUR),
    (429, unified(reset="1e300"), error(), OAUTH, LIMIT, HOUR),
    (429, unified() + headers(retry_after="90"), error(), OAUTH, LIMIT, 90 * SECOND),
    (429, unified(reset=in_unix(HOUR * 999)), error(), OAUTH, LIMIT, outcomes.LONGEST),
    (429, unified(overage_status="allowed"), error(), OAUTH, COOL, outcomes.THROTTLE),
    (
        *(429, unified(overage_status="allowed_warning"), error(), OAUTH),
        *(COOL, outcomes.THROTTLE),
    ),
    (429, unified(overage_status="rejected"), error(), OAUTH, LIMIT, HOUR),
    (429, unified(), error(message="You are out of extra usage"), OAUTH, LIMIT, HOUR),
    *(
        (429, unified(representative_claim=claim), error(), OAUTH, LIMIT, HOUR)
        for claim in ("five_hour", "seven_day", "seven_day_overage_included", "overage")
    ),
    (
        *(429, unified(representative_claim="seven_day_opus", reset=in_unix(HOUR))),
        *(error(), OAUTH, COOL_LINE, HOUR),
    ),
    (
        *(429, unified(representative_claim="seven_day_sonnet"), error(), OAUTH),
        *(COOL_LINE, HOUR),
    ),
    # The account's with this model.
    (404, [], error("not_found_error", "model: claude-x"), KEY, LACK, HOUR),
    (400, [], error(message="Needs a longer data retention."), KEY, LACK, HOUR),
    (403, [], error("permission_error"), KEY, NOT_HERE, None),
    (
        *(403, [], error("permission_error", "Web search is disabled."), KEY),
        *(NOT_HERE, None),
    ),
    (400, [], error(message="Only authorized for use with X"), OAUTH, NOT_HERE, None),
    # The upstream's.
    (500, [], error("api_error"), KEY, UPSTREAM, None),
    (500, [], b"", KEY, UPSTREAM, None),
    (501, [], error("api_error"), KEY, UPSTREAM, None),
    (502, [], PAGE, KEY, UPSTREAM, None),
    (503, [], error("api_error"), OAUTH, UPSTREAM, None),
    (504, [], error("timeout_error"), KEY, UPSTREAM, None),
    (529, [], error("overloaded_error"), KEY, UPSTREAM, None),
    (599, [], b"", KEY, UPSTREAM, None),
    (529, [], error(code="compaction_unavailable"), KEY, BESIDE, None),
    # The account's organization has to mend something.
    *(
        (503, pairs, error(code=code), KEY, NOT_READY, None)
        for code in ("cmek_key_disabled", "registration_pending")
        for pairs in ([], headers(x_should_retry="false"))
    ),
    (500, [], error(code="cmek_key_disabled"), KEY, UPSTREAM, None),
    (503, headers(x_should_retry="false"), error(), KEY, FINAL, None),
    (529, headers(x_should_retry="false"), error(), KEY, FINAL, None),
    # Somebody's in between.
    (403, [], PAGE, KEY, FILTER, None),
    (403, [], b"", OAUTH, FILTER, None),
    (429, [], PAGE, KEY, FILTER, None),
    (429, [], b"\n" + PAGE, OAUTH, FILTER, None),
]


@pytest.mark.parametrize(
    ("status", "given_headers", "body", "kind", "verdict", "lasts"), CASES
)
def test_an_answer_is_charged_to_one_party(
    status, given_headers, body, kind, verdict, lasts
):
    answer = Answer(status, given_headers, body)
    judged = judge_answer(answer, kind, now=NOW, limit_default=HOUR)

    assert (judged.blame, judged.effect, judged.step) == verdict
    assert judged.until == (None if lasts is None else NOW + lasts)
    assert judged.reason


@pytest.mark.parametrize(
    ("failure", "is_stream", "verdict"),
    [
        (
            UpstreamUnavailableError(stage, "reset"),
            is_stream,
            (Blame.NETWORK, Effect.TROUBLE, Step.HOP),
        )
        for stage in Stage
        for is_stream in (True, False)
    ]
    + [
        (
            UpstreamTimeoutError(Stage.NOT_SENT, "connect"),
            False,
            (Blame.NETWORK, Effect.TROUBLE, Step.HOP),
        ),
        (
            UpstreamTimeoutError(Stage.PERHAPS_EXECUTED, "silent"),
            True,
            (Blame.NETWORK, Effect.TROUBLE, Step.RELAY),
        ),
        # Who asks for a long answer must not cost the pool an account.
        (
            UpstreamTimeoutError(Stage.PERHAPS_EXECUTED, "silent"),
            False,
            (Blame.NETWORK, Effect.NOTHING, Step.RELAY),
        ),
        (MalformedReplyError(Stage.ANSWER_BEGUN, "redirect 302"), False, FINAL),
    ],
)
def test_a_failure_without_an_answer_is_charged_too(failure, is_stream, verdict):
    judged = judge_error(failure, is_stream=is_stream)

    assert (judged.blame, judged.effect, judged.step) == verdict


@pytest.mark.parametrize(
    ("pairs", "effect"),
    [
        ([], Effect.NOTHING),
        (headers(retry_after="5"), Effect.NOTHING),
        (headers(retry_after="60"), Effect.NOTHING),
        (unified(overage_status="allowed"), Effect.NOTHING),
        (unified(), Effect.LIMIT),
    ],
)
def test_a_rate_limit_of_another_path_is_none_of_messages(pairs, effect):
    answer = Answer(429, pairs, error())
    judged = judge_answer(answer, KEY, now=NOW, limit_default=HOUR, has_own_limits=True)

    assert (judged.blame, judged.step) == (Blame.ACCOUNT, Step.HOP)
    assert judged.effect is effect


def test_a_limit_of_one_line_of_models_says_which():
    answer = Answer(429, unified(representative_claim="seven_day_opus"), error())

    judged = judge_answer(answer, OAUTH, now=NOW, limit_default=HOUR)

    assert judged.line == "opus"


@pytest.mark.parametrize(
    ("seconds", "is_burst", "effect"),
    [("10", True, Effect.COOL), ("11", False, Effect.LIMIT)],
)
def test_where_no_model_is_named_the_account_bears_it(seconds, is_burst, effect):
    answer = Answer(429, headers(retry_after=seconds), error())
    judged = judge_answer(answer, KEY, now=NOW, limit_default=HOUR)

    assert judged.is_burst is judged.for_all_models.is_burst is is_burst
    assert judged.for_all_models.effect is effect
    assert judged.for_all_models.until == judged.until


def test_what_is_the_accounts_is_so_without_a_model_too():
    judged = judge_answer(Answer(402, [], b""), KEY, now=NOW, limit_default=HOUR)

    assert judged.for_all_models is judged


@pytest.mark.parametrize(
    ("pairs", "span"),
    [
        ({}, None),
        ({"retry_after": "7"}, 7 * SECOND),
        ({"retry_after": "0.5"}, 0.5 * SECOND),
        ({"retry_after": " 7 "}, 7 * SECOND),
        ({"retry_after_ms": "250"}, 0.25 * SECOND),
        ({"retry_after_ms": "250", "retry_after": "7"}, 0.25 * SECOND),
        ({"retry_after_ms": "x", "retry_after": "7"}, 7 * SECOND),
        ({"retry_after": format_datetime(NOW + HOUR, usegmt=True)}, HOUR),
        ({"retry_after": format_datetime(NOW - HOUR, usegmt=True)}, timedelta()),
        ({"retry_after": "Sun, 01 Mar 2026 12:00:30"}, 30 * SECOND),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "1e300"}, None),
        ({"retry_after": ""}, None),
        ({"retry_after": "tomorrow"}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(pairs, span):
    assert outcomes.retry_after(headers(**pairs), NOW) == span


NAMES = [
    *(b"retry-after", b"retry-after-ms", b"x-should-retry"),
    *(b"anthropic-ratelimit-unified-" + name for name in (b"status", b"reset")),
    b"anthropic-ratelimit-unified-overage-status",
    b"anthropic-ratelimit-unified-representative-claim",
]
VALUES = (
    st.binary(max_size=30)
    | st.floats().map(lambda value: str(value).encode())
    | st.datetimes().map(lambda at: format_datetime(at).encode())
    | st.sampled_from([b"rejected", b"allowed", b"false", b"seven_day_opus"])
)
ANY_HEADERS = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6)
FIELDS = st.sampled_from(["error", "type", "message", "details", "error_code"])
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=10)


def objects(values):
    return SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(FIELDS, values)


JSON = objects(objects(objects(SCALARS)))
ANY_BODY = st.binary(max_size=60) | JSON.map(lambda it: json.dumps(it).encode())


@given(st.integers(400, 599), ANY_HEADERS, ANY_BODY, st.sampled_from([KEY, OAUTH]))
def test_no_answer_is_too_strange_to_be_judged(status, pairs, body, kind):
    judged = judge_answer(
        Answer(status, pairs, body), kind, now=NOW, limit_default=HOUR
    )

    assert judged.blame != Blame.REQUEST or judged.effect is Effect.NOTHING
    if judged.until is not None:
        assert NOW <= judged.until <= NOW + outcomes.LONGEST


@given(
    st.sampled_from([400, 404, 405, 408, 409, 412, 413, 415, 422, 431]),
    ANY_HEADERS,
    st.text(max_size=60),
    st.sampled_from(["invalid_request_error", "conflict_error", "request_too_large"]),
)
def test_a_bad_request_touches_no_account_whatever_it_is_called(
    status, pairs, name, type
):
    body = error(type, f"{name}: Extra inputs are not permitted")
    judged = judge_answer(Answer(status, pairs, body), KEY, now=NOW, limit_default=HOUR)

    assert judged.effect is Effect.NOTHING


@given(ANY_BODY)
def test_the_type_of_an_error_is_a_text_or_unknown(body):
    assert isinstance(outcomes.error_type_of(body), str | None)


@pytest.mark.parametrize(
    ("status", "body", "is_open"),
    [
        (500, error("api_error"), False),
        (529, error("overloaded_error"), False),
        (429, b"<html>", False),
        (400, b"", False),
        (504, error("timeout_error"), True),
        (502, b"<html>Bad gateway</html>", True),
        (524, b"", True),
        (500, b'{"message": "no envelope"}', True),
    ],
)
def test_only_the_api_can_say_that_nothing_was_done(status, body, is_open):
    assert outcomes.is_perhaps_executed(Answer(status, [], body)) is is_open
