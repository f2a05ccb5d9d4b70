"""Lengths of time as operators write them: `500ms`, `30s`, `5m`, `168h`, `7d`."""

import re
from datetime import timedelta

_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse(text: str) -> timedelta:
    """Read a duration.

    Shape: one or more numbers with a unit, largest first or not: `5m`, `1h30m`.
    Errors: ValueError that says which forms are accepted.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise ValueError(
            f"{text!r} is not a duration; write a number with its unit, "
            "such as 500ms, 30s, 5m, 168h or 7d"
        )
    try:
        return sum((float(n) * _UNITS[unit] for n, unit in parts), timedelta())
    except OverflowError:
        raise ValueError(f"{text!r} is longer than any clock can count") from None


def describe(span: timedelta) -> str:
    """Say a duration in its largest two units: `2h 5m`, `45s`."""
    seconds = max(0, round(span.total_seconds()))
    words = []
    for name, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            words.append(f"{count}{name}")
    return " ".join(words[:2]) or "0s"
