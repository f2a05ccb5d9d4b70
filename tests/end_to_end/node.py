"""The official TypeScript SDK in a Node process of its own, and calls to it."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).with_name("typescript")
INSTALL_SECONDS = 120


def missing(what: str) -> None:
    """Skip, unless this machine promised to have all it takes."""
    if os.environ.get("REQUIRE_NODE") == "1":
        pytest.fail(what)
    pytest.skip(what)


def is_there() -> bool:
    return all(shutil.which(program) for program in ("node", "npm"))


def install() -> None:
    """Install the packages of the lock file, unless they are there already."""
    wanted = HERE / "package-lock.json"
    stamp = HERE / "node_modules" / ".installed-from"
    if stamp.is_file() and stamp.read_bytes() == wanted.read_bytes():
        return
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(
        command,
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        missing(f"npm ci failed: {done.stderr[-500:]}")
    stamp.write_bytes(wanted.read_bytes())


class Client:
    """A Node process with the SDK in it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def call(self, call: str, options: dict[str, Any], body: object) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        line = json.dumps({"call": call, "options": options, "body": body})
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the Node process has ended"
        return dict(json.loads(answer))


@contextlib.contextmanager
def running() -> Iterator[Client]:
    """Run the process for as long as the context lasts."""
    if not is_there():
        missing("node or npm is not installed")
    install()
    with subprocess.Popen(
        ["node", "client.mjs"],
        cwd=HERE,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield Client(process)
        assert process.stdin
        process.stdin.close()
