"""`manage.py rotate_encryption_key`: give every stored secret the newest key."""

import contextlib
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError
from django.db.models import QuerySet
from django.utils import timezone
from django_q.models import Success

from accounts import signin
from claudeproxy import commands, crypto, rotation, secretfiles, watchdog
from claudeproxy.conf import conf
from claudeproxy.errors import ClaudeProxyError
from claudeproxy.rotation import Column, Report

_ALL_ADDRESSES = {"", "0.0.0.0", "::"}  # noqa: S104  # compared with, not bound
_HEARTBEAT = "claudeproxy.jobs.heartbeat"
_MOST_PASSES = 3


@dataclass
class Result:
    """What the command did."""

    report: Report
    keys: int
    needs_restart: bool = False


class Command(BaseCommand):
    help = (
        "Re-encrypt the stored secrets with the first encryption key. It may be "
        "interrupted, run again, and run beside a gateway that was started with that "
        "key; beside one that was not, it refuses to. Exits with 1 if a secret cannot "
        "be read with any key."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--new-key",
            action="store_true",
            help="first make a key and put it in front of those in DATA_DIR; stops "
            "there if a gateway runs, which has to be restarted to know it",
        )
        parser.add_argument(
            "--drop-old",
            action="store_true",
            help="at last remove all keys but the first from DATA_DIR",
        )
        parser.add_argument(
            "--force",
            action="store_true",
            help="do not look for a gateway that runs. Dangerous: one that does not "
            "know the first key fails to serve, and what it stores can be lost",
        )
        parser.add_argument("--json", action="store_true")

    def handle(self, *_: Any, **options: Any) -> None:
        path = settings.ENCRYPTION_KEY_FILE
        if path is None and (options["new_key"] or options["drop_old"]):
            raise CommandError(
                "ENCRYPTION_KEYS is set, so its keys are yours to change: put a new "
                "one in front, restart the gateway everywhere, run this command "
                "without options, then take the old ones away. See docs/secrets.md."
            )
        try:
            with rotation.alone(conf.data_dir):
                result = self._run(
                    path,
                    new_key=options["new_key"],
                    drop_old=options["drop_old"],
                    force=options["force"],
                )
        except ClaudeProxyError as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise CommandError(
                f"The keys cannot be read or written: {error.strerror}: "
                f"{error.filename}. They are as they were."
            ) from error
        except DatabaseError as error:
            raise CommandError(
                f"{commands.not_ready(error)} Nothing is lost; run the command again."
            ) from error
        except KeyboardInterrupt:
            raise CommandError(
                "Interrupted. Nothing is lost; run the command again, without "
                "--new-key.",
                returncode=130,
            ) from None
        self._print(result, is_json=options["json"])
        if result.report.unreadable:
            raise SystemExit(1)

    def _run(
        self, path: Path | None, *, new_key: bool, drop_old: bool, force: bool
    ) -> Result:
        # Read again, under the lock: another rotation may have changed the file.
        keys = rotation.read_keys(path) if path else conf.encryption_keys
        if path and new_key:
            trace = "" if force else _trace_of_gateway()
            keys = [secretfiles.new_fernet_key(), *keys]
            rotation.write_keys(path, keys)
            self.stderr.write(f"A new key is the first one in {path}.")
            if trace:
                self.stderr.write(
                    f"A gateway seems to run: {trace}. It does not know the new key, "
                    "so nothing was re-encrypted yet. Restart it, then run the command "
                    "again without --new-key."
                )
                return Result(Report(), len(keys), needs_restart=True)
        elif len(keys) > 1 and not force:
            _refuse_beside_stale_gateway(keys, drop_old=drop_old)
        signin.prune(now=timezone.now())  # nobody needs their secrets any more
        report = rotation.rotate(keys, self._show_progress)
        if path and drop_old and len(keys) > 1:
            keys = self._drop_old(path, keys, report)
        return Result(report, len(keys))

    def _drop_old(self, path: Path, keys: list[str], report: Report) -> list[str]:
        for _ in range(_MOST_PASSES):
            if report.unreadable:
                break
            again = rotation.rotate(keys, self._show_progress)
            if not again.unreadable and not again.reencrypted:
                rotation.write_keys(path, keys[:1])
                self.stderr.write(f"Old keys removed from {path}: {len(keys) - 1}.")
                return keys[:1]
            report.reencrypted += again.reencrypted
            report.unreadable = again.unreadable
        self.stderr.write("No key was removed: some secrets may need the old ones.")
        return keys

    def _show_progress(self, column: Column, done: int, total: int) -> None:
        self.stderr.write(f"{column}: {done} of {max(done, total)}")

    def _print(self, result: Result, *, is_json: bool) -> None:
        report = result.report
        if is_json:
            fields = {
                "reencrypted": report.reencrypted,
                "current": report.current,
                "unreadable": [
                    {
                        "model": found.column.model._meta.label,
                        "id": found.pk,
                        "name": found.owner,
                        "field": found.column.name,
                    }
                    for found in report.unreadable
                ],
                "keys": result.keys,
                "needs_restart": result.needs_restart,
            }
            self.stdout.write(json.dumps(fields))
            return
        self.stdout.write(
            f"{report.reencrypted} re-encrypted, {report.current} already current, "
            f"{len(report.unreadable)} unreadable. Keys in use: {result.keys}."
        )
        if report.unreadable:
            self.stderr.write(
                f"No key opens the secrets of {', '.join(map(str, report.unreadable))}."
                " They are as they were. Put back the key they were written with, "
                "behind the first one, and run the command again. docs/secrets.md says "
                "what to do if it is lost."
            )


def _refuse_beside_stale_gateway(keys: list[str], *, drop_old: bool) -> None:
    """Go on only if a gateway that runs can read, and will write, what is to come."""
    trace = _trace_of_gateway()
    if not trace:
        return
    newest, known = crypto.fingerprints(keys)[0], _keys_of_gateway()
    # One that knows the first key but writes with another must not lose that one yet.
    if known[:1] == [newest] if drop_old else newest in known:
        return
    what = "encrypt with" if drop_old else "know"
    raise CommandError(
        f"A gateway seems to run: {trace}. It does not show that it would {what} the "
        "first key, so nothing was changed. Restart the gateway, then run the command "
        "again some seconds later. One that was stopped is forgotten after "
        f"{watchdog.LIMIT.total_seconds() / 60:.0f} minutes. --force goes on without "
        "asking: see docs/secrets.md for the danger."
    )


def _keys_of_gateway() -> list[str]:
    """Read the fingerprints of its keys from its newest heartbeat; maybe none."""
    beat = _recent_successes().filter(func=_HEARTBEAT).order_by("-stopped").first()
    return str(beat.result or "").split(",") if beat else []


def _recent_successes() -> QuerySet[Any]:
    since = timezone.now() - watchdog.LIMIT
    found: QuerySet[Any] = Success.objects.filter(stopped__gte=since)
    return found


def _trace_of_gateway() -> str:
    """Say by what a running gateway shows itself; empty if by nothing."""
    if _recent_successes().exists():
        return "a background job ended in the last minutes"
    host = "localhost" if conf.host in _ALL_ADDRESSES else conf.host
    with contextlib.suppress(OSError):
        socket.create_connection((host, conf.port), timeout=2).close()
        return f"port {conf.port} is open on {host}"
    return ""
