"""Prices that came with the gateway, and prices of one's own, in one table."""

from datetime import date
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError

from usage import pricing, shipped
from usage.models import PriceRow
from usage.prices import Price, Rates
from usage.tokens import Tokens, Usage

pytestmark = pytest.mark.django_db

DAY = date(2026, 11, 25)
MILLION = Usage(Tokens(input=10**6))
HALF = Rates(*[Decimal("0.5")] * 5)


def dollars(model: str) -> Decimal | None:
    cost = pricing.load().cost(MILLION, model, DAY)
    return None if cost is None else cost.dollars


def own(model: str = "claude-opus-5-5", **fields) -> PriceRow:
    amounts = dict.fromkeys(("input", "output", "write_5m", "write_1h", "read"), 1)
    return PriceRow(
        model=model, **{"effective_from": date(2026, 2, 1), **amounts, **fields}
    )


def test_a_new_table_has_the_shipped_prices():
    assert {(row.model, row.effective_from) for row in PriceRow.objects.all()} == {
        (price.model, price.effective_from) for price in shipped.prices()
    }
    assert dollars("claude-opus-5-5") == 4
    assert not PriceRow.objects.filter(is_own=True).exists()


def test_what_is_read_is_what_was_shipped():
    table = pricing.load()
    for price in shipped.prices():
        assert table.find(price.model, DAY) == price


def test_a_table_in_step_is_left_alone(django_assert_max_num_queries):
    with django_assert_max_num_queries(4):
        assert pricing.sync() == 0


def test_a_price_that_was_corrected_is_corrected():
    PriceRow.objects.filter(model="claude-opus-5-5").update(input=9)

    assert pricing.sync() == 1
    assert dollars("claude-opus-5-5") == 4


def test_an_edited_price_is_never_overwritten():
    PriceRow.objects.filter(model="claude-opus-5-5").update(input=9, is_own=True)

    assert pricing.sync() == 0
    call_command("migrate", verbosity=0)
    assert dollars("claude-opus-5-5") == 9


def test_a_price_that_is_shipped_no_more_goes_and_ones_own_stays():
    own("claude-z").save()
    pricing.sync([])

    assert [row.model for row in PriceRow.objects.all()] == ["claude-z"]


def test_a_newer_shipped_price_does_not_end_ones_own():
    own(input=Decimal("0.5")).save()
    newer = Price("claude-opus-5-5", date(2026, 6, 1), HALF)
    pricing.sync([*shipped.prices(), newer])

    assert PriceRow.objects.filter(model="claude-opus-5-5").count() == 3
    own("claude-opus-5-5", effective_from=date(2026, 3, 1), input=7).save()
    assert dollars("claude-opus-5-5") == 7


def test_a_model_without_a_price_can_be_given_one():
    assert dollars("claude-opus-9-20270101") is None
    own("claude-opus-9*").save()

    assert dollars("claude-opus-9-20270101") == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"fast_input": 1},
        {"tier_above": 5},
        {"model": "claude-*-5"},
        {"input": -1},
        {"model": "claude-opus-5-5", "effective_from": date(2026, 1, 1)},
    ],
    ids=["half fast", "half tier", "star inside", "negative", "twice a day"],
)
def test_a_price_that_makes_no_sense_is_refused(fields):
    with pytest.raises(ValidationError):
        own(**fields).full_clean()


def test_half_a_tier_is_refused_by_the_table():
    with pytest.raises(IntegrityError):
        own(tier_above=5).save()


def test_money_adds_up_to_the_last_digit():
    row = own(input=Decimal("0.000001"))
    row.save()

    assert PriceRow.objects.get(pk=row.pk).input == Decimal("0.000001")
