"""Which accounts this worker sets aside, and for how long; in memory only.

Short matters stay here: bursts, limits of some models, models an account turned
out to lack, and trouble that its siblings do not have, for which each account has a
circuit. What lasts is the account's status, in the database.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from accounts.pool import PooledAccount
from proxy.errors import LACKS_MODEL, Exclusion
from proxy.model_groups import group_of, line_of

K = TypeVar("K")

RATE_LIMITED = "rate limited"

# So many failures in a row open an account's circuit, if its siblings serve …
_FAILURES_TO_OPEN = 3
# … for so long, twice as long each time a trial fails, up to:
_FIRST_PAUSE = timedelta(seconds=5)
_LONGEST_PAUSE = timedelta(minutes=2)
# Accounts that fail within this time fail alike: then it is not the accounts.
_ALIKE_WITHIN = timedelta(seconds=5)
# Models are named by callers: a name this long is none, and so many are enough.
_MODEL_LENGTH = 200
_MOST_NAMES = 1000


@dataclass(slots=True)
class Circuit:
    """An account's recent trouble."""

    since: datetime  # from when on what its siblings do is compared
    last_failure_at: datetime
    failures: int = 0
    open_until: datetime | None = None
    pause: timedelta = _FIRST_PAUSE
    is_on_trial: bool = False


@dataclass(frozen=True, slots=True)
class Bench:
    """Why an account is set aside, and when callers may expect it back."""

    reason: str
    expected_at: datetime | None


class Deadlines(Generic[K]):
    """What is so until a moment, and forgotten afterwards."""

    def __init__(self) -> None:
        self._until: dict[K, datetime] = {}

    def __len__(self) -> int:
        return len(self._until)

    def set(self, key: K, until: datetime) -> bool:
        """True unless it is so until later already."""
        known = self._until.get(key)
        if known is not None and known > until:
            return False
        self._until[key] = until
        return True

    def pending(self, key: K, now: datetime) -> datetime | None:
        """Return the deadline if it is still to come."""
        until = self._until.get(key)
        if until is not None and until <= now:
            del self._until[key]
            return None
        return until

    def prune(self, now: datetime) -> None:
        self._until = {key: at for key, at in self._until.items() if at > now}


class Benches:
    """What speaks against an account at the moment, beyond its status."""

    def __init__(self) -> None:
        self._cool: Deadlines[int] = Deadlines()
        self._why: dict[int, Bench] = {}
        self._cool_groups: Deadlines[tuple[int, str]] = Deadlines()
        self._cool_lines: Deadlines[tuple[int, str]] = Deadlines()
        self._lacks: Deadlines[tuple[int, str]] = Deadlines()
        self._circuits: dict[int, Circuit] = {}
        self._served_at: dict[int, datetime] = {}

    def why_not(
        self, account: PooledAccount, model: str | None, now: datetime
    ) -> Exclusion | None:
        """Say why the account is set aside; None if it is not."""
        if not (
            self._cool
            or self._cool_groups
            or self._cool_lines
            or self._lacks
            or self._circuits
        ):
            return None
        if self._cool.pending(account.id, now):
            bench = self._why[account.id]
            at = bench.expected_at
            return Exclusion(account.name, bench.reason, at, is_in_use=at is not None)
        if model is not None:
            if self._lacks.pending((account.id, model), now):
                return Exclusion(account.name, LACKS_MODEL, is_in_use=False)
            if until := self._models_cool_until(account.id, model, now):
                return Exclusion(account.name, "rate limited for this model", until)
        circuit = self._circuits.get(account.id)
        if circuit is None or circuit.open_until is None:
            return None
        if now < circuit.open_until or circuit.is_on_trial:
            return Exclusion(account.name, "set aside after trouble of its own")
        return None

    def cool(
        self,
        account_id: int,
        until: datetime,
        reason: str,
        expected_at: datetime | None = None,
    ) -> None:
        """Set the account aside; *expected_at* is what callers are told."""
        if self._cool.set(account_id, until):
            self._why[account_id] = Bench(reason, expected_at)

    def cool_group(
        self, account_id: int, model: str, until: datetime, now: datetime
    ) -> None:
        """Set the account aside for the models that share the limit of *model*."""
        if _has_room(self._cool_groups, now):
            self._cool_groups.set((account_id, group_of(model)), until)

    def cool_line(self, account_id: int, line: str, until: datetime) -> None:
        """Set the account aside for a line of models."""
        self._cool_lines.set((account_id, line), until)

    def lack(self, account_id: int, model: str, until: datetime, now: datetime) -> None:
        """The account turned out not to have *model*."""
        if len(model) <= _MODEL_LENGTH and _has_room(self._lacks, now):
            self._lacks.set((account_id, model), until)

    def begin(self, account_id: int) -> bool:
        """The account gets a request; True if that is its one trial after trouble."""
        circuit = self._circuits.get(account_id)
        if circuit is None or circuit.open_until is None or circuit.is_on_trial:
            return False
        circuit.is_on_trial = True
        return True

    def succeed(self, account_id: int, now: datetime) -> None:
        """The account answered: its trouble is over."""
        self._served_at[account_id] = now
        self._circuits.pop(account_id, None)

    def abandon(self, account_id: int) -> None:
        """The trial brought no verdict."""
        if circuit := self._circuits.get(account_id):
            circuit.is_on_trial = False

    def fail(self, account_id: int, now: datetime, *, is_trial: bool = False) -> None:
        """The account was in trouble once more; *is_trial* is what `begin` said."""
        circuit = self._circuits.setdefault(
            account_id, Circuit(now - _ALIKE_WITHIN, now)
        )
        circuit.failures += 1
        circuit.last_failure_at = now
        if is_trial:
            circuit.is_on_trial = False
        if self._others_fail(account_id, now):
            self.forgive(tuple(self._circuits))
            return
        if is_trial:
            circuit.pause = min(_LONGEST_PAUSE, circuit.pause * 2)
        elif circuit.open_until is not None or circuit.failures < _FAILURES_TO_OPEN:
            return
        if self._others_served(account_id, circuit.since):
            circuit.open_until = now + circuit.pause

    def forgive(self, account_ids: Iterable[int]) -> None:
        """What these accounts failed on is not theirs: let them serve."""
        for account_id in account_ids:
            if circuit := self._circuits.get(account_id):
                circuit.since = circuit.last_failure_at
                circuit.open_until, circuit.failures = None, 0
                circuit.pause, circuit.is_on_trial = _FIRST_PAUSE, False

    def others_serve(self, account_id: int, now: datetime) -> bool:
        """Do other accounts answer, and none of them fail, at about this time?"""
        return self._others_served(
            account_id, now - _ALIKE_WITHIN
        ) and not self._others_fail(account_id, now)

    def _others_served(self, account_id: int, since: datetime) -> bool:
        return any(
            other != account_id and at >= since for other, at in self._served_at.items()
        )

    def _others_fail(self, account_id: int, now: datetime) -> bool:
        return any(
            other != account_id and now - circuit.last_failure_at <= _ALIKE_WITHIN
            for other, circuit in self._circuits.items()
        )

    def _models_cool_until(
        self, account_id: int, model: str, now: datetime
    ) -> datetime | None:
        ends = []
        if self._cool_groups:
            ends.append(self._cool_groups.pending((account_id, group_of(model)), now))
        if self._cool_lines and (line := line_of(model)):
            ends.append(self._cool_lines.pending((account_id, line), now))
        return max((end for end in ends if end is not None), default=None)


def _has_room(deadlines: Deadlines[tuple[int, str]], now: datetime) -> bool:
    if len(deadlines) >= _MOST_NAMES:
        deadlines.prune(now)
    return len(deadlines) < _MOST_NAMES
