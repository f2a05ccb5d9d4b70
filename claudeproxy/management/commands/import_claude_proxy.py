"""`manage.py import_claude_proxy PATH`: accounts and keys of the Go version."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from accounts import importing as accounts_importing
from claudeproxy import terminal
from claudeproxy.commands import DatabaseCommand
from claudeproxy.errors import ClaudeProxyError
from clients import importing as keys_importing


@dataclass(frozen=True)
class Part:
    """A kind of file: how it is split into rows, and how a row is taken over."""

    kind: str
    rows: Callable[[object], list[tuple[str, object]]]
    take: Callable[[object, datetime], tuple[str, bool, str]]


@dataclass(frozen=True)
class Row:
    """What became of one row of a file."""

    file: str
    row: str
    kind: str
    name: str
    result: str
    note: str


def _take_account(row: object, now: datetime) -> tuple[str, bool, str]:
    found = accounts_importing.parse(row, now=now)
    return found.name, *accounts_importing.store(found, now=now)


def _take_key(row: object, now: datetime) -> tuple[str, bool, str]:
    found = keys_importing.parse(row)
    return found.name, *keys_importing.store(found, now=now)


_ACCOUNTS = Part("account", accounts_importing.rows, _take_account)
_KEYS = Part("client key", keys_importing.rows, _take_key)
_PARTS = {"accounts": _ACCOUNTS, "account": _ACCOUNTS, "tokens": _KEYS}


class Command(DatabaseCommand):
    help = (
        "Take over the accounts and client keys that Claude Proxy's Go version kept in "
        "JSON files. May be run again; what is here already stays as it is. Exits with "
        "1 if a row could not be taken over."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "path", type=Path, help="its data folder, or one of the files in it"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be done; do nothing"
        )
        parser.add_argument("--json", action="store_true")

    def handle(self, *_: Any, path: Path, dry_run: bool, **options: Any) -> None:
        # All files are read before anything is changed.
        files = [(file, part, _rows_of(file, part)) for file, part in self._files(path)]
        done: list[Row] = []
        with transaction.atomic() if dry_run else contextlib.nullcontext():
            for file, part, rows in files:
                done += _take_all(file, part, rows, dry_run=dry_run)
            if dry_run:
                transaction.set_rollback(True)
        if options["json"]:
            self.stdout.write(json.dumps([asdict(row) for row in done]))
        else:
            self._print(done)
        if any(row.result == "added" and row.kind == "account" for row in done):
            self.stderr.write(
                "Stop the Go version for good before this gateway serves: a refresh "
                "token that two programs use ends the sign-in."
            )
        if any(row.result == "skipped" for row in done):
            raise SystemExit(1)

    def _files(self, path: Path) -> list[tuple[Path, Part]]:
        try:
            path = path.expanduser()
        except RuntimeError:
            raise CommandError(f"{path}: that user has no home folder here.") from None
        if not path.is_dir():
            part = _PARTS.get(path.stem)
            if part is None:
                raise CommandError(
                    f"{path}: the files that can be taken over are called "
                    "accounts.json, account.json and tokens.json."
                )
            return [(path, part)]
        found = [
            (path / f"{stem}.json", part)
            for stem, part in _PARTS.items()
            if (path / f"{stem}.json").exists()
        ]
        if not found:
            raise CommandError(
                f"{path}: there is neither accounts.json nor account.json nor "
                "tokens.json in this folder."
            )
        if len({part.kind for _file, part in found}) < len(found):
            # Releases that wrote accounts.json looked at the older file no more.
            found = [(file, part) for file, part in found if file.stem != "account"]
            self.stderr.write(f"{path}: account.json is older than accounts.json.")
        if (path / "sessions.json").exists():
            self.stderr.write(
                f"{path}: sessions.json is left out; sessions begin anew."
            )
        return found

    def _print(self, done: list[Row]) -> None:
        if not done:
            self.stdout.write("There is nothing in it.")
            return
        head = ["file", "row", "kind", "name", "result", "note"]
        lines = [list(asdict(row).values()) for row in done]
        self.stdout.write(terminal.table(head, lines))


def _rows_of(file: Path, part: Part) -> list[tuple[str, object]]:
    try:
        # Windows' editors put a byte order mark in front.
        return part.rows(json.loads(file.read_text("utf-8-sig")))
    except OSError as error:
        raise CommandError(f"{file}: it cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise CommandError(f"{file}: this is no text in UTF-8.") from None
    except json.JSONDecodeError as error:
        raise CommandError(f"{file}: this is no JSON at line {error.lineno}.") from None
    except RecursionError:
        raise CommandError(f"{file}: this is no JSON that can be read.") from None
    except ValueError:  # more digits than Python reads
        raise CommandError(
            f"{file}: there is a number in it that is too long."
        ) from None
    except ClaudeProxyError as error:
        raise CommandError(f"{file}: {error}") from None


def _take_all(
    file: Path, part: Part, rows: list[tuple[str, object]], *, dry_run: bool
) -> Iterator[Row]:
    added = "would add" if dry_run else "added"
    now = timezone.now()
    for label, row in rows:
        try:
            # One transaction for each row: a bad one takes no other with it.
            with transaction.atomic():
                name, is_new, note = part.take(row, now)
        except ClaudeProxyError as error:
            yield Row(file.name, label, part.kind, _name_of(row), "skipped", str(error))
        else:
            result = added if is_new else "already there"
            yield Row(file.name, label, part.kind, name, result, note)


def _name_of(row: object) -> str:
    name = row.get("name") if isinstance(row, dict) else None
    return name[:100] if isinstance(name, str) and name.isprintable() else "?"
