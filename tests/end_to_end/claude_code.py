"""Claude Code itself, installed on demand, and kept away from all but the gateway."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.gateway import Gateway
from tests.usage.claude_code import VERSION

_PACKAGE = f"@anthropic-ai/claude-code@{VERSION}"
_INSTALL_SECONDS = 600
_RUN_SECONDS = 60
# Nobody listens there; what is not for the gateway ends there.
_NOWHERE = "http://127.0.0.1:9"


_WANTED = os.environ.get("CLAUDE_CODE", "")
on_demand = pytest.mark.skipif(
    not _WANTED, reason="CLAUDE_CODE is neither 1 (installs 370 MB) nor a path to it"
)


def find() -> Path:
    """The program, where `CLAUDE_CODE` says; 1 installs it."""
    program = _installed() if _WANTED == "1" else Path(_WANTED)
    said = subprocess.run(
        [program, "--version"],
        env=_environment(Path.home()),
        capture_output=True,
        text=True,
        timeout=_RUN_SECONDS,
        check=True,
    ).stdout
    assert said.startswith(f"{VERSION} "), f"{program} is {said}, not {VERSION}"
    return program


def _installed() -> Path:
    """Install the package outside the project, unless it is there already."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = caches / "claude-proxy-tests" / f"claude-code-{VERSION}"
    if not (found := _programs(directory)):
        assert shutil.which("npm"), "npm is not installed"
        directory.mkdir(parents=True, exist_ok=True)
        # The program is a package of its own for each platform; the script that would
        # put it elsewhere is not needed.
        options = ("--ignore-scripts", "--no-package-lock", "--no-audit", "--no-fund")
        command = ["npm", "install", *options, "--prefix", str(directory), _PACKAGE]
        subprocess.run(command, cwd=directory, timeout=_INSTALL_SECONDS, check=True)
        found = _programs(directory)
    assert found, f"{_PACKAGE} has no program for this platform"
    return found[0]


def _programs(directory: Path) -> list[Path]:
    scope = directory / "node_modules" / "@anthropic-ai"
    return sorted(scope.glob("claude-code-*/claude"))


def _environment(home: Path) -> dict[str, str]:
    # Built from nothing: the developer's own Claude Code must not be heard of.
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "DISABLE_TELEMETRY": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "HTTP_PROXY": _NOWHERE,
        "HTTPS_PROXY": _NOWHERE,
        "NO_PROXY": "127.0.0.1",
    }


@dataclass(frozen=True)
class ClaudeCode:
    """The program with a home directory of its own, for one gateway."""

    program: Path
    home: Path
    gateway: Gateway

    def ask(
        self, prompt: str, *options: str, key: str = "", **settings: str
    ) -> dict[str, Any]:
        """Ask once, without a conversation on a terminal; return its result."""
        done = self._run(
            prompt, "--output-format", "json", *options, key=key, **settings
        )
        return dict(json.loads(done))

    def watch(self, prompt: str, *options: str) -> list[dict[str, Any]]:
        """Ask once; return all it said, with every event of the stream."""
        form = ("--output-format", "stream-json", "--include-partial-messages")
        done = self._run(prompt, *form, "--verbose", *options)
        return [json.loads(line) for line in done.splitlines()]

    def models_found(self) -> set[str]:
        """The ids of the models that it keeps for this gateway."""
        kept = self.home / ".claude" / "cache" / "gateway-models.json"
        return {model["id"] for model in json.loads(kept.read_text())["models"]}

    def _run(self, prompt: str, *options: str, key: str = "", **settings: str) -> str:
        project = self.home / "project"
        project.mkdir(exist_ok=True)
        environment = _environment(self.home) | {
            "ANTHROPIC_BASE_URL": self.gateway.url,
            "ANTHROPIC_AUTH_TOKEN": key or self.gateway.key,
        }
        done = subprocess.run(
            [self.program, "-p", prompt, *options],
            cwd=project,
            env=environment | settings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
            check=False,
        )
        assert done.stdout, done.stderr
        return done.stdout
