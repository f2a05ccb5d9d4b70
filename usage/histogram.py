"""Spans of time, counted in buckets that are the same everywhere and so can be added.

Each bucket is 15 % longer than the one before, which bounds the error of a percentile.
"""

from bisect import bisect_right
from collections.abc import Mapping

import msgspec

_GROWTH = 1.15
_decode = msgspec.json.Decoder(dict[str, int]).decode
_encode = msgspec.json.Encoder().encode
_COUNT = 110  # the last one holds all of over an hour and a quarter

# Where each bucket begins, in milliseconds; the first one holds all below 1 ms.
BOUNDS = (0.0, *(_GROWTH**power for power in range(_COUNT)))


def bucket_of(milliseconds: float) -> int:
    """Return the number of the bucket that a span belongs to."""
    return max(0, bisect_right(BOUNDS, milliseconds) - 1)


class Adding:
    """Adds up histograms as JSON keeps them, and single buckets.

    It has the shape that `sqlite3` wants of an aggregate function.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def step(self, value: str | int | None) -> None:
        counts = self._counts
        if isinstance(value, int):
            bucket = str(value)
            counts[bucket] = counts.get(bucket, 0) + 1
        elif value is not None:
            for bucket, count in _decode(value).items():
                counts[bucket] = counts.get(bucket, 0) + count

    def finalize(self) -> str:
        return _encode(self._counts).decode()


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """Estimate the span below which that share of all lies; None if there is none.

    Units: milliseconds. What is inside a bucket is taken to be spread evenly.
    """
    total = sum(counts.values())
    if total == 0:
        return None
    wanted = total * share
    for bucket in sorted(counts):
        count = counts[bucket]
        if wanted <= count:
            low = BOUNDS[bucket]
            high = BOUNDS[min(bucket + 1, _COUNT)]
            return low + (high - low) * max(0.0, wanted) / count
        wanted -= count
    return BOUNDS[max(counts)]  # rounding has left a little over
