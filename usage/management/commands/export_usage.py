"""`manage.py export_usage`: write single requests to a file or to standard output."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from django.core.management.base import CommandError, CommandParser

from claudeproxy import terminal
from claudeproxy.commands import DatabaseCommand
from usage import export, reports, request_log
from usage.models import RequestRow, RollupState
from usage.outcome import Outcome
from usage.reports import Only
from usage.request_log import Wanted
from usage.serializers import find_id, parse_moment

Write = Callable[[Iterable[RequestRow]], str]

# What each format begins with, and how it writes requests.
_FORMATS: dict[str, tuple[str, Write]] = {
    "csv": (export.as_csv([export.REQUEST_COLUMNS]), export.requests_as_csv),
    "json": ("", export.requests_as_json),
}


class Command(DatabaseCommand):
    help = (
        "Write single requests, the newest first, as CSV or as JSON Lines: one object "
        "on each line. Takes as much memory for a million as for a thousand."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from",
            help="a date or a time in ISO 8601, UTC unless it says otherwise "
            "(default: all that is kept)",
        )
        parser.add_argument(
            "--to", help="likewise; a date with the whole of its day (default: now)"
        )
        parser.add_argument("--account", help="id, or name as the log has it")
        parser.add_argument("--key", help="id, or name as the log has it")
        parser.add_argument("--model", help="as it answered")
        parser.add_argument("--outcome", choices=Outcome.values)
        parser.add_argument("--request-id", default="", help="or how it begins")
        parser.add_argument("--format", choices=_FORMATS, default="csv")
        parser.add_argument(
            "--json",
            action="store_const",
            const="json",
            dest="format",
            help="the same as --format json",
        )
        parser.add_argument(
            "--output",
            default="-",
            metavar="FILE",
            help="- is standard output, the default",
        )
        parser.add_argument(
            "--force", action="store_true", help="replace a file that is there"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        wanted = _wanted(options)
        texts = self._texts(wanted, options["format"])
        if options["output"] == "-":
            self._print(texts)
            return
        path = Path(options["output"])
        if path.exists() and not path.is_file():
            # Written beside it and put in its place, the file would replace a device.
            raise CommandError(f"{path} is no file. - is standard output.")
        if path.exists() and not options["force"]:
            raise CommandError(f"{path} exists already. To replace it, give --force.")
        try:
            _write(path, texts)
        except OSError as error:
            raise CommandError(
                f"{path} cannot be written: {error.strerror}."
            ) from error

    def _texts(self, wanted: Wanted, name: str) -> Iterator[str]:
        head, write = _FORMATS[name]
        yield head
        with terminal.progress(self.stderr, lambda: _estimate(wanted)) as note:
            for rows in request_log.chunks(wanted):
                yield write(rows)
                note(len(rows))

    def _print(self, texts: Iterable[str]) -> None:
        try:
            for text in texts:
                self.stdout.write(text, ending="")
            self.stdout.flush()
        except BrokenPipeError:
            # Whoever reads has enough; Python would complain once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None


def _wanted(options: dict[str, Any]) -> Wanted:
    since = _moment("from", options["from"], is_end=False)
    until = _moment("to", options["to"], is_end=True)
    if since is not None and until is not None and since >= until:
        raise CommandError("--from: this must be earlier than --to.")
    only = Only(
        account_id=_id("account", options["account"]),
        key_id=_id("key", options["key"]),
        model=options["model"],
        outcome=options["outcome"],
    )
    return Wanted(since, until, only, options["request_id"])


def _moment(option: str, text: str | None, *, is_end: bool) -> datetime | None:
    if text is None:
        return None
    at = parse_moment(text, is_end=is_end)
    if at is None:
        raise CommandError(
            f"--{option}: {text!r} is no date or time in ISO 8601, from the years 2000 "
            "to 2199, such as 2026-11-25 or 2026-11-25T08:00:00Z."
        )
    return at


def _id(what: str, text: str | None) -> int | None:
    if text is None:
        return None
    found = find_id(what, text)
    if found is None:
        raise CommandError(
            f"--{what}: no request in the log is of {what} {text!r}. Give its id, or "
            "its name as the log has it."
        )
    return found


def _estimate(wanted: Wanted) -> int:
    """About how many requests there will be: sums are of whole hours."""
    rows = RequestRow.objects.order_by("started_at").values_list(
        "started_at", flat=True
    )
    first, last = rows.first(), rows.last()
    if first is None or last is None or wanted.request_id:
        return 0
    pruned = (RollupState.objects.first() or RollupState()).pruned_before or first
    since = max(it for it in (first, pruned, wanted.since) if it is not None)
    until = min(it for it in (last, wanted.until) if it is not None)
    return reports.total(since, until, wanted.only).requests if since < until else 0


def _write(path: Path, texts: Iterable[str]) -> None:
    """Write a file that is there as a whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _open_new(draft) as file:
            for text in texts:
                file.write(text)
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        raise


def _open_new(path: Path) -> TextIO:
    # It names who asked for what: for its owner alone.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    # CSV has its own line ends.
    return os.fdopen(descriptor, "w", encoding="utf-8", newline="")
