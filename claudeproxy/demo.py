"""`./run demo`: the gateway in front of the sandbox, from nothing to an answer.

It keeps to what a user would do, with the same commands, in a directory of its own that
is emptied first, so that it never meets real accounts.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx

from claudeproxy import process, terminal
from claudeproxy.sandbox.server import SandboxServer

ACCOUNTS = ("ada", "grace", "edsger")  # with API keys
PERSON = "dorothy"  # who signed in
_START_SECONDS = 30.0
_MODEL = "claude-sonnet-5-5"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Manage:
    """Runs `manage.py` as a user would, with the demo's own settings."""

    script: Path
    environment: dict[str, str]

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(  # noqa: S603  # our own script
            [sys.executable, str(self.script), *arguments],
            env=self.environment,
            text=True,
            **options,
        )

    def begin_json(self, *arguments: str) -> "Running":
        """Start a command with `--json`."""
        pipe = subprocess.PIPE
        process = self.popen(*arguments, "--json", stdin=pipe, stdout=pipe)
        return Running(process, arguments[0])


@dataclass(frozen=True)
class Running:
    """A command that will print JSON."""

    process: subprocess.Popen[str]
    name: str

    def read(self, stdin: str = "") -> Any:
        """Hand *stdin* over, wait for the end and return what was printed."""
        with self.process:
            output, _ = self.process.communicate(stdin)
        if self.process.returncode:
            raise RuntimeError(f"manage.py {self.name} failed; see above")
        return json.loads(output)


def run(base_dir: Path, data_dir: Path, *, port: int, oneshot: bool, say: Say) -> None:
    """Play the demo; without *oneshot*, stay up until interrupted."""
    # A supervisor's SIGTERM and a terminal that closes end the demo as Ctrl-C does.
    for number in process.STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.mkdir(mode=0o700, parents=True)
    with contextlib.suppress(KeyboardInterrupt), SandboxServer() as sandbox:
        say(f"Sandbox upstream on {sandbox.url} (no model behind it).")
        manage = Manage(base_dir / "manage.py", _environment(data_dir, sandbox))
        gateway_url = f"http://127.0.0.1:{port}"
        say(f"Making the database and starting the gateway on {gateway_url} ...")
        with _serving(manage, port, data_dir) as gateway:
            _wait_until(gateway, gateway_url, {"unhealthy"})  # up, without accounts
            key = _prepare(manage, sandbox, say)
            _wait_until(gateway, gateway_url, {"healthy"})
            _converse(gateway_url, key, say)
            say("")
            say(_account_table(manage, sandbox.url))
            if not oneshot:
                _stay(gateway_url, key, data_dir, say)


def _environment(data_dir: Path, sandbox: SandboxServer) -> dict[str, str]:
    return {
        **os.environ,
        "DATA_DIR": str(data_dir),
        "DATABASE_URL": "",
        "UPSTREAM_BASE_URL": sandbox.url,
        "OAUTH_CLIENT_ID": sandbox.sandbox.oauth.client_id,
        "OAUTH_AUTHORIZE_URL": f"{sandbox.url}/oauth/authorize",
        "OAUTH_TOKEN_URL": f"{sandbox.url}/v1/oauth/token",
        "WEB_WORKERS": "1",
    }


@contextlib.contextmanager
def _serving(
    manage: Manage, port: int, data_dir: Path
) -> Iterator[subprocess.Popen[str]]:
    arguments = ("serve", "--host", "127.0.0.1", "--port", str(port))
    with (
        (data_dir / "serve.out").open("w") as out,
        (data_dir / "serve.log").open("w") as log,
        # A session of its own: Ctrl-C reaches us alone, and we end it in order.
        manage.popen(*arguments, stdout=out, stderr=log, start_new_session=True) as it,
    ):
        try:
            yield it
        finally:
            it.terminate()
            it.wait()


def _prepare(manage: Manage, sandbox: SandboxServer, say: Say) -> str:
    """Add the accounts and make a client key, side by side; return the key."""
    names = ", ".join((*ACCOUNTS, PERSON))
    say(f"Adding the accounts {names} and making a client key ...")
    making = manage.begin_json("create_client_key", "demo")
    adding = [
        manage.begin_json("add_account", name, "--kind", "api_key") for name in ACCOUNTS
    ]
    signing_in = manage.begin_json(
        "add_account", PERSON, "--kind", "oauth", "--from-json", "-"
    )
    for name, command in zip(ACCOUNTS, adding, strict=True):
        command.read(f"sk-sandbox-{name}\n")
    pair = sandbox.sandbox.oauth.issue(PERSON)
    tokens = {
        "access_token": pair.access_token,
        "refresh_token": pair.refresh_token,
        "expires_at": pair.expires_at.isoformat(),
    }
    signing_in.read(json.dumps(tokens))
    return str(making.read()["key"])


def _wait_until(
    gateway: subprocess.Popen[str], url: str, wanted: Collection[str]
) -> None:
    """Wait until the gateway's health is one of *wanted*."""
    deadline = monotonic() + _START_SECONDS
    while monotonic() < deadline:
        if gateway.poll() is not None:
            raise RuntimeError("the gateway did not start")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", trust_env=False).json()["status"] in wanted:
                return
        sleep(0.05)
    raise RuntimeError(f"the gateway did not become {' or '.join(wanted)} on {url}")


def _converse(url: str, key: str, say: Say) -> None:
    """Stream one message with the official SDK, then four more, one a conversation."""
    import anthropic  # only the demo needs it, and it is slow to load

    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0) as client:
        say("")
        say("One streamed message through the official SDK:")
        with client.messages.stream(
            model=_MODEL,
            max_tokens=200,
            messages=[{"role": "user", "content": "Hello through the gateway!"}],
        ) as stream:
            for text in stream.text_stream:
                sys.stdout.write(text)
                sys.stdout.flush()
        say("")
        say("")
        say("Four more conversations, each with the account whose turn it is:")
        for number in range(2, 6):
            message = client.messages.create(
                model=_MODEL,
                max_tokens=200,
                messages=[{"role": "user", "content": f"Conversation {number}"}],
            )
            answer = "".join(b.text for b in message.content if b.type == "text")
            say(f"  {number}. {answer}")


def _account_table(manage: Manage, sandbox_url: str) -> str:
    arrived = httpx.get(f"{sandbox_url}/_sandbox/log", trust_env=False).json()
    served = Counter(
        entry["account"]
        for entry in arrived["requests"]
        if entry["path"] == "/v1/messages"
    )
    return terminal.table(
        ["account", "kind", "status", "requests"],
        [
            [row["name"], row["kind"], row["status"], str(served[row["name"]])]
            for row in manage.begin_json("check_accounts").read()
        ],
    )


def _stay(url: str, key: str, data_dir: Path, say: Say) -> None:
    login = (data_dir / "serve.out").read_text()
    say("")
    say(f"Gateway  {url}")
    say(f"Admin    {url}/admin/")
    for line in login.splitlines():
        if "password" in line.lower():
            say(f"         {line.strip()}")
    say(f"Key      {key}")
    say(f"Log      {data_dir / 'serve.log'}")
    say("")
    say("Point a client at it:")
    say(f"  ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN={key} claude")
    say("")
    say("Ctrl-C ends the demo.")
    signal.pause()
