"""The ledger as it lies on the disk, and what callers were told they have used."""

import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.end_to_end.gateway import Gateway
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import Answer, frames
from usage import journal
from usage.entries import Begun, Finished

Row = dict[str, Any]


def select(gateway: Gateway, table: str, what: str = "*", more: str = "") -> list[Row]:
    """Read a table of the ledger beside the running gateway, on SQLite."""
    statement = f"SELECT {what} FROM usage_{table} {more}"  # noqa: S608  # ours
    path = f"file:{gateway.data_dir / 'claudeproxy.sqlite3'}?mode=ro"
    with closing(sqlite3.connect(path, uri=True, timeout=20)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(statement)]


def by_id(rows: Iterable[Row]) -> dict[str, Row]:
    """Rows by their request; none may be there twice."""
    listed = list(rows)
    found = {row["request_id"]: row for row in listed}
    assert len(found) == len(listed), "a request has two rows"
    return found


def all_rows(gateway: Gateway) -> dict[str, Row]:
    return by_id(select(gateway, "requestrow"))


def settled_rows(
    gateway: Gateway, count: int, *, within_seconds: float = 15
) -> dict[str, Row]:
    """All rows, once there are so many and nothing is on its way to the table."""
    until(
        lambda: len(all_rows(gateway)) >= count and not is_anything_waiting(gateway),
        within_seconds=within_seconds,
    )
    found = all_rows(gateway)
    assert len(found) == count
    return found


def is_anything_waiting(gateway: Gateway) -> bool:
    """Is a request open in a journal, or over and not in the table?"""
    open_ones, _ = journalled(gateway.data_dir)
    return bool(open_ones) or journal.backlog(gateway.data_dir / "journal").bytes > 0


def journalled(data_dir: Path) -> tuple[set[str], set[str]]:
    """The requests that are open, and those that are over, as the journals say."""
    begun: set[str] = set()
    finished: set[str] = set()
    for path in (data_dir / "journal").glob("*.journal"):
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            continue  # it was stored just now
        for line in lines:
            match journal.decode(line):
                case Finished(request_id=request_id):
                    finished.add(request_id)
                case Begun(request_id=request_id):
                    begun.add(request_id)
    return begun - finished, finished


# --- what was used

TOKENS: dict[str, Callable[[Row], int]] = {
    "input_tokens": lambda row: row["input_tokens"],
    "output_tokens": lambda row: row["output_tokens"],
    "cache_read_input_tokens": lambda row: row["read_tokens"],
    "cache_creation_input_tokens": lambda row: (
        row["write_5m_tokens"] + row["write_1h_tokens"]
    ),
}


def tokens_of(row: Row) -> dict[str, int]:
    """What the row says was used, in the words of the API."""
    return {name: read(row) for name, read in TOKENS.items()}


def tokens_in(answer: Answer) -> dict[str, int]:
    """What the bytes that the caller has say was used; zero where they say nothing.

    Of a stream, what comes later replaces what came before.
    """
    said: dict[str, Any] = {}
    if (answer.header("content-type") or "").startswith("text/event-stream"):
        for frame in frames(answer.body):
            if frame.endswith(b"\n\n"):
                said |= _usage_in(frame)
    elif answer.is_whole:
        said = answer.json().get("usage", {})
    return {name: said.get(name) or 0 for name in TOKENS}


def _usage_in(frame: bytes) -> dict[str, Any]:
    data = json.loads(frame.partition(b"data: ")[2])
    usage = data.get("message", data).get("usage") or {}
    return {name: value for name, value in usage.items() if value is not None}
