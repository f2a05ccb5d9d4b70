"""The rate-limit headers of one account: four buckets that drain and refill.

They only report; nothing is refused because a bucket is empty.
"""

import math
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

WINDOW_SECONDS: Final = 60.0
REQUESTS_LIMIT: Final = 1_000
INPUT_LIMIT: Final = 450_000
OUTPUT_LIMIT: Final = 90_000


# The same few seconds are written over and over under load.
@lru_cache(maxsize=256)
def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Bucket:
    """An amount that is spent at once and refills evenly within the window."""

    __slots__ = ("_level", "_names", "_read_at", "limit", "step")

    def __init__(self, name: str, limit: int, step: int = 1) -> None:
        self.limit = limit
        self.step = step
        self._level = float(limit)
        self._read_at = 0.0
        prefix = f"anthropic-ratelimit-{name}-"
        self._names = tuple(
            (prefix + part).encode() for part in ("limit", "remaining", "reset")
        )

    def spend(self, amount: int, now: float) -> None:
        """Take *amount* out, down to nothing."""
        self._level = max(0.0, self.level(now) - amount)
        self._read_at = now

    def level(self, now: float) -> float:
        """Say how much is left at *now*, in seconds since the epoch."""
        refilled = (now - self._read_at) * self.limit / WINDOW_SECONDS
        return min(float(self.limit), self._level + max(0.0, refilled))

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """Build limit, remaining (rounded to the step) and reset (when full)."""
        level = self.level(now)
        full_at = now + (self.limit - level) * WINDOW_SECONDS / self.limit
        remaining = round(level / self.step) * self.step
        values = (str(self.limit), str(remaining), _rfc3339(math.ceil(full_at)))
        return [
            (name, value.encode())
            for name, value in zip(self._names, values, strict=True)
        ]


class RateLimits:
    """The four buckets of one account."""

    def __init__(self) -> None:
        # Whole tokens would change with every request; the API rounds to thousands.
        self.requests = Bucket("requests", REQUESTS_LIMIT)
        self.tokens = Bucket("tokens", INPUT_LIMIT + OUTPUT_LIMIT, 1_000)
        self.input_tokens = Bucket("input-tokens", INPUT_LIMIT, 1_000)
        self.output_tokens = Bucket("output-tokens", OUTPUT_LIMIT, 1_000)

    def spend(self, now: float, input_tokens: int, output_tokens: int) -> None:
        """Charge one request to the buckets."""
        self.requests.spend(1, now)
        self.tokens.spend(input_tokens + output_tokens, now)
        self.input_tokens.spend(input_tokens, now)
        self.output_tokens.spend(output_tokens, now)

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """Build the four triples of headers."""
        return [
            *self.requests.headers(now),
            *self.tokens.headers(now),
            *self.input_tokens.headers(now),
            *self.output_tokens.headers(now),
        ]
