"""How much of a plan is used."""

import pytest

from claudeproxy.sandbox.oauth.usage import (
    FIVE_HOUR_TOKENS,
    FIVE_HOURS,
    SEVEN_DAY_TOKENS,
    SEVEN_DAYS,
    UnifiedLimits,
)

NOW = 1_800_000_000.0
PREFIX = "anthropic-ratelimit-unified-"


def spent(tokens: int) -> UnifiedLimits:
    limits = UnifiedLimits()
    limits.spend(NOW, input_tokens=tokens, output_tokens=0)
    return limits


def headers(limits: UnifiedLimits, now: float = NOW) -> dict[str, str]:
    return {
        name.decode().removeprefix(PREFIX): value.decode()
        for name, value in limits.headers(now)
    }


def test_a_fresh_plan_is_unused() -> None:
    assert headers(UnifiedLimits()) == {
        "status": "allowed",
        "reset": str(int(NOW) + FIVE_HOURS),
        "representative-claim": "five_hour",
        "5h-status": "allowed",
        "5h-reset": str(int(NOW) + FIVE_HOURS),
        "5h-utilization": "0",
        "7d-status": "allowed",
        "7d-reset": str(int(NOW) + SEVEN_DAYS),
        "7d-utilization": "0",
    }


def test_input_and_output_count_alike() -> None:
    limits = UnifiedLimits()
    limits.spend(NOW, FIVE_HOUR_TOKENS // 4, FIVE_HOUR_TOKENS // 4)
    assert headers(limits)["5h-utilization"] == "0.5"


def test_a_window_begins_with_the_first_use_and_ends_by_itself() -> None:
    limits = spent(FIVE_HOUR_TOKENS // 2)
    later = NOW + FIVE_HOURS - 1
    assert headers(limits, later)["5h-reset"] == str(int(NOW) + FIVE_HOURS)
    assert headers(limits, later)["5h-utilization"] == "0.5"
    assert headers(limits, later + 1)["5h-utilization"] == "0"
    assert headers(limits, later + 1)["7d-utilization"] != "0"


def test_a_new_window_begins_empty() -> None:
    limits = spent(FIVE_HOUR_TOKENS // 2)
    limits.spend(NOW + FIVE_HOURS, FIVE_HOUR_TOKENS // 4, 0)
    assert headers(limits, NOW + FIVE_HOURS)["5h-utilization"] == "0.25"


def test_much_use_is_a_warning_and_never_a_refusal() -> None:
    found = headers(spent(FIVE_HOUR_TOKENS * 2))
    assert found["status"] == found["5h-status"] == "allowed_warning"
    assert found["5h-utilization"] == "1"
    assert found["5h-surpassed-threshold"] == "0.75"
    assert "7d-surpassed-threshold" not in found


def test_the_claim_that_is_used_up_most_represents_the_plan() -> None:
    limits = spent(SEVEN_DAY_TOKENS)
    found = headers(limits, NOW + FIVE_HOURS)
    assert found["representative-claim"] == "seven_day"
    assert found["reset"] == found["7d-reset"]


def test_the_answer_has_percents_and_text_for_moments() -> None:
    answer = spent(FIVE_HOUR_TOKENS // 4).answer(NOW)
    resets_at = "2027-01-15T13:00:00+00:00"
    assert answer["five_hour"] == {"utilization": 25.0, "resets_at": resets_at}
    assert answer["limits"][0] == {  # type: ignore[index]  # a list
        "kind": "five_hour",
        "group": "session",
        "percent": 25.0,
        "resets_at": resets_at,
        "scope": None,
        "severity": "normal",
        "is_active": True,
    }


def test_a_window_that_has_not_begun_ends_at_no_moment() -> None:
    answer = UnifiedLimits().answer(NOW)
    assert answer["five_hour"] == {"utilization": 0.0, "resets_at": None}


@pytest.mark.parametrize(
    "name",
    ["seven_day_opus", "seven_day_sonnet", "seven_day_oauth_apps", "extra_usage"],
)
def test_what_the_sandbox_does_not_limit_is_null(name: str) -> None:
    assert UnifiedLimits().answer(NOW)[name] is None
