"""Requests and sums as rows for spreadsheets and scripts: CSV and JSON.

Source: RFC 4180 for CSV. Spreadsheets take a cell that begins with one of a few signs
for a formula, and names come from outside; such a cell gets an apostrophe in front.
"""

import csv
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from io import StringIO
from typing import Any

from claudeproxy import db
from usage import request_log
from usage.models import RequestRow
from usage.request_log import Place, Wanted

REQUEST_COLUMNS = (
    "request_id",
    "started_at",
    "account",
    "key",
    "model",
    "status",
    "end_reason",
    "attempts",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_5m_input_tokens",
    "cache_write_1h_input_tokens",
    "cost",
    "first_byte_ms",
    "duration_ms",
    "bytes",
)

# The last four are as wide as ideographs, and the same to some of them.
_FORMULAS = (
    *("=", "+", "-", "@", "\t", "\r", "\n"),
    *("\uff1d", "\uff0b", "\uff0d", "\uff20"),
)
_STREAM_ROWS = 2000


def request_fields(row: RequestRow) -> dict[str, Any]:
    """A request, by column."""
    return {
        "request_id": row.request_id,
        "started_at": row.started_at,
        "account": row.account_name or None,
        "key": row.key_name or None,
        "model": row.model or row.model_asked or None,
        "status": row.status or None,
        "end_reason": row.end_reason,
        "attempts": request_log.attempts_made(row),
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
        "cache_read_input_tokens": row.read_tokens,
        "cache_write_5m_input_tokens": row.write_5m_tokens,
        "cache_write_1h_input_tokens": row.write_1h_tokens,
        "cost": row.cost,
        "first_byte_ms": row.first_byte_ms,
        "duration_ms": row.duration_ms,
        "bytes": row.answer_bytes,
    }


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Write rows as lines; nothing is an empty cell."""
    text = StringIO()
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def requests_as_csv(rows: Iterable[RequestRow]) -> str:
    return as_csv(list(request_fields(row).values()) for row in rows)


def requests_as_json(rows: Iterable[RequestRow]) -> str:
    """Write each as an object on a line of its own."""
    return "".join(
        json.dumps({name: plain(value) for name, value in request_fields(row).items()})
        + "\n"
        for row in rows
    )


def plain(value: Any) -> Any:
    """A value as JSON has it; amounts are texts, so that no digit is lost."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return f"{value.normalize():f}" if isinstance(value, Decimal) else value


async def stream_csv(wanted: Wanted) -> AsyncIterator[bytes]:
    """All requests that are wanted, read as fast as they are taken.

    Between two chunks nothing is held: no transaction, no connection.
    """
    yield as_csv([REQUEST_COLUMNS]).encode()
    after: Place | None = None
    while True:
        # Reading as well as writing takes time; the worker's loop has other callers.
        text, after = await db.run_long(partial(_next_lines, wanted, after))
        if after is None:
            return
        yield text


def _next_lines(wanted: Wanted, after: Place | None) -> tuple[bytes, Place | None]:
    rows = request_log.chunk(wanted, after, _STREAM_ROWS)
    return requests_as_csv(rows).encode(), Place.of(rows[-1]) if rows else None


def _cell(value: Any) -> Any:
    value = plain(value)
    if isinstance(value, str) and value.startswith(_FORMULAS):
        return f"'{value}"
    return value
