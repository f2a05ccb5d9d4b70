"""Strangers get some rows at once, and a few more each second."""

import pytest

from usage.allowance import Allowance


@pytest.mark.parametrize(
    ("asked_at", "granted"),
    [
        ([0.0] * 5, 3),
        ([0.0] * 4 + [0.1], 3),
        ([0.0] * 4 + [0.5], 4),
        ([0.0] * 4 + [60.0] * 5, 6),  # never more at once than the burst
        ([float(second) for second in range(9)], 9),
    ],
)
def test_so_many_at_once_and_so_many_each_second(asked_at, granted):
    allowance = Allowance(burst=3, per_second=2)

    assert sum(allowance.take(at) for at in asked_at) == granted
