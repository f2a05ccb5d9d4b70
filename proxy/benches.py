"""Which accounts this worker sets aside, and for how long; in memory only.

Short matters stay here: bursts, limits of one group of models, models an account turned
out to lack, and network trouble, for which each account has a circuit. What lasts is
the account's status, in the database.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from accounts.pool import PooledAccount
from proxy.errors import Exclusion

K = TypeVar("K")

# So many failures in a row open an account's circuit …
_FAILURES_TO_OPEN = 3
# … for so long, twice as long each time a trial fails, up to:
_FIRST_PAUSE = timedelta(seconds=5)
_LONGEST_PAUSE = timedelta(minutes=2)
# Accounts that fail within this time fail alike: then it is not the accounts.
_ALIKE_WITHIN = timedelta(seconds=5)


@dataclass(slots=True)
class Circuit:
    """An account's recent trouble."""

    failures: int = 0
    last_failure_at: datetime | None = None
    open_until: datetime | None = None
    pause: timedelta = _FIRST_PAUSE
    is_on_trial: bool = False


class Benches:
    """What speaks against an account at the moment, beyond its status."""

    def __init__(self) -> None:
        self._cool: dict[int, datetime] = {}
        self._cool_models: dict[tuple[int, str], datetime] = {}
        self._lacks: dict[tuple[int, str], datetime] = {}
        self._circuits: dict[int, Circuit] = {}

    def why_not(
        self, account: PooledAccount, model: str | None, now: datetime
    ) -> Exclusion | None:
        """Say why the account is set aside; None if it is not."""
        if not (self._cool or self._cool_models or self._lacks or self._circuits):
            return None
        if until := _pending(self._cool, account.id, now):
            return Exclusion(account.name, "rate limited", until)
        if model is not None:
            if _pending(self._lacks, (account.id, model), now):
                reason = "without this model"
                return Exclusion(account.name, reason, is_in_use=False)
            if until := self._models_cool_until(account.id, model, now):
                return Exclusion(account.name, "rate limited for this model", until)
        circuit = self._circuits.get(account.id)
        if circuit is None or circuit.open_until is None:
            return None
        if now < circuit.open_until or circuit.is_on_trial:
            return Exclusion(account.name, "set aside after network trouble")
        return None

    def cool(self, account_id: int, until: datetime) -> None:
        self._cool[account_id] = until

    def cool_models(self, account_id: int, models: str, until: datetime) -> None:
        """Set the account aside for models whose id holds *models*."""
        self._cool_models[account_id, models] = until

    def lack(self, account_id: int, model: str, until: datetime) -> None:
        """The account turned out not to have *model*."""
        self._lacks[account_id, model] = until

    def begin(self, account_id: int) -> None:
        """The account gets a request; after trouble it is the one trial."""
        circuit = self._circuits.get(account_id)
        if circuit is not None and circuit.open_until is not None:
            circuit.is_on_trial = True

    def succeed(self, account_id: int) -> None:
        """The account answered: its trouble is over."""
        self._circuits.pop(account_id, None)

    def abandon(self, account_id: int) -> None:
        """The trial brought no verdict: its caller left."""
        if circuit := self._circuits.get(account_id):
            circuit.is_on_trial = False

    def fail(self, account_id: int, now: datetime) -> None:
        """The account was in trouble on the network once more."""
        circuit = self._circuits.setdefault(account_id, Circuit())
        was_on_trial, circuit.is_on_trial = circuit.is_on_trial, False
        circuit.failures += 1
        circuit.last_failure_at = now
        if self._others_fail_alike(account_id, now):
            for each in self._circuits.values():
                each.open_until, each.failures = None, 0
            return
        if was_on_trial:
            circuit.pause = min(_LONGEST_PAUSE, circuit.pause * 2)
        if was_on_trial or circuit.failures >= _FAILURES_TO_OPEN:
            circuit.open_until = now + circuit.pause

    def _others_fail_alike(self, account_id: int, now: datetime) -> bool:
        return any(
            other != account_id
            and circuit.last_failure_at is not None
            and now - circuit.last_failure_at <= _ALIKE_WITHIN
            for other, circuit in self._circuits.items()
        )

    def _models_cool_until(
        self, account_id: int, model: str, now: datetime
    ) -> datetime | None:
        for benched, models in tuple(self._cool_models):
            if benched != account_id or models not in model:
                continue
            if until := _pending(self._cool_models, (benched, models), now):
                return until
        return None


def _pending(deadlines: dict[K, datetime], key: K, now: datetime) -> datetime | None:
    """Return the deadline if it is still to come; forget it if it has passed."""
    until = deadlines.get(key)
    if until is not None and until <= now:
        del deadlines[key]
        return None
    return until
