"""What next, after an attempt that failed? Pure: time and randomness are arguments.

An account's fault is answered by a hop to another account at once; the upstream's by a
pause that doubles, never shorter than the upstream asks for. Attempts, the request's
deadline and a budget bound it all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from proxy.outcomes import Blame, Judgement, Step

_ZERO = timedelta()


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's settings: RETRY_*."""

    is_enabled: bool = True
    max_attempts: int = 5
    base_delay: timedelta = timedelta(seconds=1)
    max_delay: timedelta = timedelta(seconds=60)
    jitter_max: timedelta = timedelta(milliseconds=500)


@dataclass(frozen=True, slots=True)
class Situation:
    """Where a request stands after an attempt."""

    attempts: int  # made so far, this one included
    pauses: int  # made so far
    remaining: timedelta  # until the request's deadline
    has_others: bool  # accounts that were not tried and may serve
    has_budget: bool  # the process may repeat more


@dataclass(frozen=True, slots=True)
class Plan:
    """Try once more after *wait*, or not; *is_charged* to the budget."""

    tries_again: bool
    wait: timedelta = _ZERO
    is_charged: bool = False


STOP = Plan(tries_again=False)


def plan(
    judgement: Judgement,
    situation: Situation,
    policy: Policy,
    uniform: Callable[[float, float], float],
) -> Plan:
    """Say what follows an attempt; *uniform* is `random.uniform`."""
    if (
        judgement.step is Step.RELAY
        or not policy.is_enabled
        or situation.attempts >= policy.max_attempts
    ):
        return STOP
    if judgement.step is Step.HOP and situation.has_others:
        # One sick account is no reason to spare the others: not charged, unless the
        # network as a whole may be what is sick.
        is_charged = judgement.blame is Blame.NETWORK
        if is_charged and not situation.has_budget:
            return STOP
        return Plan(tries_again=True, is_charged=is_charged)
    if judgement.blame not in {Blame.UPSTREAM, Blame.NETWORK}:
        return STOP  # there is nobody else, and waiting mends nothing
    wait = delay(situation.pauses, judgement.retry_after, policy, uniform)
    if not situation.has_budget or wait >= situation.remaining:
        return STOP
    return Plan(tries_again=True, wait=wait, is_charged=True)


def delay(
    pauses: int,
    retry_after: timedelta | None,
    policy: Policy,
    uniform: Callable[[float, float], float],
) -> timedelta:
    """How long to wait: min(max, base * 2^pauses) ± jitter, not below `retry-after`."""
    # The power is bounded before it is taken: 2^1000 is no float.
    span = min(policy.max_delay, policy.base_delay * float(1 << min(pauses, 40)))
    limit = policy.jitter_max.total_seconds()
    span = max(_ZERO, span + timedelta(seconds=uniform(-limit, limit)))
    return max(span, retry_after or _ZERO)


class Budget:
    """How many repeats the process may still make.

    Each request adds a tenth of a repeat, each second a little, and each repeat takes
    one: while the upstream fails as a whole, it gets a tenth more requests and not a
    multiple.
    """

    def __init__(
        self, *, share: float = 0.1, floor_per_second: float = 1.0, most: float = 20.0
    ) -> None:
        self._share = share
        self._floor_per_second = floor_per_second
        self._most = most
        self._balance = most
        self._at: float | None = None

    def note_request(self, now: float) -> None:
        """One more request came in; *now* is a monotonic time in seconds."""
        self._add(self._share, now)

    def has_one(self, now: float) -> bool:
        self._add(0.0, now)
        return self._balance >= 1.0

    def take(self, now: float) -> None:
        """One repeat is made."""
        self._add(-1.0, now)

    def _add(self, amount: float, now: float) -> None:
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        balance = self._balance + passed * self._floor_per_second + amount
        self._balance = min(self._most, max(0.0, balance))
