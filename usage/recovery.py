"""Stores what dead processes left in their journals.

What had ended is stored as it ended. What had only begun becomes a row that says
`crashed`, once everything the process wrote has been read: it may have ended in a later
file. Files go last of all, so whoever dies at this leaves it to the next one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from usage import journal, rows, store
from usage.entries import Begun, Finished
from usage.journal import Leftover
from usage.prices import PriceTable
from usage.rows import Row

E = TypeVar("E", bound=Begun)

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Recovered:
    """What was found in journals."""

    finished: int = 0
    crashed: int = 0
    unreadable: int = 0  # lines
    refused: int = 0  # rows


def recover(
    directory: Path, prices: PriceTable, *, is_stopping: Callable[[], bool]
) -> Recovered:
    """Store what is left of every dead process; leaves those alive alone.

    Errors: django.db.Error if the database is away, OSError if a file cannot be read;
    nothing is lost by either.
    """
    found = Recovered()
    for owner in sorted(journal.owners(directory)):
        with journal.claimed(directory, owner) as leftover:
            if leftover is not None and _replay(leftover, prices, found, is_stopping):
                leftover.remove()
    if found != Recovered():
        _log.info(
            "usage_recovered",
            finished=found.finished,
            crashed=found.crashed,
            unreadable_lines=found.unreadable,
        )
    return found


def _replay(
    leftover: Leftover,
    prices: PriceTable,
    found: Recovered,
    is_stopping: Callable[[], bool],
) -> bool:
    """Store what is in the files; False if it was interrupted."""
    begun: dict[str, Begun] = {}
    for lines in leftover.lines():
        if is_stopping():
            return False
        entries = read_entries(lines)
        finished = [entry for entry in entries if isinstance(entry, Finished)]
        for entry in entries:
            if isinstance(entry, Finished):
                begun.pop(entry.request_id, None)
            else:
                begun[entry.request_id] = entry
        found.unreadable += sum(map(bool, lines)) - len(entries)
        found.refused += store_finished(finished, prices)
        found.finished += len(finished)
    found.refused += _store(list(begun.values()), rows.of_crashed)
    found.crashed += len(begun)
    return True


def read_entries(lines: list[bytes]) -> list[Begun | Finished]:
    """Decode lines; those that are none are left out."""
    entries = map(journal.decode, lines)
    return [entry for entry in entries if entry is not None]


def store_finished(entries: list[Finished], prices: PriceTable) -> int:
    """Store requests that are over; return how many of them cannot be.

    Errors: as of `store.insert`.
    """
    return _store(entries, partial(rows.of_finished, prices=prices))


def _store(entries: Sequence[E], make: Callable[[E], Row]) -> int:
    made = []
    for entry in entries:
        try:
            made.append(make(entry))
        except (ValueError, OverflowError) as error:
            # A line that makes no sense must not hold up all that come after it.
            _log.error(
                "usage_row_refused",
                request_id=entry.request_id[:64],
                error=type(error).__name__,
            )
    return len(entries) - len(made) + store.insert(made)
