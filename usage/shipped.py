"""The list prices that come with the gateway."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import msgspec

from usage.prices import Price, Rates

_FILE = Path(__file__).with_name("prices.json")

_Row = tuple[Decimal, Decimal, Decimal, Decimal, Decimal]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    models: list[str]
    effective_from: date
    rates: _Row
    fast: _Row | None = None
    tier_above: int | None = None
    tier: _Row | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    columns: tuple[str, ...]
    prices: list[_Entry]


def prices() -> Iterator[Price]:
    """Read them, one for each model and day."""
    for entry in msgspec.json.decode(_FILE.read_bytes(), type=_File).prices:
        for model in entry.models:
            yield Price(
                model=model,
                effective_from=entry.effective_from,
                rates=Rates(*entry.rates),
                fast=entry.fast and Rates(*entry.fast),
                tier_above=entry.tier_above,
                tier=entry.tier and Rates(*entry.tier),
            )
