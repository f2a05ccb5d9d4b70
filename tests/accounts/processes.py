"""Processes that share a database of accounts, as many as a test wants and in no time.

`python -m tests.accounts.processes` sets Django up once. Then it forks processes for
each line that it reads, and writes a line for each result and one when all have ended.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

_PROJECT = Path(__file__).resolve().parents[2]
_STOP_SECONDS = 10
_POSTGRES = os.environ.get(
    "TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres"
)


def digest(token: str) -> str:
    """By which a token is recognised in results."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True)
class Ended:
    """How processes ended: by which signal or exit code, and with which results."""

    codes: list[int]
    results: list[Any]


class Nursery:
    """Starts processes on one database."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self, do: str, *, count: int = 1, ahead: timedelta = timedelta(0), **asked: Any
    ) -> Ended:
        """Have so many processes do something at the same time, at a later time."""
        assert self._process.stdin
        assert self._process.stdout
        order = {
            "do": do,
            "count": count,
            "ahead_seconds": ahead.total_seconds(),
            "asked": asked,
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        results: list[Any] = []
        for line in self._process.stdout:
            said = json.loads(line)
            if "codes" in said:
                return Ended(said["codes"], results)
            results.append(said["result"])
        raise AssertionError("the nursery has ended")

    def one(self, do: str, **asked: Any) -> Any:
        """Have one process do something; return its result."""
        ended = self.run(do, **asked)
        assert ended.codes == [0]
        return ended.results[0]


@contextlib.contextmanager
def nursery(data_dir: Path, **settings: str) -> Iterator[Nursery]:
    """Start a nursery on a database of its own, with its tables."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        cwd=_PROJECT,
        env={
            **kept,
            "DJANGO_SETTINGS_MODULE": "claudeproxy.settings",
            "DATA_DIR": str(data_dir),
            **settings,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        it = Nursery(process)
        it.one("migrate")
        yield it
    finally:
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        finally:
            process.kill()
            process.stdout.close()


@contextlib.contextmanager
def _postgres_database() -> Iterator[str]:
    """The address of an empty database, dropped at the end."""
    try:
        connection = psycopg.connect(_POSTGRES, connect_timeout=2, autocommit=True)
    except psycopg.OperationalError as error:
        what = f"no PostgreSQL server: {str(error).splitlines()[0]}"
        if os.environ.get("REQUIRE_POSTGRES") == "1":
            pytest.fail(what)
        pytest.skip(what)
    name = f"claudeproxy_test_{uuid.uuid4().hex[:12]}"
    with connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield f"{_POSTGRES.rpartition('/')[0]}/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextlib.contextmanager
def nursery_on(engine: str, data_dir: Path, **settings: str) -> Iterator[Nursery]:
    """The same, with SQLite or with PostgreSQL; skips without a server for that."""
    with contextlib.ExitStack() as stack:
        if engine == "postgres":
            settings["DATABASE_URL"] = stack.enter_context(_postgres_database())
        yield stack.enter_context(nursery(data_dir, **settings))


# --- in the processes; what needs Django is imported once that is set up


def _migrate() -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def _add(*, access: str, refresh: str, ends_in_seconds: float) -> int:
    from django.utils import timezone

    from accounts import registration
    from accounts.models import Account
    from accounts.oauth import Identity, TokenSet
    from claudeproxy.crypto import Secret

    Account.objects.all().delete()
    now = timezone.now()
    ends_at = now + timedelta(seconds=ends_in_seconds)
    tokens = TokenSet(Secret(access), Secret(refresh), ends_at)
    account = registration.add_oauth(
        "dorothy", tokens, Identity(), actor="test", now=now
    )
    return int(account.pk)


def _look(account_id: int) -> dict[str, Any]:
    from accounts.models import Account

    account = Account.objects.get(pk=account_id)
    return {
        "status": account.status,
        "reason": account.status_reason,
        "token": digest(account.credential.reveal()),
        "moves": [event.to_status for event in account.events.order_by("pk")],
    }


def _serve(*, account_id: int, callers: int) -> dict[str, Any]:
    """Be a worker with so many requests at once.

    Tell which token each would use, and what has become of the account.
    """
    from django.utils import timezone

    from proxy.refresher import Refresher
    from proxy.snapshot import Snapshot

    async def serve() -> list[str | None]:
        snapshot = Snapshot()
        await snapshot.refresh()
        known = snapshot.find(account_id)
        assert known
        refresher = Refresher(snapshot)
        calls = [refresher.fresh(known, timezone.now()) for _ in range(callers)]
        found = await asyncio.gather(*calls)
        return [digest(it.credential.reveal()) if it else None for it in found]

    return {"tokens": asyncio.run(serve()), **_look(account_id)}


def _refresh(*, account_id: int, margin_seconds: float, die: str) -> str:
    """Refresh, and be killed at one of the steps of that."""
    from django.db import connection

    from accounts import tokens
    from accounts.errors import NoTokenReplyError
    from accounts.oauth import TokenSet
    from claudeproxy.crypto import Secret

    def send(refresh_token: Secret) -> TokenSet:
        try:
            answer = tokens.send_refresh(refresh_token)
        except NoTokenReplyError:
            _kill_if(die == "without the answer")
            raise
        _kill_if(die == "with the answer")
        return answer

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        step = _step(sql, params)
        _kill_if(die == f"before {step}")
        done = execute(sql, params, many, context)
        _kill_if(die == f"after {step}")
        return done

    with connection.execute_wrapper(watch):
        result = tokens.ensure_fresh(
            account_id, margin=timedelta(seconds=margin_seconds), send=send
        )
    return result.outcome.value


def _step(sql: str, params: Any) -> str:
    """Name the step of a refresh that a statement is."""
    column = sql.partition(' SET "')[2].partition('"')[0]
    if column == "refresh_lease":
        return "the lease" if params[0] else "the release"
    return {"sent_refresh_digest": "the mark", "access_token": "the pair"}.get(
        column, ""
    )


def _kill_if(is_time: bool) -> None:
    if is_time:
        os.kill(os.getpid(), signal.SIGKILL)


def _lease(*, name: str, times: int, path: str) -> int:
    """Try to hold a lease so many times; say how often that went well.

    Whoever holds it has a file for that time, which fails if somebody else has it.
    """
    from claudeproxy.leases import lease

    held = 0
    for _ in range(times):
        with lease(name, lasts=timedelta(minutes=1)) as is_mine:
            if is_mine:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL))
                os.unlink(path)
                held += 1
    return held


def _die_with_lease(*, name: str) -> None:
    from claudeproxy.leases import lease

    with lease(name, lasts=timedelta(minutes=1)) as is_mine:
        _kill_if(is_mine)


_DOINGS: dict[str, Callable[..., Any]] = {
    "migrate": _migrate,
    "add": _add,
    "serve": _serve,
    "refresh": _refresh,
    "lease": _lease,
    "die with lease": _die_with_lease,
}


def _be_child(order: dict[str, Any], ready: int, go: int) -> None:
    import time_machine

    os.write(ready, b".")
    os.read(go, 1)  # ends for all at once, when the other end is closed
    at = datetime.now(UTC) + timedelta(seconds=order["ahead_seconds"])
    with time_machine.travel(at, tick=True):
        result = _DOINGS[order["do"]](**order["asked"])
    os.write(1, (json.dumps({"result": result}) + "\n").encode())


def _fork_all(order: dict[str, Any]) -> list[int]:
    ready_read, ready = os.pipe()
    go, go_write = os.pipe()
    pids = []
    for _ in range(order["count"]):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(go_write)
                _be_child(order, ready, go)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    for _ in pids:
        os.read(ready_read, 1)
    os.close(go_write)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    for end in (ready_read, ready, go):
        os.close(end)
    return codes


def _main() -> None:
    import django

    django.setup()
    import proxy.refresher  # noqa: F401  # once for all children

    for line in sys.stdin:
        codes = _fork_all(json.loads(line))
        sys.stdout.write(json.dumps({"codes": codes}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
