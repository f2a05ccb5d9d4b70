"""The price list says of each usage what Claude Code said of it."""

import json
from datetime import date
from decimal import Decimal

import pytest

from tests.usage.claude_code import AGREED, DIFFERENT, UNPRICED, Case
from usage import shipped
from usage.prices import PriceTable
from usage.tally import Tally
from usage.tokens import Usage

DAY = date(2026, 11, 26)
TABLE = PriceTable(shipped.prices())


def usages(case: Case) -> list[Usage]:
    """What the answers of a run say, as the gateway reads it."""
    read = []
    for stated in case.answers:
        tally = Tally()
        answer = {"type": "message", "model": case.model, "usage": stated}
        tally.note_body(json.dumps(answer).encode())
        assert tally.usage
        read.append(tally.usage)
    return read


def cost(case: Case) -> Decimal | None:
    """What they cost together; None if one has no price."""
    costs = [TABLE.cost(usage, case.model, DAY) for usage in usages(case)]
    return (
        None if None in costs else sum((it.dollars for it in costs if it), Decimal(0))
    )


@pytest.mark.parametrize("case", AGREED, ids=str)
def test_cost_is_what_claude_code_says(case: Case) -> None:
    assert cost(case) == Decimal(case.dollars)


@pytest.mark.parametrize("case", DIFFERENT, ids=str)
def test_cost_differs_from_claude_codes_only_as_written_down(case: Case) -> None:
    ours = None if case.ours == UNPRICED else Decimal(case.ours)
    assert cost(case) == ours != Decimal(case.dollars)


def test_every_shipped_price_is_compared() -> None:
    compared = {
        TABLE.rates(usage, case.model, DAY) for case in AGREED for usage in usages(case)
    }
    for price in shipped.prices():
        assert {price.rates, price.fast, price.tier} - {None} <= compared, price.model
