"""Waiting for what happens elsewhere; the only place where a test passes time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_SECONDS = 0.01


def until(look: Callable[[], T | None], *, within_seconds: float = 5) -> T:
    """Look again and again until there is something to see; return it.

    Errors: AssertionError if nothing (or only something false) was seen in time.
    """
    deadline = time.monotonic() + within_seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, (
            f"nothing after {within_seconds} s, last seen: {seen!r}"
        )
        time.sleep(_PAUSE_SECONDS)
    return seen


def until_still(
    measure: Callable[[], float], *, for_seconds: float, within_seconds: float = 15
) -> float:
    """Wait until a measure has not changed for a while; return it."""
    value, since = measure(), time.monotonic()

    def is_still() -> bool:
        nonlocal value, since
        if (now := measure()) != value:
            value, since = now, time.monotonic()
        return time.monotonic() - since >= for_seconds

    until(is_still, within_seconds=within_seconds)
    return value
