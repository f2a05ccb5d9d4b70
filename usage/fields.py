"""A column for money that adds up exactly on every database."""

from decimal import Decimal
from typing import Any

from django.db import models

from usage.prices import from_nano, to_nano


class DollarsField(models.BigIntegerField[Decimal | None, Decimal | None]):
    """US dollars: a `Decimal` in Python, whole billionths of a dollar in the table.

    SQLite has no decimal numbers: it would keep, and add up, fractions in binary.
    """

    def from_db_value(self, value: Any, *_: object) -> Decimal | None:
        return None if value is None else from_nano(int(value))

    def to_python(self, value: Any) -> Decimal | None:
        return None if value is None else Decimal(value)

    def get_prep_value(self, value: Any) -> int | None:
        return None if value is None else to_nano(Decimal(value))
