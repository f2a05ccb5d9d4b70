"""How many rows strangers may cause: a token bucket. Pure."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Allowance:
    """So many at once, and so many more each second, by a monotonic clock."""

    burst: int
    per_second: float
    _left: float = field(init=False)
    _as_of: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._left = self.burst

    def take(self, now: float) -> bool:
        """Take one; False if none is left."""
        if self._as_of is not None:
            grown = max(0.0, now - self._as_of) * self.per_second
            self._left = min(self.burst, self._left + grown)
        self._as_of = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
