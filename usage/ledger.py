"""The record of all requests of this process: journal first, database soon after.

A request writes two lines to the journal and waits for nothing else. A task moves what
has ended into the database, a few hundred rows at a time, insert-or-ignore by request
id; what is not there yet is known by a position in the file, so that a database that is
away costs disk and no memory.

The last line is written before the answer's last byte goes out. A process that is
killed in between has recorded an answer as complete whose last byte is missing; the
other order would lose the record of answers that callers have.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic

import structlog
from django.db import Error as DatabaseError

from claudeproxy import db
from claudeproxy.conf import conf
from usage import journal, pricing, recovery
from usage.allowance import Allowance
from usage.entries import Begun, Finished
from usage.journal import Journal
from usage.prices import PriceTable

_log = structlog.get_logger(__name__)

_PAUSE = timedelta(seconds=0.5)
_PAUSE_AFTER_TROUBLE = timedelta(seconds=5)
_RECOVERY_PAUSE = timedelta(seconds=60)
_PRICES_LAST_SECONDS = 60.0
_LAST_CHANCE = timedelta(seconds=5)  # when the worker stops
_BATCH = 500
_FILE_BYTES = 16 * 1024**2
# Ends that the disk did not take, to be tried again.
_KEPT = 1000
_TROUBLE = (OSError, DatabaseError)
# Anybody can ask without a key, as fast as they like, and must not fill the disk.
_STRANGERS_BURST = 5000
_STRANGERS_PER_SECOND = 10


class Ledger:
    """What requests tell of themselves, on its way to the database.

    `begin` and `finish` never fail and never wait; what could not be kept is counted.
    Of requests without a key, only so many are kept.
    """

    def __init__(self, directory: Path) -> None:
        self._journal = Journal(directory)
        # Begun and not over, as their lines.
        self._open: dict[str, bytes] = {}
        self._kept: deque[bytes] = deque()
        self._prices: PriceTable | None = None
        self._prices_read = 0.0
        self._troubles: set[str] = set()
        self.is_stopping = False
        self._unstored = 0
        self._strangers = Allowance(_STRANGERS_BURST, _STRANGERS_PER_SECOND)
        self._passed_over = 0  # since it was logged last
        self.lost = 0  # requests whose end could not be written down
        self.refused = 0  # rows that the database does not take

    @property
    def waiting(self) -> int:
        """How many requests are over and not in the database."""
        return self._unstored + len(self._kept)

    # --- for requests

    def begin(self, entry: Begun) -> None:
        """A request has begun."""
        line = self._encode(entry)
        if line is not None:
            self._open[entry.request_id] = line
            self._journal.write(line)

    def finish(self, entry: Finished) -> None:
        """A request is over; call it before its last byte goes out."""
        self._open.pop(entry.request_id, None)
        if entry.key_id is None and not self._strangers.take(monotonic()):
            self._passed_over += 1
            return
        line = self._encode(entry)
        if line is None:
            self.lost += 1
        elif self._journal.write(line):
            self._unstored += 1
        elif len(self._kept) < _KEPT:
            self._kept.append(line)
        else:
            self.lost += 1

    def _encode(self, entry: Begun) -> bytes | None:
        try:
            return journal.encode(entry)
        except (TypeError, ValueError):  # UnicodeEncodeError is one
            _log.exception("usage_not_encoded", request_id=entry.request_id)
            return None

    # --- for the worker

    def open(self) -> None:
        """Open the journal; a disk that refuses it is tried again later."""
        with self.noted("journal"):
            self._journal.open()

    def close(self) -> None:
        """Close the journal; what is not stored is found at the next start."""
        self._tell_of_strangers()
        self.lost += len(self._kept)
        if self.lost:
            _log.error("usage_lost", requests=self.lost)
        self._journal.close(keeps_last=bool(self._open))

    async def step(self) -> None:
        """Write what the disk did not take, and store what has ended."""
        self.tend_journal()
        self._tell_of_strangers()
        due = self._unstored
        with self.noted("database"):
            while (batch := self._journal.read(_BATCH)).lines:
                done, refused = await db.run_long(partial(self._store, batch.lines))
                self._journal.note_stored(batch)
                self._unstored -= done
                self.refused += refused
                due -= done
                # What has ended meanwhile is for the next step: a busy worker would
                # write without pause, a few rows at a time.
                if due <= 0 and not self.is_stopping:
                    break

    def _tell_of_strangers(self) -> None:
        if self._passed_over:
            _log.warning("usage_strangers_passed_over", requests=self._passed_over)
            self._passed_over = 0

    def tend_journal(self) -> None:
        """Open it again, write what is kept, begin a new file when one is long."""
        with self.noted("journal"):
            if not self._journal.is_open:
                self._journal.open()
            if self._journal.size > _FILE_BYTES:
                self._journal.rotate(b"".join(self._open.values()))
            while self._kept:
                if not self._journal.write(self._kept[0]):
                    raise self._journal.last_error or OSError("the disk is full")
                self._kept.popleft()
                self._unstored += 1

    def _store(self, lines: list[bytes]) -> tuple[int, int]:
        """Store lines of the journal; return how many requests, and how many not."""
        ends = [line for line in lines if journal.tells_of_end(line)]
        entries = recovery.read_entries(ends)
        finished = [entry for entry in entries if isinstance(entry, Finished)]
        return len(finished), recovery.store_finished(finished, self._price_table())

    async def recover(self) -> None:
        """Store what dead processes left behind."""
        with self.noted("recovery"):
            await db.run_long(self._recover)

    def _recover(self) -> None:
        found = recovery.recover(
            self._journal.directory,
            self._price_table(),
            is_stopping=lambda: self.is_stopping,
        )
        self.refused += found.refused

    def _price_table(self) -> PriceTable:
        now = monotonic()
        if self._prices is None or now - self._prices_read > _PRICES_LAST_SECONDS:
            self._prices, self._prices_read = pricing.load(), now
        return self._prices

    @property
    def has_trouble(self) -> bool:
        return bool(self._troubles)

    @contextlib.contextmanager
    def noted(
        self, what: str, errors: tuple[type[Exception], ...] = _TROUBLE
    ) -> Iterator[None]:
        """Bear trouble with the disk or the database; of a row of it, log the first."""
        try:
            yield
        except errors as error:
            if what not in self._troubles:
                self._troubles.add(what)
                _log.error(
                    "usage_trouble",
                    what=what,
                    error=type(error).__name__,
                    reason=error.strerror if isinstance(error, OSError) else None,
                    waiting=self.waiting,
                    exc_info=not isinstance(error, _TROUBLE),
                )
        else:
            if what in self._troubles:
                self._troubles.remove(what)
                _log.info("usage_trouble_over", what=what, lost=self.lost)


class NoLedger:
    """Stands where a worker has no ledger: nothing is written down."""

    def begin(self, entry: Begun) -> None:
        """Nobody asks."""

    def finish(self, entry: Finished) -> None:
        """Nobody asks."""


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Ledger]:
    """Keep a worker's ledger while the context lasts, and store the rest at its end."""
    ledger = Ledger(conf.data_dir / "journal")
    ledger.open()
    stop = asyncio.Event()
    tasks = [
        asyncio.create_task(_keep_storing(ledger, stop)),
        asyncio.create_task(_keep_recovering(ledger, stop)),
    ]
    try:
        yield ledger
    finally:
        ledger.is_stopping = True
        stop.set()
        # A database that hangs must not hold up the stop; the journal remembers.
        await asyncio.wait(tasks, timeout=_LAST_CHANCE.total_seconds())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ledger.close()


async def _keep_storing(ledger: Ledger, stop: asyncio.Event) -> None:
    is_last = False
    while not is_last:
        pause = _PAUSE_AFTER_TROUBLE if ledger.has_trouble else _PAUSE
        await _stopped_within(stop, pause)
        is_last = stop.is_set()
        # The task's outer edge: a fault must not be the end of all storing.
        with ledger.noted("storing", (Exception,)):
            await ledger.step()


async def _keep_recovering(ledger: Ledger, stop: asyncio.Event) -> None:
    while not stop.is_set():
        with ledger.noted("recovering", (Exception,)):
            await ledger.recover()
        await _stopped_within(stop, _RECOVERY_PAUSE)


async def _stopped_within(stop: asyncio.Event, pause: timedelta) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), pause.total_seconds())
