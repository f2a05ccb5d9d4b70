import pytest

from bench.figures import median_of_rounds, percentile, with_comparisons


@pytest.mark.parametrize(
    ("samples", "percent", "expected"),
    [
        ([7], 50, 7),
        ([7], 99, 7),
        ([3, 1, 2], 50, 2),
        ([4, 1, 3, 2], 50, 2),
        (list(range(1, 101)), 50, 50),
        (list(range(1, 101)), 99, 99),
        (list(range(1, 101)), 100, 100),
        (list(range(1, 101)), 0, 1),
        (list(range(1, 1001)), 99, 990),
    ],
)
def test_percentile_is_the_nearest_rank(samples, percent, expected):
    assert percentile(samples, percent) == expected


def test_percentile_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


def test_each_figure_is_the_median_of_its_own_rounds():
    rounds = [
        {"rate": 10.0, "cpu": 1.0},
        {"rate": 30.0, "cpu": 9.0},
        {"rate": 20.0, "cpu": 5.0},
    ]

    assert median_of_rounds(rounds) == {"rate": 20.0, "cpu": 5.0}


def test_targets_are_compared_with_direct_and_with_the_relay():
    rows = {
        "direct": {"cpu_us": 10.0, "p50_ms": 1.0, "p99_ms": 2.0},
        "relay": {"cpu_us": 100.0, "p50_ms": 3.0, "p99_ms": 5.0},
        "gateway": {"cpu_us": 450.0, "p50_ms": 4.0, "p99_ms": 9.0},
    }

    compared = with_comparisons(rows, baseline="direct", yardstick="relay")

    assert compared["direct"] == rows["direct"]
    assert compared["relay"]["times_relay"] == 1.0
    assert compared["gateway"]["times_relay"] == 4.5
    assert compared["gateway"]["added_p50_ms"] == 3.0
    assert compared["gateway"]["added_p99_ms"] == 7.0


def test_a_comparison_is_left_out_where_the_other_side_is_missing():
    rows = {"gateway": {"cpu_us": 450.0, "p50_ms": 4.0, "p99_ms": 9.0}}

    assert with_comparisons(rows, baseline="direct", yardstick="relay") == rows
