"""Numbers as people read them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudeproxy import figures
from claudeproxy.figures import DOLLARS, MILLISECONDS, PERCENT, REQUESTS, TOKENS


@pytest.mark.parametrize(
    ("value", "unit", "short"),
    [
        (0, TOKENS, "0"),
        (7, TOKENS, "7"),
        (1204, TOKENS, "1,204"),
        (9999, TOKENS, "9,999"),
        (12_345, TOKENS, "12.3 k"),
        (999_949, TOKENS, "1 M"),
        (1_200_000, TOKENS, "1.2 M"),
        (2_500_000_000, TOKENS, "2.5 G"),
        (10**12, TOKENS, "1 T"),
        (10**18, TOKENS, "1.0E+18"),
        (0.5, TOKENS, "0.5"),
        (2 / 3, TOKENS, "0.667"),
        (1e-300, TOKENS, "< 0.000001"),
        (0, DOLLARS, "$0"),
        (Decimal("0.0034"), DOLLARS, "$0.0034"),
        (Decimal("0.00000009"), DOLLARS, "< $0.000001"),
        (Decimal("0.0999"), DOLLARS, "$0.10"),
        (Decimal("0.5"), DOLLARS, "$0.50"),
        (20, DOLLARS, "$20"),
        (Decimal("12.345"), DOLLARS, "$12.34"),
        (1234, DOLLARS, "$1,234"),
        (12_345, DOLLARS, "$12.3 k"),
        (0, MILLISECONDS, "0 ms"),
        (0.35, MILLISECONDS, "0.35 ms"),
        (350, MILLISECONDS, "350 ms"),
        (999.6, MILLISECONDS, "1 s"),
        (1234, MILLISECONDS, "1.23 s"),
        (120_000, MILLISECONDS, "120 s"),
        (42, PERCENT, "42 %"),
    ],
)
def test_a_short_number_keeps_what_matters(value, unit, short) -> None:
    assert figures.compact(value, unit).replace("\xa0", " ") == short


@pytest.mark.parametrize(
    ("value", "unit", "whole"),
    [
        (0, TOKENS, "0"),
        (1_234_567, TOKENS, "1,234,567"),
        (100, TOKENS, "100"),
        (1.5, TOKENS, "1.5"),
        (0, DOLLARS, "$0.00"),
        (Decimal("0.003412"), DOLLARS, "$0.003412"),
        (Decimal("1234.5"), DOLLARS, "$1,234.50"),
        (1234.56, MILLISECONDS, "1,234.6 ms"),
        (350, MILLISECONDS, "350 ms"),
        (12.34, PERCENT, "12.3 %"),
        (10**300, TOKENS, "1.000000E+300"),
        (-3, TOKENS, "-3"),
    ],
)
def test_an_exact_number_has_its_digits(value, unit, whole) -> None:
    assert figures.exact(value, unit).replace("\xa0", " ") == whole


@pytest.mark.parametrize(
    "value", [None, float("nan"), float("inf"), float("-inf"), Decimal("NaN")]
)
def test_what_is_not_finite_is_no_number(value) -> None:
    assert figures.to_decimal(value) is None


@pytest.mark.parametrize(
    ("highest", "whole", "steps"),
    [
        ("0", True, ["0", "1"]),
        ("1", True, ["0", "1"]),
        ("3", True, ["0", "1", "2", "3"]),
        ("7", True, ["0", "2", "4", "6", "8"]),
        ("83", True, ["0", "50", "100"]),
        ("100", True, ["0", "50", "100"]),
        ("0.3", False, ["0", "0.1", "0.2", "0.3"]),
        ("0.0034", False, ["0", "0.001", "0.002", "0.003", "0.004"]),
    ],
)
def test_an_axis_is_divided_by_round_numbers(highest, whole, steps) -> None:
    found = figures.round_steps(Decimal(highest), whole=whole)
    assert list(found) == [Decimal(step) for step in steps]


@given(st.floats(min_value=1e-300, max_value=1e300), st.booleans())
def test_an_axis_reaches_any_value_in_few_steps(highest: float, whole: bool) -> None:
    value = Decimal(str(highest))
    steps = figures.round_steps(value, whole=whole)
    assert 2 <= len(steps) <= 5
    assert steps[0] == 0
    assert steps[-2] < value <= steps[-1]


@given(
    st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    st.sampled_from([REQUESTS, DOLLARS, MILLISECONDS, PERCENT]),
)
def test_any_number_can_be_written_and_is_short(value: float, unit) -> None:
    assert len(figures.compact(value, unit)) <= 13
    assert figures.exact(value, unit)
