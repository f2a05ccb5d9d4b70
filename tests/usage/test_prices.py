"""What usage costs, to the last digit."""

from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage import shipped
from usage.prices import Price, PriceTable, Rates
from usage.tokens import Part, Tokens, Usage

DAY = date(2026, 11, 25)
TABLE = PriceTable(shipped.prices())
MILLION = 1_000_000


def rates(*amounts: str) -> Rates:
    return Rates(*map(Decimal, amounts))


ONE = rates("1", "1", "1", "1", "1")
NINE = rates("9", "9", "9", "9", "9")


def price(model: str = "m", since: str = "2026-01-01", **fields) -> Price:
    fields.setdefault("rates", ONE)
    return Price(model=model, effective_from=date.fromisoformat(since), **fields)


def dollars(usage: Usage, model: str | None = "claude-opus-5-5", table=TABLE):
    cost = table.cost(usage, model, DAY)
    return None if cost is None else cost.dollars


def of(**counts: int) -> Usage:
    return Usage(Tokens(**counts))


# --- the shipped table


def test_twenty_in_and_ten_out_are_what_the_client_itself_says():
    assert dollars(of(input=20, output=10)) == Decimal("0.00028")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-fable-5-2", "8 40 10 16 0.20"),
        ("claude-mythos-5-1", "10 50 12.50 20 0.25"),
        ("claude-fable-5", "10 50 12.50 20 1"),
        ("claude-opus-5-5", "4 20 5 8 0.20"),
        ("claude-opus-4-5-20251101", "5 25 6.25 10 0.50"),
        ("claude-opus-4-20250514", "15 75 18.75 30 1.50"),
        ("claude-opus-4-1", "15 75 18.75 30 1.50"),
        ("claude-sonnet-5-5", "2 10 2.50 4 0.10"),
        ("claude-sonnet-5", "2 10 2.50 4 0.20"),
        ("claude-sonnet-4-5-20250929", "3 15 3.75 6 0.30"),
        ("claude-3-7-sonnet-latest", "3 15 3.75 6 0.30"),
        ("claude-haiku-4-5", "1 5 1.25 2 0.10"),
        ("claude-3-5-haiku-20241022", "0.80 4 1 1.60 0.08"),
    ],
)
def test_each_class_of_tokens_has_its_price(model, expected):
    names = ("input", "output", "write_5m", "write_1h", "read")
    found = [dollars(of(**{name: MILLION}), model) for name in names]

    assert found == list(map(Decimal, expected.split()))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-mythos-5-2", 16),
        ("claude-opus-5-5", 8),
        ("claude-opus-4-8", 10),
        ("claude-opus-4-6", 30),
        ("claude-opus-4-5", None),
        ("claude-sonnet-5-5", None),
    ],
)
def test_fast_mode_has_prices_of_its_own_or_none(model, expected):
    usage = Usage(Tokens(input=MILLION), speed="fast")

    assert dollars(usage, model) == expected


# --- which price


@pytest.mark.parametrize(
    "model", ["claude-opus-9", "gpt-5", "", "claude-opus-5-5-preview", None]
)
def test_an_unknown_model_is_unpriced(model):
    assert dollars(of(input=1), model) is None
    assert dollars(of(), model) is None


def test_what_cannot_be_read_is_unpriced():
    assert dollars(Usage(Tokens(input=1), is_unreadable=True)) is None


def test_nothing_used_of_a_known_model_costs_nothing():
    assert dollars(of()) == 0


@pytest.mark.parametrize(
    ("day", "expected"), [("2025-12-31", None), ("2026-01-01", 1), ("2026-06-02", 9)]
)
def test_a_price_holds_from_its_day_on(day, expected):
    table = PriceTable([price(), price(since="2026-06-01", rates=NINE)])
    cost = table.cost(of(input=MILLION), "m", date.fromisoformat(day))

    assert (cost and cost.dollars) == expected


def test_the_day_of_the_price_is_told():
    table = PriceTable([price(), price(since="2026-06-01")])
    cost = table.cost(of(), "m", DAY)

    assert cost is not None
    assert cost.price_date == date(2026, 6, 1)


def test_ones_own_price_outlives_a_newer_one_that_is_shipped():
    own = price(since="2026-02-01", rates=NINE, is_own=True)
    table = PriceTable([price(since="2026-06-01"), own])

    assert dollars(of(input=MILLION), "m", table) == 9


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-x-1", "claude-x-1"),
        ("claude-x-1-20260101", "claude-x-1"),
        ("claude-x-2-20260101", "claude-x-2-20260101"),
        ("claude-x-2", "claude-x-*"),
        ("claude-y", "claude-*"),
        ("other", None),
    ],
)
def test_the_nearest_name_counts(model, expected):
    names = ("claude-*", "claude-x-*", "claude-x-1", "claude-x-2-20260101")
    found = PriceTable(map(price, names)).find(model, DAY)

    assert (found and found.model) == expected


# --- tiers


@pytest.mark.parametrize(
    ("tokens", "is_higher"),
    [
        (Tokens(input=100_000), False),
        (Tokens(input=100_001), True),
        (Tokens(read=99_999, write_5m=1, output=MILLION), False),
        (Tokens(read=50_000, write_1h=50_000, input=1), True),
    ],
    ids=repr,
)
def test_a_long_prompt_puts_the_whole_request_into_the_higher_tier(tokens, is_higher):
    table = PriceTable([price(tier_above=100_000, tier=NINE)])
    total = tokens.prompt + tokens.output

    assert dollars(Usage(tokens), "m", table) == Decimal(total) / MILLION * (
        9 if is_higher else 1
    )


def test_message_runs_that_add_up_have_tiers_of_their_own():
    table = PriceTable([price(tier_above=100, tier=NINE)])
    runs = (Part(Tokens(input=80)), Part(Tokens(input=120)))

    assert dollars(Usage(Tokens(input=200), runs), "m", table) == Decimal(
        80 + 120 * 9
    ) / (MILLION)


def test_message_runs_that_do_not_add_up_have_the_tier_of_the_request():
    table = PriceTable([price(tier_above=100, tier=NINE)])
    runs = (Part(Tokens(input=80)), Part(Tokens(input=20), kind="compaction"))

    assert dollars(Usage(Tokens(input=200), runs), "m", table) == Decimal(
        80 * 9 + 20
    ) / (MILLION)


# --- runs and factors


def test_a_run_of_another_model_is_priced_as_that():
    table = PriceTable([price(fast=ONE), price("other", rates=NINE)])
    runs = (Part(Tokens(input=1)), Part(Tokens(output=1), "advisor_message", "other"))
    usage = Usage(Tokens(input=1), runs, speed="fast")

    assert dollars(usage, "m", table) == Decimal(10) / MILLION


def test_a_run_of_an_unknown_model_leaves_the_request_unpriced():
    runs = (Part(Tokens(input=1)), Part(Tokens(output=1), "advisor_message", "what"))

    assert dollars(Usage(Tokens(input=1), runs)) is None


def test_batches_are_half_price_and_searches_come_on_top():
    usage = Usage(Tokens(input=MILLION), web_searches=3, service_tier="batch")

    assert dollars(usage) == Decimal("2.03")


def test_a_place_makes_tokens_dearer_but_no_searches():
    usage = Usage(Tokens(input=MILLION), web_searches=1, inference_geo="us")

    assert dollars(usage) == Decimal("4.41")
    assert dollars(Usage(Tokens(input=MILLION), inference_geo="global")) == 4


counts = st.integers(0, 10**9)
tokens = st.builds(Tokens, counts, counts, counts, counts, counts)


@given(tokens, st.sampled_from([None, "batch"]), st.sampled_from([None, "us"]), counts)
def test_costs_are_exact(used, tier, geo, searches):
    usage = Usage(used, (), searches, service_tier=tier, inference_geo=geo)
    of_tokens = Fraction(
        used.input * 400
        + used.output * 2000
        + used.write_5m * 500
        + used.write_1h * 800
        + used.read * 20,
        100 * MILLION,
    )
    factor = Fraction(1, 2 if tier else 1) * (Fraction(11, 10) if geo else 1)

    assert Fraction(dollars(usage)) == of_tokens * factor + Fraction(searches, 100)


@given(tokens, tokens)
def test_runs_cost_what_their_sum_costs(left, right):
    runs = Usage(left + right, (Part(left), Part(right)))

    assert dollars(runs) == dollars(Usage(left + right))
