"""The gateway as real processes, started and looked at by a test.

`python -m tests.claudeproxy.service SECONDS [OPTION …]` is `manage.py serve` with the
small app below and a watchdog that waits SECONDS; everything else is the real thing.
"""

import asyncio
import contextlib
import http.client
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
APP = f"{__name__}:app"
MANAGE = (str(ROOT / "manage.py"),)
PATIENCE = 30.0  # seconds for things that take one on an idle machine
BEAT_SECONDS = 0.3


def eventually(ask: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """Ask until the answer is true, and return it; fail when the time is up."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
        time.sleep(0.02)
    return answer


@dataclass
class Service:
    """A command of the project that runs, its data and what it has written."""

    process: subprocess.Popen[bytes]
    data: Path

    @property
    def output(self) -> str:
        return (self.data / "stdout").read_text()

    @property
    def log(self) -> str:
        return (self.data / "stderr").read_text()

    @property
    def port(self) -> int:
        line = eventually(self._first_line)
        return int(line.rpartition(":")[2])

    def _first_line(self) -> str | None:
        assert self.process.poll() is None, self.log
        first, end, _ = self.output.partition("\n")
        return first if end else None

    def get(self, path: str = "/") -> str | None:
        """Return what is answered; None if nobody does."""
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        ) as connection:
            try:
                connection.request("GET", path)
                return connection.getresponse().read().decode()
            except (OSError, http.client.HTTPException):
                return None

    def descendants(self) -> set[psutil.Process]:
        return set(psutil.Process(self.process.pid).children(recursive=True))

    def child(self, name: str) -> psutil.Process | None:
        """Return the supervisor's child of that name."""
        for found in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if found.name() == name and found.status() != psutil.STATUS_ZOMBIE:
                    return found
        return None

    def cluster(self) -> "Cluster":
        """Wait until the job cluster is complete, and return it."""
        return eventually(self._cluster)

    def _cluster(self) -> "Cluster | None":
        main = self.child("gateway-jobs")
        return main and Cluster.below(main)

    def successes_since(self, moment: float) -> int:
        """Count the jobs that succeeded after *moment* (Unix time)."""
        path = self.data / "claudeproxy.sqlite3"
        with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE)) as database:
            (count,) = database.execute(
                "SELECT count(*) FROM django_q_task WHERE success"
                " AND stopped > datetime(?, 'unixepoch')",
                [moment + 1],  # whole seconds on the right side
            ).fetchone()
        return int(count)

    def wait(self) -> int:
        """Wait for the end; return the exit code."""
        return self.process.wait(timeout=PATIENCE)


@dataclass(frozen=True)
class Cluster:
    """The processes of a job cluster, in the order in which they are started."""

    main: psutil.Process
    sentinel: psutil.Process
    worker: psutil.Process
    monitor: psutil.Process
    pusher: psutil.Process

    @property
    def processes(self) -> set[psutil.Process]:
        return set(vars(self).values())

    @classmethod
    def below(cls, main: psutil.Process) -> "Cluster | None":
        with contextlib.suppress(psutil.NoSuchProcess):
            sentinels = main.children()
            if len(sentinels) == 1:
                others = sorted(sentinels[0].children(), key=lambda p: p.pid)
                if len(others) == 3:
                    return cls(main, sentinels[0], *others)
        return None


def are_gone(processes: set[psutil.Process]) -> bool:
    return not any(map(_is_running, processes))


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # gone between the two questions
        return False


@contextlib.contextmanager
def started(command: Sequence[str], data: Path, **env: str) -> Iterator[Service]:
    """Run a Python command in a session of its own; leave nothing of it behind."""
    data.mkdir(exist_ok=True)
    with (data / "stdout").open("wb") as out, (data / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment(data, **env),
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    everything = {psutil.Process(process.pid)}
    try:
        yield Service(process, data)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            everything.update(psutil.Process(process.pid).children(recursive=True))
        for one in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait(timeout=PATIENCE)


def environment(data: Path, **env: str) -> dict[str, str]:
    """Return an environment in which nothing but *env* is set for the gateway."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "claudeproxy.settings",
        "DATA_DIR": str(data),
        "DATABASE_URL": "",
        "HOST": "",
        "PORT": "0",
        "WEB_WORKERS": "",
        "DRAIN_TIMEOUT": "20s",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "",
        **env,
    }


def serve(
    data: Path, *options: str, hang_limit: float = 180.0, **env: str
) -> contextlib.AbstractContextManager[Service]:
    return started(["-m", __name__, str(hang_limit), *options], data, **env)


def manage(data: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        [sys.executable, *MANAGE, *arguments],
        cwd=ROOT,
        env=environment(data, **env),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the worker's pid; `/slow` ends when the data has a file `go`."""
    if scope["type"] == "lifespan":
        await receive()
        beat = asyncio.create_task(_beat())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        beat.cancel()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    body = str(os.getpid()).encode()
    if scope["path"] == "/slow":
        go = Path(os.environ["DATA_DIR"]) / "go"
        await send({"type": "http.response.body", "body": body, "more_body": True})
        while not go.exists():  # noqa: ASYNC110  # nobody can tell it
            await asyncio.sleep(0.05)
    await send({"type": "http.response.body", "body": body})


async def _beat() -> None:
    """Queue heartbeats often, so that a watchdog with little patience has enough."""
    from django.db import Error
    from django_q.tasks import async_task

    from claudeproxy import db

    while True:
        with contextlib.suppress(Error):
            await db.run(lambda: async_task("claudeproxy.jobs.heartbeat"))
        await asyncio.sleep(BEAT_SECONDS)


def wait_for_go(directory: str) -> None:
    """Be a job that runs until the directory has a file `go`."""
    path = Path(directory)
    (path / "began").touch()
    eventually((path / "go").exists)


def main(seconds: str, *options: str) -> None:
    import django
    from django.core.management import call_command

    django.setup()
    limit = timedelta(seconds=float(seconds))
    call_command("serve", *options, app=APP, hang_limit=limit)


if __name__ == "__main__":
    main(*sys.argv[1:])
