"""What is measured: how each target is prepared, started, asked and stopped.

All of them listen on 127.0.0.1 with one worker and forward to the same upstream.
"""

import http.client
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

from bench import wire
from bench.processes import ProcessError, ProcessGroup, on_core

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_SECONDS = 60.0
COMMAND_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.01
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def plain_environment() -> dict[str, str]:
    """Return an environment without the caller's settings, which are not measured."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def status_of(port: int, method: str, path: str, headers: dict[str, str]) -> int | None:
    """Ask once and return the status; None if nobody answers properly yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    body = wire.JSON.body() if method == "POST" else None
    try:
        connection.request(
            method, path, body, {"content-type": "application/json", **headers}
        )
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return None
    else:
        return answer.status
    finally:
        connection.close()


def version_said_by(command: list[str]) -> str | None:
    """Find the version number in what a command prints about itself."""
    said = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_TIMEOUT_SECONDS,
        check=False,
    )
    found = re.search(r"\b\d+\.\d+\.\d+\b", said.stdout)
    return found[0] if found else None


class Target:
    """A server that answers `POST /v1/messages`; subclasses say how it is started."""

    name: ClassVar[str]
    title: ClassVar[str]
    ready_path: ClassVar[str] = "/v1/models"
    is_exact: ClassVar[bool] = True

    def __init__(
        self, directory: Path, upstream: str = "", core: int | None = None
    ) -> None:
        self.directory = directory / self.name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.upstream = upstream
        self.core = core
        self.port = free_port()
        self.headers: dict[str, str] = {}
        self._group: ProcessGroup | None = None

    @classmethod
    def missing(cls) -> str | None:
        """Say what keeps this target from being measured here, if anything does."""
        return None

    @classmethod
    def version(cls) -> str | None:
        """Say which version is measured, if it is not ours."""
        return None

    def prepare(self, accounts: int) -> None:
        """Do once what starts need: files, accounts, keys."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return plain_environment()

    @property
    def group(self) -> ProcessGroup:
        if self._group is None:
            raise ProcessError(f"{self.name} is not running")
        return self._group

    def spawn(self) -> None:
        """Start the processes without waiting for an answer."""
        self._group = ProcessGroup(
            self.command(),
            env=self.environment(),
            cwd=ROOT,
            log=self.directory / "output.log",
            core=self.core,
        )

    def start(self) -> None:
        """Start and wait until it says that it is ready."""
        self.spawn()
        self._wait_for("GET", self.ready_path)

    def wait_for_answer(self) -> None:
        """Wait for the first right answer to a message."""
        self._wait_for("POST", "/v1/messages")

    def stop(self) -> None:
        if self._group is not None:
            self._group.stop()
            self._group = None

    def _wait_for(self, method: str, path: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        last = None
        while time.monotonic() < deadline:
            self.group.check()
            last = status_of(self.port, method, path, self.headers)
            if last == 200:
                return
            time.sleep(POLL_SECONDS)
        raise ProcessError(
            f"{self.name} gave {last or 'no answer'} to {method} {path} for "
            f"{START_TIMEOUT_SECONDS:.0f} s:\n{self.group.log_tail()}"
        )


class Direct(Target):
    """The upstream itself: what the answer costs with nobody in between."""

    name = "direct"
    title = "direct"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "bench.upstream", "--port", str(self.port)]


class Relay(Target):
    name = "relay"
    title = "bare relay"

    def command(self) -> list[str]:
        options = ["--port", str(self.port), "--upstream", self.upstream]
        return [sys.executable, "-m", "bench.relay", *options]


class Nginx(Target):
    name = "nginx"
    title = "nginx"

    @classmethod
    def executable(cls) -> str | None:
        # Its usual place is not on the PATH of an ordinary user.
        path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
        return shutil.which("nginx", path=path)

    @classmethod
    def missing(cls) -> str | None:
        return None if cls.executable() else "not installed"

    @classmethod
    def version(cls) -> str | None:
        return version_said_by([cls.executable() or "nginx", "-v"])

    def prepare(self, accounts: int) -> None:
        config = NGINX_CONFIG.format(
            directory=self.directory,
            port=self.port,
            upstream=self.upstream.removeprefix("http://"),
        )
        (self.directory / "nginx.conf").write_text(config)

    def command(self) -> list[str]:
        config = str(self.directory / "nginx.conf")
        return [self.executable() or "nginx", "-p", str(self.directory), "-c", config]


# Default keep-alive limits of 1,000 requests would add reconnects to the figures.
NGINX_CONFIG = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 8192;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  keepalive_requests 100000000;
  upstream messages_api {{
    server {upstream};
    keepalive 64;
    keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://messages_api;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


class Gateway(Target):
    """Claude Proxy as an operator runs it, with every feature on."""

    name = "gateway"
    title = "Claude Proxy"
    ready_path = "/health"

    def prepare(self, accounts: int) -> None:
        """Make the database, the accounts and a client key."""
        self._manage("migrate", "--no-input")
        for number in range(1, accounts + 1):
            options = ["--kind", "api_key", "--no-check", "--json"]
            key = f"sk-ant-api03-bench-{number:04d}"
            self._manage("add_account", f"bench-{number}", *options, stdin=key)
        made = self._manage("create_client_key", "bench", "--role", "user", "--json")
        self.headers = {"x-api-key": json.loads(made)["key"]}

    def command(self) -> list[str]:
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        return [sys.executable, "manage.py", "serve", *options]

    def environment(self) -> dict[str, str]:
        return plain_environment() | blanked(ROOT / ".env") | self.settings()

    def settings(self) -> dict[str, str]:
        return {
            "DATA_DIR": str(self.directory / "data"),
            "UPSTREAM_BASE_URL": self.upstream,
            "SESSION_MAX_CONCURRENT": "100000",
            "LOG_LEVEL": "warning",
        }

    def _manage(self, *arguments: str, stdin: str = "") -> str:
        with on_core(self.core):
            done = subprocess.run(
                [sys.executable, "manage.py", *arguments],
                input=stdin,
                env=self.environment(),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT_SECONDS,
                check=False,
            )
        if done.returncode:
            shown = shlex.join(["manage.py", *arguments])
            raise ProcessError(f"{shown} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout


def blanked(env_file: Path) -> dict[str, str]:
    """Return empty values for all that an operator's `.env` sets.

    A variable that is set wins over the file, and an empty one means its default. So
    neither the operator's settings are measured nor their database written to.
    """
    if not env_file.is_file():
        return {}
    names = (
        line.removeprefix("export ").partition("=")[0].strip()
        for line in env_file.read_text().splitlines()
        if "=" in line and not line.lstrip().startswith("#")
    )
    return dict.fromkeys(names, "")


class LiteLLM(Target):
    """LiteLLM's proxy, if it is installed; it writes every answer anew."""

    name = "litellm"
    title = "LiteLLM"
    ready_path = "/health/liveliness"
    is_exact = False

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("litellm") else "not installed"

    @classmethod
    def version(cls) -> str | None:
        return version_said_by(["litellm", "--version"])

    def prepare(self, accounts: int) -> None:
        models = [
            {
                "model_name": model,
                "litellm_params": {
                    "model": f"anthropic/{model}",
                    "api_base": self.upstream,
                    "api_key": "sk-ant-api03-bench",
                },
            }
            for model in (wire.MODEL_JSON, wire.MODEL_STREAM, wire.MODEL_PACED)
        ]
        config = {
            "model_list": models,
            "general_settings": {"master_key": "sk-bench"},
            "litellm_settings": {"telemetry": False},
        }
        # JSON is YAML.
        (self.directory / "config.yaml").write_text(json.dumps(config, indent=2))
        self.headers = {"x-api-key": "sk-bench"}

    def command(self) -> list[str]:
        config = str(self.directory / "config.yaml")
        options = ["--host", "127.0.0.1", "--port", str(self.port)]
        return ["litellm", "--config", config, *options, "--num_workers", "1"]

    def environment(self) -> dict[str, str]:
        quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        return plain_environment() | quiet


KINDS: dict[str, type[Target]] = {
    kind.name: kind for kind in (Gateway, Relay, Nginx, LiteLLM)
}
