"""A sandbox in a process of its own, for tests that keep it busy."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.end_to_end.waiting import until

_PROJECT = Path(__file__).resolve().parents[2]
_START_SECONDS = 20


class SandboxProcess:
    """The stand-in for Claude, steered by its control calls as an operator would."""

    def __init__(self, url: str, client: httpx.Client) -> None:
        self.url = url
        self._client = client

    def script(self, account: str, *steps: dict[str, Any]) -> None:
        self._do("POST", "script", json={"account": account, "steps": steps})

    def clear_script(self, account: str = "") -> None:
        whose = {"account": account} if account else {}
        self._do("DELETE", "script", params=whose)

    def clear_log(self) -> None:
        self._do("DELETE", "log")

    def log(self) -> list[dict[str, Any]]:
        return list(self._do("GET", "log")["requests"])

    def in_flight(self) -> int:
        return int(self._do("GET", "")["requests_in_flight"])

    def _do(self, method: str, what: str, **arguments: Any) -> dict[str, Any]:
        answer = self._client.request(method, f"/_sandbox/{what}", **arguments)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@contextlib.contextmanager
def sandbox_running(directory: Path) -> Iterator[SandboxProcess]:
    """Run a sandbox for as long as the context lasts."""
    said = directory / "sandbox"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "claudeproxy.sandbox", "--port", "0"],
            cwd=_PROJECT,
            env={name: os.environ[name] for name in ("PATH",) if name in os.environ},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def address() -> str:
        assert process.poll() is None, said.read_text()
        found = re.search(r"on (http://[\d.:]+)", said.read_text())
        return found[1] if found else ""

    try:
        url = until(address, within_seconds=_START_SECONDS)
        with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
            yield SandboxProcess(url, client)
    finally:
        process.kill()
        process.wait()
