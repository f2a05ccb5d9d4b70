"""The prices in the table: kept in step with those shipped, and read.

A row that was entered or changed by the operator is `is_own` and is never written here.
"""

from collections.abc import Iterable
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.models.signals import post_migrate
from django.dispatch import receiver

from usage import shipped
from usage.models import PriceRow
from usage.prices import Price, PriceTable, Rates

_RATES = ("input", "output", "write_5m", "write_1h", "read")


def load() -> PriceTable:
    """Read the prices in force, past and to come."""
    return PriceTable(map(_price, PriceRow.objects.all()))


def sync(prices: Iterable[Price] | None = None) -> int:
    """Make the rows that are not the operator's equal to what is shipped.

    Return how many had to be written or removed.
    """
    wanted = {
        (price.model, price.effective_from): _columns(price)
        for price in (shipped.prices() if prices is None else prices)
    }
    changed = 0
    with transaction.atomic():
        for row in PriceRow.objects.select_for_update():
            columns = wanted.pop((row.model, row.effective_from), None)
            if row.is_own:
                continue
            if columns is None:
                row.delete()
                changed += 1
            elif any(getattr(row, name) != value for name, value in columns.items()):
                PriceRow.objects.filter(pk=row.pk).update(**columns)
                changed += 1
        new = [
            PriceRow(model=model, effective_from=day, is_own=False, **columns)
            for (model, day), columns in wanted.items()
        ]
        PriceRow.objects.bulk_create(new)
    return changed + len(new)


def _columns(price: Price) -> dict[str, Any]:
    return {
        **_rates_as_columns("", price.rates),
        **_rates_as_columns("fast_", price.fast),
        "tier_above": price.tier_above,
        **_rates_as_columns("tier_", price.tier),
        "web_search": price.web_search,
        "batch_factor": price.batch_factor,
        "us_factor": price.geo_factors["us"],
    }


def _rates_as_columns(prefix: str, rates: Rates | None) -> dict[str, Any]:
    return {f"{prefix}{name}": rates and getattr(rates, name) for name in _RATES}


def _price(row: PriceRow) -> Price:
    rates = _rates(row, "")
    if rates is None:
        raise ValueError("the table allows no price without rates")
    return Price(
        model=row.model,
        effective_from=row.effective_from,
        rates=rates,
        fast=_rates(row, "fast_"),
        tier_above=row.tier_above,
        tier=_rates(row, "tier_"),
        web_search=row.web_search,
        batch_factor=row.batch_factor,
        geo_factors={"us": row.us_factor},
        is_own=row.is_own,
    )


def _rates(row: PriceRow, prefix: str) -> Rates | None:
    amounts = [getattr(row, f"{prefix}{name}") for name in _RATES]
    return None if None in amounts else Rates(*amounts)


@receiver(post_migrate)
def sync_after_migrate(*, sender: Any, using: str, **_: Any) -> None:
    """Bring the shipped prices into a table that was just made or changed."""
    if sender.name == "usage" and using == DEFAULT_DB_ALIAS and _table_is_ready():
        sync()


def _table_is_ready() -> bool:
    """False when migrations went back to a time without it, or without its columns."""
    connection = connections[DEFAULT_DB_ALIAS]
    table = PriceRow._meta.db_table
    with connection.cursor() as cursor:
        if table not in connection.introspection.table_names(cursor):
            return False
        found = connection.introspection.get_table_description(cursor, table)
    wanted = {field.column for field in PriceRow._meta.local_fields}
    return wanted <= {column.name for column in found}
