"""Arithmetic on samples: percentiles, medians of rounds, ratios. Pure."""

import math
import statistics
from collections.abc import Mapping, Sequence

Figures = dict[str, float]


def percentile(samples: Sequence[float], percent: float) -> float:
    """Pick a percentile by nearest rank: always a value that was really seen."""
    if not samples:
        raise ValueError("there are no samples")
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def median_of_rounds(rounds: Sequence[Figures]) -> Figures:
    """Take the median of every figure over rounds that measured the same ones."""
    return {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}


def with_comparisons(
    rows: Mapping[str, Figures], *, baseline: str, yardstick: str
) -> dict[str, Figures]:
    """Add what each target adds to *baseline* and how often it costs *yardstick*.

    A comparison is left out where its other side was not measured, and a target is
    not compared with itself.
    """
    compared = {}
    for name, row in rows.items():
        more: Figures = {}
        for key in ("p50_ms", "p99_ms"):
            if name != baseline and key in row and baseline in rows:
                more[f"added_{key}"] = row[key] - rows[baseline][key]
        if "cpu_us" in row and name != baseline and yardstick in rows:
            more["times_relay"] = row["cpu_us"] / rows[yardstick]["cpu_us"]
        compared[name] = row | more
    return compared
