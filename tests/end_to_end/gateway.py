"""A gateway in processes of its own, started as an operator starts it."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx
import psutil

from tests.end_to_end.waiting import until

_PROJECT = Path(__file__).resolve().parents[2]
_START_SECONDS = 20
_STOP_SECONDS = 20

# One start of Python for all of it; the commands that do the same have tests too.
_FURNISH = """
import json, sys
from django.core.management import call_command
from django.utils import timezone
from accounts import registration
from claudeproxy import bootstrap
from claudeproxy.crypto import Secret
from clients import issuing
call_command("migrate", verbosity=0)
bootstrap.prepare()
accounts, keys = {accounts!r}, {keys!r}
for name in accounts:
    registration.add_api_key(
        name, Secret(f"sk-sandbox-{{name}}"), actor="test", now=timezone.now()
    )
print(json.dumps({{name: issuing.issue(name, "user").key.reveal() for name in keys}}))
"""


@dataclass(frozen=True)
class Furnished:
    """A data directory with tables, accounts and keys in it, to be copied."""

    directory: Path
    keys: dict[str, str]


def furnish(
    directory: Path, *, accounts: tuple[str, ...], **settings: str
) -> Furnished:
    """Make the data directory of a gateway with these accounts and two keys."""
    script = _FURNISH.format(accounts=accounts, keys=("ana", "ben"))
    command = ("shell", "--verbosity", "0", "--command", script)
    printed = manage(directory, *command, **settings)
    return Furnished(directory, json.loads(printed))


def manage(data_dir: Path, *arguments: str, stdin: str = "", **settings: str) -> str:
    """Run `manage.py` on a data directory; return what it printed."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=_PROJECT,
        env=_environment(data_dir, **settings),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_START_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _environment(data_dir: Path, **settings: str) -> dict[str, str]:
    # Nothing of the test's own: no settings module, no credentials, no proxies.
    kept = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "LANG", "TZ")
        if name in os.environ
    }
    return kept | {"DATA_DIR": str(data_dir), "LOG_FORMAT": "json"} | settings


class Gateway:
    """A running gateway: its address, its keys, its log and its processes."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        furnished: Furnished,
        settings: dict[str, str],
    ) -> None:
        self.process = process
        self.data_dir = furnished.directory
        self.keys = furnished.keys
        self.key = furnished.keys["ana"]
        self.url = ""
        self.settings = settings

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def log_text(self) -> str:
        """All that the gateway has written to standard error."""
        return _log_path(self.data_dir).read_text()

    def requests_logged(self) -> list[dict[str, Any]]:
        """The log's lines about requests, oldest first."""
        lines = self.log_text.splitlines(keepends=True)
        # The last one may be half written.
        entries = [json.loads(line) for line in lines if line.endswith("\n")]
        return [entry for entry in entries if entry["event"] == "request"]

    def logged(self, request_id: str) -> dict[str, Any]:
        """The line of one request, waited for."""
        return until(
            lambda: next(
                (
                    entry
                    for entry in reversed(self.requests_logged())
                    if entry["request_id"] == request_id
                ),
                {},
            )
        )

    def worker(self) -> psutil.Process:
        """The process that serves requests."""
        (worker,) = psutil.Process(self.process.pid).children()
        return worker

    def workers(self) -> set[psutil.Process]:
        """The processes that serve requests, those on their way out included."""
        found = set()
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name().startswith("gateway-web"):
                    found.add(child)
        return found

    def manage(self, *arguments: str, stdin: str = "") -> str:
        """Run `manage.py` beside the running gateway."""
        return manage(self.data_dir, *arguments, stdin=stdin, **self.settings)

    def operate(self, statement: str) -> None:
        """Do what an operator would do in the admin."""
        setting = (
            "from django.utils import timezone\n"
            "from accounts import lifecycle\n"
            "from accounts.models import Account\n"
            "from clients import issuing\n"
            "from clients.models import ClientKey\n"
        )
        self.manage("shell", "--verbosity", "0", "--command", setting + statement)

    def new_key(self, name: str) -> str:
        """Issue a client key by the command for it."""
        return str(json.loads(self.manage("create_client_key", name, "--json"))["key"])

    def add_account(self, name: str) -> None:
        """Add an account of the sandbox by the command for it."""
        self.manage(
            *("add_account", name, "--kind", "api_key", "--no-check", "--json"),
            stdin=f"sk-sandbox-{name}\n",
        )

    def health(self) -> dict[str, str]:
        answer = httpx.get(f"{self.url}/health", trust_env=False)
        assert answer.status_code == 200
        return dict(answer.json())


@contextlib.contextmanager
def running(
    template: Furnished,
    directory: Path,
    *,
    upstream_url: str,
    web_only: bool = True,
    workers: int = 1,
    **settings: str,
) -> Iterator[Gateway]:
    """Run a gateway on a copy of *template* for as long as the context lasts."""
    data_dir = directory / "data"
    shutil.copytree(template.directory, data_dir)
    settings = {
        "UPSTREAM_BASE_URL": upstream_url,
        # Tests are many clients; the limit has tests of its own.
        "SESSION_MAX_CONCURRENT": "1000",
        **settings,
    }
    with _output(data_dir) as (out, err):
        options = ["--workers", str(workers), *(["--web-only"] if web_only else [])]
        process = _serve(data_dir, out, err, options=options, settings=settings)
        gateway = Gateway(process, Furnished(data_dir, template.keys), settings)
        try:
            _await_start(gateway)
            yield gateway
        finally:
            _stop(process)


@contextlib.contextmanager
def _output(data_dir: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    # Beside the data directory, which a test searches for what must not be in it.
    with _out_path(data_dir).open("wb") as out, _log_path(data_dir).open("wb") as err:
        yield out, err


def _out_path(data_dir: Path) -> Path:
    return data_dir.parent / "stdout"


def _log_path(data_dir: Path) -> Path:
    return data_dir.parent / "stderr"


def _serve(
    data_dir: Path,
    out: IO[bytes],
    err: IO[bytes],
    *,
    options: list[str],
    settings: dict[str, str],
) -> subprocess.Popen[bytes]:
    where = ("--host", "127.0.0.1", "--port", "0")
    return subprocess.Popen(
        [sys.executable, "manage.py", "serve", *where, *options],
        cwd=_PROJECT,
        env=_environment(data_dir, **settings),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
    )


def _await_start(gateway: Gateway) -> None:
    def address() -> str:
        assert gateway.process.poll() is None, gateway.log_text
        said = _out_path(gateway.data_dir).read_text()
        found = re.search(r"listens on (http://\S+)\n", said)
        return found[1] if found else ""

    gateway.url = until(address, within_seconds=_START_SECONDS)
    # It listens already; the answer comes as soon as a worker is there to give it.
    httpx.get(f"{gateway.url}/health", trust_env=False, timeout=_START_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # its children die with it
        process.wait()
        raise
