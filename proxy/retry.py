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
    bursts: int  # accounts that asked for a moment's patience, this one included
    remaining: timedelta  # until the request's deadline
    has_others: bool  # accounts that were not tried and may serve
    has_budget: bool  # the process may repeat more
    others_serve: bool  # other accounts answer well just now


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
    is_from_above = judgement.blame in {Blame.UPSTREAM, Blame.NETWORK}
    # One sick account is no reason to spare the others; only what may be the
    # upstream's own trouble is not to be multiplied.
    is_free = situation.has_others and situation.others_serve
    is_charged = is_from_above and not is_free
    if is_charged and not situation.has_budget:
        return STOP
    # A second burst means that it is all of them: a hop would only pass it on.
    is_second_burst = judgement.is_burst and situation.bursts > 1
    if judgement.step is Step.HOP and situation.has_others and not is_second_burst:
        return Plan(tries_again=True, is_charged=is_charged)
    is_worth_waiting = is_from_above or (
        judgement.is_burst
        and (situation.has_others or judgement.retry_after is not None)
    )
    if not is_worth_waiting:
        return STOP  # there is nobody else, and waiting mends nothing
    wait = delay(situation.pauses, judgement.retry_after, policy, uniform)
    if wait >= situation.remaining:
        return STOP
    return Plan(tries_again=True, wait=wait, is_charged=is_charged)


def delay(
    pauses: int,
    retry_after: timedelta | None,
    policy: Policy,
    uniform: Callable[[float, float], float],
) -> timedelta:
    """How long to wait: min(max, base * 2^pauses) ± jitter, not below `retry-after`."""
    # The power is bounded before it is taken: 2^2000 is no float.
    doubled = policy.base_delay.total_seconds() * 2.0 ** min(pauses, 40)
    limit = policy.jitter_max.total_seconds()
    seconds = min(policy.max_delay.total_seconds(), doubled) + uniform(-limit, limit)
    return max(_ZERO, timedelta(seconds=seconds), retry_after or _ZERO)


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
