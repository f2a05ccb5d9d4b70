"""Numbers as people read them: short on an axis, whole in a table."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from enum import Enum
from typing import TypeAlias

Value: TypeAlias = int | float | Decimal

# A number and its unit are not torn apart at the end of a line.
_NBSP = "\N{NO-BREAK SPACE}"
_PREFIXES = (
    (Decimal("1e12"), "T"),
    (Decimal("1e9"), "G"),
    (Decimal("1e6"), "M"),
    (Decimal("1e3"), "k"),
)
# Beyond these, digits say nothing: they are not written out.
_HUGE = Decimal("1e15")
_TINY = Decimal("1e-6")
# Four digits are as short as three and a prefix.
_SHORTENED_FROM = 10_000
_ZERO = Decimal(0)


class Kind(Enum):
    COUNT = "count"
    DOLLARS = "dollars"
    MILLISECONDS = "milliseconds"
    PERCENT = "percent"


@dataclass(frozen=True)
class Unit:
    """What is counted or measured, and how it is written."""

    noun: str
    kind: Kind = Kind.COUNT

    @property
    def adds_up(self) -> bool:
        """Whether the sum over time means something."""
        return self.kind in {Kind.COUNT, Kind.DOLLARS}


REQUESTS = Unit("requests")
TOKENS = Unit("tokens")
DOLLARS = Unit("US dollars", Kind.DOLLARS)
MILLISECONDS = Unit("time", Kind.MILLISECONDS)
PERCENT = Unit("percent", Kind.PERCENT)


def to_decimal(value: Value | None) -> Decimal | None:
    """Take a number as it is written; None if there is none, or it is not finite."""
    if value is None:
        return None
    number = Decimal(str(value))
    return number if number.is_finite() else None


def compact(value: Value, unit: Unit) -> str:
    """Write a number in few characters: `1.2 M`, `$0.0034`, `350 ms`."""
    number = Decimal(str(value))
    match unit.kind:
        case Kind.COUNT:
            return _short_count(number)
        case Kind.PERCENT:
            return f"{_short(number)}{_NBSP}%"
        case Kind.MILLISECONDS:
            if _round(number) < 1000:
                return f"{_short(number)}{_NBSP}ms"
            return f"{_short_count(_round(number / 1000))}{_NBSP}s"
        case Kind.DOLLARS:
            return _short_dollars(number)


def exact(value: Value, unit: Unit) -> str:
    """Write a number with all digits that matter: `1,234,567`, `$0.003412`."""
    number = Decimal(str(value))
    match unit.kind:
        case Kind.COUNT:
            return _grouped(number, 3)
        case Kind.PERCENT:
            return f"{_grouped(number, 1)}{_NBSP}%"
        case Kind.MILLISECONDS:
            return f"{_grouped(number, 1)}{_NBSP}ms"
        case Kind.DOLLARS:
            whole, _, cents = _grouped(number, 6).partition(".")
            return f"${whole}.{cents:0<2}"


def round_steps(highest: Decimal, *, whole: bool, most: int = 4) -> tuple[Decimal, ...]:
    """Divide an axis from 0 to *highest* or just above, in steps of 1, 2 or 5.

    Shape: the marks, the first 0 and the last at least *highest*; *most* steps at most.
    With *whole*, no step is a fraction.
    """
    if highest <= 0:
        return (_ZERO, Decimal(1))
    rough = highest / most
    step = next(step for step in _candidates(rough.adjusted()) if step >= rough)
    if whole:
        step = max(step, Decimal(1))
    return tuple(step * number for number in range(math.ceil(highest / step) + 1))


def _candidates(exponent: int) -> Iterator[Decimal]:
    for factor in (1, 2, 5, 10):
        yield Decimal(factor).scaleb(exponent)


def _round(number: Decimal, digits: int = 3) -> Decimal:
    return Context(prec=digits, rounding=ROUND_HALF_UP).plus(number)


def _plain(number: Decimal) -> str:
    if abs(number) >= _HUGE:
        return f"{number:.1E}"
    return f"{number.normalize():f}"


def _short(number: Decimal) -> str:
    rounded = _round(number)
    if _is_tiny(rounded):
        return f"<{_NBSP}{_TINY:f}"
    if rounded < _HUGE:
        for size, prefix in _PREFIXES:
            if rounded >= size:
                return f"{_plain(rounded / size)}{_NBSP}{prefix}"
    return _plain(rounded)


def _short_count(number: Decimal) -> str:
    is_whole = number == number.to_integral_value()
    if is_whole and number < _SHORTENED_FROM:
        return f"{number:,.0f}"
    return _short(number)


def _short_dollars(number: Decimal) -> str:
    if _is_tiny(number):
        return f"<{_NBSP}${_TINY:f}"
    if _round(number) >= 1000:
        return f"${_short_count(number.to_integral_value())}"
    if number >= Decimal("0.095"):
        return f"${number:.2f}".removesuffix(".00")
    return f"${_plain(_round(number, 2))}"


def _is_tiny(number: Decimal) -> bool:
    return 0 < number < _TINY


def _grouped(number: Decimal, places: int) -> str:
    """Thousands apart; as many of the decimal places as there are."""
    if abs(number) >= _HUGE:
        return f"{number:.6E}"
    text = f"{number:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
