"""How much of a plan somebody has used: the rate-limit headers, and the usage answer.

As with the buckets of API keys, nothing is refused because a plan is used up.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

FIVE_HOURS: Final = 5 * 3600
SEVEN_DAYS: Final = 7 * 24 * 3600
FIVE_HOUR_TOKENS: Final = 200_000
SEVEN_DAY_TOKENS: Final = 2_000_000
WARNING_THRESHOLD: Final = 0.75
PREFIX: Final = "anthropic-ratelimit-unified-"


@dataclass(slots=True)
class Window:
    """What one claim allows in a span of time that begins with the first use."""

    claim: str
    short: str
    group: str
    span_seconds: int
    limit: int
    used: int = 0
    ends_at: float = 0.0

    def spend(self, amount: int, now: float) -> None:
        """Use *amount*, in a new span if the old one is over."""
        if not self.is_open(now):
            self.used, self.ends_at = 0, math.floor(now) + self.span_seconds
        self.used += amount

    def is_open(self, now: float) -> bool:
        """Tell whether a span has begun and is not over."""
        return self.ends_at - self.span_seconds <= now < self.ends_at

    def utilization(self, now: float) -> float:
        """Tell which part is used, from 0 to 1."""
        used = self.used if self.is_open(now) else 0
        return min(1.0, round(used / self.limit, 4))

    def status(self, now: float) -> str:
        """Name the status; it is never "rejected", since nothing is."""
        is_close = self.utilization(now) >= WARNING_THRESHOLD
        return "allowed_warning" if is_close else "allowed"

    def reset(self, now: float) -> int:
        """Tell when the span ends, or would end if it began now; in Unix seconds."""
        return int(self.ends_at if self.is_open(now) else now + self.span_seconds)

    def resets_at(self, now: float) -> str | None:
        """Tell the same as text, None if no span has begun."""
        if not self.is_open(now):
            return None
        return datetime.fromtimestamp(self.ends_at, UTC).isoformat()


class UnifiedLimits:
    """The two windows of one person's plan."""

    def __init__(self) -> None:
        self.five_hour = Window(
            "five_hour", "5h", "session", FIVE_HOURS, FIVE_HOUR_TOKENS
        )
        self.seven_day = Window(
            "seven_day", "7d", "weekly", SEVEN_DAYS, SEVEN_DAY_TOKENS
        )

    @property
    def windows(self) -> tuple[Window, Window]:
        """Both windows, the shorter first."""
        return self.five_hour, self.seven_day

    def spend(self, now: float, input_tokens: int, output_tokens: int) -> None:
        """Charge one request to both windows."""
        for window in self.windows:
            window.spend(input_tokens + output_tokens, now)

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """Build the headers; the claim that matters is the one used up most."""
        decisive = max(self.windows, key=lambda window: window.utilization(now))
        values = {
            "status": decisive.status(now),
            "reset": str(decisive.reset(now)),
            "representative-claim": decisive.claim,
        }
        for window in self.windows:
            values[f"{window.short}-status"] = window.status(now)
            values[f"{window.short}-reset"] = str(window.reset(now))
            values[f"{window.short}-utilization"] = f"{window.utilization(now):g}"
            if window.status(now) == "allowed_warning":
                threshold = str(WARNING_THRESHOLD)
                values[f"{window.short}-surpassed-threshold"] = threshold
        return [
            ((PREFIX + name).encode(), value.encode()) for name, value in values.items()
        ]

    def answer(self, now: float) -> dict[str, object]:
        """Build the usage answer.

        Units: percent from 0 to 100, where the headers have fractions; ISO 8601.
        """
        claims = {
            window.claim: {
                "utilization": _percent(window, now),
                "resets_at": window.resets_at(now),
            }
            for window in self.windows
        }
        return {
            **claims,
            "seven_day_opus": None,
            "seven_day_sonnet": None,
            "seven_day_oauth_apps": None,
            "extra_usage": None,
            "limits": [_limit(window, now) for window in self.windows],
        }


def _percent(window: Window, now: float) -> float:
    return round(window.utilization(now) * 100, 2)


def _limit(window: Window, now: float) -> dict[str, object]:
    is_close = window.status(now) == "allowed_warning"
    return {
        "kind": window.claim,
        "group": window.group,
        "percent": _percent(window, now),
        "resets_at": window.resets_at(now),
        "scope": None,
        "severity": "warning" if is_close else "normal",
        "is_active": window.is_open(now),
    }
